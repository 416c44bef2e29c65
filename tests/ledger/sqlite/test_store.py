"""The contract of a store, on a real file."""

import dataclasses
import os
import sqlite3
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.core.money.prices import PriceVersion, amount_nano
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.protocol import (
    AccountRow,
    AlreadySettled,
    CreateAccount,
    CreateKey,
    DeclareCurrency,
    DeclarePrices,
    Denied,
    Done,
    Held,
    KeyRow,
    Progress,
    RevokeKey,
    SetAccount,
    Settle,
    Settled,
    Short,
    StoreBroken,
    StoreBusy,
    Suspended,
    ToppedUp,
    TopUp,
)
from nexus_proxy.ledger.sqlite import store as sqlite
from nexus_proxy.ledger.sqlite.backup import backup
from nexus_proxy.ledger.sqlite.store import _LEFT_OPEN, SqliteStore
from nexus_proxy.ledger.sqlite.verify import verify
from tests.ledger.ledgerbook import DEAR, FREE, PRICES, T0, Book, hold, opened, settle, void

USAGE = Usage(prompt=120, completion=30, cached=20)
CHARGE = amount_nano(DEAR.tiers, USAGE)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with opened(tmp_path / "nexus.db") as book:
        yield book
        assert verify(book.path) == []


def test_a_settlement_charges_releases_and_records(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    assert book.run(hold(account_id, key_id, 10_000_000, "r1")) == [Held()]
    assert book.balance(account_id) == (NANO, 10_000_000)
    assert book.run(settle("r1", USAGE)) == [Settled(account_id, CHARGE, 0)]
    assert book.balance(account_id) == (NANO - CHARGE, 0)
    entry = book.one(
        "SELECT kind, payer_id, amount_nano FROM entries JOIN requests USING (seq) WHERE request_id = 'r1'"
    )
    assert entry == ("charge", account_id, CHARGE)


def test_a_void_gives_the_whole_hold_back(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    assert book.run(hold(account_id, key_id, NANO, "r1"), void("r1"), hold(account_id, key_id, NANO, "r2")) == [
        Held(),
        Settled(account_id, 0, 0),
        Held(),
    ]
    assert book.balance(account_id) == (NANO, NANO)


@pytest.mark.parametrize(("missing_nano", "overdraft_nano"), [(0, 0), (1, 0), (0, 500), (1, 500)])
def test_e2_a_hold_of_the_whole_balance_fits_and_one_more_does_not(
    book: Book, missing_nano: int, overdraft_nano: int
) -> None:
    account_id, key_id = book.customer("acme", NANO - missing_nano, overdraft_nano)
    wanted = NANO + overdraft_nano
    expected = Held() if missing_nano == 0 else Short(wanted, wanted - 1, wanted - 1)
    assert book.run(hold(account_id, key_id, wanted)) == [expected]
    assert book.run(hold(account_id, key_id, wanted))[0] == Short(
        wanted, wanted - missing_nano, 0 if missing_nano == 0 else wanted - 1
    )


def test_a_suspended_account_holds_nothing(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, 10_000_000, "r1"))
    book.run(SetAccount("acme", T0, suspended=True))
    outcomes = book.run(hold(account_id, key_id, 1), settle("r1", USAGE))  # what has begun is settled (E14)
    assert outcomes == [Suspended(), Settled(account_id, CHARGE, 0)]


def test_e4_only_the_first_settlement_counts(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, 10_000_000, "r1"))
    outcomes = book.run(settle("r1", USAGE), void("r1"), settle("r1", USAGE))
    assert outcomes == [Settled(account_id, CHARGE, 0), AlreadySettled(), AlreadySettled()]
    assert book.run(settle("r1", USAGE), settle("never-was", USAGE)) == [AlreadySettled(), AlreadySettled()]
    assert book.balance(account_id) == (NANO - CHARGE, 0)
    assert book.one("SELECT count(*) FROM entries JOIN requests USING (seq) WHERE request_id = 'r1'") == (1,)


def test_e15_a_charge_of_nothing_has_a_row_and_no_entry(book: Book) -> None:
    account_id, key_id = book.customer("acme", 0)
    assert book.run(hold(account_id, key_id, 0, "r1", FREE), settle("r1", USAGE, FREE))[1] == Settled(account_id, 0, 0)
    assert book.one("SELECT state, charge_nano, prompt_tokens FROM requests") == ("posted", 0, 120)
    assert book.one("SELECT count(*) FROM entries") == (0,)
    assert book.one("SELECT requests, charge FROM spend_by_day") == (1, "0.000000000")


