"""What is read: views with their public columns, reports, the directory, price versions."""

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.money.amounts import NANO, format_nano
from nexus_proxy.core.money.plans import Plan, plan_of
from nexus_proxy.core.money.prices import Price, PriceVersion, Rates, Tier, amount_nano
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.directory import Directory
from nexus_proxy.ledger.protocol import (
    AccountRow,
    CreateKey,
    DeclarePlans,
    KeyRow,
    RecentRequest,
    SetAccount,
    UsageLine,
)
from nexus_proxy.ledger.sqlite import prices
from nexus_proxy.ledger.sqlite.read import _RECENT, SqliteReader
from tests.ledger.ledgerbook import DEAR, FREE, T0, Book, hold, opened, settle, void

DAY_MS = 86_400_000
USAGE = Usage(prompt=120, completion=30, cached=20, reasoning=7)
CHARGE = amount_nano(DEAR.tiers, USAGE)
COLUMNS = {
    "usage": "request_id opened_at closed_at account key_name key_hint model provider upstream_model streamed status "
    "state end_state usage_source prompt_tokens cached_tokens completion_tokens reasoning_tokens hold charge cost "
    "cost_currency price_id first_byte_ms duration_ms",
    "spend_by_day": "day requests prompt_tokens cached_tokens completion_tokens reasoning_tokens charge",
    "spend_by_key": "day account key_name key_hint requests prompt_tokens cached_tokens completion_tokens "
    "reasoning_tokens charge",
    "spend_by_model": "day model requests prompt_tokens cached_tokens completion_tokens reasoning_tokens charge",
    "margin_by_model": "day model provider requests charge cost cost_currency",
    "balances": "account plan balance held available total_paid total_spent last_updated",
    "open_holds": "request_id account model hold opened_at age_s",
}


def fill(book: Book) -> None:
    a, a_key = book.customer("a", NANO)
    b, b_key = book.customer("b", 5 * NANO, overdraft_nano=7)
    book.run(*(hold(a, a_key, 10_000_000, f"a{i}") for i in range(4)), hold(b, b_key, 0, "b0", FREE))
    book.run(settle("a0", USAGE), void("a1"), settle("b0", USAGE, FREE), settle("a2", USAGE, at_ms=T0 + DAY_MS))


@pytest.mark.parametrize("view", COLUMNS)
def test_a_view_has_its_public_columns(tmp_path: Path, view: str) -> None:
    with opened(tmp_path / "nexus.db"):
        connection = sqlite3.connect(tmp_path / "nexus.db")
        names = [column[0] for column in connection.execute(f'SELECT * FROM "{view}"').description]
        connection.close()
    public = COLUMNS[view].split()
    assert names[: len(public)] == public


def test_the_views_say_what_happened(tmp_path: Path) -> None:
    with opened(tmp_path / "nexus.db") as book:
        fill(book)
        charge, cost = f"{CHARGE / NANO:.9f}", f"{amount_nano(DEAR.cost_tiers, USAGE) / NANO:.9f}"
        assert book.one(
            "SELECT opened_at, closed_at, hold, charge, cost, status FROM usage WHERE request_id = 'a0'"
        ) == (
            "2025-10-09T08:53:20.123Z",
            "2025-10-09T08:53:21.623Z",
            "0.010000000",
            charge,
            cost,
            200,
        )
        assert book.one("SELECT state, closed_at, charge, cost FROM usage WHERE request_id = 'a3'") == (
            "open",
            None,
            None,
            None,
        )
        assert book.one("SELECT * FROM spend_by_day") == ("2025-10-09", 3, 240, 40, 60, 14, charge)
        assert book.one("SELECT * FROM spend_by_key WHERE account = 'a'")[:5] == ("2025-10-09", "a", "main", "wxyz", 2)
        assert book.one("SELECT * FROM spend_by_model WHERE model = 'free'")[1:3] == ("free", 1)
        assert book.one("SELECT * FROM margin_by_model WHERE model = 'dear' AND day = '2025-10-10'") == (
            "2025-10-10",
            "dear",
            "alpha",
            1,
            charge,
            cost,
            "CNY",
        )
        assert book.one("SELECT plan, balance, held, available FROM balances WHERE account = 'b'") == (
            "paid",
            "5.000000000",
            "0.000000000",
            "5.000000007",
        )
        assert book.one("SELECT request_id, hold, opened_at FROM open_holds") == (
            "a3",
            "0.010000000",
            "2025-10-09T08:53:20.123Z",
        )


