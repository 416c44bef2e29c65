"""What a panel asks: PromQL, or SQL of the ledger, and the pieces that every query is put together of.

Strategy: a query is a value, whichever its data source; none names a data source, only the variable in which one is
chosen. Macros and variables stay in the text for Grafana to fill in.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from grafana_foundation_sdk.builders import prometheus
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

SQLITE: Final = "frser-sqlite-datasource"
METRICS: Final = common.DataSourceRef(type_val="prometheus", uid="${datasource}")
LEDGER: Final = common.DataSourceRef(type_val=SQLITE, uid="${ledger}")
MODEL: Final = 'model=~"$model"'
CHOSEN: Final = ('job=~"$job"', 'instance=~"$instance"')  # of the doors that are scraped


class Query(Protocol):
    """What a panel asks of one data source."""

    @property
    def source(self) -> common.DataSourceRef:
        """The variable in which the data source is chosen."""

    def target(self, ref_id: str, form: PromQueryFormat) -> Dataquery:
        """Return it as Grafana wants it; `form` is how Prometheus is to shape its answer."""


@dataclass(frozen=True)
class PromQuery:
    """A query of Prometheus: at the range's end if it is `instant`, else all along the range."""

    text: str
    legend: str = ""
    instant: bool = False
    source = METRICS

    def target(self, ref_id: str, form: PromQueryFormat) -> Dataquery:
        """Return it as Grafana wants it."""
        query = prometheus.Dataquery().datasource(METRICS).ref_id(ref_id).expr(self.text).format(form)
        query = query.instant() if self.instant else query.range()
        return query.legend_format(self.legend).build()


@dataclass(frozen=True)
class SqlQuery:
    """A query of the ledger. `times` are the columns that are instants: RFC 3339 text, or seconds since 1970."""

    text: str
    times: Sequence[str] = ()
    source = LEDGER

    def target(self, ref_id: str, form: PromQueryFormat) -> Dataquery:
        """Return it as the SQLite plugin wants it."""
        return SqliteTarget(ref_id, self)


@dataclass(frozen=True)
class SqliteTarget(Dataquery):
    """What the SQLite plugin reads. `rawQueryText` is what is edited and filled in, and becomes `queryText`."""

    ref_id: str
    query: SqlQuery

    def to_json(self) -> dict[str, object]:
        """Return its members."""
        return {
            "refId": self.ref_id,
            "datasource": LEDGER,
            "queryType": "table",
            "rawQueryText": self.query.text,
            "queryText": self.query.text,
            "timeColumns": list(self.query.times),
        }


def promql(text: str, legend: str = "") -> PromQuery:
    """Return a query of Prometheus over the picker's range. Its series are named by the legend, `{{model}}`."""
    return PromQuery(text, legend)


def over_range(text: str, legend: str = "") -> PromQuery:
    """Return a query of Prometheus for one number for the whole of the picker's range, which is `$__range`."""
    return PromQuery(text, legend, instant=True)


def sql(text: str, *times: str) -> SqlQuery:
    """Return a query of the ledger for a table. `times` are its columns that are instants."""
    return SqlQuery(text.strip(), times)


def metric(name: str, *matchers: str) -> str:
    """Return the series of a metric of the chosen doors, and with these labels."""
    return f"{name}{{{', '.join((*CHOSEN, *matchers))}}}"


def rate(name: str, *matchers: str) -> str:
    """Return a counter's rise in a second."""
    return f"rate({metric(name, *matchers)}[$__rate_interval])"


def rise(name: str, *matchers: str) -> str:
    """Return a counter's rise over the whole of the picker's range."""
    return f"increase({metric(name, *matchers)}[$__range])"


def quantile(share: float, name: str, *matchers: str, by: str = "") -> str:
    """Return a quantile of a histogram, of each value of the label `by` if there is one."""
    return f"histogram_quantile({share}, sum by ({', '.join(filter(None, ('le', by)))}) ({rate(name, *matchers)}))"


def share(part: str, whole: str) -> str:
    """Return part / whole; 0 where there is no part, or nothing at all."""
    return f"({part}) / (({whole}) > 0) or vector(0)"
