"""One transaction's worth of money moving: holds, progress, settlements, entries.

Strategy: an account's row is read once and then known, from one transaction to the next: nobody else writes. Holds and
settlements are decided against it exactly and in their order. What they come to is gathered here and written by few
statements, each of them for all rows. The database has the last word all the same: its CHECK refuses a balance that
does not carry its holds, its key a second settlement of one hold. Three things outlive the transaction. After its
COMMIT the caller takes over `tail`, and what was opened and closed. The accounts are lent by the caller and change at
once; if the transaction is undone, the caller forgets them.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

from nexus_proxy.core.money.amounts import AMOUNT_NANO_MAX
from nexus_proxy.core.money.chain import chain
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.protocol import (
    AlreadySettled,
    Done,
    Held,
    Hold,
    Operation,
    Progress,
    Settle,
    Settled,
    Short,
    Suspended,
)
from nexus_proxy.ledger.sqlite.schema import FUNDING, INTERNAL, OVERRUN, REVENUE
from nexus_proxy.ledger.sqlite.statements import Selection, Statement

DAY_MS: Final = 86_400_000
CHARGE_NANO_MAX: Final = 2**56  # of one request; a hundred of them still add up within an int64
TOKENS_MAX: Final = 2**48
CAPPED: Final = "capped"  # the flag of a row whose figures were too large to store

_COMPLETE: Final = EndState.COMPLETE
_REPORTED, _NONE = UsageSource.REPORTED, UsageSource.NONE
_HELD, _ALREADY_SETTLED, _DONE = Held(), AlreadySettled(), Done()  # they say nothing, so one of each is enough

_ACCOUNTS: Final = Selection(
    "SELECT account_id, balance_nano, held_nano, overdraft_nano, suspended FROM accounts WHERE account_id IN (IDS)"
)
# OR ROLLBACK, here and below, spares SQLite a copy of every page that the statement touches, to undo it alone: whatever
# is refused undoes the batch anyway.
# Of accounts that exist, so no row is inserted: this UPDATE of many is much cheaper than one FROM a list. What is to be
# added rides in columns that no CHECK looks at: `spent_nano` less balance, `created_ms` more held. An account that was
# removed by hand meanwhile does not come back: the name is taken.
_MOVE: Final = Statement(
    """
INSERT OR ROLLBACK INTO accounts (name, spent_nano, created_ms, last_entry_ms, account_id) VALUES ROWS
ON CONFLICT (account_id) DO UPDATE SET balance_nano = balance_nano - excluded.spent_nano,
    held_nano = held_nano + excluded.created_ms, spent_nano = spent_nano + iif(internal, 0, excluded.spent_nano),
    last_entry_ms = nullif(max(coalesce(last_entry_ms, 0), excluded.last_entry_ms), 0)
""",
    f"('{INTERNAL[FUNDING]}', ?, ?, ?, ?)",
)
# The columns that are a Hold, in the order of its arguments.
_HOLD: Final = (
    "request_id, account_id, key_id, model, provider, upstream_model, streamed, price_id, hold_nano, input_bound, "
    "output_bound, opened_ms"
)
_STREAMED: Final = _HOLD.split(", ").index("streamed")
_FIND: Final = """
SELECT seq, HOLD FROM holds h
WHERE request_id = ? AND NOT EXISTS (SELECT 1 FROM settlements s WHERE s.seq = h.seq)
""".replace("HOLD", _HOLD)
_OPEN: Final = Statement(
    "INSERT INTO holds (seq, run_id, HOLD) VALUES ROWS".replace("HOLD", _HOLD),
    f"({', '.join('?' * 14)})",
)
_PROGRESS: Final = """
UPDATE holds SET prompt_tokens = ?, cached_tokens = ?, cache_write_tokens = ?, completion_tokens = ?,
    reasoning_tokens = ?
WHERE seq = ?6 AND NOT EXISTS (SELECT 1 FROM settlements WHERE seq = ?6)
"""
_CLOSING: Final = """
INSERT INTO settlements (seq, prompt_tokens, cached_tokens, cache_write_tokens, completion_tokens, reasoning_tokens,
    closed_ms, status, charge_nano, cost_nano, first_byte_ms, duration_ms, overrun_nano, state, end_state, usage_source,
    flags, estimator) VALUES ROWS