def test_e16_amounts_beyond_int64_are_refused_or_capped_and_never_wrap(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    huge = 2**63 + 5
    assert book.run(hold(account_id, key_id, huge)) == [Short(huge, NANO, NANO)]
    assert isinstance(book.run(TopUp("acme", huge, T0))[0], Denied)
    assert isinstance(book.run(TopUp("acme", 2**61, T0))[0], Denied)
    assert isinstance(book.run(SetAccount("acme", T0, overdraft_nano=huge))[0], Denied)
    assert isinstance(book.run(RevokeKey(huge, T0))[0], Denied)
    assert isinstance(book.run(CreateKey("acme", bytes(32), "abcd", T0, expires_ms=huge))[0], Denied)
    absurd = Usage(prompt=10**30, completion=10**30)
    (_, settled) = book.run(hold(account_id, key_id, 1000, "r1"), settle("r1", absurd))
    assert isinstance(settled, Settled)
    assert settled.charged_nano == book.one("SELECT spent_nano FROM accounts WHERE name = 'acme'")[0]
    assert settled.overrun_nano > 0
    assert book.one("SELECT flags FROM requests") == ("capped",)


def test_e16_top_ups_of_one_batch_count_together(book: Book) -> None:
    book.customer("acme")
    first, second = book.run(TopUp("acme", 2**61, T0), TopUp("acme", 1, T0))
    assert isinstance(first, ToppedUp)
    assert isinstance(second, Denied)


@pytest.mark.parametrize(
    ("paid_nano", "others_nano", "charged_nano"),
    [(CHARGE + 5, 0, CHARGE), (1000, 0, 1000), (1000, 400, 600)],
    ids=["the account has it", "the account is emptied", "what others hold is not touched"],
)
def test_e19_a_charge_above_the_hold_takes_what_is_available(
    book: Book, paid_nano: int, others_nano: int, charged_nano: int
) -> None:
    account_id, key_id = book.customer("acme", paid_nano)
    book.run(hold(account_id, key_id, 100, "r1"), hold(account_id, key_id, others_nano))
    outcome = book.run(settle("r1", USAGE))[0]
    assert outcome == Settled(account_id, charged_nano, CHARGE - charged_nano)
    assert book.balance(account_id) == (paid_nano - charged_nano, others_nano)
    assert book.one("SELECT balance_nano FROM accounts WHERE name = 'revenue'") == (CHARGE,)
    assert book.one("SELECT balance_nano FROM accounts WHERE name = 'overrun'") == (charged_nano - CHARGE,)


def test_a_denied_operation_does_not_undo_the_rest_of_its_batch(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    outcomes = book.run(
        TopUp("acme", 5, T0),
        CreateAccount("acme", T0),
        TopUp("nobody", 5, T0),
        hold(account_id, key_id, 7),
        TopUp("acme", 0, T0),
    )
    assert [type(outcome) for outcome in outcomes] == [ToppedUp, Denied, Denied, Held, Denied]
    assert book.balance(account_id) == (NANO + 5, 7)


@pytest.mark.parametrize(
    "op",
    [
        CreateAccount("", T0),
        CreateAccount(" acme", T0),
        CreateAccount("a\x00b", T0),
        CreateAccount("a\ud800", T0),
        CreateAccount("n" * 1000, T0),
        CreateAccount("funding", T0),
        CreateAccount("new", T0, plan="unheard"),
        CreateAccount("new", T0, overdraft_nano=-1),
        SetAccount("revenue", T0, suspended=True),
        SetAccount("acme", T0, plan="unheard"),
        SetAccount("acme", T0, overdraft_nano=5),
        TopUp("funding", 5, T0),
        TopUp("acme", -5, T0),
        TopUp("acme", 5, T0, external_id=""),
        TopUp("acme", 5, T0, note="\ud800"),
        CreateKey("acme", b"acme".ljust(32, b"\0"), "wxyz", T0),
        CreateKey("acme", bytes(32), "wxyz", T0, rpm=0),
        CreateKey("nobody", bytes(32), "wxyz", T0),
        RevokeKey(99, T0),
    ],
)
def test_what_admins_may_not_do_is_denied(book: Book, op: CreateAccount | SetAccount | TopUp | CreateKey) -> None:
    account_id, key_id = book.customer("acme", 0, overdraft_nano=10)
    book.run(hold(account_id, key_id, 10))
    before = book.one("SELECT count(*), (SELECT count(*) FROM keys), (SELECT count(*) FROM entries) FROM accounts")
    assert isinstance(book.run(op)[0], Denied)
    after = book.one("SELECT count(*), (SELECT count(*) FROM keys), (SELECT count(*) FROM entries) FROM accounts")
    assert before == after


def test_accounts_and_keys_change_as_asked(book: Book) -> None:
    book.customer("acme")
    changed = book.run(SetAccount("acme", T0, plan="dedicated", overdraft_nano=9, suspended=True))[0]
    assert isinstance(changed, AccountRow)
    assert (changed.plan, changed.overdraft_nano, changed.suspended) == ("dedicated", 9, True)
    changed = book.run(SetAccount("acme", T0, plan=""))[0]
    assert isinstance(changed, AccountRow)
    assert (changed.plan, changed.overdraft_nano, changed.suspended) == (None, 9, True)
    key = book.run(CreateKey("acme", bytes(32), "abcd", T0, models=("a/b", "c"), rpm=3, expires_ms=T0 + 1))[0]
    assert isinstance(key, KeyRow)
    assert (key.account, key.models, key.rpm, key.expires_ms) == ("acme", ("a/b", "c"), 3, T0 + 1)
    first, again = book.run(RevokeKey(key.key_id, T0 + 5), RevokeKey(key.key_id, T0 + 9))
    assert first == again == dataclasses.replace(key, revoked_ms=T0 + 5)


def test_e8_an_external_id_is_applied_once(book: Book) -> None:
    account_id, _ = book.customer("acme")
    book.customer("other")
    first, again = book.run(TopUp("acme", 5, T0, "pay-1"), TopUp("acme", 5, T0 + 1, "pay-1"))
    assert isinstance(first, ToppedUp)
    assert first.applied
    assert again == ToppedUp(first.entry_id, False, first.account)
    assert isinstance(book.run(TopUp("acme", 6, T0, "pay-1"))[0], Denied)
    assert isinstance(book.run(TopUp("other", 5, T0, "pay-1"))[0], Denied)
    assert book.balance(account_id) == (5, 0)


def test_a_price_version_is_never_edited(book: Book) -> None:
    assert book.run(PRICES) == [Done()]
    other = dataclasses.replace(DEAR, tiers=FREE.tiers)
    outcome = book.run(DeclarePrices((PriceVersion(other, "dear", "alpha", {}),), T0))[0]
    assert isinstance(outcome, Denied)
    assert "dear-1" in outcome.reason


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE entries SET amount_nano = 1",
        "DELETE FROM entries",
        "UPDATE price_versions SET tiers = '[]'",
        "DELETE FROM price_versions",
        "UPDATE holds SET hold_nano = 0",
        "UPDATE holds SET prompt_tokens = 7",
        "DELETE FROM holds",
        "UPDATE settlements SET charge_nano = 0",
        "DELETE FROM settlements",
        "INSERT INTO settlements SELECT * FROM settlements",
        "UPDATE accounts SET balance_nano = -1 WHERE name = 'acme'",
        "UPDATE accounts SET held_nano = balance_nano + 1 WHERE name = 'acme'",
        "UPDATE accounts SET balance_nano = 1.5",
        "INSERT INTO entries SELECT entry_id + 9, at_ms, kind, payer_id, payee_id, amount_nano, seq, "
        "external_id, corrects, note, hash FROM entries WHERE kind = 'charge'",
    ],
)
def test_the_database_itself_refuses(book: Book, statement: str) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, 10_000_000, "r1"), settle("r1", USAGE))
    other = sqlite3.connect(book.path)
    with pytest.raises(sqlite3.IntegrityError):
        other.execute(statement)
    other.close()


