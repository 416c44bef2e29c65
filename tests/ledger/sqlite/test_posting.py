"""What one batch does to an account, in its order, and what of it outlives the batch."""

import inspect
import math
import sqlite3
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.core.money.prices import amount_nano
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.protocol import (
    AlreadySettled,
    CreateKey,
    Done,
    Held,
    Hold,
    KeyRow,
    Operation,
    Progress,
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
from nexus_proxy.ledger.sqlite.posting import CAPPED, TOKENS_MAX
from nexus_proxy.ledger.sqlite.schema import INTERNAL
from nexus_proxy.ledger.sqlite.verify import verify
from tests.ledger.ledgerbook import DEAR, T0, Book, hold, opened, settle, void
from tests.rig.compiled import from_source

USAGE = Usage(prompt=120, completion=30, cached=20)
CHARGE = amount_nano(DEAR.tiers, USAGE)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    with opened(tmp_path / "nexus.db") as book:
        yield book


def test_e1_each_operation_of_a_batch_sees_what_came_before_it(book: Book) -> None:
    account_id, key_id = book.customer("acme", CHARGE)
    ids = account_id, key_id
    outcomes = book.run(
        hold(*ids, CHARGE, "r1"),
        hold(*ids, 1, "short"),
        settle("r1", USAGE),
        hold(*ids, 1, "emptied"),
        TopUp("acme", 10, T0),
        hold(*ids, 10, "r2"),
        SetAccount("acme", T0, suspended=True),
        hold(*ids, 0, "suspended"),
        void("r2"),
        SetAccount("acme", T0, suspended=False, overdraft_nano=5),
        hold(*ids, 15, "r3"),
        hold(*ids, 1, "beyond"),
    )
    assert [o for o in outcomes if isinstance(o, Held | Short | Suspended | Settled)] == [
        Held(),
        Short(1, CHARGE, 0),
        Settled(account_id, CHARGE, 0),
        Short(1, 0, 0),
        Held(),
        Suspended(),
        Settled(account_id, 0, 0),
        Held(),
        Short(1, 15, 0),
    ]
    assert isinstance(outcomes[4], ToppedUp)
    assert book.balance(account_id) == (10, 15)
    assert verify(book.path) == []


@pytest.mark.parametrize("count", [1, 2, 3, 63, 64, 65, 200])
def test_a_batch_of_any_size_writes_every_row_once(book: Book, count: int) -> None:
    account_id, key_id = book.customer("acme", NANO)
    names = [f"r{number}" for number in range(count)]
    assert book.run(*(hold(account_id, key_id, 10, name) for name in names)) == [Held()] * count
    usages = [Usage(prompt=10 + number, completion=number) for number in range(count)]
    book.run(*(settle(name, usage) for name, usage in zip(names, usages, strict=True)))
    assert book.store._connection is not None
    rows = book.store._connection.execute("SELECT request_id, prompt_tokens, completion_tokens FROM requests")
    assert rows.fetchall() == [(n, u.prompt, u.completion) for n, u in zip(names, usages, strict=True)]
    assert verify(book.path) == []


def test_e4_a_hold_is_settled_once_in_its_own_batch(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    outcomes = book.run(
        hold(account_id, key_id, 10, "r1"),
        Progress("r1", Usage(1, 1)),
        settle("r1", USAGE),
        Progress("r1", Usage(7, 7)),
        settle("r1", USAGE),
    )
    assert outcomes[2] == Settled(account_id, CHARGE, 0)
    assert outcomes[4] == AlreadySettled()
    assert book.one("SELECT prompt_tokens, completion_tokens FROM requests") == (USAGE.prompt, USAGE.completion)
    assert verify(book.path) == []


def test_d7_a_batch_that_was_undone_is_not_remembered(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, 10, "r1"))
    with pytest.raises(StoreBroken):
        book.run(hold(account_id, key_id, 10, "r2"), settle("r1", USAGE), hold(account_id, key_id, 10, "r1"))
    assert book.run(settle("r2", USAGE), settle("r1", USAGE)) == [AlreadySettled(), Settled(account_id, CHARGE, 0)]
    assert verify(book.path) == []


@pytest.mark.parametrize("count", [1, 2])
def test_e18_a_row_that_somebody_else_has_closed_is_not_posted_again(book: Book, count: int) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(*(hold(account_id, key_id, 10, f"r{number}") for number in range(count)))
    other = sqlite3.connect(book.path)
    other.execute(
        "INSERT INTO settlements SELECT seq, 'voided', 0, 0, 0, 0, 0, 1, 200, '', '', 0, 0, 0, 0, 0, '', 0 FROM holds"
    )
    other.commit()
    other.close()
    with pytest.raises(StoreBroken, match="settlements"):
        book.run(*(settle(f"r{number}", USAGE) for number in range(count)))
    assert book.balance(account_id) == (NANO, 10 * count)
    assert book.one("SELECT count(*) FROM entries WHERE kind = 'charge'") == (0,)


def by_hand(book: Book, change: str, *, seen: bool) -> None:
    """Change the account under the open store, which nobody should; the next batch looks for that, or does not."""
    other = sqlite3.connect(book.path)
    other.execute(f"UPDATE accounts SET {change} WHERE name = 'acme'")
    other.commit()
    other.close()
    book.store._look_at = 0.0 if seen else math.inf


@pytest.mark.parametrize("seen", [False, True])
def test_e17_what_the_table_says_at_the_batch_decides(book: Book, seen: bool) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, 10))
    by_hand(book, "balance_nano = 11", seen=seen)
    assert book.run(hold(account_id, key_id, 2), hold(account_id, key_id, 1)) == [Short(2, 11, 1), Held()]
    assert book.balance(account_id) == (11, 11)


