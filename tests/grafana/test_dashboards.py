"""The dashboards as files: made by the code, whole, and asking only for what there is."""

import json
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from grafana_foundation_sdk.cog import plugins
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard
from prometheus_client.parser import text_string_to_metric_families

from grafana.__main__ import DASHBOARDS as MADE
from grafana.dashboard import shown
from grafana.front_door import FAILURES
from grafana.queries import SQLITE
from nexus_proxy.core.money.settlement import EndState, UsageSource, Verdict
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import NexusError, RequestError, UpstreamRefused, leaves
from nexus_proxy.ledger.sqlite.migrations import migrate
from nexus_proxy.observe.metrics import METRICS, Metrics
from tests.grafana.filling import Range, cases, dashboards, fill, is_sql, panels, text_of

ROOT: Final = Path(__file__).parents[2]
DASHBOARDS: Final = dashboards()
by_panel = pytest.mark.parametrize(("name", "panel"), cases())
TARGETED: Final = {"job", "instance"}  # labels that a scrape adds
CHOSEN: Final = {'job=~"$job"', 'instance=~"$instance"'}
ONCE: Final = {"nexus_recovered_holds_total"}  # a counter that only a start changes, so it says what the last one found
# What Prometheus itself records of a scrape.
UP: Final = {"up": TARGETED}


@pytest.mark.parametrize("name", MADE)
def test_the_file_is_what_the_code_makes(name: str) -> None:
    assert (ROOT / "grafana" / "dashboards" / name).read_text("utf-8") == MADE[name].json(), "python -m grafana"


def test_there_is_no_other_file() -> None:
    assert set(DASHBOARDS) == set(MADE)


@pytest.mark.parametrize("name", DASHBOARDS)
def test_grafanas_own_types_know_all_of_it(name: str) -> None:
    """What they do not know they lose, so nothing may be missing after a round trip."""
    plugins.register_default_plugins()
    read = shown(Dashboard.from_json(json.loads(json.dumps(DASHBOARDS[name]))))
    assert json.loads(json.dumps(read, cls=JSONEncoder)) == DASHBOARDS[name]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_it_loads_without_a_dialog_and_links_to_the_others(name: str) -> None:
    dashboard = DASHBOARDS[name]
    assert "__inputs" not in dashboard
    assert dashboard["editable"] is False
    assert dashboard["schemaVersion"] in (41, 42)
    others = {f"/d/{other['uid']}" for other in DASHBOARDS.values() if other is not dashboard}
    assert {link["url"] for link in dashboard["links"]} == others
    assert all(link["keepTime"] and link["includeVars"] for link in dashboard["links"])


@pytest.mark.parametrize("name", DASHBOARDS)
def test_every_panel_has_a_place_and_an_id_of_its_own(name: str) -> None:
    cells: set[tuple[int, int]] = set()
    for panel in DASHBOARDS[name]["panels"]:
        place = panel["gridPos"]
        columns, rows = (range(place[at], place[at] + place[size]) for at, size in (("x", "w"), ("y", "h")))
        mine = {(column, row) for column in columns for row in rows}
        assert not mine & cells, panel["title"]
        assert max(columns) < 24
        cells |= mine
    ids = [panel["id"] for panel in DASHBOARDS[name]["panels"]]
    titles = [panel["title"] for panel in DASHBOARDS[name]["panels"]]
    assert len(set(ids)) == len(ids) == len(set(titles))


@by_panel
def test_a_panel_is_whole(name: str, panel: dict[str, Any]) -> None:
    assert len(panel["description"]) > 60
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    variables = {f"${{{one['name']}}}": one["query"] for one in DASHBOARDS[name]["templating"]["list"]}
    sources = [panel["datasource"], *(target["datasource"] for target in panel["targets"])]
    assert len(sources) > 1
    for source in sources:
        assert variables[source["uid"]] == source["type"]
    refs = [target["refId"] for target in panel["targets"]]
    assert len(set(refs)) == len(refs)


@by_panel
def test_a_panel_asks_prometheus_only_for_what_there_is(name: str, panel: dict[str, Any]) -> None:
    for target in panel["targets"]:
        if not is_sql(target):
            check_promql(text_of(target))


def check_promql(query: str) -> None:
    """Hold every metric and label of a query against those that a door has."""
    known = labels_by_name() | UP
    found = re.findall(r"\b([a-z_]+)\{([^}]*)\}(?:\[(\S+?)\])?", query)
    assert found
    for name, matchers, window in found:
        assert name in known, f"there is no metric {name}"
        assert set(re.findall(r"(\w+)(?:=~|!~|=|!=)", matchers)) <= known[name] | TARGETED, f"{name}: {matchers}"
        assert set(matchers.split(", ")) >= CHOSEN, "it shows doors that were not chosen"
        assert window in ("", "$__rate_interval", "$__range"), f"a fixed window: {window}"
        rises = bool(window) and "changes(" not in query
        counts = name.endswith(("_total", "_bucket", "_count", "_sum")) and name not in ONCE
        assert rises is counts, f"{name}: rate() is for counters, and they are for it"
    grouped = {label for by in re.findall(r"by \(([^)]*)\)", query) for label in by.split(", ")}
    assert grouped <= TARGETED.union(*(known[name] for name, *_ in found)), f"no such label: {grouped}"


