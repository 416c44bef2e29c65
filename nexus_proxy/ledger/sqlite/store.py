"""The ledger in one SQLite file.

Strategy: one read-write connection in one process, behind an exclusive lock file; one transaction a batch, in WAL mode
with `synchronous=FULL`, so that what `apply` has returned survives a power loss. What the WAL has is moved into the
file between two batches, when nobody waits if that can be: it takes some times as long as a commit. As nobody else
writes, accounts are kept between batches; that this is so, and that the files are still there, is looked at now and
then. Errors of SQLite are mapped here and only here: the ones that pass (locked, disk full) from the ones after which
nothing can be relied on.
"""

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import chain
from pathlib import Path
from typing import Final, assert_never

from nexus_proxy.core.money.chain import GENESIS
from nexus_proxy.core.money.prices import Price, amount_nano
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.files import Place, create_private, place_of
from nexus_proxy.ledger.protocol import (
    AdminOperation,
    CreateAccount,
    CreateKey,
    DeclareCurrency,
    DeclarePlans,
    DeclarePrices,
    Hold,
    Operation,
    Outcome,
    Progress,
    RevokeKey,
    SetAccount,
    Settle,
    StoreBroken,
    StoreBusy,
    TopUp,
)
from nexus_proxy.ledger.spool import Spool
from nexus_proxy.ledger.sqlite import prices
from nexus_proxy.ledger.sqlite.administration import Administration
from nexus_proxy.ledger.sqlite.lock import WriterLock
from nexus_proxy.ledger.sqlite.migrations import migrate
from nexus_proxy.ledger.sqlite.posting import AccountState, OpenHold, Posting, Tail
from nexus_proxy.runtime.clock import now_ms

VERSION_MIN: Final = (3, 37, 0)  # the first with STRICT tables
OPEN_TIMEOUT_S: Final = 5.0
BUSY_TIMEOUT_MS: Final = 10  # short: the writer waits by itself, and drops meanwhile whoever gave up

# SQLITE_IOERR_SHMSIZE is what a full disk says when the WAL's index has to grow.
_PASSING: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_SHMSIZE}
SEQ_MAX: Final = 2**63 - 1
NOTE_EVERY: Final = 4096  # requests, between two notes of up to where all of them are closed
LOOK_EVERY_S: Final = 0.02  # from one look at the files to the next, while all goes well
ACCOUNTS_KEPT_MAX: Final = 65536  # accounts that are kept; with more, all are forgotten, and read again as they come
WAL_PAGES_IDLE: Final = 512  # written about, after which an idle store moves them into the file: 2 MiB, in 1 ms
WAL_PAGES_BUSY: Final = 4096  # and a busy one: more of them are then written once for many
WAL_PAGES_MAX: Final = 16384  # in the WAL, after which SQLite does it by itself in a COMMIT: if nobody calls `tidy`
_SMALL_TABLES: Final = ("runs", "plans", "accounts", "keys", "price_versions")

_LEFT_OPEN: Final = """
SELECT request_id, price_id, hold_nano, prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens,
    reasoning_tokens
FROM requests WHERE state = 'open' AND run_id <> ? AND seq > (SELECT max(settled_seq) FROM runs)
"""


