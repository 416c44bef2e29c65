"""`verify` finds whatever was changed behind the ledger's back, and a backup is a whole ledger."""

import sqlite3
import threading
from pathlib import Path

import pytest

from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.protocol import Settle, TopUp
from nexus_proxy.ledger.sqlite.backup import backup
from nexus_proxy.ledger.sqlite.migrations import migrate
from nexus_proxy.ledger.sqlite.schema import TABLES, as_made_before
from nexus_proxy.ledger.sqlite.verify import FINDINGS_MAX, verify
from nexus_proxy.ledger.sqlite.views import VIEWS
from tests.ledger.ledgerbook import FREE, T0, Book, hold, opened, settle, void

A0, A2, A4, O1 = (f"(SELECT seq FROM holds WHERE request_id = '{name}')" for name in ("a0", "a2", "a4", "o1"))
USAGE = Usage(prompt=120, completion=30, cached=20, cache_write=5, reasoning=7)


def fill(book: Book) -> None:
    """Write some of everything."""
    acme, acme_key = book.customer("acme", NANO)
    other, other_key = book.customer("other", NANO, overdraft_nano=500)
    book.run(*(hold(acme, acme_key, 10_000_000, f"a{i}") for i in range(5)))
    book.run(*(hold(other, other_key, 10, f"o{i}") for i in range(3)), hold(other, other_key, 0, "f1", FREE))
    book.run(settle("a0", USAGE), settle("a1", Usage(5000, 3)), void("a2"), settle("f1", USAGE, FREE))
    book.run(settle("o0", Usage(900, 900), at_ms=T0 + 86_400_000), settle("o1", Usage(500_000, 0)))
    book.run(Settle("a3", EndState.UPSTREAM_CUT, UsageSource.ESTIMATED, Usage(4, 2), 24_001, 168_000, 200, T0, 5, 9))
    book.run(TopUp("acme", 3, T0, "pay-1", "thanks"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        fill(book)
    assert verify(path) == []
    return path


def tamper(path: Path, script: str) -> None:
    """Change the file as somebody with write access can: constraints off, triggers gone and back."""
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA ignore_check_constraints = ON")
    triggers = connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'trigger'").fetchall()
    for name, _ in triggers:
        connection.execute(f"DROP TRIGGER {name}")
    connection.executescript(script)
    for _, sql in triggers:
        connection.execute(sql)
    connection.close()


@pytest.mark.parametrize(
    ("check", "script"),
    [
        ("chain", "UPDATE entries SET amount_nano = amount_nano + 1 WHERE entry_id = 3"),
        ("chain", "UPDATE entries SET note = 'x' WHERE entry_id = 1"),
        ("chain", "UPDATE entries SET at_ms = at_ms + 1 WHERE entry_id = 2"),
        ("chain", "DELETE FROM entries WHERE entry_id = 2"),
        ("chain", f"UPDATE entries SET hash = '{'0' * 64}' WHERE entry_id = 2"),
        ("balances", "DELETE FROM entries WHERE entry_id = (SELECT max(entry_id) FROM entries)"),
        ("posted", f"DELETE FROM entries WHERE seq = {A0}"),
        ("posted", f"UPDATE entries SET seq = {A4} WHERE seq = {A0}"),
        ("chain", f"UPDATE entries SET seq = {A4} WHERE seq = {A0}"),
        ("chain", "UPDATE holds SET request_id = 'mine' WHERE request_id = 'a0'"),
        ("posted", f"UPDATE entries SET payer_id = 6 WHERE seq = {A0}"),
        ("entries", f"UPDATE entries SET payee_id = 4 WHERE seq = {A0}"),
        ("balances", "UPDATE accounts SET balance_nano = balance_nano + 1 WHERE name = 'acme'"),
        ("conservation", "UPDATE accounts SET balance_nano = balance_nano + 1 WHERE name = 'acme'"),
        ("balances", "UPDATE accounts SET held_nano = held_nano - 1 WHERE name = 'acme'"),
        ("balances", "UPDATE accounts SET spent_nano = 0 WHERE name = 'acme'"),
        ("balances", "UPDATE accounts SET paid_nano = 0 WHERE name = 'acme'"),
        ("balances", "UPDATE holds SET hold_nano = hold_nano + 1 WHERE request_id = 'a4'"),
        ("balances", "UPDATE accounts SET balance_nano = -900, held_nano = 0 WHERE name = 'other'"),
        ("charges", f"UPDATE settlements SET prompt_tokens = prompt_tokens + 1 WHERE seq = {A0}"),
        ("charges", f"UPDATE settlements SET cost_nano = cost_nano + 1 WHERE seq = {A0}"),
        ("charges", f"UPDATE settlements SET charge_nano = charge_nano - 1 WHERE seq = {A0}"),
        ("charges", f"UPDATE settlements SET overrun_nano = overrun_nano - 1 WHERE seq = {O1}"),
        ("charges", f"UPDATE settlements SET usage_source = 'none' WHERE seq = {A0}"),
        ("charges", "UPDATE holds SET hold_nano = 24000 WHERE request_id = 'a3'"),
        ("charges", "UPDATE holds SET price_id = 'free-1' WHERE request_id = 'a0'"),
        ("charges", "UPDATE price_versions SET tiers = (SELECT tiers FROM price_versions WHERE price_id = 'free-1')"),
        ("requests", f"UPDATE settlements SET state = 'posted' WHERE seq = {A2}"),
        ("requests", f"UPDATE runs SET settled_seq = {A4}"),
        ("posted", f"DELETE FROM settlements WHERE seq = {A0}"),
        ("roll-ups", "UPDATE daily SET charge_nano = charge_nano + 1"),
        ("roll-ups", "UPDATE daily SET requests = requests + 1"),
        ("roll-ups", "DELETE FROM daily WHERE model = 'free'"),
        ("roll-ups", f"UPDATE settlements SET closed_ms = closed_ms - 86400000 WHERE seq = {A0}"),
        ("references", "PRAGMA foreign_keys = OFF; UPDATE keys SET account_id = 77"),
        ("balances", "UPDATE accounts SET overdraft_nano = -1"),
        ("integrity", "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, '(seq', '(at_ms') "
         "WHERE name = 'entries_charge'"),
        ("schema", "DROP INDEX entries_charge"),
        ("schema", "DROP VIEW balances; CREATE VIEW balances AS SELECT 1"),
        ("posted", "DROP INDEX entries_charge; INSERT INTO entries SELECT 100, at_ms, kind, payer_id, payee_id, "
         f"amount_nano, seq, external_id, corrects, note, hash FROM entries WHERE seq = {A0}"),
        ("readable", "UPDATE price_versions SET tiers = '{'"),
    ],
)  # fmt: skip
def test_a_planted_corruption_is_found(path: Path, check: str, script: str) -> None:
    tamper(path, script)
    assert check in {finding.check for finding in verify(path)}


def test_a_missing_trigger_is_found(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("DROP TRIGGER entries_no_update")
    connection.close()
    assert [finding.detail for finding in verify(path)] == ["entries_no_update is missing"]


def test_a_ledger_that_an_earlier_program_began_is_as_it_was_made(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    tables = as_made_before(TABLES)
    assert "CHECK (kind IN ('topup', 'charge', 'overrun', 'correction'))," in tables
    connection = sqlite3.connect(path)
    migrate(connection, (tables + VIEWS,))
    connection.close()
    with opened(path) as book:
        fill(book)
    assert verify(path) == []
    tamper(
        path,
        "PRAGMA writable_schema = ON; UPDATE sqlite_master SET sql = replace(sql, 'topup', 'gift') "
        "WHERE name = 'entries'",
    )
    assert "entries is not as it was made" in {finding.detail for finding in verify(path)}


def test_d12_a_truncated_file_is_found(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    assert verify(path) != []


def test_findings_are_bounded(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        account_id, key_id = book.customer("acme", NANO)
        book.run(*(hold(account_id, key_id, 0, f"r{i}") for i in range(FINDINGS_MAX + 7)))
        book.run(*(settle(f"r{i}", Usage(1, 1)) for i in range(FINDINGS_MAX + 7)))
    tamper(path, "UPDATE settlements SET prompt_tokens = 2")
    charges = [finding for finding in verify(path) if finding.check == "charges"]
    assert len(charges) == FINDINGS_MAX + 1
    assert charges[-1].detail == "and 7 more"


def test_without_a_ledger_there_is_nothing_to_verify(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        verify(tmp_path / "none.db")
    assert list(tmp_path.iterdir()) == []


def test_verify_and_backup_work_while_the_ledger_is_written(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        account_id, key_id = book.customer("acme", NANO)
        go_on = threading.Event()
        go_on.set()

        def write() -> None:
            number = 0
            while go_on.is_set():
                book.run(hold(account_id, key_id, 1000, f"w{number}"))
                book.run(settle(f"w{number}", Usage(number % 3, 0)), TopUp("acme", 5, T0))
                number += 1

        writing = threading.Thread(target=write)
        writing.start()
        try:
            for number in range(5):
                assert verify(path) == []
                backup(path, tmp_path / f"copy-{number}.db")
                assert verify(tmp_path / f"copy-{number}.db") == []
        finally:
            go_on.clear()
            writing.join()
    assert sorted(p.name for p in tmp_path.iterdir() if "copy" in p.name) == [f"copy-{n}.db" for n in range(5)]


def test_a_backup_can_be_served_from(path: Path, tmp_path: Path) -> None:
    backup(path, tmp_path / "copy.db")
    with opened(tmp_path / "copy.db") as book:
        assert book.store.recover(T0) == 2
    assert verify(tmp_path / "copy.db") == []


def test_a_backup_replaces_nothing(path: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("precious")
    with pytest.raises(LedgerError, match="exists"):
        backup(path, target)
    assert target.read_text() == "precious"
    with pytest.raises(LedgerError, match="could not be copied"):
        backup(path, tmp_path / "nowhere" / "copy.db")
    with pytest.raises(LedgerError, match="no ledger"):
        backup(tmp_path / "none.db", tmp_path / "copy-2.db")
    assert not [p for p in tmp_path.iterdir() if "partial" in p.name]
