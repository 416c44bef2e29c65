"""Prove a ledger: everything that it says twice is said the same way both times.

Strategy: a read-only connection of its own and one read transaction, so it works beside a running server. The entries
are read once, in order; what they add up to is compared with the balances, the requests and the roll-ups, in Python's
unbounded integers. Every charge is computed again from its row and its price version.
"""

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, Final

from nexus_proxy.core.money.chain import GENESIS, Entry, chain
from nexus_proxy.core.money.prices import Price, amount_nano
from nexus_proxy.core.money.settlement import UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.protocol import Finding
from nexus_proxy.ledger.sqlite import prices
from nexus_proxy.ledger.sqlite.migrations import migrate, version_of
from nexus_proxy.ledger.sqlite.posting import CAPPED, DAY_MS
from nexus_proxy.ledger.sqlite.readonly import connect
from nexus_proxy.ledger.sqlite.schema import FUNDING, INTERNAL, OVERRUN, REVENUE, as_made_before

FINDINGS_MAX: Final = 100  # of one check

_ENTRIES: Final = """
SELECT e.entry_id, e.at_ms, e.kind, e.payer_id, e.payee_id, e.amount_nano, h.request_id, e.external_id, e.corrects,
    e.note, e.hash
FROM entries e LEFT JOIN holds h USING (seq) ORDER BY e.entry_id
"""
_REQUESTS: Final = """
SELECT seq, request_id, account_id, key_id, model, provider, price_id, hold_nano, state, usage_source, flags, closed_ms,
    prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, charge_nano, overrun_nano,
    cost_nano
FROM requests ORDER BY seq
"""


def verify(path: Path) -> list[Finding]:
    """Return everything that is wrong with the ledger. LedgerError if there is none, or one of another version."""
    with closing(connect(path)) as connection:
        found: list[Finding] = []
        counts: Counter[str] = Counter()
        try:
            connection.execute("BEGIN")
            version_of(connection)
            for finding in _Proof(connection).run():
                counts[finding.check] += 1
                if counts[finding.check] <= FINDINGS_MAX:
                    found.append(finding)
        except (sqlite3.Error, ValueError, KeyError, TypeError) as error:
            found.append(Finding("readable", f"the file cannot be read to its end: {error!r}"))
        more = {check: count - FINDINGS_MAX for check, count in counts.items() if count > FINDINGS_MAX}
        return found + [Finding(check, f"and {count} more") for check, count in more.items()]


