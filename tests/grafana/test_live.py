"""Every panel shows something: its queries, filled in as Grafana does, asked of a real Prometheus and a real ledger."""

import math
import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import pytest_asyncio

from tests.grafana.filling import Range, ask, cases, dashboards, fill, is_sql, panels, text_of, values_of
from tests.grafana.scene import Scene, busy

pytestmark = pytest.mark.asyncio(loop_scope="module")

DASHBOARDS = dashboards()
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


@pytest.mark.parametrize(("name", "panel"), cases())
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


def shown(scene: Scene, values: dict[str, dict[str, str]], title: str, **chosen: str) -> list[float]:
    """Return the numbers that a panel of *Money* has of Prometheus."""
    (target,) = titled(title)["targets"]
    return prometheus_numbers(scene, filled(scene, values, title, **chosen), Range(scene.began, scene.ended), target)


def filled(scene: Scene, values: dict[str, dict[str, str]], title: str, **chosen: str) -> str:
    """Return the query of a panel of *Money*, with these variables instead of all."""
    (target,) = titled(title)["targets"]
    return fill(Range(scene.began, scene.ended).fill(text_of(target)), values["money.json"] | chosen)


def titled(title: str) -> dict[str, Any]:
    """Return a panel of *Money*."""
    return next(panel for panel in panels(DASHBOARDS["money.json"]) if panel["title"] == title)


async def test_tiles_say_what_the_ledger_says(scene: Scene, values: dict[str, dict[str, str]]) -> None:
    """Prometheus extrapolates, so as nearly as that."""
    (truth,) = scene.door.sql("""
SELECT sum(CAST(charge AS REAL)) AS charged, sum(iif(model = 'm-qwen', CAST(charge AS REAL), 0)) AS of_one,
    1.0 * sum(cached_tokens) / sum(prompt_tokens) AS cached,
    1.0 * sum(usage_source = 'estimated') / count(*) AS estimated
FROM usage WHERE closed_at IS NOT NULL AND end_state <> 'crashed'
""")
    assert shown(scene, values, "Charged, $currency") == pytest.approx([truth["charged"]], rel=0.1)
    assert shown(scene, values, "Charged, $currency", model="m-qwen") == pytest.approx([truth["of_one"]], rel=0.15)
    assert shown(scene, values, "Cached") == pytest.approx([truth["cached"]], abs=0.05)
    assert shown(scene, values, "Estimated") == pytest.approx([truth["estimated"]], abs=0.02)
    assert [round(number) for number in shown(scene, values, "Overrun")] == [1]


async def test_tables_say_what_the_ledger_says(scene: Scene, values: dict[str, dict[str, str]]) -> None:
    margins = scene.door.sql("SELECT * FROM margin_by_model WHERE cost_currency = 'USD'")
    owed = sum(float(row["charge"]) - float(row["cost"]) for row in margins)
    columns, found = ask(scene.door.ledger_path, filled(scene, values, "Margin, by model"))
    at = columns.index("margin")
    assert sum(row[at] for row in found if row[at] is not None) == pytest.approx(owed, abs=1e-9)
    columns, found = ask(scene.door.ledger_path, filled(scene, values, "Balances that run low, $currency"))
    row = dict(zip(columns, next(row for row in found if row[0] == "acme"), strict=True))
    assert row["a_day"] == pytest.approx(float(scene.door.account()["total_spent"]) / 7)
    assert row["days_left"] == pytest.approx(row["available"] / row["a_day"])
    one = ask(scene.door.ledger_path, filled(scene, values, "Spend by account, $currency", account="'hasty'"))[1]
    assert [row[0] for row in one] == ["hasty"]


async def test_money_in_prometheus_is_the_ledgers(scene: Scene) -> None:
    """What was charged since the last start is the same in both, to a billionth."""
    started = datetime.fromtimestamp(scene.restarted, UTC).isoformat()
    (row,) = scene.door.sql(
        "SELECT sum(CAST(charge AS REAL)) AS charged FROM usage WHERE closed_at > ? AND end_state <> 'crashed'", started
    )
    assert row["charged"] > 0
    assert scene.prometheus.value("sum(nexus_charge_total)") == pytest.approx(row["charged"], abs=1e-9)