@pytest.mark.parametrize("nano", [0, 1, -1, -1_500_000_000, 999_999_999, 2**61, -(2**61)])
def test_an_amount_in_a_view_is_exact(tmp_path: Path, nano: int) -> None:
    with opened(tmp_path / "nexus.db") as book:
        assert book.store._connection is not None
        book.store._connection.execute(
            "INSERT INTO accounts (name, balance_nano, overdraft_nano, created_ms) VALUES ('a', ?, ?, 0)",
            (nano, max(0, -nano)),
        )
        assert book.one("SELECT balance FROM balances") == (format_nano(nano, 9),)


PLAN_SETS = st.lists(
    st.tuples(st.booleans(), st.integers(0, 3), st.integers(0, 3)), max_size=4, unique_by=lambda t: t[1:]
).map(
    lambda rows: {
        "base": Plan("base", 1, True),
        **{f"p{i}": Plan(f"p{i}", 1, rung, paid, spent) for i, (rung, paid, spent) in enumerate(rows)},
    }
)


def test_the_view_climbs_the_same_ladder(tmp_path: Path) -> None:
    with opened(tmp_path / "nexus.db") as book:
        book.customer("a")
        assert book.store._connection is not None
        execute = book.store._connection.execute

        @given(PLAN_SETS, st.sampled_from([None, "p0", "p1", "gone"]), st.integers(0, 3), st.integers(0, 3))
        def same(plans: dict[str, Plan], assigned: str | None, paid_nano: int, spent_nano: int) -> None:
            book.run(DeclarePlans(tuple(plans.values())))
            execute(
                "UPDATE accounts SET plan = ?, paid_nano = ?, spent_nano = ? WHERE name = 'a'",
                (assigned, paid_nano, spent_nano),
            )
            expected = plan_of(plans, assigned, paid_nano, spent_nano).name
            assert book.one("SELECT plan FROM balances") == (expected,)

        same()