@pytest.mark.parametrize("seen", [False, True])
def test_e17_no_more_is_charged_than_the_table_has(book: Book, seen: bool) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, 10, "r1"))
    by_hand(book, "balance_nano = 15", seen=seen)
    assert book.run(settle("r1", USAGE)) == [Settled(account_id, 15, CHARGE - 15)]
    assert book.balance(account_id) == (0, 0)


@pytest.mark.parametrize(("seen", "expected"), [(False, Short(10, 10, 0)), (True, Held())])
def test_e17_more_money_by_hand_counts_from_the_next_look(book: Book, seen: bool, expected: Held | Short) -> None:
    account_id, key_id = book.customer("acme", 10)
    book.run(hold(account_id, key_id, 10))
    by_hand(book, "balance_nano = 20", seen=seen)
    assert book.run(hold(account_id, key_id, 10)) == [expected]


@pytest.mark.parametrize("count", [1, 2])
def test_e17_an_account_that_was_removed_by_hand_does_not_come_back(book: Book, count: int) -> None:
    ids = [book.customer(name, NANO) for name in ("acme", "other")]
    book.run(*(hold(*both, 10, f"r{number}") for number, both in enumerate(ids)))
    by_hand(book, "account_id = 99", seen=False)
    with pytest.raises(KeyError):
        book.run(*(settle(f"r{number}", USAGE) for number in range(count)))
    assert book.one("SELECT count(*) FROM accounts") == (len(INTERNAL) + 2,)
    assert book.run(settle("r1", USAGE)) == [Settled(ids[1][0], CHARGE, 0)]


def test_d14_who_meets_the_rows_of_a_second_server_looks_whether_the_lock_is_its_own(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, 10))
    book.store._look_at = math.inf
    book.path.with_name("nexus.db.lock").unlink()
    with opened(book.path) as second:
        second.run(hold(account_id, key_id, 10))
        with pytest.raises(StoreBusy, match="lock file"):
            book.run(hold(account_id, key_id, 10))
        assert second.run(hold(account_id, key_id, 10)) == [Held()]


def traced(book: Book, *batch: Operation) -> list[str]:
    """Apply a batch, which may fail, and return its statements."""
    statements: list[str] = []
    assert book.store._connection is not None
    book.store._connection.set_trace_callback(statements.append)
    with suppress(StoreBroken):
        book.run(*batch)
    book.store._connection.set_trace_callback(None)
    return statements


def reads(book: Book, *batch: Operation) -> int:
    """Apply a batch and count how often it read accounts."""
    return sum(text.startswith("SELECT account_id, balance_nano") for text in traced(book, *batch))


def test_an_account_is_read_once_and_again_where_it_may_have_changed(book: Book) -> None:
    one, other = book.customer("acme", NANO), book.customer("other", NANO)
    assert reads(book, hold(*one, 10, "r1"), hold(*other, 10)) == 1
    assert reads(book, hold(*one, 10, "r2"), settle("r1", USAGE), hold(*other, 10)) == 0
    book.store._look_at = 0.0
    assert reads(book, hold(*one, 0)) == 0  # looked, and nobody else has written
    assert reads(book, TopUp("acme", 5, T0), hold(*one, 10, "r3")) == 1
    book.store._look_at = 0.0  # and nobody else has written
    assert reads(book, settle("r2", USAGE)) == 0
    assert reads(book, hold(*one, 10, "r4"), hold(*one, 10, "r4")) == 1  # undone, and tried again with what is there
    assert reads(book, hold(*one, 10, "r5")) == 1
    assert book.balance(one[0]) == (NANO + 5 - 2 * CHARGE, 20)
    assert verify(book.path) == []