def test_d14_a_second_store_on_the_same_file_is_refused(book: Book, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to(book.path)
    for name in ("nexus.db", "link.db"):
        with pytest.raises(LedgerError, match=f"in use by process {os.getpid()}"):
            SqliteStore(tmp_path / name).open()


def test_the_lock_ends_with_the_store(tmp_path: Path) -> None:
    for _ in range(2):
        with opened(tmp_path / "nexus.db"):
            pass


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 36, 0))
    with pytest.raises(LedgerError, match=r"3\.37"):
        SqliteStore(tmp_path / "nexus.db").open()


def test_a_ledger_from_before_the_first_release_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with sqlite3.connect(path) as connection:
        connection.executescript("CREATE TABLE entries (seq INTEGER); PRAGMA user_version = 1;")
    connection.close()
    with pytest.raises(LedgerError, match="before the first release"):
        SqliteStore(path).open()
    with pytest.raises(LedgerError, match="before the first release"):
        verify(path)  # nobody has tampered with it
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("entries",)]
    connection.close()


def test_a_ledger_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    with opened(tmp_path / "nexus.db") as book:
        book.one("PRAGMA user_version")
        assert book.store._connection is not None
        book.store._connection.execute("PRAGMA user_version = 999")
    with pytest.raises(LedgerError, match="999"):
        SqliteStore(tmp_path / "nexus.db").open()


