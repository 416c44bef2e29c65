"""The price of a request is the one in force when its hold was made, whatever is declared or begins before it ends."""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.core.money.pricelist import ListPrice, build_tariff
from nexus_proxy.core.money.prices import Price, PriceVersion, Schedule, Tariff, amount_nano, bound_nano
from nexus_proxy.core.money.settlement import Ending, EndState
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.hold import OpenHold
from nexus_proxy.ledger.protocol import AlreadySettled, DeclarePrices, Hold, Landed, Progress, Settle, Settled
from nexus_proxy.ledger.sqlite.verify import verify
from nexus_proxy.runtime.timeouts import TimeoutQueue
from tests.ledger.ledgerbook import T0, Book, opened

WINDOW = Schedule(8 * 3600, ((9 * 3600, 12 * 3600),), frozenset(), frozenset())
LISTED: dict[str, Any] = {
    "input": "2",
    "cached_input": "0.04",
    "output": "8",
    "off_peak": {"input": "1", "output": "4"},
}
USAGE = Usage(prompt=1200, completion=300, cached=200, reasoning=7)
WHOLE = Ending(EndState.COMPLETE, began=True, complete=True, usage=USAGE, prompt_estimate=4, output_bytes=9)


def tariff_of(listed: dict[str, Any], markup: str = "1.2") -> tuple[Tariff, tuple[PriceVersion, ...]]:
    price = ListPrice("CNY", listed, {"source": "a page", "source_date": "2026-11"})
    return build_tariff(price, model="m", provider="p", currency="USD", fx="0.1389", markup=markup, schedule=WINDOW)


def at(text: str) -> int:
    return round(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


class Writer:
    """A writer that applies to a book at once."""

    def __init__(self, book: Book) -> None:
        self.book = book

    def settle(self, op: Settle, landed: Landed) -> None:
        (outcome,) = self.book.run(op)
        assert isinstance(outcome, Settled | AlreadySettled)
        landed(outcome)

    def progress(self, op: Progress) -> None:
        self.book.run(op)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with opened(tmp_path / "nexus.db") as book:
        yield book
        assert verify(book.path) == []


def make_hold(book: Book, price: Price, opened_ms: int, request_id: str = "r1") -> Hold:
    account_id, key_id = book.customer("acme", NANO)
    hold_nano = bound_nano(price.tiers, 2000, 500)
    op = Hold(request_id, account_id, key_id, "m", "p", "up", True, price.price_id, hold_nano, 100, 100, opened_ms)
    book.run(op)
    return op


def reserve(book: Book, op: Hold, price: Price) -> OpenHold:
    loop = asyncio.get_running_loop()
    commits = TimeoutQueue(loop, 5.0)
    return OpenHold(Writer(book), op, price, loop=loop, opened=loop.time(), commits=commits, on_settled=lambda *_: None)


@pytest.mark.parametrize(
    ("instant", "period"),
    [
        ("2026-11-20T00:59:59.999", 1),  # a Friday in Beijing, one millisecond before its window
        ("2026-11-20T01:00:00", 0),
        ("2026-11-20T03:59:59.999", 0),  # still open when the window ends
        ("2026-11-20T04:00:00", 1),
        ("2026-11-21T01:00:00", 1),  # a Saturday
        ("2026-11-30T03:59:59", 0),  # a month's last window
        ("2026-12-31T03:59:59", 0),  # a year's
    ],
)
async def test_e6_a_window_that_begins_or_ends_on_the_way_changes_nothing(
    book: Book, instant: str, period: int
) -> None:
    tariff, versions = tariff_of(LISTED)
    book.run(DeclarePrices(versions, T0))
    opened_ms = at(instant)
    price = tariff.price_at(opened_ms)
    assert price is tariff.prices()[period]
    other = tariff.prices()[1 - period]
    open_hold = reserve(book, make_hold(book, price, opened_ms), price)
    verdict = open_hold.settle(WHOLE, status=200)
    assert verdict.charge_nano == amount_nano(price.tiers, USAGE) != amount_nano(other.tiers, USAGE)
    row = book.one("SELECT price_id, charge_nano, cost_nano FROM requests WHERE request_id = 'r1'")
    assert row == (price.price_id, verdict.charge_nano, amount_nano(price.cost_tiers, USAGE))


@pytest.mark.parametrize("dearer", [True, False])
async def test_e6_a_price_declared_between_hold_and_settlement_waits_for_the_next_hold(
    book: Book, dearer: bool
) -> None:
    tariff, versions = tariff_of(LISTED)
    book.run(DeclarePrices(versions, T0))
    price = tariff.peak
    open_hold = reserve(book, make_hold(book, price, T0), price)

    later, newer = tariff_of(
        LISTED | ({"input": "20", "output": "80"} if dearer else {"input": "0.2", "output": "0.8"})
    )
    book.run(DeclarePrices(newer, T0 + 1000))
    assert later.peak.price_id != price.price_id

    verdict = open_hold.settle(WHOLE, status=200)
    assert verdict.charge_nano == amount_nano(price.tiers, USAGE)
    assert (verdict.charge_nano < amount_nano(later.peak.tiers, USAGE)) is dearer
    row = book.one("SELECT price_id, charge_nano FROM requests WHERE request_id = 'r1'")
    assert row == (price.price_id, verdict.charge_nano)
    known = book.one("SELECT count(*) FROM price_versions WHERE model = 'm'")
    assert known == (4,)  # both versions stay, so that either request can be computed again


def test_e6_a_price_declared_after_a_crash_does_not_price_what_crashed(tmp_path: Path) -> None:
    tariff, versions = tariff_of(LISTED)
    with opened(tmp_path / "nexus.db") as book:
        book.run(DeclarePrices(versions, T0))
        make_hold(book, tariff.peak, T0)
        book.run(Progress("r1", USAGE))
    with opened(tmp_path / "nexus.db") as book:
        book.run(DeclarePrices(tariff_of(LISTED, markup="3")[1], T0 + 1000))
        assert book.store.recover(T0 + 9000) == 1
        row = book.one("SELECT price_id, charge_nano FROM requests WHERE request_id = 'r1'")
        assert row == (tariff.peak.price_id, amount_nano(tariff.peak.tiers, USAGE))
    assert verify(tmp_path / "nexus.db") == []


def test_a_price_by_input_and_output_length_is_kept_whole(book: Book) -> None:
    tiers = [
        {"input_max": 32_000, "output_max": 200, "input": "0.8", "output": "2"},
        {"input_max": 32_000, "input": "0.8", "output": "8"},
        {"input": "1.2", "output": "16"},
    ]
    tariff, versions = tariff_of({"input": "0.8", "cached_input": "0.16", "output": "2", "tiers": tiers})
    book.run(DeclarePrices(versions, T0))
    assert book.store._price(tariff.peak.price_id) == tariff.peak
    assert [tier.output_max for tier in tariff.peak.tiers] == [200, None, None]
