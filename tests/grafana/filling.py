"""What Grafana does to a query before it is sent: it puts in the picker's range, the interval and the variables.

Strategy: by its rules (templateSrv and the Prometheus data source), from the dashboard's own variables and what their
queries find. A `$` that nobody fills in is an error, where Grafana would send it as it stands.
"""

import json
import re
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest

from grafana.queries import SQLITE
from tests.grafana.prometheus import SCRAPE_S, Prometheus

FOLDER: Final = Path(__file__).parents[2] / "grafana" / "dashboards"


def dashboards() -> dict[str, dict[str, Any]]:
    """Return the dashboards in the tree, by the names of their files."""
    return {path.name: json.loads(path.read_text("utf-8")) for path in sorted(FOLDER.glob("*.json"))}


def panels(dashboard: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the panels that show something."""
    return (panel for panel in dashboard["panels"] if panel["type"] != "row")


def cases() -> list[Any]:
    """Return a test case for each panel: the name of the dashboard's file, and the panel."""
    return [
        pytest.param(name, panel, id=f"{dashboard['title']}: {panel['title']}")
        for name, dashboard in dashboards().items()
        for panel in panels(dashboard)
    ]


def is_sql(target: dict[str, Any]) -> bool:
    """Tell whether the ledger is asked, not Prometheus."""
    return bool(target["datasource"]["type"] == SQLITE)


def text_of(target: dict[str, Any]) -> str:
    """Return the query, with its variables."""
    return str(target["rawQueryText"] if is_sql(target) else target["expr"])


@dataclass(frozen=True)
class Range:
    """What the picker says, in Unix seconds."""

    start_s: float
    end_s: float

    @property
    def step_s(self) -> int:
        """The step of a range query, as for a panel of a hundred points."""
        return max(SCRAPE_S, int((self.end_s - self.start_s) / 100))

    def fill(self, text: str) -> str:
        """Put in the built-in variables."""
        ours = {
            "__rate_interval": f"{max(self.step_s + SCRAPE_S, 4 * SCRAPE_S)}s",
            "__range": f"{int(self.end_s - self.start_s)}s",
            "__from": str(int(self.start_s * 1000)),
            "__to": str(int(self.end_s * 1000)),
        }
        for name, value in ours.items():
            text = re.sub(rf"\${name}\b", value, text)
        return text


def fill(text: str, values: dict[str, str]) -> str:
    """Put in variables, by name. AssertionError if one is left."""
    for name, value in values.items():
        text = re.sub(rf"\$\{{{name}(:\w+)?\}}|\${name}\b", value.replace("\\", r"\\"), text)
    assert "$" not in text, f"a variable is not filled in: {text}"
    return text


def values_of(dashboard: dict[str, Any], watching: Prometheus, ledger: Path) -> dict[str, str]:
    """Return what stands for each variable of a dashboard as it opens: for all values of those that allow All."""
    values: dict[str, str] = {}
    for variable in dashboard["templating"]["list"]:
        if variable["type"] != "query":
            continue
        if variable["datasource"]["type"] == SQLITE:
            found = [str(row[0]) for row in ask(ledger, fill(variable["query"], values))[1]]
        else:
            series, label = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"]["query"]).groups()  # type: ignore[union-attr]
            found = watching.label_values(fill(series, values), label)
        assert found, f"the variable {variable['name']} has no value"
        every = variable.get("allValue") or f"({'|'.join(re.escape(value) for value in found)})".replace("\\", r"\\")
        values[variable["name"]] = every if variable["includeAll"] else found[0]
    return values


def ask(ledger: Path, query: str) -> tuple[list[str], Sequence[tuple[Any, ...]]]:
    """Return the columns and rows of a query, as the SQLite plugin asks: read-only."""
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True, timeout=10)) as db:
        cursor = db.execute(query)
        return [column[0] for column in cursor.description], cursor.fetchall()
