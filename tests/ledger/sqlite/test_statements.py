"""Rows of any number are written once each, in their order, by few statements."""

import sqlite3
from pathlib import Path

import pytest

from nexus_proxy.ledger.sqlite import posting
from nexus_proxy.ledger.sqlite.statements import COUNTS, Selection, Statement
from tests.ledger.ledgerbook import T0, opened

INSERT = Statement("INSERT INTO t VALUES ROWS", "(?, 'same', ?)")
FIND = Selection("SELECT a FROM t WHERE a IN (IDS)")


@pytest.mark.parametrize("count", [*range(70), 200])
def test_every_row_is_written_once_and_found_again(count: int) -> None:
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE t (a INTEGER PRIMARY KEY, word TEXT, b INTEGER) STRICT")
    statements: list[str] = []
    connection.set_trace_callback(statements.append)
    cursor = connection.cursor()
    ids = [*range(1, count + 1)]
    INSERT.write(cursor, [value for a in ids for value in (a, -a)])
    assert len([s for s in statements if s.startswith("INSERT")]) <= (1 if count in COUNTS else 5)
    assert connection.execute("SELECT * FROM t").fetchall() == [(a, "same", -a) for a in ids]
    assert sorted(FIND.read(cursor, [*ids, 999])) == [(a,) for a in ids]
    connection.close()


def test_no_statement_of_a_batch_makes_a_table_of_its_own(tmp_path: Path) -> None:
    statements = [found for found in vars(posting).values() if isinstance(found, Statement)]
    assert len(statements) == 7
    with opened(tmp_path / "nexus.db") as book:
        assert book.store._connection is not None
        for statement in statements:
            text = statement.texts[2]
            program = book.store._connection.execute(f"EXPLAIN {text}", [1] * text.count("?")).fetchall()
            assert "OpenEphemeral" not in {step[1] for step in program}, text


@pytest.mark.parametrize("kind", ["topup", "overrun", "correction", "gift", ""])
def test_an_entry_of_no_kind_or_the_wrong_one_is_refused(tmp_path: Path, kind: str) -> None:
    with opened(tmp_path / "nexus.db") as book:
        book.customer("acme")
        assert book.store._connection is not None
        insert = f"INSERT INTO entries VALUES (1, {T0}, '{kind}', 1, 5, 7, NULL, NULL, NULL, '', '{'0' * 64}')"
        if kind == "topup":
            book.store._connection.execute(insert)
        else:
            with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
                book.store._connection.execute(insert)
