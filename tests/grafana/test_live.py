"""Every panel shows something: its queries, filled in as Grafana does, asked of a real Prometheus and a real ledger."""

import math
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from tests.grafana.filling import Range, ask, dashboards, fill, is_sql, panels, text_of, values_of
from tests.grafana.scene import Scene, busy

pytestmark = pytest.mark.asyncio(loop_scope="module")

DASHBOARDS = dashboards()
PANELS = [
    pytest.param(name, panel, id=f"{DASHBOARDS[name]['title']}: {panel['title']}")
    for name in DASHBOARDS
    for panel in panels(DASHBOARDS[name])
]
# What is 0 even on a day as bad as the scene's, since it cannot be brought about from outside: panel, legend.
QUIET = {
    ("Log lines dropped", ""),
    ("Ledger trouble", "given up"),
    ("Tokens in a second, by kind", "input written to the cache"),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scene]:
    """One busy minute for all the tests; the door, its provider and Prometheus are still there."""
    async with busy(tmp_path_factory.mktemp("scene")) as played:
        yield played


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def values(scene: Scene) -> dict[str, dict[str, str]]:
    """What stands for the variables of each dashboard."""
    return {
        name: values_of(dashboard, scene.prometheus, scene.door.ledger_path) for name, dashboard in DASHBOARDS.items()
    }


@pytest.mark.parametrize(("name", "panel"), PANELS)
async def test_a_panel_shows_something(
    scene: Scene, values: dict[str, dict[str, str]], name: str, panel: dict[str, Any]
) -> None:
    picked = Range(scene.began, scene.ended)
    for target in panel["targets"]:
        query = fill(picked.fill(text_of(target)), values[name])
        if is_sql(target):
            numbers = sql_numbers(*ask(scene.door.ledger_path, query), panel, target)
        else:
            numbers = prometheus_numbers(scene, query, picked, target)
        assert numbers, f"no data: {query}"
        assert any(numbers) or (panel["title"], target.get("legendFormat")) in QUIET, f"all of it is 0: {query}"


def prometheus_numbers(scene: Scene, query: str, picked: Range, target: dict[str, Any]) -> list[float]:
    """Return every number of every series that a query has."""
    if target["instant"]:
        series = scene.prometheus.at(query, picked.end_s)
    else:
        series = scene.prometheus.over(query, picked.start_s, picked.end_s, picked.step_s)
    for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
        assert all(label in one["metric"] for one in series), f"{label} is in the legend, but not in {query}"
    points = [value for one in series for value in (one.get("values") or [one["value"]])]
    numbers = [float(value) for _, value in points]
    return [number for number in numbers if not math.isnan(number)]


def sql_numbers(columns: list[str], found: Any, panel: dict[str, Any], target: dict[str, Any]) -> list[float]:
    """Return every number of a table; what should be a number or an instant is one."""
    overrides = [override["matcher"] for override in panel["fieldConfig"]["overrides"]]
    assert {matcher["options"] for matcher in overrides if matcher["id"] == "byName"} <= set(columns)
    assert set(target["timeColumns"]) <= set(columns)
    numbers = []
    for number, column in enumerate(columns):
        cells = [row[number] for row in found if row[number] is not None]
        assert len({type(cell) for cell in cells}) <= 1, f"{column} has several types, of which the plugin takes one"
        texts = [cell for cell in cells if isinstance(cell, str)]
        assert not any(re.fullmatch(r"-?\d+\.\d+", text) for text in texts), f"{column} is an amount as text"
        if column in target["timeColumns"] and texts:
            assert [datetime.fromisoformat(text) for text in texts]
        if column not in target["timeColumns"] or not texts:
            numbers += [float(cell) for cell in cells if not isinstance(cell, str)]
    return numbers


async def test_money_in_prometheus_is_the_ledgers(scene: Scene) -> None:
    """What was charged since the last start is the same in both, to a billionth."""
    started = datetime.fromtimestamp(scene.restarted, UTC).isoformat()
    (row,) = scene.door.sql(
        "SELECT sum(CAST(charge AS REAL)) AS charged FROM usage WHERE closed_at > ? AND end_state <> 'crashed'", started
    )
    assert row["charged"] > 0
    assert scene.prometheus.value("sum(nexus_charge_total)") == pytest.approx(row["charged"], abs=1e-9)