async def test_the_reader_reads_what_was_committed(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        fill(book)
        book.run(CreateKey("b", bytes(32), "0000", T0, models=("m/1",), rpm=5, expires_ms=T0))
        reader = SqliteReader(path)
        await reader.ping()
        accounts = await reader.accounts()
        assert [account.name for account in accounts] == ["a", "b"]
        assert await reader.account(accounts[0].account_id) == accounts[0]
        assert (accounts[0].balance_nano, accounts[0].held_nano) == (NANO - 2 * CHARGE, 10_000_000)
        assert accounts[0].last_entry_ms == T0 + DAY_MS
        assert await reader.account(1) is None  # the operator's own
        assert [key.hint for key in await reader.keys("b")] == ["wxyz", "0000"]
        assert (await reader.keys())[2].models == ("m/1",)
        assert await reader.keys("nobody") == []
        row = await reader.request("a0")
        assert row is not None
        assert (row["account"], row["state"], row["charge"]) == ("a", "posted", f"{CHARGE / NANO:.9f}")
        assert await reader.request("none") is None
        key_id = (await reader.keys("a"))[0].key_id
        assert (await reader.recent(T0))[0] == RecentRequest(accounts[0].account_id, key_id, T0)
        assert await reader.recent(T0 + 1) == []
        await reader.close()
        await reader.close()


async def test_the_recent_requests_are_found_from_the_end(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        account_id, key_id = book.customer("a", NANO)
        times = [T0 - 200_000, T0 - 100_000, T0 + 500, T0 - 30_000, T0, T0 + 400, T0 - 1]  # none comes in order
        book.run(*(hold(account_id, key_id, 1, opened_ms=at_ms) for at_ms in times))
        reader = SqliteReader(path)
        assert [found.opened_ms for found in await reader.recent(T0)] == [T0, T0 + 400, T0 + 500]
        assert [found.opened_ms for found in await reader.recent(T0 + 200_000)] == []
        assert len(await reader.recent(0)) == len(times)
        plan = await reader._fetch(f"EXPLAIN QUERY PLAN {_RECENT}", (T0,))
        assert [step[3] for step in plan if step[3].startswith("SEARCH")] == [
            "SEARCH holds USING INTEGER PRIMARY KEY (rowid>?)"
        ]
        await reader.close()


async def test_a_usage_report_sums_up_what_was_closed(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        fill(book)
        reader = SqliteReader(path)
        day_1 = UsageLine("2025-10-09", 3, 240, 40, 60, 14, CHARGE)
        day_2 = UsageLine("2025-10-10", 1, 120, 20, 30, 7, CHARGE)
        midnight = (T0 // DAY_MS + 1) * DAY_MS
        assert await reader.usage("day", None) == [day_1, day_2]
        assert await reader.usage("day", T0 // DAY_MS * DAY_MS) == [day_1, day_2]
        assert await reader.usage("day", T0 + 1500) == [day_1, day_2]  # in the middle of a day
        assert await reader.usage("day", midnight) == await reader.usage("day", T0 + 1501) == [day_2]
        assert [(line.label, line.requests) for line in await reader.usage("account", None)] == [("a", 3), ("b", 1)]
        assert [(line.label, line.charge_nano) for line in await reader.usage("model", None)] == [
            ("dear", 2 * CHARGE),
            ("free", 0),
        ]
        assert [line.label for line in await reader.usage("key", T0 + 1)] == ["a/main …wxyz", "b/main …wxyz"]
        await reader.close()


async def test_a_reader_without_a_ledger_says_so(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="no ledger"):
        await SqliteReader(tmp_path / "none.db").ping()


async def test_a_reader_cannot_write(tmp_path: Path) -> None:
    with opened(tmp_path / "nexus.db"):
        reader = SqliteReader(tmp_path / "nexus.db")
        try:
            with pytest.raises(LedgerError, match="readonly"):
                await reader._fetch("DELETE FROM plans")
        finally:
            await reader.close()


RATES = st.builds(Rates, *[st.integers(0, 2**60)] * 5)
LAST = st.builds(Tier, st.none(), st.none(), RATES)
BOUND = st.none() | st.integers(0, 2**40)
TIERS = st.tuples(st.lists(st.builds(Tier, BOUND, BOUND, RATES), max_size=3), LAST).map(lambda t: (*t[0], t[1]))
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
SOURCES = st.dictionaries(TEXT, TEXT | st.none() | st.lists(TEXT) | st.integers(-(2**53), 2**53))


@given(st.builds(PriceVersion, st.builds(Price, TEXT, TIERS, TIERS, TEXT), TEXT, TEXT, SOURCES))
def test_a_price_version_survives_the_file(version: PriceVersion) -> None:
    assert prices.from_row(prices.to_row(version)) == version


def test_the_directory_finds_keys_and_follows_changes(tmp_path: Path) -> None:
    with opened(tmp_path / "nexus.db") as book:
        book.customer("a")
        (account,) = book.run(SetAccount("a", T0))
        (key,) = book.run(CreateKey("a", b"h" * 32, "wxyz", T0, name="k", models=("m",), rpm=3, expires_ms=T0))
    assert isinstance(account, AccountRow)
    assert isinstance(key, KeyRow)
    directory = Directory([account], [key])
    found = directory.find(b"h" * 32)
    assert found is not None
    assert (found.key_id, found.name, found.hint, found.rpm) == (key.key_id, "k", "wxyz", 3)
    assert found.models == frozenset({"m"})
    assert (found.expires_ms, found.revoked, found.account.name) == (T0, False, "a")
    assert found.account is directory.account(account.account_id)
    assert directory.find(b"x" * 32) is None
    assert directory.account(99) is None
    directory.charged(account.account_id, 5)
    assert found.account.spent_nano == 5
    changed = AccountRow(account.account_id, "a", "dedicated", True, 0, 0, 0, 9, 8, T0, None)
    directory.put_account(changed)
    assert (found.account.plan, found.account.suspended, found.account.paid_nano) == ("dedicated", True, 9)
    revoked = KeyRow(key.key_id, key.account_id, "a", "k", b"h" * 32, "wxyz", None, None, T0, None, T0)
    directory.put_key(revoked)
    assert found is directory.find(b"h" * 32)
    assert (found.revoked, str(found.models)) == (True, "None")
