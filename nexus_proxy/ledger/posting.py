"""One transaction's worth of money moving: holds, progress, settlements, entries.

Strategy: an account's row is read once, inside the transaction, so nobody can change it before the COMMIT; holds and
settlements are decided against it exactly and in their order. What they come to is gathered here and written by few
statements, each of them for all rows: a statement costs more than a row. The database has the last word all the same:
its CHECK refuses a balance that does not carry its holds, and a row that is not open does not close. Nothing outlives
the transaction but `tail` and what was opened and closed, which the caller takes over after its COMMIT.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import chain as joined
from typing import Any, Final, NamedTuple

from nexus_proxy.core.money import AMOUNT_NANO_MAX
from nexus_proxy.core.settlement import UsageSource
from nexus_proxy.core.usage import Usage
from nexus_proxy.ledger.entries import Entry, chain
from nexus_proxy.ledger.protocol import (
    AlreadySettled,
    Done,
    Held,
    Hold,
    Progress,
    Settle,
    Settled,
    Short,
    StoreBroken,
    Suspended,
)
from nexus_proxy.ledger.schema import FUNDING, INTERNAL, OVERRUN, REVENUE

DAY_MS: Final = 86_400_000
CHARGE_NANO_MAX: Final = 2**56  # of one request; a hundred of them still add up within an int64
TOKENS_MAX: Final = 2**48
CAPPED: Final = "capped"  # the flag of a row whose figures were too large to store


def _by_count(sql: str, *, columns: int) -> dict[int, str]:
    """Return the statement for each of the counts of rows that it is prepared for, the largest first."""
    row = f"({', '.join('?' * columns)})"
    return {count: sql.replace("ROWS", ", ".join([row] * count)) for count in (64, 32, 16, 8, 4, 2, 1)}


_ACCOUNT = "SELECT balance_nano, held_nano, overdraft_nano, suspended FROM accounts WHERE account_id = ?"
_MOVE = """
UPDATE accounts SET balance_nano = balance_nano - ?1, held_nano = held_nano + ?2, spent_nano = spent_nano + ?1,
    last_entry_ms = iif(?3 IS NULL, last_entry_ms, max(coalesce(last_entry_ms, 0), ?3))
WHERE account_id = ?4
"""
_FIND = """
SELECT seq, account_id, key_id, model, provider, price_id, hold_nano
FROM requests WHERE request_id = ? AND state = 'open'
"""
_OPEN = _by_count(
    """
INSERT INTO requests (seq, request_id, run_id, account_id, key_id, model, provider, upstream_model, streamed, price_id,
    hold_nano, input_bound, output_bound, opened_ms)
VALUES ROWS
""",
    columns=14,
)
_PROGRESS = """
UPDATE requests SET prompt_tokens = ?, cached_tokens = ?, cache_write_tokens = ?, completion_tokens = ?,
    reasoning_tokens = ?
WHERE seq = ? AND state = 'open'
"""
_SETTLED = """
UPDATE requests SET state = column2, prompt_tokens = column3, cached_tokens = column4, cache_write_tokens = column5,
    completion_tokens = column6, reasoning_tokens = column7, closed_ms = column8, status = column9,
    end_state = column10, usage_source = column11, charge_nano = column12, overrun_nano = column13,
    cost_nano = column14, first_byte_ms = column15, duration_ms = column16, flags = column17, estimator = column18
"""
_CLOSE = {  # the plus keeps SQLite from going through the index of all open rows; one row is cheaper without a FROM
    **_by_count(f"{_SETTLED} FROM (VALUES ROWS) WHERE seq = column1 AND +state = 'open'", columns=18),
    1: f"{_SETTLED.replace('column', '?')} WHERE seq = ?1 AND state = 'open'",
}
_ENTRY = _by_count("INSERT INTO entries VALUES ROWS", columns=11)
_INTERNAL = """
UPDATE accounts SET balance_nano = balance_nano + ?, last_entry_ms = max(coalesce(last_entry_ms, 0), ?)
WHERE account_id = ?
"""
_DAILY = """
INSERT INTO daily VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens, cached_tokens = cached_tokens + excluded.cached_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
    charge_nano = charge_nano + excluded.charge_nano, cost_nano = cost_nano + excluded.cost_nano
