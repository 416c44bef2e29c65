"""One transaction's worth of money moving: holds, progress, settlements, entries.

Strategy: a hold is one conditional UPDATE of the account; a settlement is one conditional UPDATE of the request's row,
and everything else follows from that row. What many settlements add to the same place (the operator's
accounts, the daily roll-ups) is summed up here and written once, by `finish`. Nothing outlives the transaction but
`tail`, which the caller takes over after its COMMIT.
"""

import sqlite3
from collections import defaultdict
from collections.abc import Mapping
from typing import Final

from nexus_proxy.core.money import AMOUNT_NANO_MAX
from nexus_proxy.core.settlement import UsageSource
from nexus_proxy.core.usage import Usage
from nexus_proxy.ledger.entries import Entry, chain
from nexus_proxy.ledger.protocol import AlreadySettled, Done, Held, Hold, Progress, Settle, Settled, Short, Suspended
from nexus_proxy.ledger.schema import FUNDING, INTERNAL, OVERRUN, REVENUE

DAY_MS: Final = 86_400_000
CHARGE_NANO_MAX: Final = 2**56  # of one request; a hundred of them still add up within an int64
TOKENS_MAX: Final = 2**48
CAPPED: Final = "capped"  # the flag of a row whose figures were too large to store

_HOLD = """
UPDATE accounts SET held_nano = held_nano + ?1
WHERE account_id = ?2 AND suspended = 0 AND balance_nano - held_nano - ?1 >= -overdraft_nano
"""
_WHY_NOT = "SELECT suspended, balance_nano + overdraft_nano, held_nano FROM accounts WHERE account_id = ?"
_OPEN = """
INSERT INTO requests (request_id, run_id, account_id, key_id, model, provider, upstream_model, streamed, price_id,
    hold_nano, input_bound, output_bound, opened_ms)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_PROGRESS = """
UPDATE requests SET prompt_tokens = ?, cached_tokens = ?, cache_write_tokens = ?, completion_tokens = ?,
    reasoning_tokens = ?
WHERE request_id = ? AND state = 'open'
"""
_FIND = """
SELECT seq, account_id, key_id, model, provider, price_id, hold_nano
FROM requests WHERE request_id = ? AND state = 'open'
"""
_AVAILABLE = "SELECT max(0, balance_nano - held_nano + overdraft_nano) FROM accounts WHERE account_id = ?"
_CLOSE = """
UPDATE requests SET state = ?, prompt_tokens = ?, cached_tokens = ?, cache_write_tokens = ?, completion_tokens = ?,
    reasoning_tokens = ?, closed_ms = ?, status = ?, end_state = ?, usage_source = ?, charge_nano = ?,
    overrun_nano = ?, cost_nano = ?, first_byte_ms = ?, duration_ms = ?, flags = ?, estimator = ?
WHERE seq = ? AND state = 'open'
"""
_PAY = """
UPDATE accounts SET balance_nano = balance_nano - ?1, held_nano = held_nano - ?2, spent_nano = spent_nano + ?1,
    last_entry_ms = iif(?1 > 0, ?3, last_entry_ms)
WHERE account_id = ?4
"""
_ENTRY = "INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
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
Tail = tuple[int, str]  # the last entry's id and hash


class Posting:
    """The operations of one open transaction. `currencies` names the cost currency of every price version."""

    def __init__(self, connection: sqlite3.Connection, run_id: int, tail: Tail, currencies: Mapping[str, str]) -> None:
        self.tail = tail
        self._execute = connection.execute
        self._connection = connection
        self._run_id = run_id
        self._currencies = currencies
        self._internal: defaultdict[int, int] = defaultdict(int)
        self._internal_ms = 0
        self._daily: dict[Day, list[int]] = {}

    def hold(self, op: Hold) -> Held | Short | Suspended:
        """Set the money aside and open the row, or tell why not."""
        assert op.hold_nano >= 0
        carried = op.hold_nano <= AMOUNT_NANO_MAX and self._execute(_HOLD, (op.hold_nano, op.account_id)).rowcount == 1
        if not carried:
            suspended, balance_nano, held_nano = self._execute(_WHY_NOT, (op.account_id,)).fetchone()
            return Suspended() if suspended else Short(op.hold_nano, balance_nano, balance_nano - held_nano)
        self._execute(
            _OPEN,
            (
                op.request_id,
                self._run_id,
                op.account_id,
                op.key_id,
                op.model,
                op.provider,
                op.upstream_model,
                int(op.streamed),
                op.price_id,
                op.hold_nano,
                op.input_bound,
                op.output_bound,
                op.opened_ms,
            ),
        )
        return Held()

    def progress(self, op: Progress) -> Done:
        """Journal the counts, if the request is still open."""
        self._execute(_PROGRESS, (*_counts(op.usage), op.request_id))
        return Done()

    def settle(self, op: Settle) -> Settled | AlreadySettled:
        """Close the row, once; move the money; release the hold."""
        assert op.charge_nano >= 0
        row = self._execute(_FIND, (op.request_id,)).fetchone()
        if row is None:
            return AlreadySettled()
        seq, account_id, key_id, model, provider, price_id, hold_nano = row
        counts = _counts(op.usage)
        charge_nano, cost_nano = min(op.charge_nano, CHARGE_NANO_MAX), min(op.cost_nano, CHARGE_NANO_MAX)
        flags = op.flags
        if charge_nano < op.charge_nano or cost_nano < op.cost_nano or TOKENS_MAX in counts:
            flags = f"{flags} {CAPPED}".lstrip()
        paid_nano = charge_nano
        if charge_nano > hold_nano:  # the rest is taken from what the account has available, and not from more
            (available_nano,) = self._execute(_AVAILABLE, (account_id,)).fetchone()
            paid_nano = min(charge_nano, hold_nano + available_nano)
        overrun_nano = charge_nano - paid_nano
        closed = self._execute(
            _CLOSE,
            (
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
                seq,
            ),
        )
        assert closed.rowcount == 1
        self._execute(_PAY, (paid_nano, hold_nano, op.closed_ms, account_id))
        if paid_nano:
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
        entry_id = self.tail[0] + 1
        entry = Entry(entry_id, at_ms, kind, payer_id, payee_id, amount_nano, request_id, external_id, None, note)
        digest = chain(self.tail[1], entry)
        self._execute(_ENTRY, (*entry, digest))
        self.tail = (entry_id, digest)
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

    def finish(self) -> None:
        """Write what was summed up. Nothing may follow but COMMIT."""
        for account_id, change_nano in self._internal.items():
            self._execute(_INTERNAL, (change_nano, self._internal_ms, account_id))
        self._connection.executemany(_DAILY, [(*day, *figures) for day, figures in self._daily.items()])


def _counts(usage: Usage | None) -> tuple[int | None, ...]:
    """Return prompt, cached, cache_write, completion, reasoning, none of them above TOKENS_MAX."""
    if usage is None:
        return (None, None, None, None, None)
    counts = (usage.prompt, usage.cached, usage.cache_write, usage.completion, usage.reasoning)
    return counts if max(counts) < TOKENS_MAX else tuple(min(count, TOKENS_MAX) for count in counts)
