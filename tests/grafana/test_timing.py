"""The timing asks every panel of the ledger."""

from pathlib import Path

from tests.bench.loaded import Size
from tests.grafana.filling import dashboards, is_sql, panels
from tests.grafana.timing import RANGES, made, timings


def test_every_panel_of_the_ledger_is_asked_over_every_range(tmp_path: Path) -> None:
    found = list(timings(made(tmp_path, Size(accounts=5, keys=10, rows=500))))
    asked = [
        panel["title"].replace("$currency", "USD")
        for dashboard in dashboards().values()
        for panel in panels(dashboard)
        if any(map(is_sql, panel["targets"]))
    ]
    assert [timing.panel for timing in found] == asked
    assert all(set(timing.ms) == set(RANGES) for timing in found)
    empty = {timing.panel for timing in found if not timing.rows}
    assert empty == {"Open holds, USD", "Requests to look at, USD"}  # such a ledger has none
