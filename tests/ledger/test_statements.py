"""Rows of any number are written once each, in their order, by few statements."""

import sqlite3

import pytest

from nexus_proxy.ledger.statements import COUNTS, Selection, Statement

INSERT = Statement("INSERT INTO t VALUES ROWS", "(?, 'same', ?)")
FIND = Selection("SELECT a FROM t WHERE a IN (IDS)")


@pytest.mark.parametrize("count", [*range(70), 200])
def test_every_row_is_written_once_and_found_again(count: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, word TEXT, b INTEGER) STRICT")
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    ids = [*range(1, count + 1)]
    INSERT.write(connection, [value for a in ids for value in (a, -a)])
    assert len([s for s in statements if s.startswith("INSERT")]) <= (1 if count in COUNTS else 5)
    assert connection.execute("SELECT * FROM t").fetchall() == [(a, "same", -a) for a in ids]
    assert sorted(FIND.read(connection, [*ids, 999])) == [(a,) for a in ids]
    connection.close()
