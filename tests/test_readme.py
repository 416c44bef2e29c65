"""What README promises and a program can look up."""

import sqlite3
from pathlib import Path

import pytest

from nexus_proxy import errors
from nexus_proxy.errors import NexusError
from nexus_proxy.ledger.migrations import migrate
from nexus_proxy.metrics import METRICS

README = Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_documented(name: str) -> None:
    assert f"| `{name}` | {METRICS[name]} |" in README


def test_every_code_is_documented() -> None:
    leaves = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, NexusError)]
    missing = {leaf.code for leaf in leaves} - {"client_gone"}  # nobody is there to read that one
    assert {code for code in missing if f"`{code}`" not in README} == set()


def test_every_view_and_column_is_there(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "nexus.db")
    migrate(db)
    for name in ("usage", "margin_by_model", "balances", "open_holds"):
        (line,) = (row for row in README.splitlines() if row.startswith(f"| `{name}` |") and "--" not in row)
        promised = [column.strip() for column in line.split("|")[2].split(",")]
        there = [column[0] for column in db.execute(f'SELECT * FROM "{name}"').description]
        assert [column for column in promised if column not in there] == []
    db.close()