def _page(path: Path, table: str) -> tuple[int, int]:
    connection = sqlite3.connect(path)
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)).fetchone()
    connection.close()
    return (root - 1) * size, size


@pytest.mark.parametrize("where", ["accounts", "keys", "header", "nothing of it"])
def test_d12_a_damaged_file_refuses_the_start(tmp_path: Path, where: str) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        book.customer("acme", NANO)
    if where == "nothing of it":
        path.write_bytes(b"not a database at all" * 1000)
    else:
        offset, size = (0, 100) if where == "header" else _page(path, where)
        with path.open("r+b") as file:
            file.seek(offset)
            file.write(b"\xa5" * size)
    with pytest.raises(LedgerError, match=r"nexus\.db"):
        SqliteStore(path).open()
    assert verify(path) != []


def test_a_run_that_died_is_recovered(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        account_id, key_id = book.customer("acme", NANO)
        book.run(*(hold(account_id, key_id, 10_000_000, name) for name in ("quiet", "seen", "beyond")))
        book.run(Progress("seen", Usage(5, 1)), Progress("seen", USAGE), Progress("beyond", Usage(10**6, 10**6)))
        book.run(
            hold(account_id, key_id, 10_000_000, "closed"), settle("closed", USAGE), Progress("closed", Usage(1, 1))
        )
    with opened(path) as book:
        book.run(hold(account_id, key_id, 33, "of this run"))
        assert book.store.recover(T0 + 9000) == 3
        assert book.store.recover(T0 + 9000) == 0
        assert book.balance(account_id) == (NANO - 2 * CHARGE - 10_000_000, 33)
        rows = [
            book.one(
                f"SELECT state, end_state, usage_source, status, charge_nano FROM requests WHERE request_id = '{r}'"
            )
            for r in ("quiet", "seen", "beyond", "of this run")
        ]
        assert rows == [
            ("voided", "crashed", "none", None, 0),
            ("posted", "crashed", "recovered", None, CHARGE),
            ("posted", "crashed", "recovered", None, 10_000_000),
            ("open", None, None, None, None),
        ]
        assert verify(path) == []


def test_open_holds_are_looked_for_where_there_may_be_some(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "NOTE_EVERY", 8)
    noted = "SELECT max(settled_seq) FROM runs"
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        account_id, key_id = book.customer("acme", NANO)
        book.run(hold(account_id, key_id, 10, "left"))
    with opened(path) as book:
        book.run(hold(account_id, key_id, 10, "early"))
        assert book.one(noted) == (0,)  # nobody has looked yet what the run before left open
        assert book.store.recover(T0) == 1
        book.run(void("early"))
        assert book.one(noted) == (2,)
        book.run(*(hold(account_id, key_id, 10, f"r{number}") for number in range(8)))
        book.run(*(void(f"r{number}") for number in range(8) if number != 3))
        for number in range(20):
            book.run(hold(account_id, key_id, 10, f"s{number}"), void(f"s{number}"))
        assert book.one(noted) == (5,)
        assert book.one("SELECT group_concat(request_id) FROM open_holds") == ("r3",)
        assert verify(path) == []
    with opened(path) as book:
        assert book.store.recover(T0) == 1
        assert book.one("SELECT count(*) FROM open_holds") == (0,)
        book.run(hold(account_id, key_id, 10))
        assert book.one(noted) == (30,)
        assert verify(path) == []


def test_e11_ten_thousand_open_holds_are_recovered_in_time(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        account_id, key_id = book.customer("acme", 100 * NANO)
        holds = [hold(account_id, key_id, 10_000_000) for _ in range(10_000)]
        book.run(*holds, *(Progress(op.request_id, USAGE) for op in holds[::2]))
    store = SqliteStore(path)
    began = time.process_time()
    store.open()
    assert store.recover(T0) == 10_000
    assert time.process_time() - began < 2.0
    store.close()
    assert verify(path) == []


def test_d10_a_lock_of_somebody_else_is_busy_and_changes_nothing(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    other = sqlite3.connect(book.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy):
        book.run(hold(account_id, key_id, 5, "r1"))
    other.execute("COMMIT")
    other.close()
    assert book.run(hold(account_id, key_id, 5, "r1")) == [Held()]


def test_a_broken_operation_undoes_its_whole_batch(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, 5, "r1"))
    with pytest.raises(StoreBroken):
        book.run(TopUp("acme", 7, T0), hold(account_id, key_id, 5, "r1"))
    assert book.balance(account_id) == (NANO, 5)
    assert isinstance(book.run(TopUp("acme", 7, T0))[0], ToppedUp)  # the hash chain goes on where it was


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of one MiB, where we may have one."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", path], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", path], check=True)


def test_d7_a_full_disk_is_busy_and_changes_nothing(small_disk: Path) -> None:
    with opened(small_disk / "nexus.db") as book:
        account_id, key_id = book.customer("acme", NANO)
        book.run(hold(account_id, key_id, 10_000_000, "r1"))
        ballast = small_disk / "ballast"
        with ballast.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))
        with pytest.raises(StoreBusy):
            book.run(*(hold(account_id, key_id, 5, f"full-{i}") for i in range(500)))
        assert book.balance(account_id) == (NANO, 10_000_000)
        ballast.unlink()
        assert book.run(settle("r1", USAGE)) == [Settled(account_id, CHARGE, 0)]
        assert verify(book.path) == []


