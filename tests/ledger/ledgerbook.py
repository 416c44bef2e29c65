"""A small ledger to test on: two prices, three plans, and short ways to say an operation."""

import asyncio
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.core.money.plans import Plan
from nexus_proxy.core.money.prices import Price, PriceVersion, Rates, Tier, amount_nano
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.protocol import (
    AccountRow,
    AlreadySettled,
    CreateAccount,
    CreateKey,
    DeclarePlans,
    DeclarePrices,
    Hold,
    KeyRow,
    Operation,
    Outcome,
    Settle,
    Settled,
    TopUp,
)
from nexus_proxy.ledger.sqlite.store import SqliteStore
from nexus_proxy.ledger.writer import Writer

T0 = 1_760_000_000_123  # 2025-10-09T08:53:20.123Z

DEAR = Price(
    "dear-1",
    (
        Tier(1000, None, Rates(2_000_000, 500_000, 2_500_000, 8_000_001, 9_000_000)),
        Tier(None, None, Rates(4_000_000, 1_000_000, 5_000_000, 16_000_000, 16_000_000)),
    ),
    (Tier(None, None, Rates(14_000_000, 3_500_000, 14_000_000, 56_000_000, 56_000_000)),),
    "CNY",
)
NOTHING = (Tier(None, None, Rates(0, 0, 0, 0, 0)),)
FREE = Price("free-1", NOTHING, NOTHING, "USD")
PRICES = DeclarePrices(
    (
        PriceVersion(DEAR, "dear", "alpha", {"input": "14", "currency": "CNY", "fx": "0.1389", "markup": "1.0"}),
        PriceVersion(FREE, "free", "beta", {"input": "0", "currency": "USD"}),
    ),
    T0,
)
PLANS = DeclarePlans(
    (
        Plan("free", 10, True),
        Plan("paid", 60, True, min_paid_nano=5 * NANO),
        Plan("grown", 600, True, min_spent_nano=100 * NANO),
        Plan("dedicated", 6000, False),
    )
)

_ids = itertools.count(1)


def hold(
    account_id: int,
    key_id: int,
    hold_nano: int,
    request_id: str | None = None,
    price: Price = DEAR,
    *,
    opened_ms: int = T0,
) -> Hold:
    """Return a hold with a fresh request id."""
    model, provider = ("dear", "alpha") if price is DEAR else ("free", "beta")
    request_id = request_id or f"req-{next(_ids):06d}"
    upstream = f"{model}-up"
    price_id = price.price_id
    return Hold(
        request_id, account_id, key_id, model, provider, upstream, True, price_id, hold_nano, 100, 100, opened_ms
    )


def settle(request_id: str, usage: Usage, price: Price = DEAR, *, at_ms: int = T0 + 1500) -> Settle:
    """Return the settlement of a complete answer with this usage."""
    charge_nano, cost_nano = amount_nano(price.tiers, usage), amount_nano(price.cost_tiers, usage)
    source = UsageSource.REPORTED
    return Settle(request_id, EndState.COMPLETE, source, usage, charge_nano, cost_nano, 200, at_ms, 300, 1500)


def void(request_id: str) -> Settle:
    """Return the settlement that charges nothing."""
    return Settle(request_id, EndState.UPSTREAM_ERROR, UsageSource.NONE, None, 0, 0, 502, T0 + 1500)


def settled(writer: Writer, op: Settle) -> "asyncio.Future[Settled | AlreadySettled | None]":
    """Queue a settlement, and return what becomes of it."""
    future: asyncio.Future[Settled | AlreadySettled | None] = asyncio.get_running_loop().create_future()
    writer.settle(op, future.set_result)
    return future


class Book:
    """An open store with prices and plans."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = SqliteStore(path)
        self.store.open()
        self.run(PRICES, PLANS)

    def run(self, *batch: Operation) -> list[Outcome]:
        """Apply one batch."""
        return self.store.apply(batch)

    def customer(self, name: str, paid_nano: int = 0, overdraft_nano: int = 0) -> tuple[int, int]:
        """Return the ids of a new account with that much money, and of a key of it."""
        account, key = self.run(
            CreateAccount(name, T0, overdraft_nano=overdraft_nano),
            CreateKey(name, name.encode().ljust(32, b"\0"), "wxyz", T0, name="main"),
        )
        assert isinstance(account, AccountRow)
        assert isinstance(key, KeyRow)
        if paid_nano:
            self.run(TopUp(name, paid_nano, T0))
        return account.account_id, key.key_id

    def balance(self, account_id: int) -> tuple[int, int]:
        """Return balance and held, as committed."""
        assert self.store._connection is not None
        query = "SELECT balance_nano, held_nano FROM accounts WHERE account_id = ?"
        balance_nano, held_nano = self.store._connection.execute(query, (account_id,)).fetchone()
        return balance_nano, held_nano

    def one(self, query: str) -> tuple[object, ...]:
        """Return the first row of a query."""
        assert self.store._connection is not None
        row: tuple[object, ...] = self.store._connection.execute(query).fetchone()
        return row


@contextmanager
def opened(path: Path) -> Iterator[Book]:
    """Open a book and close it again."""
    book = Book(path)
    try:
        yield book
    finally:
        book.store.close()