def labels_by_name() -> dict[str, set[str]]:
    """Return the labels of every series that a door can have, by its name."""
    metrics = Metrics({"m": "p"})
    verdict = Verdict(EndState.CLIENT_GONE, UsageSource.ESTIMATED, Usage(1, 1), 1, cost_nano=1)
    metrics.settled(model="m", provider="p", verdict=verdict, charged_nano=1, overrun_nano=1, cost_currency="USD")
    found: dict[str, set[str]] = {}
    for family in text_string_to_metric_families(metrics.render()[0].decode()):
        for sample in family.samples:
            found.setdefault(sample.name, set()).update(sample.labels)
    return found


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ('sum(rate(nexus_requests{job=~"$job", instance=~"$instance"}[$__rate_interval]))', "no metric"),
        ('sum(nexus_holds_open{job=~"$job", instance=~"$instance", plan="x"})', "plan"),
        ('sum(nexus_requests_total{job=~"$job", instance=~"$instance"})', "is for counters"),
        ('sum by (plan) (nexus_holds_open{job=~"$job", instance=~"$instance"})', "no such label"),
        ('sum(rate(nexus_requests_total{job=~"$job", instance=~"$instance"}[5m]))', "fixed window"),
        ("sum(nexus_holds_open{})", "not chosen"),
    ],
)
def test_a_wrong_query_is_seen(query: str, why: str) -> None:
    with pytest.raises(AssertionError, match=why):
        check_promql(query)


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sqlite3.Connection]:
    """A ledger in which nothing has happened."""
    with closing(sqlite3.connect(tmp_path_factory.mktemp("empty") / "nexus.db")) as db:
        migrate(db)
        yield db


@by_panel
def test_a_panel_asks_the_ledger_only_for_what_there_is(
    name: str, panel: dict[str, Any], empty: sqlite3.Connection
) -> None:
    views = {row[0] for row in empty.execute("SELECT name FROM sqlite_master WHERE type = 'view'")} - {"requests"}
    for target in filter(is_sql, panel["targets"]):
        text = text_of(target)
        asked = set(re.findall(r"\b(?:FROM|JOIN)\s+(\w+)", text))
        assert asked <= views, "panels stand on the public views"
        empty.execute("EXPLAIN " + fill(Range(0, 1).fill(text), {"account": "'acme'", "currency": "USD"}))
        assert re.search(r"\$__(from|to)", text) or asked <= {"balances", "open_holds"}, "it ignores the picker's range"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_variables_ask_only_for_what_there_is(name: str, empty: sqlite3.Connection) -> None:
    for variable in DASHBOARDS[name]["templating"]["list"]:
        if variable["type"] != "query":
            continue
        if variable["datasource"]["type"] == SQLITE:
            assert re.search(r"FROM (balances|deployment)\b", variable["query"])  # the latter for the currency alone
            empty.execute(variable["query"])
            continue
        metric, label = re.match(r"label_values\((\w+).*, (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
        assert label in (labels_by_name() | UP)[metric] | TARGETED


def test_every_metric_of_ours_is_shown() -> None:
    asked = "\n".join(
        text_of(target)
        for dashboard in DASHBOARDS.values()
        for panel in panels(dashboard)
        for target in panel["targets"]
    )
    assert [name for name in METRICS if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", asked)] == []


def test_every_code_is_a_failure_or_a_refusal_or_neither() -> None:
    failures = {leaf.code for leaf in leaves(NexusError) if re.fullmatch(FAILURES, leaf.code)}
    refusals = {leaf.code for leaf in leaves(RequestError)}
    assert failures & refusals == set()
    assert {leaf.code for leaf in leaves(NexusError)} - failures - refusals == {"client_gone"}
    assert UpstreamRefused.code in refusals  # what a provider finds wrong with a request is the client's to mend


def test_what_is_provisioned_is_there() -> None:
    folder = ROOT / "grafana" / "provisioning"
    (sources,) = (yaml.safe_load(path.read_text("utf-8")) for path in (folder / "datasources").iterdir())
    found = {source["uid"]: source["type"] for source in sources["datasources"]}
    assert found == {"nexus-prometheus": "prometheus", "nexus-ledger": SQLITE}
    chosen = {
        variable["current"]["value"]
        for dashboard in DASHBOARDS.values()
        for variable in dashboard["templating"]["list"]
        if variable["type"] == "datasource"
    }
    assert chosen == set(found)
    metrics, ledger = sources["datasources"]
    assert (metrics["url"], metrics["access"]) == ("http://127.0.0.1:9091", "proxy")
    assert ledger["jsonData"] == {"path": "$NEXUS_LEDGER", "pathPrefix": "file:", "pathOptions": "mode=ro"}
    (boards,) = (yaml.safe_load(path.read_text("utf-8")) for path in (folder / "dashboards").iterdir())
    assert [provider["options"]["path"] for provider in boards["providers"]] == ["$NEXUS_DASHBOARDS"]
    scraped = yaml.safe_load((ROOT / "config" / "prometheus.yml").read_text("utf-8"))["global"]["scrape_interval"]
    assert sources["datasources"][0]["jsonData"]["timeInterval"] == scraped
