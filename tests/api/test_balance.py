"""The balance as a JSON number: exact, with 2 to 9 decimals."""

import asyncio
import re
from types import SimpleNamespace
from typing import Any

import pytest

from nexus_proxy.api.balance import balance
from nexus_proxy.errors import LedgerError, LedgerUnavailable
from nexus_proxy.ledger.protocol import AccountRow
from nexus_proxy.request.context import RequestContext
from tests.rig.compiled import gives_stand_ins

pytestmark = gives_stand_ins


def context(row: AccountRow | LedgerError) -> RequestContext:
    async def account(account_id: int) -> AccountRow:
        assert account_id == 7
        if isinstance(row, LedgerError):
            raise row
        return row

    services: Any = SimpleNamespace(
        setup=SimpleNamespace(config=SimpleNamespace(currency="CNY")),
        reader=SimpleNamespace(account=account),
        loop=asyncio.get_running_loop(),
    )
    incoming: Any = None
    found = RequestContext(services, incoming, "balance")
    key: Any = SimpleNamespace(account=SimpleNamespace(account_id=7))
    found.key = key
    return found


def row(balance_nano: int, last_entry_ms: int | None = None) -> AccountRow:
    return AccountRow(7, "acme", None, False, 0, balance_nano, 1, 2, 123_456_789, 86_400_000, last_entry_ms)


@pytest.mark.parametrize(
    ("nano", "text"),
    [
        (0, "0.00"),
        (10**10, "10.00"),
        (1, "0.000000001"),
        (10**18 + 100_000_000, "1000000000.10"),
        (-1_500_000_000, "-1.50"),
        (2**62, "4611686018.427387904"),
    ],
)
async def test_an_amount_is_written_to_its_last_decimal(nano: int, text: str) -> None:
    answer = await balance(context(row(nano)))
    assert "\r\nContent-Type: application/json\r\n" in answer.headers
    assert re.search(rb'"balance":([^,]+),', answer.body)[1] == text.encode()  # type: ignore[index]
    rest = b'"currency":"CNY","total_spent":0.123456789,"last_updated":"1970-01-02T00:00:00Z","held":0.000000001}'
    assert answer.body.endswith(rest)


async def test_the_last_entry_says_when_it_changed() -> None:
    answer = await balance(context(row(0, last_entry_ms=1_750_000_000_999)))
    assert b'"last_updated":"2025-06-15T15:06:40Z"' in answer.body


async def test_a_ledger_that_cannot_be_read_is_503() -> None:
    with pytest.raises(LedgerUnavailable) as refused:
        await balance(context(LedgerError("the ledger cannot be read")))
    assert refused.value.retry_after_ns