class SqliteStore:
    """A `Store` on a file. Called from one thread only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._names = str(path), f"{path}-wal"  # what was committed last stands in the second alone
        self._lock = WriterLock(path)
        self._spool = Spool(path)
        self._opened: tuple[Place, Place] | None = None  # the files that are open
        self._connection: sqlite3.Connection | None = None
        self._cursor: sqlite3.Cursor | None = None  # to have one for all statements is cheaper than one for each
        self._run_id = 0
        self._tail = Tail(0, GENESIS, 0)
        self._wal_pages = 0  # about as many were written since the last checkpoint
        self._note_due_seq = SEQ_MAX  # not before what earlier runs left open was ended
        self._open_holds: dict[str, OpenHold] = {}  # those of this run
        self._currencies: dict[str, str] = {}  # of price versions
        self._accounts: dict[int, AccountState] = {}  # accounts as the file has them: nobody else changes it
        self._look_at = 0.0  # the monotonic time: not before that again
        self._data_version = 0  # SQLite's, which changes when somebody else has written all the same

    def open(self) -> None:
        """Open or create, migrate, take the run id. LedgerError if that cannot be."""
        if sqlite3.sqlite_version_info < VERSION_MIN:
            raise LedgerError(f"SQLite {sqlite3.sqlite_version} has no STRICT tables: 3.37 or newer is needed")
        self._lock.take()
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            self.close()
            raise LedgerError(f"the ledger {self.path} cannot be opened: {error}") from error
        except LedgerError:
            self.close()
            raise

    def _open(self) -> None:
        create_private(self.path)  # SQLite gives the WAL and its index the mode of the file
        # Transactions are ours to begin and end, hence isolation_level=None.
        connection = sqlite3.connect(
            self.path, timeout=OPEN_TIMEOUT_S, isolation_level=None, cached_statements=256, check_same_thread=False
        )
        self._connection = connection
        mode = connection.execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise LedgerError(f"the ledger {self.path} cannot be put into WAL mode (it stays in {mode!r})")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA cache_size = -65536")  # KiB
        connection.execute("PRAGMA temp_store = MEMORY")  # what a large statement keeps to be undone by
        connection.execute(f"PRAGMA wal_autocheckpoint = {WAL_PAGES_MAX}")
        connection.execute(f"PRAGMA journal_size_limit = {64 << 20}")
        migrate(connection)
        for table in _SMALL_TABLES:
            found = connection.execute(f"PRAGMA quick_check('{table}')").fetchone()[0]
            if found != "ok":
                raise LedgerError(f"the ledger {self.path} is damaged, in {table}: {found}; restore a backup")
        at_ms = now_ms()
        cursor = connection.execute(
            "INSERT INTO runs (pid, started_ms, alive_ms) VALUES (?, ?, ?)", (os.getpid(), at_ms, at_ms)
        )
        assert cursor.lastrowid is not None
        self._run_id = cursor.lastrowid
        last = connection.execute("SELECT entry_id, hash FROM entries ORDER BY entry_id DESC LIMIT 1").fetchone()
        entry_id, digest = last or (0, GENESIS)
        (seq,) = connection.execute("SELECT coalesce(max(seq), 0) FROM holds").fetchone()
        self._tail = Tail(entry_id, digest, seq)
        self._load_currencies()
        connection.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
        self._opened = self._places()
        self._cursor = connection.cursor()
        self._spool.reserve()

    def _places(self) -> tuple[Place, Place]:
        file, wal = self._names
        return place_of(file), place_of(wal)

    def recover(self, now_ms: int) -> int:
        """End every hold that an earlier run left open: post its progress, void the rest. Return how many."""
        cursor = self._cursor
        assert cursor is not None, "the store is not open"
        posting = self._posting(cursor)
        try:
            self._look(cursor)
            cursor.execute("BEGIN IMMEDIATE")
            foreign = [s for s in self._spool.read() if not self._knows(s.request_id)]
            for settlement in self._spool.read():
                posting.settle(settlement)
            posting.flush()
            left = cursor.execute(_LEFT_OPEN, (self._run_id,)).fetchall()
            known: dict[str, Price] = {}
            for request_id, price_id, hold_nano, *counts in left:
                price = known.get(price_id) or known.setdefault(price_id, self._price(price_id))
                usage = None if counts[0] is None else Usage(*counts)
                posting.settle(_crashed(request_id, usage, price, hold_nano, now_ms))
            self._commit(cursor, posting)
        except BaseException as error:
            self._undo(cursor.connection, error)
            raise
        # Not before the commit: to read it twice changes nothing, to lose it would. What another ledger of this name is
        # owed, one that was moved away, waits for its return.
        self._spool.keep(foreign)
        self._note_due_seq = 0
        return len(left)

    def _knows(self, request_id: str) -> bool:
        assert self._connection is not None
        return bool(self._connection.execute("SELECT 1 FROM holds WHERE request_id = ?", (request_id,)).fetchone())

    def spool(self, settlements: Sequence[Settle]) -> None:
        """Write settlements beside the ledger, durably, for the next `recover`."""
        self._spool.append(settlements)

    def apply(self, batch: Sequence[Operation]) -> list[Outcome]:
        """Apply in order, in one durable transaction. An empty batch proves that the store can commit."""
        cursor = self._cursor
        assert cursor is not None, "the store is not open"
        knew = bool(self._accounts)
        try:
            self._look(cursor)
            try:
                return self._write(cursor, batch)
            except sqlite3.IntegrityError:
                if not knew:
                    raise
            # Perhaps somebody else has written meanwhile: another server, or a hand that changed an account. Then the
            # table decides, and accounts are read again, once.
            self._roll_back(cursor.connection)
            self._look(cursor)
            return self._write(cursor, batch)
        except BaseException as error:
            self._undo(cursor.connection, error)
            raise

    def _write(self, cursor: sqlite3.Cursor, batch: Sequence[Operation]) -> list[Outcome]:
        posting = self._posting(cursor)
        cursor.execute("BEGIN IMMEDIATE")
        if not batch:
            cursor.execute("UPDATE runs SET alive_ms = ? WHERE run_id = ?", (now_ms(), self._run_id))
        posting.expect(batch)
        outcomes: list[Outcome] = []
        for op in batch:
            if isinstance(op, Hold):
                outcomes.append(posting.hold(op))
            elif isinstance(op, Settle):
                outcomes.append(posting.settle(op))
            elif isinstance(op, Progress):
                outcomes.append(posting.progress(op))
            else:
                posting.flush()
                self._accounts.clear()
                outcomes.append(self._administer(op, Administration(cursor.connection, posting)))
        self._commit(cursor, posting)
        self._wal_pages += 8 + len(batch) // 2  # one or two of each table and index; as measured
        return outcomes

    def tidy(self, *, busy: bool) -> None:
        """Move what the WAL has into the file, if it has enough of it."""
        if self._connection is None or self._wal_pages < (WAL_PAGES_BUSY if busy else WAL_PAGES_IDLE):
            return
        self._wal_pages = 0
        # PASSIVE waits for nobody: what a reader keeps it from is moved by a later one. Nor is anything lost where it
        # fails: what is in the WAL is durable.
        with suppress(sqlite3.Error):
            self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()

    def close(self) -> None:
        """Release everything. Closing twice is no error."""
        self._spool.free()
        if self._connection is not None:
            self._connection.close()
            self._connection = self._cursor = None
        self._lock.release()

    def _administer(self, op: AdminOperation, administration: Administration) -> Outcome:
        match op:
            case TopUp():
                return administration.top_up(op)
            case CreateAccount():
                return administration.create_account(op)
            case SetAccount():
                return administration.set_account(op)
            case CreateKey():
                return administration.create_key(op)
            case RevokeKey():
                return administration.revoke_key(op)
            case DeclareCurrency():
                return administration.declare_currency(op)
            case DeclarePlans():
                return administration.declare_plans(op)
            case DeclarePrices():
                outcome = administration.declare_prices(op)
                self._load_currencies()
                return outcome
            case _:
                assert_never(op)

    def _look(self, cursor: sqlite3.Cursor) -> None:
        """Look, now and then, whether others have touched the files. StoreBusy if one was moved, removed or replaced.

        SQLite would go on writing into a file that was moved or removed, and a second server could take its place.
        Nobody should edit the tables by hand under a running server; whoever does is noticed, and accounts read again.
        """
        now = time.monotonic()
        if now < self._look_at:
            return
        if self._places() != self._opened or not self._lock.is_held():
            raise StoreBusy(
                f"{self.path} or its lock file is no longer the one that was opened: put it back, or restart"
            )
        ((data_version,),) = cursor.execute("PRAGMA data_version").fetchall()
        if data_version != self._data_version:
            self._data_version = data_version
            self._accounts.clear()
        self._look_at = now + LOOK_EVERY_S

    def _posting(self, cursor: sqlite3.Cursor) -> Posting:
        if len(self._accounts) > ACCOUNTS_KEPT_MAX:
            self._accounts.clear()
        return Posting(cursor, self._run_id, self._tail, self._open_holds, self._accounts, self._currencies)

    def _commit(self, cursor: sqlite3.Cursor, posting: Posting) -> None:
        posting.flush()
        tail = posting.tail
        if tail.seq >= self._note_due_seq:
            self._note_settled(cursor, posting, tail.seq)
        cursor.execute("COMMIT")
        self._tail = tail
        self._open_holds.update(posting.opened)
        for request_id in posting.closed:
            self._open_holds.pop(request_id, None)

    def _undo(self, connection: sqlite3.Connection, error: BaseException) -> None:
        """Roll back. StoreBusy or StoreBroken if it is an error of SQLite, and then nothing happened; else returns."""
        self._roll_back(connection)
        if isinstance(error, sqlite3.Error):
            code = getattr(error, "sqlite_errorcode", 0)
            passing = code in _PASSING or (code & 0xFF) in _PASSING
            raise (StoreBusy if passing else StoreBroken)(f"{error} (SQLite code {code})") from error

    def _note_settled(self, cursor: sqlite3.Cursor, posting: Posting, seq: int) -> None:
        """Note, now and then, up to which row all are closed: who looks for open ones need not go further back."""
        known = chain(self._open_holds.items(), posting.opened.items())  # in the order of their rows
        first_open = next((seq for request_id, (seq, _) in known if request_id not in posting.closed), seq + 1)
        cursor.execute("UPDATE runs SET settled_seq = ? WHERE run_id = ?", (first_open - 1, self._run_id))
        self._note_due_seq = seq + NOTE_EVERY

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        self._accounts.clear()
        self._look_at = 0.0  # whatever went wrong, the files may tell
        try:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
        except sqlite3.Error as error:
            raise StoreBroken(f"a transaction could not be rolled back: {error}") from error

    def _load_currencies(self) -> None:
        assert self._connection is not None
        self._currencies.update(self._connection.execute("SELECT price_id, cost_currency FROM price_versions"))

    def _price(self, price_id: str) -> Price:
        assert self._connection is not None
        row = self._connection.execute(f"{prices.SELECT} WHERE price_id = ?", (price_id,)).fetchone()
        return prices.from_row(row).price


def _crashed(request_id: str, usage: Usage | None, price: Price, hold_nano: int, now_ms: int) -> Settle:
    """Return how a hold ends whose process died: with its last progress, never above the hold, or with nothing."""
    if usage is None:
        return Settle(request_id, EndState.CRASHED, UsageSource.NONE, None, 0, 0, status=0, closed_ms=now_ms)
    return Settle(
        request_id,
        EndState.CRASHED,
        UsageSource.RECOVERED,
        usage,
        min(amount_nano(price.tiers, usage), hold_nano),
        amount_nano(price.cost_tiers, usage),
        status=0,
        closed_ms=now_ms,
    )