"""
_CLOSE: Final = Statement(_CLOSING, f"({', '.join('?' * 18)})")
# What nearly all are: answered in full, with the provider's own count, and nothing else to say about them.
_CLOSE_COMPLETE: Final = Statement(
    _CLOSING,
    f"({', '.join('?' * 12)}, 0, 'posted', '{EndState.COMPLETE.value}', '{UsageSource.REPORTED.value}', '', NULL)",
)
_ENTRY: Final = Statement("INSERT INTO entries VALUES ROWS", f"({', '.join('?' * 11)})")
_CHARGE: Final = Statement(
    "INSERT INTO entries VALUES ROWS", f"(?, ?, 'charge', ?, {REVENUE}, ?, ?, NULL, NULL, '', ?)"
)
_DAILY: Final = Statement(
    """
INSERT OR ROLLBACK INTO daily VALUES ROWS
ON CONFLICT DO UPDATE SET requests = requests + excluded.requests,
    prompt_tokens = prompt_tokens + excluded.prompt_tokens, cached_tokens = cached_tokens + excluded.cached_tokens,
    completion_tokens = completion_tokens + excluded.completion_tokens,
    reasoning_tokens = reasoning_tokens + excluded.reasoning_tokens,
    charge_nano = charge_nano + excluded.charge_nano, cost_nano = cost_nano + excluded.cost_nano
