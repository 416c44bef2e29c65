"""What makes panels a dashboard: what is chosen above it, its rows, and what it links to."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard

from grafana.panels import Panel
from grafana.queries import LEDGER, METRICS, metric

TAG: Final = "nexus-proxy"


def choice(name: str, label: str, query: str, text: str, *, every: str | None = None) -> builders.QueryVariable:
    """Return a variable of the values that Prometheus knows, all of them chosen. `every` is what All stands for."""
    variable = builders.QueryVariable(name).label(label).description(text).datasource(METRICS)
    variable = variable.query(
        {"query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery", "qryType": 1}
    ).definition(query)
    return _every(variable, every)


def ledger_choice(name: str, label: str, query: str, text: str, *, every: str | None) -> builders.QueryVariable:
    """Return a variable of the values of a query of the ledger. Without `every` it has one, which the titles show."""
    variable = builders.QueryVariable(name).label(label).description(text).datasource(LEDGER).query(query)
    if every is None:
        return variable.refresh(dashboard.VariableRefresh.ON_DASHBOARD_LOAD).hide(dashboard.VariableHide.HIDE_VARIABLE)
    return _every(variable.definition(query), every)


def _every(variable: builders.QueryVariable, every: str | None) -> builders.QueryVariable:
    if every is not None:
        variable = variable.all_value(every)
    chosen = dashboard.VariableOption(selected=True, text=["All"], value=["$__all"])
    variable = variable.multi(True).include_all(True).current(chosen)
    return variable.refresh(dashboard.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(
        dashboard.VariableSort.ALPHABETICAL_ASC
    )


def source(name: str, label: str, kind: str, title: str, uid: str) -> builders.DatasourceVariable:
    """Return the variable in which a data source of that kind is chosen: at first the one that is provisioned."""
    provisioned = dashboard.VariableOption(selected=True, text=title, value=uid)
    return builders.DatasourceVariable(name).label(label).type(kind).current(provisioned)


# Without a value for All, Grafana puts in the values that it found: other jobs have `up` and `process_…` too.
CHOICES: Final = (
    source("datasource", "Prometheus", "prometheus", "nexus-proxy metrics", "nexus-prometheus"),
    choice("job", "Job", "label_values(nexus_holds_open, job)", "Prometheus' job that scrapes the doors."),
    choice(
        "instance", "Door", 'label_values(up{job=~"$job"}, instance)', "Doors that are shown, those that are down too."
    ),
    choice(
        "model",
        "Model",
        'label_values(nexus_charge_total{job=~"$job"}, model)',
        "Models in what Prometheus has counted; `other`: requests that ended before a model was found.",
        every=".+",
    ),
)


@dataclass(frozen=True)
class Dashboard:
    """A dashboard: what is chosen above it, and its rows of panels."""

    title: str
    uid: str
    text: str
    beside: Sequence[tuple[str, str]]  # titles and uids of those that it links to
    variables: Sequence[Builder[dashboard.VariableModel]]
    rows: Sequence[tuple[str, Sequence[Panel]]]
    since: str = "now-6h"
    timezone: str = "browser"
    refresh: str = "30s"

    def build(self) -> dashboard.Dashboard:
        """Return it as the SDK has it."""
        made = builders.Dashboard(self.title).uid(self.uid).description(self.text).tags([TAG]).readonly()
        made = made.time(self.since, "now").timezone(self.timezone).refresh(self.refresh)
        made = made.tooltip(dashboard.DashboardCursorSync.CROSSHAIR).annotations([_restarts()])
        for title, uid in self.beside:
            made = made.link(builders.DashboardLink(title).url(f"/d/{uid}").keep_time(True).include_vars(True))
        for variable in self.variables:
            made = made.with_variable(variable)
        number = 0
        for title, panels in self.rows:
            number += 1
            made = made.with_row(builders.Row(title).id(number))
            for panel in panels:
                number += 1
                made = made.with_panel(_Numbered(panel, number))
        return shown(made.build())

    def json(self) -> str:
        """Return the text of its file."""
        return json.dumps(self.build(), cls=JSONEncoder, indent=1, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class _Numbered(Builder[dashboard.Panel]):
    panel: Panel
    number: int

    def build(self) -> dashboard.Panel:
        return self.panel.id(self.number).build()


def shown(made: dashboard.Dashboard) -> dashboard.Dashboard:
    """Put links and marks above the panels; the SDK's default hides them in a menu."""
    for mark in made.annotations.list_val or ():
        mark.placement = None  # type: ignore[assignment]
    for link in made.links or ():
        link.placement = None  # type: ignore[assignment]
    return made


def _restarts() -> builders.AnnotationQuery:
    """Return the marks at each start of a door."""
    at_ms = f"{metric('process_start_time_seconds')} * 1000"
    mark = builders.AnnotationQuery().name("Starts").datasource(METRICS).enable(True).icon_color("blue")
    return mark.expr(at_ms).use_value_for_time(True).title_format("door started").text_format("{{instance}}")