class _Proof:
    """One pass over a ledger that does not change meanwhile."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._execute = connection.execute
        self._balances: defaultdict[int, int] = defaultdict(int)  # what the entries add up to, by account
        self._paid: defaultdict[int, int] = defaultdict(int)
        self._spent: defaultdict[int, int] = defaultdict(int)
        self._held: defaultdict[int, int] = defaultdict(int)
        self._daily: dict[tuple[Any, ...], list[int]] = {}

    def run(self) -> Iterator[Finding]:
        yield from self._file()
        yield from self._schema()
        yield from self._entries()
        yield from self._requests()
        yield from self._accounts()
        yield from self._roll_ups()

    def _file(self) -> Iterator[Finding]:
        for (text,) in self._execute("PRAGMA integrity_check"):
            if text != "ok":
                yield Finding("integrity", text)
        for table, row, parent, _ in self._execute("PRAGMA foreign_key_check"):
            yield Finding("references", f"{table} row {row} refers to nothing in {parent}")

    def _schema(self) -> Iterator[Finding]:
        """The refusals that the database itself makes are in place: tables, indexes, triggers, views."""
        query = "SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL"
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as model:
            migrate(model)
            expected = dict(model.execute(query).fetchall())
        actual = dict(self._execute(query).fetchall())
        for name, sql in expected.items():
            if actual.get(name) not in (sql, as_made_before(sql)):
                yield Finding("schema", f"{name} is {'not as it was made' if name in actual else 'missing'}")

    def _entries(self) -> Iterator[Finding]:
        previous, expected_id = GENESIS, 1
        for *values, digest in self._execute(_ENTRIES):
            entry = Entry(*values)
            if entry.entry_id != expected_id:
                yield Finding("chain", f"entry {expected_id} is missing")
            if chain(previous, tuple(values)) != digest:
                yield Finding("chain", f"entry {entry.entry_id} does not carry its own hash")
            previous, expected_id = digest, entry.entry_id + 1
            self._balances[entry.payer_id] -= entry.amount_nano
            self._balances[entry.payee_id] += entry.amount_nano
            if entry.kind == "topup":
                self._paid[entry.payee_id] += entry.amount_nano
            if entry.kind == "charge":
                self._spent[entry.payer_id] += entry.amount_nano
            ways = {"topup": (FUNDING, None), "charge": (None, REVENUE), "overrun": (OVERRUN, REVENUE)}
            payer_id, payee_id = ways.get(entry.kind, (None, None))
            if payer_id not in (None, entry.payer_id) or payee_id not in (None, entry.payee_id):
                yield Finding("entries", f"entry {entry.entry_id} moves a {entry.kind} the wrong way")

    def _requests(self) -> Iterator[Finding]:
        versions = {row[0]: prices.from_row(row).price for row in self._execute(prices.SELECT)}
        yield from self._posted_once()
        (settled_seq,) = self._execute("SELECT coalesce(max(settled_seq), 0) FROM runs").fetchone()
        for seq, request_id, account_id, key_id, model, provider, price_id, hold_nano, state, *rest in self._execute(
            _REQUESTS
        ):
            if state == "open":
                self._held[account_id] += hold_nano
                if seq <= settled_seq:
                    yield Finding("requests", f"request {request_id} is open, where none should be any more")
                continue
            source, flags, closed_ms, prompt, completion, cached, cache_write, reasoning, *amounts = rest
            usage = None if prompt is None else Usage(prompt, completion, cached, cache_write, reasoning)
            if CAPPED not in flags.split():
                wrong = _wrong_amounts(versions[price_id], usage, source, hold_nano, *amounts)
                if wrong:
                    yield Finding("charges", f"request {request_id}: {wrong}")
            if (state == "voided") != (source == UsageSource.NONE):
                yield Finding("requests", f"request {request_id} is {state} with usage {source!r}")
            day = (closed_ms // DAY_MS, account_id, key_id, model, provider, versions[price_id].cost_currency)
            figures = (1, prompt or 0, cached or 0, completion or 0, reasoning or 0, amounts[0], amounts[2])
            self._daily[day] = [a + b for a, b in zip(self._daily.get(day, [0] * 7), figures, strict=True)]

    def _posted_once(self) -> Iterator[Finding]:
        """A request's entries are what its row says: one of each kind, or none of nothing."""
        query = """
        SELECT h.request_id, s.charge_nano, s.overrun_nano, h.account_id, count(DISTINCT c.entry_id) +
            count(DISTINCT o.entry_id), max(c.amount_nano), max(o.amount_nano), max(c.payer_id)
        FROM holds h LEFT JOIN settlements s ON s.seq = h.seq
            LEFT JOIN entries c ON c.seq = h.seq AND c.kind = 'charge'
            LEFT JOIN entries o ON o.seq = h.seq AND o.kind = 'overrun'
        GROUP BY h.seq
        """
        for request_id, charge, overrun, account_id, count, charged, overran, payer_id in self._execute(query):
            charge_nano, overrun_nano = charge or 0, overrun or 0
            if (charged or 0, overran or 0) != (charge_nano, overrun_nano):
                yield Finding("posted", f"request {request_id}: its entries are not what its row says")
            if count != (charge_nano > 0) + (overrun_nano > 0):
                yield Finding("posted", f"request {request_id} has {count} entries")
            if charge_nano and payer_id != account_id:
                yield Finding("posted", f"request {request_id} was charged to another account")

    def _accounts(self) -> Iterator[Finding]:
        total_nano = 0
        query = "SELECT account_id, name, balance_nano, held_nano, paid_nano, spent_nano, overdraft_nano FROM accounts"
        for account_id, name, balance_nano, held_nano, paid_nano, spent_nano, overdraft_nano in self._execute(query):
            total_nano += balance_nano
            for what, kept, proven in (
                ("balance", balance_nano, self._balances[account_id]),
                ("held", held_nano, self._held[account_id]),
                ("total paid", paid_nano, self._paid[account_id]),
                ("total spent", spent_nano, self._spent[account_id]),
            ):
                if kept != proven:
                    yield Finding("balances", f"account {name!r}: {what} is {kept}, its rows add up to {proven}")
            if account_id not in INTERNAL and balance_nano - held_nano < -overdraft_nano:
                yield Finding("balances", f"account {name!r} has less than its overdraft allows")
        if total_nano:
            yield Finding("conservation", f"all balances add up to {total_nano}, not to nothing")

    def _roll_ups(self) -> Iterator[Finding]:
        for row in self._execute("SELECT * FROM daily"):
            if self._daily.pop(row[:6], None) != list(row[6:]):
                yield Finding("roll-ups", f"the day {row[:6]} is not the sum of its requests")
        for day in self._daily:
            yield Finding("roll-ups", f"the day {day} is missing")


def _wrong_amounts(
    price: Price,
    usage: Usage | None,
    source: str,
    hold_nano: int,
    charge_nano: int,
    overrun_nano: int,
    cost_nano: int,
) -> str | None:
    """Compute the charge again, and tell in what the row differs."""
    posted_nano = charge_nano + overrun_nano
    if source == UsageSource.NONE:
        return None if posted_nano == 0 else f"charged {posted_nano} for nothing"
    if usage is None:
        return "charged without counts"
    expected_nano = amount_nano(price.tiers, usage)
    if source in (UsageSource.ESTIMATED, UsageSource.RECOVERED):
        expected_nano = min(expected_nano, hold_nano)
    if posted_nano != expected_nano:
        return f"posted {posted_nano}, the price makes it {expected_nano}"
    expected_cost_nano = amount_nano(price.cost_tiers, usage)
    if cost_nano != expected_cost_nano:
        return f"cost {cost_nano}, the price makes it {expected_cost_nano}"
    return None
