"""Group commit, and what becomes of money whose waiter has gone. On a real file."""

import asyncio
import errno
import inspect
import os
import sqlite3
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from nexus_proxy.core.money.amounts import NANO
from nexus_proxy.core.money.prices import amount_nano
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import LedgerError, LedgerUnavailable
from nexus_proxy.ledger.protocol import (
    AccountRow,
    AlreadySettled,
    Denied,
    Held,
    Hold,
    KeyRow,
    Operation,
    Outcome,
    Progress,
    RevokeKey,
    Settle,
    Settled,
    Short,
    StoreBroken,
    ToppedUp,
    TopUp,
)
from nexus_proxy.ledger.spool import BALLAST_BYTES, FIELDS, Spool
from nexus_proxy.ledger.sqlite.read import SqliteReader
from nexus_proxy.ledger.sqlite.store import SqliteStore
from nexus_proxy.ledger.sqlite.verify import verify
from nexus_proxy.ledger.writer import Writer
from tests.ledger.ledgerbook import DEAR, PLANS, PRICES, T0, hold, opened, settle, settled, void
from tests.rig.compiled import from_source

USAGE = Usage(prompt=120, completion=30, cached=20)
CHARGE = amount_nano(DEAR.tiers, USAGE)


class Gated(from_source(SqliteStore.__module__).SqliteStore):  # type: ignore[misc]
    """A store whose commits wait at a gate, and which remembers its batches."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gate = threading.Event()
        self.gate.set()
        self.began = threading.Event()
        self.batches: list[list[Operation]] = []
        self.fault: BaseException | None = None
        self.rest = threading.Event()  # what can wait does so at a second gate
        self.rest.set()
        self.rested: list[bool] = []  # whether it was busy, at each end of a batch

    def tidy(self, *, busy: bool) -> None:
        self.rested.append(busy)
        assert self.rest.wait(10)
        super().tidy(busy=busy)

    def apply(self, batch: Sequence[Operation]) -> list[Outcome]:
        self.batches.append(list(batch))
        self.began.set()
        assert self.gate.wait(10)
        if self.fault is not None:
            raise self.fault
        outcomes: list[Outcome] = super().apply(batch)
        return outcomes


class Desk:
    """A running writer on a ledger with one account."""

    def __init__(self, path: Path, commit_timeout_s: float) -> None:
        self.path = path
        with opened(path) as book:
            self.account_id, self.key_id = book.customer("acme", NANO)
        self.store = Gated(path)
        self.broken: list[BaseException] = []
        self.writer = Writer(
            self.store,
            loop=asyncio.get_running_loop(),
            commit_timeout_s=commit_timeout_s,
            on_broken=self.broken.append,
        )

    def op(self, hold_nano: int, request_id: str | None = None) -> Hold:
        return hold(self.account_id, self.key_id, hold_nano, request_id)

    async def account(self) -> AccountRow:
        reader = SqliteReader(self.path)
        account = await reader.account(self.account_id)
        await reader.close()
        assert account is not None
        return account

    async def until(self, true: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not true():  # noqa: ASYNC110 - what is waited for happens in the writer's thread
                await asyncio.sleep(0.001)


@asynccontextmanager
async def desk(tmp_path: Path, commit_timeout_s: float = 5.0) -> AsyncIterator[Desk]:
    desk = Desk(tmp_path / "nexus.db", commit_timeout_s)
    await desk.writer.start()
    try:
        yield desk
    finally:
        desk.store.gate.set()
        await desk.writer.stop()
    assert verify(desk.path) == []


async def test_a_hold_and_its_settlement_are_durable_when_they_return(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        assert d.writer.writable
        assert await d.writer.hold(d.op(10_000_000, "r1")) == Held()
        assert (await d.account()).held_nano == 10_000_000
        assert await settled(d.writer, settle("r1", USAGE)) == Settled(d.account_id, CHARGE, 0)
        assert (await d.account()).balance_nano == NANO - CHARGE
        assert await settled(d.writer, settle("r1", USAGE)) == AlreadySettled()
        assert await d.writer.hold(d.op(2 * NANO)) == Short(2 * NANO, NANO - CHARGE, NANO - CHARGE)
    assert not d.writer.writable


@pytest.mark.parametrize("carried", [137, 0, 1000])
async def test_e1_exactly_as_many_holds_as_the_balance_carries(tmp_path: Path, carried: int) -> None:
    async with desk(tmp_path) as d:
        hold_nano = NANO // carried if carried else NANO + 1
        outcomes = await asyncio.gather(*(d.writer.hold(d.op(hold_nano)) for _ in range(1000)))
        assert sum(isinstance(outcome, Held) for outcome in outcomes) == carried
        assert sum(isinstance(outcome, Short) for outcome in outcomes) == 1000 - carried
        assert (await d.account()).held_nano == carried * hold_nano
        assert d.writer.batches < 100


async def test_e8_a_hundred_concurrent_top_ups_with_one_external_id(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        same = [d.writer.run(TopUp("acme", 5, T0 + i, "pay-1")) for i in range(100)]
        other = d.writer.run(TopUp("acme", 6, T0, "pay-1"))
        *outcomes, refused = await asyncio.gather(*same, other)
        assert sum(isinstance(o, ToppedUp) and o.applied for o in outcomes) == 1
        assert {o.entry_id for o in outcomes if isinstance(o, ToppedUp)} == {2}
        assert len(outcomes) == 100
        assert isinstance(refused, Denied)
        assert (await d.account()).balance_nano == NANO + 5


async def test_what_queues_during_a_commit_is_one_batch(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        seen: list[tuple[int, float]] = []
        d.writer.observe = lambda size, commit_s: seen.append((size, commit_s))
        d.store.gate.clear()
        first = asyncio.ensure_future(d.writer.hold(d.op(1)))
        await d.until(d.store.began.is_set)
        rest = [asyncio.ensure_future(d.writer.hold(d.op(1))) for _ in range(50)]
        await asyncio.sleep(0)
        assert d.writer.queued == 51
        d.store.gate.set()
        await asyncio.gather(first, *rest)
        assert [size for size, _ in seen] == [1, 50]
        assert d.writer.operations == 51
        assert d.writer.queued == 0


async def test_what_is_asked_in_one_turn_is_one_batch(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await asyncio.gather(*(d.writer.hold(d.op(1)) for _ in range(20)))
        await asyncio.gather(*(d.writer.hold(d.op(1)) for _ in range(20)))
        assert [len(batch) for batch in d.store.batches] == [20, 20]


async def test_a_lone_operation_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_proxy.ledger.writer.QUIET_TURNS", 10**9)
    monkeypatch.setattr("nexus_proxy.ledger.writer.GATHER_MAX_S", 60.0)
    async with desk(tmp_path) as d, asyncio.timeout(5):
        for step in range(5):
            await d.writer.hold(d.op(1, f"r{step}"))
            await settled(d.writer, settle(f"r{step}", Usage(0, 0)))
        assert [len(batch) for batch in d.store.batches] == [1] * 10


@pytest.mark.parametrize(("longest_s", "batches"), [(60.0, 1), (0.0, 2)])
async def test_in_company_a_batch_waits_while_more_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, longest_s: float, batches: int
) -> None:
    monkeypatch.setattr("nexus_proxy.ledger.writer.COMPANY_S", 60.0)
    monkeypatch.setattr("nexus_proxy.ledger.writer.GATHER_MAX_S", longest_s)
    async with desk(tmp_path) as d, asyncio.timeout(5):
        await asyncio.gather(*(d.writer.hold(d.op(1)) for _ in range(2)))
        d.store.batches.clear()
        d.store.gate.clear()
        coming = []
        for _ in range(30):  # one in each turn of the loop
            coming.append(asyncio.ensure_future(d.writer.hold(d.op(1))))
            await asyncio.sleep(0)
        d.store.gate.set()
        await asyncio.gather(*coming)
        assert len(d.store.batches) == batches


async def test_in_company_what_came_during_a_commit_waits_while_more_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus_proxy.ledger.writer.COMPANY_S", 60.0)
    monkeypatch.setattr("nexus_proxy.ledger.writer.GATHER_MAX_S", 60.0)
    monkeypatch.setattr("nexus_proxy.ledger.writer.QUIET_TURNS", 10)
    async with desk(tmp_path) as d, asyncio.timeout(5):
        d.store.gate.clear()
        first = [asyncio.ensure_future(d.writer.hold(d.op(1))) for _ in range(2)]
        await d.until(d.store.began.is_set)
        coming = [asyncio.ensure_future(d.writer.hold(d.op(1)))]
        await asyncio.sleep(0)
        d.store.gate.set()
        await asyncio.gather(*first)
        for _ in range(5):
            coming.append(asyncio.ensure_future(d.writer.hold(d.op(1))))
            await asyncio.sleep(0)
        await asyncio.gather(*coming)
        assert [len(batch) for batch in d.store.batches] == [2, 6]


async def test_a_list_whose_waiters_have_all_left_does_not_stop_the_next(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        d.store.gate.clear()
        first = asyncio.ensure_future(d.writer.hold(d.op(1)))
        await d.until(d.store.began.is_set)
        gone = [asyncio.ensure_future(d.writer.hold(d.op(1))) for _ in range(3)]
        await asyncio.sleep(0)
        for task in gone:
            task.cancel()
        await asyncio.wait(gone)
        d.store.gate.set()
        await first
        await d.until(lambda: d.writer.queued == 0)
        assert await asyncio.wait_for(d.writer.hold(d.op(1)), 5) == Held()


async def test_c2_e10_a_hold_whose_waiter_left_in_the_queue_is_withdrawn(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        d.store.gate.clear()
        first = asyncio.ensure_future(d.writer.hold(d.op(1, "first")))
        await d.until(d.store.began.is_set)
        second = asyncio.ensure_future(d.writer.hold(d.op(1, "second")))
        await asyncio.sleep(0)
        second.cancel()
        await asyncio.wait([second])
        d.store.gate.set()
        await first
        await d.until(lambda: d.writer.queued == 0)
        assert (await d.account()).held_nano == 1
        assert d.writer.withdrawn == 0


async def test_c2_e10_a_hold_whose_waiter_left_during_the_commit_is_voided(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        d.store.gate.clear()
        task = asyncio.ensure_future(d.writer.hold(d.op(1, "r1")))
        await d.until(d.store.began.is_set)
        task.cancel()
        await asyncio.wait([task])
        d.store.gate.set()
        await d.until(lambda: d.writer.queued == 0)
        assert (await d.account()).held_nano == 0
        assert d.writer.withdrawn == 1


async def test_c2_e10_of_a_batch_that_nobody_waits_for_just_what_was_held_is_voided(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        sizes = (2 * NANO, 1, 3 * NANO, 2)  # the account has one
        tasks = [asyncio.ensure_future(d.writer.hold(d.op(hold_nano, f"r{hold_nano}"))) for hold_nano in sizes]
        d.store.gate.clear()
        await d.until(d.store.began.is_set)
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
        d.store.gate.set()
        await d.until(lambda: d.writer.queued == 0)
        assert [len(batch) for batch in d.store.batches] == [4, 2]
        assert [op.request_id for op in d.store.batches[1] if isinstance(op, Settle)] == ["r1", "r2"]
        assert (await d.account()).held_nano == 0


async def test_e10_a_hold_whose_waiter_is_cancelled_as_its_answer_arrives_is_voided(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with desk(tmp_path) as d:
        task = asyncio.ensure_future(d.writer.hold(d.op(1, "r1")))
        deliver = d.writer._deliver

        def deliver_and_cancel(*arguments: Any) -> None:
            deliver(*arguments)
            task.cancel()

        monkeypatch.setattr(d.writer, "_deliver", deliver_and_cancel)
        with pytest.raises(asyncio.CancelledError):
            await task
        await d.until(lambda: d.writer.queued == 0)
        assert (await d.account()).held_nano == 0


async def test_d10_a_locked_ledger_refuses_holds_in_time_and_settles_later(tmp_path: Path) -> None:
    async with desk(tmp_path, commit_timeout_s=0.3) as d:
        await d.writer.hold(d.op(10_000_000, "r1"))
        other = sqlite3.connect(d.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ending = settled(d.writer, settle("r1", USAGE))
        d.writer.progress(Progress("r0", USAGE))
        began = asyncio.get_running_loop().time()
        refusals = await asyncio.gather(
            *(d.writer.hold(d.op(5)) for _ in range(20)), d.writer.run(TopUp("acme", 7, T0)), return_exceptions=True
        )
        assert asyncio.get_running_loop().time() - began < 1.0
        assert all(isinstance(refusal, LedgerUnavailable) for refusal in refusals)
        assert not d.writer.writable
        assert not ending.done()
        await d.until(lambda: len(d.store.batches[-1]) == 2)  # the settlement and the progress; the rest is withdrawn
        other.execute("COMMIT")
        other.close()
        assert await asyncio.wait_for(ending, 5) == Settled(d.account_id, CHARGE, 0)
        account = await d.account()
        assert (account.balance_nano, account.held_nano) == (NANO - CHARGE, 0)
        await d.until(lambda: d.writer.writable)
        assert d.broken == []


async def test_d10_what_comes_and_gives_up_while_the_store_is_busy_is_not_kept(tmp_path: Path) -> None:
    async with desk(tmp_path, commit_timeout_s=0.05) as d:
        await d.writer.hold(d.op(10_000_000, "r1"))
        other = sqlite3.connect(d.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ending = settled(d.writer, settle("r1", USAGE))
        await d.until(lambda: not d.writer.writable)
        with pytest.raises(LedgerUnavailable):
            await d.writer.hold(d.op(1))
        await d.until(lambda: d.writer.queued == 1)  # the settlement
        other.execute("COMMIT")
        other.close()
        assert await asyncio.wait_for(ending, 5) == Settled(d.account_id, CHARGE, 0)


async def test_d10_a_hold_that_timed_out_during_its_commit_is_voided(tmp_path: Path) -> None:
    async with desk(tmp_path, commit_timeout_s=0.05) as d:
        d.store.gate.clear()
        with pytest.raises(LedgerUnavailable) as refusal:
            await d.writer.hold(d.op(1, "r1"))
        assert refusal.value.retry_after_ns == NANO
        d.store.gate.set()
        await d.until(lambda: d.writer.queued == 0)
        assert (await d.account()).held_nano == 0


async def test_d7_a_writer_that_is_idle_finds_out_that_the_store_is_well_again(tmp_path: Path) -> None:
    async with desk(tmp_path, commit_timeout_s=0.05) as d:
        other = sqlite3.connect(d.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(LedgerUnavailable):
            await d.writer.hold(d.op(1))
        await d.until(lambda: not d.writer.writable)
        assert d.writer.busy > 0
        other.execute("COMMIT")
        other.close()
        await d.until(lambda: d.writer.writable)


async def test_progress_goes_with_the_next_batch_or_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with desk(tmp_path) as d:
        await d.writer.hold(d.op(1, "r1"))
        d.writer.progress(Progress("r1", USAGE))
        assert d.store.batches[1:] == []
        await d.writer.hold(d.op(1, "r2"))
        assert [type(op) for op in d.store.batches[1]] == [Hold, Progress]
        d.writer.progress(Progress("r1", USAGE))
        await d.until(lambda: len(d.store.batches) == 3)  # nobody else came
        assert [type(op) for op in d.store.batches[2]] == [Progress]


async def test_only_the_newest_progress_of_a_request_is_written(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await asyncio.gather(d.writer.hold(d.op(1, "r1")), d.writer.hold(d.op(1, "r2")))
        d.store.gate.clear()
        d.store.began.clear()
        waiting = asyncio.ensure_future(d.writer.hold(d.op(1, "r3")))
        await d.until(d.store.began.is_set)
        for output in range(10):
            d.writer.progress(Progress("r1", Usage(10, output)))
        d.writer.progress(Progress("r2", Usage(10, 1)))
        ending = settled(d.writer, settle("r2", USAGE))
        d.store.gate.set()
        await asyncio.gather(waiting, ending)
        written = [op for batch in d.store.batches for op in batch if isinstance(op, Progress)]
        assert written == [Progress("r1", Usage(10, 9))]


@pytest.mark.parametrize("fault", [StoreBroken("EIO"), RuntimeError("a bug")])
async def test_d9_d24_a_broken_store_is_told_once_and_fails_everybody(tmp_path: Path, fault: Exception) -> None:
    async with desk(tmp_path) as d:
        d.store.gate.clear()
        taken = asyncio.ensure_future(d.writer.hold(d.op(1)))
        await d.until(d.store.began.is_set)
        queued = asyncio.ensure_future(d.writer.hold(d.op(1)))
        ending = settled(d.writer, settle("r1", USAGE))
        await asyncio.sleep(0)
        d.store.fault = fault
        d.store.gate.set()
        outcomes = await asyncio.gather(taken, queued, return_exceptions=True)
        assert [type(outcome) for outcome in outcomes] == [LedgerUnavailable] * 2
        assert await ending is None
        assert d.broken == [fault]
        assert not d.writer.writable
        with pytest.raises(LedgerUnavailable):
            await d.writer.hold(d.op(1))
        assert await settled(d.writer, settle("r1", USAGE)) is None
        d.writer.progress(Progress("r1", USAGE))


async def test_stop_commits_what_is_queued(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        holds = [asyncio.ensure_future(d.writer.hold(d.op(1000, f"r{i}"))) for i in range(700)]
        await asyncio.gather(*holds)
        endings = [settled(d.writer, settle(f"r{i}", Usage(0, 0))) for i in range(700)]
        await d.writer.stop()
        assert all(future.result() == Settled(d.account_id, 0, 0) for future in endings)
        await d.writer.stop()


async def test_a_stop_does_not_wait_for_ever_for_a_busy_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nexus_proxy.ledger.writer.STOP_TIMEOUT_S", 0.05)
    async with desk(tmp_path) as d:
        await d.writer.hold(d.op(1000, "r1"))
        other = sqlite3.connect(d.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        ending = settled(d.writer, settle("r1", USAGE))
        d.writer.progress(Progress("r1", USAGE))
        await d.writer.stop()
        other.close()
        assert await ending is None
        assert d.broken == []
        assert d.writer.spooled == 1
        assert (await d.account()).held_nano == 1000  # for the next start


async def test_d10_d17_what_a_stop_could_not_commit_is_posted_by_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nexus_proxy.ledger.writer.STOP_TIMEOUT_S", 0.05)
    async with desk(tmp_path) as d:
        for request_id in ("r1", "r2"):
            await d.writer.hold(d.op(10_000_000, request_id))
        other = sqlite3.connect(d.path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        settled(d.writer, settle("r1", USAGE))
        settled(d.writer, void("r2"))
        await d.writer.stop()
        other.close()
        spool = d.path.with_name("nexus.db.spool")
        left = spool.read_bytes() + b'{"request_id":"r1"}'  # a crash while it was written
        for _ in range(2):  # the second time as after a crash between the commit and the removal
            spool.write_bytes(left)
            again = Writer(SqliteStore(d.path), loop=asyncio.get_running_loop(), on_broken=d.broken.append)
            assert await again.start() == 0
            await again.stop()
            assert not spool.exists()
        account = await d.account()
        assert (account.balance_nano, account.held_nano) == (NANO - CHARGE, 0)
        assert verify(d.path) == []


async def test_what_can_wait_is_done_after_the_outcomes_were_handed_back(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        d.store.rest.clear()
        assert await asyncio.wait_for(d.writer.hold(d.op(1, "r1")), 5) == Held()  # the thread is still at it
        await d.until(lambda: d.store.rested == [False])
        later = [asyncio.create_task(d.writer.hold(d.op(1))) for _ in range(513)]
        await d.until(lambda: d.writer.queued == len(later))
        d.store.rest.set()
        assert await asyncio.wait_for(asyncio.gather(*later), 5) == [Held()] * len(later)
        await d.until(lambda: d.store.rested[-1] is False)
        assert True in d.store.rested  # one operation was left over from the first of its batches
        await settled(d.writer, void("r1"))


def test_a_spooled_settlement_says_all_that_it_said(tmp_path: Path) -> None:
    source = from_source("nexus_proxy.ledger.protocol").Settle
    assert tuple(inspect.signature(source).parameters) == FIELDS
    usage = Usage(5, 4, 3, 2, 1)
    op = Settle("r1", EndState.COMPLETE, UsageSource.ESTIMATED, usage, 9, 8, 200, T0, 7, 6, "odd", 3)
    spool = Spool(tmp_path / "nexus.db")
    spool.append([op])
    (found,) = spool.read()
    assert [getattr(found, name) for name in FIELDS] == [getattr(op, name) for name in FIELDS]


async def test_d13_a_spool_waits_for_the_return_of_its_own_ledger(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.writer.hold(d.op(10_000_000, "r1"))
        await d.writer.stop()
    here = tmp_path / "nexus.db"
    alias = tmp_path / "alias.db"
    alias.symlink_to(here)
    Spool(alias).append([settle("r1", USAGE)])
    d.path.rename(tmp_path / "moved.db")  # it was closed, so it is one file
    for _ in range(2):
        with opened(here):
            pass  # another ledger of that name knows nothing of it
        store = SqliteStore(here)
        store.open()
        store.recover(T0)
        store.close()
    (tmp_path / "moved.db").rename(here)
    store = SqliteStore(here)
    store.open()
    assert store.recover(T0) == 0
    store.close()
    assert not Spool(here).path.exists()
    assert verify(here) == []
    reader = SqliteReader(here)
    try:
        row = await reader.request("r1")
    finally:
        await reader.close()
    assert row is not None
    assert (row["state"], row["usage_source"]) == ("posted", "reported")


async def test_a_spool_that_cannot_be_understood_stops_the_start(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.writer.stop()
    (tmp_path / "nexus.db.spool").write_bytes(b'{"request_id":"r1"} ;\n')
    writer = Writer(SqliteStore(tmp_path / "nexus.db"), loop=asyncio.get_running_loop(), on_broken=lambda _: None)
    with pytest.raises(LedgerError, match="spool"):
        await writer.start()
    await writer.stop()


async def test_d9_what_was_queued_when_the_store_broke_is_spooled(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.writer.hold(d.op(10_000_000, "r1"))
        d.store.fault = StoreBroken("EIO")
        ending = settled(d.writer, settle("r1", USAGE))
        assert await ending is None
        await d.until(lambda: bool(d.broken))
        assert [op.request_id for op in Spool(d.path).read()] == ["r1"]


async def test_d13_d14_nothing_is_written_into_a_file_that_was_moved_or_whose_lock_is_gone(tmp_path: Path) -> None:
    async with desk(tmp_path, commit_timeout_s=0.2) as d:
        for name in ("nexus.db", "nexus.db.lock"):
            d.store._look_at = 0.0  # it is time to look
            (tmp_path / name).rename(tmp_path / "elsewhere")
            with pytest.raises(LedgerUnavailable):
                await d.writer.hold(d.op(1))
            assert not d.writer.writable
            (tmp_path / "elsewhere").rename(tmp_path / name)
            await d.until(lambda: d.writer.writable)
        assert await d.writer.hold(d.op(1)) == Held()


async def test_d13_a_file_that_was_moved_is_noticed_soon_by_a_writer_that_never_rests(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        await d.writer.hold(d.op(1, "before"))
        (tmp_path / "nexus.db").rename(tmp_path / "elsewhere")
        coming = []
        async with asyncio.timeout(5):
            while d.writer.writable:
                coming.append(asyncio.ensure_future(d.writer.hold(d.op(1))))
                await asyncio.sleep(0.001)
        (tmp_path / "elsewhere").rename(tmp_path / "nexus.db")
        assert set(await asyncio.gather(*coming)) == {Held()}


async def test_f25_what_an_admin_gave_up_waiting_for_is_told_all_the_same(tmp_path: Path) -> None:
    async with desk(tmp_path, commit_timeout_s=0.05) as d:
        told: list[Outcome] = []
        d.writer.on_unclaimed = told.append
        d.store.gate.clear()
        with pytest.raises(LedgerUnavailable):
            await d.writer.run(RevokeKey(d.key_id, T0))
        d.store.gate.set()
        await d.until(lambda: d.writer.queued == 0)
        assert [outcome.revoked_ms for outcome in told if isinstance(outcome, KeyRow)] == [T0]


async def test_start_recovers_what_an_earlier_run_left(tmp_path: Path) -> None:
    path = tmp_path / "nexus.db"
    with opened(path) as book:
        account_id, key_id = book.customer("acme", NANO)
        book.run(hold(account_id, key_id, 5), hold(account_id, key_id, 5))
    writer = Writer(SqliteStore(path), loop=asyncio.get_running_loop(), on_broken=lambda _: None)
    assert await writer.start() == 2
    await writer.run(PRICES)
    await writer.run(PLANS)
    await writer.stop()
    assert verify(path) == []


async def test_d14_a_start_on_a_ledger_in_use_fails_with_its_reason(tmp_path: Path) -> None:
    async with desk(tmp_path) as d:
        second = Writer(SqliteStore(d.path), loop=asyncio.get_running_loop(), on_broken=d.broken.append)
        with pytest.raises(LedgerError, match="in use"):
            await second.start()
        assert not second.writable
        await second.stop()
        assert d.broken == []


async def test_whoever_fails_to_take_note_of_its_settlement_keeps_nobody_from_hearing_of_theirs(tmp_path: Path) -> None:
    def fail(_: Settled | AlreadySettled | None) -> None:
        raise fault

    fault, faults = RuntimeError("a bug"), []
    async with desk(tmp_path) as d:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context["exception"]))
        await asyncio.gather(*(d.writer.hold(d.op(10_000_000, request_id)) for request_id in ("r1", "r2")))
        d.writer.settle(settle("r1", USAGE), fail)
        assert await settled(d.writer, settle("r2", USAGE)) == Settled(d.account_id, CHARGE, 0)
        assert faults == [fault]
        assert (await d.account()).balance_nano == NANO - 2 * CHARGE


async def test_d7_a_full_disk_has_room_left_for_the_spool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spool = Spool(tmp_path / "nexus.db")
    spool.reserve()
    ballast = tmp_path / "nexus.db.ballast"
    assert ballast.stat().st_size == BALLAST_BYTES[0]
    real = os.fsync

    def full(descriptor: int) -> None:
        if ballast.exists():
            raise OSError(errno.ENOSPC, "no space left")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    spool.append([settle("r1", USAGE)])
    assert not ballast.exists()
    assert {op.request_id for op in spool.read()} == {"r1"}  # what was written twice counts once: its hold ends once