"""

Day = tuple[int, int, int, str, str, str]  # the primary key of `daily`


class Tail(NamedTuple):
    """Where the next rows go on."""

    entry_id: int  # the last entry's
    digest: str
    seq: int  # the last request's


class OpenHold(NamedTuple):
    """What a settlement needs of the row that it closes."""

    seq: int
    account_id: int
    key_id: int
    model: str
    provider: str
    price_id: str
    hold_nano: int


@dataclass(slots=True)
class _Purse:
    """An account as this transaction has it so far, and what of that is not written yet."""

    balance_nano: int
    held_nano: int
    overdraft_nano: int
    suspended: int
    paid_nano: int = 0
    more_held_nano: int = 0
    entry_ms: int | None = None

    @property
    def available_nano(self) -> int:
        return self.balance_nano + self.overdraft_nano - self.held_nano


@dataclass(slots=True)
class _Unwritten:
    """Rows that wait for their statement."""

    opened: list[tuple[Any, ...]] = field(default_factory=list)
    closed: list[tuple[Any, ...]] = field(default_factory=list)
    progress: list[tuple[Any, ...]] = field(default_factory=list)
    entries: list[tuple[Any, ...]] = field(default_factory=list)


class Posting:
    """The operations of one open transaction.

    `known` has holds that are open, not necessarily all; `currencies` the cost currency of every price version.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        run_id: int,
        tail: Tail,
        known: Mapping[str, OpenHold],
        currencies: Mapping[str, str],
    ) -> None:
        self.opened: dict[str, OpenHold] = {}
        self.closed: set[str] = set()
        self._connection = connection
        self._run_id = run_id
        self._entry_id, self._digest, self._seq = tail
        self._known = known
        self._currencies = currencies
        self._purses: dict[int, _Purse] = {}
        self._unwritten = _Unwritten()
        self._internal: defaultdict[int, int] = defaultdict(int)
        self._internal_ms = 0
        self._daily: dict[Day, list[int]] = {}

    @property
    def tail(self) -> Tail:
        return Tail(self._entry_id, self._digest, self._seq)

    def hold(self, op: Hold) -> Held | Short | Suspended:
        """Set the money aside and open the row, or tell why not."""
        hold_nano = op.hold_nano
        assert hold_nano >= 0
        purse = self._purse(op.account_id)
        if purse.suspended:
            return Suspended()
        if hold_nano > AMOUNT_NANO_MAX or hold_nano > purse.available_nano:
            return Short(hold_nano, purse.balance_nano + purse.overdraft_nano, purse.available_nano)
        purse.held_nano += hold_nano
        purse.more_held_nano += hold_nano
        self._seq += 1
        self.opened[op.request_id] = OpenHold(
            self._seq, op.account_id, op.key_id, op.model, op.provider, op.price_id, hold_nano
        )
        self._unwritten.opened.append(
            (
                self._seq,
                op.request_id,
                self._run_id,
                op.account_id,
                op.key_id,
                op.model,
                op.provider,
                op.upstream_model,
                int(op.streamed),
                op.price_id,
                hold_nano,
                op.input_bound,
                op.output_bound,
                op.opened_ms,
            )
        )
        return Held()

    def progress(self, op: Progress) -> Done:
        """Journal the counts, if the request is still open."""
        found = self._find(op.request_id)
        if found is not None:
            self._unwritten.progress.append((*_counts(op.usage), found.seq))
        return Done()

    def settle(self, op: Settle) -> Settled | AlreadySettled:
        """Close the row, once; move the money; release the hold."""
        assert op.charge_nano >= 0
        found = self._find(op.request_id)
        if found is None:
            return AlreadySettled()
        seq, account_id, key_id, model, provider, price_id, hold_nano = found
        purse = self._purse(account_id)
        counts = _counts(op.usage)
        charge_nano, cost_nano = min(op.charge_nano, CHARGE_NANO_MAX), min(op.cost_nano, CHARGE_NANO_MAX)
        flags = op.flags
        if charge_nano < op.charge_nano or cost_nano < op.cost_nano or TOKENS_MAX in counts:
            flags = f"{flags} {CAPPED}".lstrip()
        paid_nano = charge_nano
        if charge_nano > hold_nano:  # the rest is taken from what the account has available, and not from more
            paid_nano = min(charge_nano, hold_nano + max(0, purse.available_nano))
        overrun_nano = charge_nano - paid_nano
        self.closed.add(op.request_id)
        self._unwritten.closed.append(
            (
                seq,
                "voided" if op.usage_source is UsageSource.NONE else "posted",
                *counts,
                op.closed_ms,
                op.status or None,
                op.end_state.value,  # sqlite3 is slow with subclasses of str
                op.usage_source.value,
                paid_nano,
                overrun_nano,
                cost_nano,
                op.first_byte_ms,
                op.duration_ms,
                flags,
                op.estimator,
            )
        )
        purse.balance_nano -= paid_nano
        purse.paid_nano += paid_nano
        purse.held_nano -= hold_nano
        purse.more_held_nano -= hold_nano
        if paid_nano:
            purse.entry_ms = max(purse.entry_ms or 0, op.closed_ms)
            self.enter(op.closed_ms, "charge", account_id, REVENUE, paid_nano, request_id=op.request_id)
        if overrun_nano:
            self.enter(op.closed_ms, "overrun", OVERRUN, REVENUE, overrun_nano, request_id=op.request_id)
        day = (op.closed_ms // DAY_MS, account_id, key_id, model, provider, self._currencies[price_id])
        prompt, cached, _, completion, reasoning = counts
        figures = (1, prompt or 0, cached or 0, completion or 0, reasoning or 0, paid_nano, cost_nano)
        known = self._daily.get(day)
        self._daily[day] = list(figures) if known is None else [a + b for a, b in zip(known, figures, strict=True)]
        return Settled(account_id, paid_nano, overrun_nano)

    def enter(
        self,
        at_ms: int,
        kind: str,
        payer_id: int,
        payee_id: int,
        amount_nano: int,
        *,
        request_id: str | None = None,
        external_id: str | None = None,
        note: str = "",
    ) -> int:
        """Append an entry and return its id. An operator's account is moved here, any other by the caller."""
        entry_id = self._entry_id = self._entry_id + 1
        entry = Entry(entry_id, at_ms, kind, payer_id, payee_id, amount_nano, request_id, external_id, None, note)
        self._digest = chain(self._digest, entry)
        self._unwritten.entries.append((*entry, self._digest))
        if payer_id in INTERNAL:
            self._internal[payer_id] -= amount_nano
        if payee_id in INTERNAL:
            self._internal[payee_id] += amount_nano
        self._internal_ms = max(self._internal_ms, at_ms)
        return entry_id

    @property
    def funded_nano(self) -> int:
        """What this transaction has taken from `funding` so far."""
        return -self._internal.get(FUNDING, 0)

    def flush(self) -> None:
        """Write the rows, and forget what was read: whoever follows sees, and may change, the tables themselves.

        StoreBroken if a row that should be open is not.
        """
        rows, self._unwritten = self._unwritten, _Unwritten()
        purses, self._purses = self._purses, {}
        self._write(_OPEN, rows.opened)
        if self._write(_CLOSE, rows.closed) != len(rows.closed):
            raise StoreBroken("a hold of this process was closed by somebody else")
        if rows.progress:  # after the settlements, which have the last word
            self._connection.executemany(_PROGRESS, rows.progress)
        for account_id, purse in purses.items():
            if purse.paid_nano or purse.more_held_nano:
                moved = (purse.paid_nano, purse.more_held_nano, purse.entry_ms, account_id)
                self._connection.execute(_MOVE, moved)
        self._write(_ENTRY, rows.entries)

    def finish(self) -> None:
        """Write everything. Nothing may follow but COMMIT."""
        self.flush()
        for account_id, change_nano in self._internal.items():
            self._connection.execute(_INTERNAL, (change_nano, self._internal_ms, account_id))
        for day, figures in self._daily.items():
            self._connection.execute(_DAILY, (*day, *figures))

    def _write(self, statements: Mapping[int, str], rows: list[tuple[Any, ...]]) -> int:
        """Write the rows by as few statements as can be; return how many rows were written."""
        written = begin = 0
        for count, statement in statements.items():
            while len(rows) - begin >= count:
                values = [*joined.from_iterable(rows[begin : begin + count])]
                written += self._connection.execute(statement, values).rowcount
                begin += count
        return written

    def _purse(self, account_id: int) -> _Purse:
        purse = self._purses.get(account_id)
        if purse is None:
            row = self._connection.execute(_ACCOUNT, (account_id,)).fetchone()
            purse = self._purses[account_id] = _Purse(*row)
        return purse

    def _find(self, request_id: str) -> OpenHold | None:
        """Return the hold if it is open as this transaction has it so far."""
        if request_id in self.closed:
            return None
        found = self.opened.get(request_id) or self._known.get(request_id)
        if found is None:
            row = self._connection.execute(_FIND, (request_id,)).fetchone()
            found = None if row is None else OpenHold(*row)
        return found


def _counts(usage: Usage | None) -> tuple[int | None, ...]:
    """Return prompt, cached, cache_write, completion, reasoning, none of them above TOKENS_MAX."""
    if usage is None:
        return (None, None, None, None, None)
    counts = (usage.prompt, usage.cached, usage.cache_write, usage.completion, usage.reasoning)
    return counts if max(counts) < TOKENS_MAX else tuple(min(count, TOKENS_MAX) for count in counts)
