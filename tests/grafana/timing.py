"""How long the ledger's panels take on a long ledger, by the width of the picker's range.

Strategy: the ledger is made as the benchmark makes it (`tests.bench.loaded`), spread over ninety days. The queries are
those of the dashboards in the tree, asked as the SQLite plugin asks them, on a connection of their own each.
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grafana.money import EVERY_ACCOUNT
from nexus_proxy import config
from tests.bench.loaded import Size, fill
from tests.bench.systems import MODEL
from tests.grafana import filling
from tests.grafana.filling import Range, ask, dashboards, is_sql, panels, text_of
from tests.rig.settings import ENVIRON, settings, write

DAY_S: Final = 86_400
RANGES: Final = {"1 h": (DAY_S / 24, 0.0), "7 d": (7 * DAY_S, 0.0), "90 d": (90 * DAY_S, 0.0)} | {
    "1 h, 60 d ago": (60 * DAY_S, 60 * DAY_S - DAY_S / 24)
}
_TRIES: Final = 3


@dataclass(frozen=True, slots=True)
class Timing:
    """The best of some tries of one panel's query, in milliseconds, by the range's name."""

    panel: str
    ms: dict[str, float]
    rows: int  # of the widest range


def made(directory: Path, size: Size) -> Path:
    """Make a ledger and return its path."""
    overrides = {"models": {MODEL: {"provider": "p-openai", "price": {"input": "0.37", "output": "1.93"},
                                    "context": 131072, "max_output": 8192}}}  # fmt: skip
    write(directory / "nexus.toml", settings("http://127.0.0.1:9", overrides))
    fill(directory / "nexus.db", config.load(directory / "nexus.toml", ENVIRON), size)
    return directory / "nexus.db"


def timings(ledger: Path) -> Iterator[Timing]:
    """Time the query of every panel that asks the ledger."""
    now_s = time.time()
    values = {"account": EVERY_ACCOUNT, "currency": "USD"}
    for dashboard in dashboards().values():
        for panel in panels(dashboard):
            for target in filter(is_sql, panel["targets"]):
                ms, rows = {}, 0
                for name, (since_s, until_s) in RANGES.items():
                    query = filling.fill(Range(now_s - since_s, now_s - until_s).fill(text_of(target)), values)
                    best_s = float("inf")
                    for _ in range(_TRIES):
                        before = time.perf_counter()
                        rows = max(rows, len(ask(ledger, query)[1]))
                        best_s = min(best_s, time.perf_counter() - before)
                    ms[name] = best_s * 1000
                yield Timing(filling.fill(panel["title"], values), ms, rows)