def test_d7_a_full_file_is_busy_and_changes_nothing(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    assert book.store._connection is not None
    (pages,) = book.one("PRAGMA page_count")
    book.store._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StoreBusy):
        book.run(*(hold(account_id, key_id, 5, f"full-{i}") for i in range(500)))
    book.store._connection.execute("PRAGMA max_page_count = 1000000")
    assert book.run(hold(account_id, key_id, 5, "full-1")) == [Held()]


def unsynced(book: Book) -> tuple[int, int]:
    """Return an account's and a key's id. Nothing is flushed from now on: what is written when stays the same."""
    assert book.store._connection is not None
    book.store._connection.execute("PRAGMA synchronous = OFF")
    return book.customer("acme", NANO)


def frames_in_wal(book: Book) -> int:
    """Return how many pages the WAL has that are not in the file. Moves them there."""
    _, written, _ = book.one("PRAGMA wal_checkpoint(PASSIVE)")
    assert isinstance(written, int)
    return written


@pytest.mark.parametrize(("busy", "pages"), [(False, sqlite.WAL_PAGES_IDLE), (True, sqlite.WAL_PAGES_BUSY)])
def test_the_wal_is_moved_into_the_file_between_batches_and_stays_bounded(book: Book, busy: bool, pages: int) -> None:
    ids = unsynced(book)
    frames_in_wal(book)
    changes, sizes = [], []
    for _ in range(3 * pages // 7):
        book.run(hold(*ids, 5))
        before = book.path.stat().st_mtime_ns
        book.store.tidy(busy=busy)
        changes.append(book.path.stat().st_mtime_ns != before)
        sizes.append(book.path.with_name("nexus.db-wal").stat().st_size)
    assert 2 <= sum(changes) <= 4
    assert max(sizes) < 2 * pages * 4096


def test_no_batch_is_kept_waiting_for_the_wal(book: Book) -> None:
    ids = unsynced(book)
    before = book.path.stat().st_mtime_ns
    for _ in range(2 * sqlite.WAL_PAGES_BUSY // 6):
        book.run(hold(*ids, 5))
    assert book.path.stat().st_mtime_ns == before
    assert frames_in_wal(book) > sqlite.WAL_PAGES_BUSY


def test_a_reader_that_stays_keeps_nobody_waiting_and_the_wal_begins_anew_behind_it(book: Book) -> None:
    ids = unsynced(book)
    reader = sqlite3.connect(book.path, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM holds").fetchone()
    for _ in range(sqlite.WAL_PAGES_IDLE // 3):
        book.run(hold(*ids, 5))
        book.store.tidy(busy=False)
    assert frames_in_wal(book) > sqlite.WAL_PAGES_IDLE
    reader.close()
    for _ in range(sqlite.WAL_PAGES_IDLE // 3):
        book.run(hold(*ids, 5))
        book.store.tidy(busy=False)
    assert frames_in_wal(book) < sqlite.WAL_PAGES_IDLE


def test_what_cannot_be_moved_into_the_file_stays_in_the_wal(book: Book) -> None:
    ids = book.customer("acme", NANO)
    for _ in range(sqlite.WAL_PAGES_IDLE // 6):
        book.run(hold(*ids, 5))
    assert book.store._connection is not None
    book.store._connection.set_authorizer(lambda *_: sqlite3.SQLITE_DENY)
    book.store.tidy(busy=False)
    book.store._connection.set_authorizer(None)
    assert book.run(hold(*ids, 5)) == [Held()]


def test_a_recovery_that_fails_says_what_kind_of_fault_it_was_and_changes_nothing(tmp_path: Path) -> None:
    with opened(tmp_path / "nexus.db") as book:
        account_id, key_id = book.customer("acme", NANO)
        book.run(hold(account_id, key_id, 5, "r1"))
    with opened(tmp_path / "nexus.db") as book:
        connection = book.store._connection
        assert connection is not None
        connection.execute("CREATE TEMP TRIGGER t BEFORE INSERT ON settlements BEGIN SELECT RAISE(ABORT, 'no'); END")
        with pytest.raises(StoreBroken, match="no"):
            book.store.recover(T0)
        assert not connection.in_transaction
        other = sqlite3.connect(book.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreBusy, match="locked"):
            book.store.recover(T0)
        other.close()
        connection.execute("DROP TRIGGER t")
        assert book.balance(account_id) == (NANO, 5)
        assert book.store.recover(T0) == 1


def test_a_settlement_may_say_why_it_charged_nothing(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, 5, "r1"))
    book.run(Settle("r1", EndState.TIMEOUT, UsageSource.NONE, None, 0, 0, 504, T0, flags="unknown_upstream_cost"))
    row = book.one("SELECT end_state, status, flags FROM requests")
    assert row == ("timeout", 504, "unknown_upstream_cost")


def test_a_ledger_with_money_keeps_its_currency(book: Book) -> None:
    assert book.run(DeclareCurrency("CNY")) == [Done()]
    assert book.run(DeclareCurrency("USD")) == [Done()]  # nothing was paid in yet
    book.customer("acme", NANO)
    assert book.run(DeclareCurrency("USD")) == [Done()]
    assert book.run(DeclareCurrency("EUR")) == [Denied("the ledger counts in USD, the configuration says EUR")]


def test_what_the_ledger_makes_is_its_owners_alone(tmp_path: Path) -> None:
    with opened(tmp_path / "nexus.db") as book:
        book.store.spool([void("r1")])
        backup(book.path, tmp_path / "copy.db")
        modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    suffixes = ("", "-wal", "-shm", ".lock", ".spool", ".ballast")
    assert modes == {"copy.db": 0o600} | {f"nexus.db{suffix}": 0o600 for suffix in suffixes}


def test_a_ledger_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    path.touch()
    path.chmod(0o640)
    with opened(path):
        assert [p.stat().st_mode & 0o777 for p in (path, tmp_path / "nexus.db-wal")] == [0o640] * 2


def test_a_ledger_in_no_directory_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="nowhere"):
        SqliteStore(tmp_path / "nowhere" / "nexus.db").open()


def test_open_holds_are_looked_for_behind_the_last_note_only(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path):
        pass
    with sqlite3.connect(path) as connection:
        for query, values in ((_LEFT_OPEN, (1,)), ("SELECT * FROM open_holds", ())):
            plan = [step[3] for step in connection.execute(f"EXPLAIN QUERY PLAN {query}", values)]
            assert any("SEARCH h USING INTEGER PRIMARY KEY (rowid>?)" in step for step in plan), plan
    connection.close()


@pytest.mark.parametrize("name", ["nexus.db", "nexus.db-wal", "nexus.db.lock"])
def test_d13_the_files_are_looked_at_now_and_then_and_each_time_while_one_is_gone(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(sqlite, "LOOK_EVERY_S", 3600.0)
    ids = book.customer("acme", NANO)
    book.store._look_at = 0.0
    assert book.run(hold(*ids, 1)) == [Held()]
    (tmp_path / name).rename(tmp_path / "elsewhere")
    assert book.run(hold(*ids, 1)) == [Held()]  # it has just looked
    book.store._look_at = 0.0
    for _ in range(2):
        with pytest.raises(StoreBusy, match="no longer the one that was opened"):
            book.run(hold(*ids, 1))
    with pytest.raises(StoreBusy):
        book.store.recover(T0)
    (tmp_path / "elsewhere").rename(tmp_path / name)
    assert book.run(hold(*ids, 1)) == [Held()]
    assert book.balance(ids[0]) == (NANO, 3)