""",
    f"({', '.join('?' * 13)})",
)

Day = tuple[int, int, int, str, str, str]  # the primary key of `daily`
Counts = tuple[int | None, int | None, int | None, int | None, int | None]
OpenHold = tuple[int, Hold]  # with the seq of its row


class Tail:
    """Where the next rows go on."""

    def __init__(self, entry_id: int, digest: str, seq: int) -> None:
        self.entry_id: Final = entry_id  # the last entry's
        self.digest: Final = digest
        self.seq: Final = seq  # the last request's


class AccountState:
    """An account as this transaction has it so far, and as its row has it (`read_`: there, or written there since)."""

    __slots__ = (
        "balance_nano", "entry_ms", "held_nano", "overdraft_nano", "read_balance_nano", "read_held_nano", "suspended"
    )  # fmt: skip

    def __init__(self, balance_nano: int, held_nano: int, overdraft_nano: int, suspended: int) -> None:
        self.balance_nano = self.read_balance_nano = balance_nano
        self.held_nano = self.read_held_nano = held_nano
        self.overdraft_nano = overdraft_nano
        self.suspended = suspended
        self.entry_ms = 0  # of the last charge since it was read


class Posting:
    """The operations of one open transaction.

    `known` has holds that are open and `accounts` accounts as the tables have them, neither of them necessarily all; of
    the two it is `accounts` that is changed here. `currencies` has the cost currency of every price version.
    """

    def __init__(
        self,
        cursor: sqlite3.Cursor,
        run_id: int,
        tail: Tail,
        known: Mapping[str, OpenHold],
        accounts: dict[int, AccountState],
        currencies: Mapping[str, str],
    ) -> None:
        self.opened: dict[str, OpenHold] = {}
        self.closed: set[str] = set()
        self._cursor = cursor
        self._run_id = run_id
        self._entry_id, self._digest, self._seq = tail.entry_id, tail.digest, tail.seq
        self._known = known
        self._currencies = currencies
        self._accounts = accounts
        self._moved: dict[int, AccountState] = {}  # those that may differ from the table until the next `flush`
        self._opened: list[Any] = []  # this and the next: values that wait for their statement, row after row
        self._closed: list[Any] = []
        self._complete: list[Any] = []
        self._charges: list[Any] = []
        self._entries: list[Any] = []  # of other kinds
        self._progress: list[tuple[Any, ...]] = []
        self._internal: defaultdict[int, int] = defaultdict(int)
        self._internal_ms = 0
        self._daily: dict[Day, list[int]] = {}

    @property
    def tail(self) -> Tail:
        return Tail(self._entry_id, self._digest, self._seq)

    def expect(self, batch: Sequence[Operation]) -> None:
        """Read the accounts that a batch will ask for and that are not known, at once."""
        asked = set()
        for op in batch:
            if isinstance(op, Hold):
                asked.add(op.account_id)
            elif isinstance(op, Settle) and (found := self._known.get(op.request_id)):
                asked.add(found[1].account_id)
        if unknown := asked.difference(self._accounts):
            self._read([*unknown])

    def hold(self, op: Hold) -> Held | Short | Suspended:
        """Set the money aside and open the row, or tell why not."""
        hold_nano = op.hold_nano
        assert hold_nano >= 0
        account = self._moved.get(op.account_id) or self._account(op.account_id)
        if account.suspended:
            return Suspended()
        own_nano = account.balance_nano + account.overdraft_nano
        if hold_nano > AMOUNT_NANO_MAX or hold_nano > own_nano - account.held_nano:
            return Short(hold_nano, own_nano, own_nano - account.held_nano)
        account.held_nano += hold_nano
        seq = self._seq = self._seq + 1
        self.opened[op.request_id] = (seq, op)
        self._opened += (
            seq, self._run_id, op.request_id, op.account_id, op.key_id, op.model, op.provider, op.upstream_model,
            1 if op.streamed else 0,  # sqlite3 is slow with subclasses: of int here, of str elsewhere
            op.price_id, hold_nano, op.input_bound, op.output_bound, op.opened_ms,
        )  # fmt: skip
        return _HELD

    def progress(self, op: Progress) -> Done:
        """Journal the counts, if the request is still open."""
        found = self._find(op.request_id)
        if found is not None:
            self._progress.append((*_counts(op.usage), found[0]))
        return _DONE

    def settle(self, op: Settle) -> Settled | AlreadySettled:
        """Close the row, once; move the money; release the hold."""
        request_id, usage, closed_ms, flags = op.request_id, op.usage, op.closed_ms, op.flags
        charge_nano, cost_nano = op.charge_nano, op.cost_nano
        assert charge_nano >= 0
        found = self._find(request_id)
        if found is None:
            return _ALREADY_SETTLED
        seq, hold = found
        account_id, hold_nano = hold.account_id, hold.hold_nano
        account = self._moved.get(account_id) or self._account(account_id)
        prompt, cached, cache_write, completion, reasoning = _counts(usage)
        if charge_nano > CHARGE_NANO_MAX or cost_nano > CHARGE_NANO_MAX or (usage is not None and _is_absurd(usage)):
            charge_nano, cost_nano = min(charge_nano, CHARGE_NANO_MAX), min(cost_nano, CHARGE_NANO_MAX)
            flags = f"{flags} {CAPPED}".lstrip()
        paid_nano = charge_nano
        if charge_nano > hold_nano:  # the rest is taken from what the account has available, and not from more
            available_nano = account.balance_nano + account.overdraft_nano - account.held_nano
            paid_nano = min(charge_nano, hold_nano + max(0, available_nano))
        overrun_nano = charge_nano - paid_nano
        self.closed.add(request_id)
        end_state, source, estimator = op.end_state, op.usage_source, op.estimator
        row = (
            seq, prompt, cached, cache_write, completion, reasoning, closed_ms, op.status or None, paid_nano, cost_nano,
            op.first_byte_ms, op.duration_ms,
        )  # fmt: skip
        if end_state is _COMPLETE and source is _REPORTED and not (flags or overrun_nano) and estimator is None:
            self._complete += row
        else:
            state = "voided" if source is _NONE else "posted"
            self._closed += (*row, overrun_nano, state, end_state.value, source.value, flags, estimator)
        account.balance_nano -= paid_nano
        account.held_nano -= hold_nano
        if paid_nano:
            if closed_ms > account.entry_ms:
                account.entry_ms = closed_ms
            self._charge(closed_ms, account_id, paid_nano, seq, request_id)
        if overrun_nano:
            self.enter(closed_ms, "overrun", OVERRUN, REVENUE, overrun_nano, request=(seq, request_id))
        currency = self._currencies[hold.price_id]
        day = (closed_ms // DAY_MS, account_id, hold.key_id, hold.model, hold.provider, currency)
        sums = self._daily.get(day)
        if sums is None:
            sums = self._daily[day] = [0, 0, 0, 0, 0, 0, 0]
        sums[0] += 1
        if usage is not None:
            sums[1] += prompt or 0
            sums[2] += cached or 0
            sums[3] += completion or 0
            sums[4] += reasoning or 0
        sums[5] += paid_nano
        sums[6] += cost_nano
        return Settled(account_id, paid_nano, overrun_nano)

    def _charge(self, at_ms: int, payer_id: int, amount_nano: int, seq: int, request_id: str) -> None:
        """Append the entry that nearly all are, with less ado."""
        entry_id = self._entry_id = self._entry_id + 1
        entry = (entry_id, at_ms, "charge", payer_id, REVENUE, amount_nano, request_id, None, None, "")
        self._digest = digest = chain(self._digest, entry)
        self._charges += (entry_id, at_ms, payer_id, amount_nano, seq, digest)
        self._internal[REVENUE] += amount_nano
        if at_ms > self._internal_ms:
            self._internal_ms = at_ms

    def enter(
        self,
        at_ms: int,
        kind: str,
        payer_id: int,
        payee_id: int,
        amount_nano: int,
        *,
        request: tuple[int, str] | tuple[None, None] = (None, None),
        external_id: str | None = None,
        note: str = "",
    ) -> int:
        """Append an entry and return its id. An operator's account is moved here, any other by the caller.

        `request` is a request's seq and id.
        """
        entry_id = self._entry_id = self._entry_id + 1
        before, after = (entry_id, at_ms, kind, payer_id, payee_id, amount_nano), (external_id, None, note)
        seq, request_id = request
        self._digest = chain(self._digest, (*before, request_id, *after))
        self._entries += (*before, seq, *after, self._digest)
        if payer_id in INTERNAL:
            self._internal[payer_id] -= amount_nano
        if payee_id in INTERNAL:
            self._internal[payee_id] += amount_nano
        self._internal_ms = max(self._internal_ms, at_ms)
        return entry_id

    def flush(self) -> None:
        """Write everything. Whoever then changes accounts in the tables themselves has to forget what was known."""
        cursor = self._cursor
        for statement, values in (
            (_OPEN, self._opened),
            (_CLOSE_COMPLETE, self._complete),
            (_CLOSE, self._closed),
            (_MOVE, self._moves()),
            (_CHARGE, self._charges),
            (_ENTRY, self._entries),
            (_DAILY, self._sums()),
        ):
            if values:
                statement.write(cursor, values)
                values.clear()
        if self._progress:  # after the settlements, which have the last word
            cursor.executemany(_PROGRESS, self._progress)
            self._progress.clear()

    def _moves(self) -> list[int]:
        """Return what accounts have more or less; the tables have it from now on."""
        values: list[int] = []
        for account_id, account in self._moved.items():
            paid_nano = account.read_balance_nano - account.balance_nano
            more_held_nano = account.held_nano - account.read_held_nano
            if paid_nano or more_held_nano:
                values += (paid_nano, more_held_nano, account.entry_ms, account_id)
                account.read_balance_nano, account.read_held_nano = account.balance_nano, account.held_nano
        for account_id, change_nano in self._internal.items():
            values += (-change_nano, 0, self._internal_ms, account_id)
        self._moved.clear()
        self._internal.clear()
        self._internal_ms = 0
        return values

    def _sums(self) -> list[Any]:
        """Return what the days have more, and forget it."""
        values: list[Any] = []
        for day, sums in self._daily.items():
            values += day
            values += sums
        self._daily.clear()
        return values

    def _account(self, account_id: int) -> AccountState:
        """Return an account, to be moved."""
        if account_id not in self._accounts:
            self._read([account_id])
        account = self._moved[account_id] = self._accounts[account_id]
        return account

    def _read(self, ids: Sequence[int]) -> None:
        for account_id, balance_nano, held_nano, overdraft_nano, suspended in _ACCOUNTS.read(self._cursor, ids):
            self._accounts[account_id] = AccountState(balance_nano, held_nano, overdraft_nano, suspended)

    def _find(self, request_id: str) -> OpenHold | None:
        """Return the hold if it is open as this transaction has it so far."""
        if request_id in self.closed:
            return None
        found = self.opened.get(request_id) or self._known.get(request_id)
        if found is None:
            rows = self._cursor.execute(_FIND, (request_id,)).fetchall()
            for seq, *values in rows:
                values[_STREAMED] = bool(values[_STREAMED])
                found = seq, Hold(*values)
        return found


def _counts(usage: Usage | None) -> Counts:
    """Return prompt, cached, cache_write, completion, reasoning, none of them above TOKENS_MAX."""
    if usage is None:
        return (None, None, None, None, None)
    counts = (usage.prompt, usage.cached, usage.cache_write, usage.completion, usage.reasoning)
    if _is_absurd(usage):
        prompt, cached, cache_write, completion, reasoning = (min(count, TOKENS_MAX) for count in counts)
        return (prompt, cached, cache_write, completion, reasoning)
    return counts


def _is_absurd(usage: Usage) -> bool:
    return (
        usage.prompt >= TOKENS_MAX
        or usage.cached >= TOKENS_MAX
        or usage.cache_write >= TOKENS_MAX
        or usage.completion >= TOKENS_MAX
        or usage.reasoning >= TOKENS_MAX
    )