def test_what_several_settlements_need_is_read_at_once(book: Book) -> None:
    ids = [book.customer(f"a{number}", NANO) for number in range(3)]
    book.run(*(hold(*both, 10, f"r{number}") for number, both in enumerate(ids)))
    book.run(TopUp("a0", 5, T0))
    assert reads(book, *(settle(f"r{number}", USAGE) for number in range(3))) == 1


def test_what_one_batch_has_moved_the_next_does_not_move_again(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(*(hold(account_id, key_id, 10, f"r{number}") for number in range(3)))
    for number in range(2):
        book.run(settle(f"r{number}", USAGE))
        assert book.balance(account_id) == (NANO - CHARGE * (number + 1), 10 * (2 - number))
    book.run(hold(account_id, key_id, 7))
    assert book.balance(account_id) == (NANO - CHARGE * 2, 17)
    assert verify(book.path) == []


def test_just_what_was_refused_by_what_was_known_is_tried_again(book: Book) -> None:
    one = book.customer("acme", NANO)
    twice = [hold(*one, 10, "r1")] * 2
    assert traced(book, *twice).count("BEGIN IMMEDIATE") == 1  # nothing was known
    book.run(hold(*one, 10))
    assert traced(book, *twice).count("BEGIN IMMEDIATE") == 2
    book.run(hold(*one, 10))
    other = sqlite3.connect(book.path)
    other.execute("ALTER TABLE holds RENAME TO gone")
    other.close()
    book.store._look_at = math.inf  # so that accounts stay known
    assert traced(book, hold(*one, 10)).count("BEGIN IMMEDIATE") == 1


def test_what_a_batch_had_decided_before_it_met_a_bug_is_forgotten(book: Book) -> None:
    one = book.customer("acme", NANO)
    book.run(hold(*one, 1))
    with pytest.raises(AssertionError):
        book.run(hold(*one, NANO - 1), hold(*one, -1))
    assert book.run(hold(*one, NANO - 1)) == [Held()]


def test_not_more_accounts_are_known_than_the_bound(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_proxy.ledger.sqlite.store.ACCOUNTS_KEPT_MAX", 3)
    ids = [book.customer(f"a{number}", NANO) for number in range(5)]
    assert [reads(book, hold(*both, 1)) for both in ids[:4]] == [1] * 4
    assert [reads(book, hold(*ids[0], 1)), reads(book, hold(*ids[0], 1))] == [1, 0]


def test_a_batch_of_many_accounts_moves_each_by_its_own(book: Book) -> None:
    ids = [book.customer(f"a{number}", NANO) for number in range(70)]
    book.run(*(hold(*both, 100 + number, f"r{number}") for number, both in enumerate(ids)))
    usages = [Usage(prompt=10 + number, completion=0) for number in range(35)]
    outcomes = book.run(
        *(settle(f"r{number}", usage) for number, usage in enumerate(usages)),
        *(hold(*both, 7) for both in ids[35:]),
    )
    charges = [amount_nano(DEAR.tiers, usage) for usage in usages]
    assert outcomes == [
        *(Settled(ids[number][0], charge, 0) for number, charge in enumerate(charges)),
        *[Held()] * 35,
    ]
    assert [book.balance(account_id) for account_id, _ in ids] == [
        *((NANO - charge, 0) for charge in charges),
        *((NANO, 100 + number + 7) for number in range(35, 70)),
    ]
    assert verify(book.path) == []


def test_a_top_up_after_a_charge_in_one_batch_counts_both(book: Book) -> None:
    account_id, key_id = book.customer("acme", NANO)
    book.run(hold(account_id, key_id, NANO, "r1"))
    book.run(TopUp("acme", 5, T0), settle("r1", USAGE), TopUp("acme", 7, T0), hold(account_id, key_id, 3))
    assert book.balance(account_id) == (NANO + 12 - CHARGE, 3)
    assert book.one("SELECT balance_nano FROM accounts WHERE name = 'funding'") == (-NANO - 12,)
    assert verify(book.path) == []


def test_no_two_outcomes_are_equal() -> None:
    outcomes = [Held(), Suspended(), AlreadySettled(), Done(), Settled(1, 2, 3), Short(1, 2, 3)]
    assert all((one == other) == (one is other) for one in outcomes for other in outcomes)


@pytest.mark.parametrize("count", [1, 2])
def test_a_hold_is_no_entry(book: Book, count: int) -> None:
    ids = [book.customer(f"a{number}", overdraft_nano=10) for number in range(count)]
    book.run(*(hold(*both, 5) for both in ids))
    assert book.one("SELECT count(last_entry_ms) FROM accounts") == (0,)
    assert book.one("SELECT last_updated FROM balances") == ("2025-10-09T08:53:20.123Z",)


@pytest.mark.parametrize("name", ["prompt", "cached", "cache_write", "completion", "reasoning"])
def test_e16_each_count_is_capped_and_the_row_says_so(book: Book, name: str) -> None:
    ids = book.customer("acme", NANO)
    for request_id, tokens, flags in (
        ("last", TOKENS_MAX - 1, ""),
        ("first", TOKENS_MAX, CAPPED),
        ("far", 2**70, CAPPED),
    ):
        counts: dict[str, Any] = {"prompt": 1, "completion": 1, name: tokens}
        usage = Usage(**counts)
        op = Settle(request_id, EndState.COMPLETE, UsageSource.REPORTED, usage, 9, 8, 200, T0)
        book.run(hold(*ids, 9, request_id), op)
        found = book.one(f"SELECT {name}_tokens, flags FROM settlements ORDER BY seq DESC")
        assert found == (min(tokens, TOKENS_MAX), flags)


@pytest.mark.parametrize("streamed", [True, False])
def test_what_a_hold_says_stands_in_the_column_of_that_name(book: Book, streamed: bool) -> None:
    book.customer("first")
    account_id, _ = book.customer("acme", NANO)
    key = book.run(CreateKey("acme", b"k" * 32, "wxyz", T0, name="second"))[0]
    assert isinstance(key, KeyRow)
    op = Hold("r1", account_id, key.key_id, "m", "p", "up", streamed, DEAR.price_id, 5, 6, 7, T0)
    book.run(op)
    columns = tuple(inspect.signature(from_source("nexus_proxy.ledger.protocol").Hold).parameters)
    assert book.one(f"SELECT {', '.join(columns)} FROM holds") == tuple(getattr(op, name) for name in columns)


def test_what_is_said_of_a_settlement_stands_in_its_row_whichever_statement_wrote_it(book: Book) -> None:
    ids = book.customer("acme", NANO)
    usage = Usage(5, 4, 3, 2, 1)
    complete, reported = EndState.COMPLETE, UsageSource.REPORTED
    endings = {
        Settle("plain", complete, reported, usage, 9, 8, 200, T0, 7, 6): ("posted", 200, 9, 0, "", None),
        Settle("no-status", complete, reported, usage, 9, 8, 0, T0, 7, 6): ("posted", None, 9, 0, "", None),
        Settle("flagged", complete, reported, usage, 9, 8, 200, T0, 7, 6, "odd"): ("posted", 200, 9, 0, "odd", None),
        Settle("version", complete, reported, usage, 9, 8, 200, T0, 7, 6, "", 3): ("posted", 200, 9, 0, "", 3),
        Settle("cut", EndState.UPSTREAM_CUT, reported, usage, 9, 8, 200, T0, 7, 6): ("posted", 200, 9, 0, "", None),
        Settle("drained", complete, UsageSource.DRAINED, usage, 9, 8, 200, T0, 7, 6): ("posted", 200, 9, 0, "", None),
        Settle("void", complete, UsageSource.NONE, usage, 0, 8, 200, T0, 7, 6): ("voided", 200, 0, 0, "", None),
        Settle("overrun", complete, reported, usage, NANO, 8, 200, T0, 7, 6): ("posted", 200, NANO - 54, 54, "", None),
    }
    book.run(*(hold(*ids, 9, op.request_id) for op in endings))
    book.run(*endings)  # `overrun` comes last: it takes all that there is
    columns = (
        "state, status, charge_nano, overrun_nano, flags, estimator, end_state, usage_source, prompt_tokens, "
        "completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens, cost_nano, closed_ms, first_byte_ms, "
        "duration_ms"
    )
    for op, expected in endings.items():
        same = (op.end_state.value, op.usage_source.value, 5, 4, 3, 2, 1, 8, T0, 7, 6)
        seq = f"(SELECT seq FROM holds WHERE request_id = '{op.request_id}')"
        assert book.one(f"SELECT {columns} FROM settlements WHERE seq = {seq}") == expected + same
