"""The money of one request between the hold and its one settlement."""

import asyncio

import pytest

from nexus_proxy.core.money.prices import Price, Rates, Tier
from nexus_proxy.core.money.settlement import ESTIMATOR_VERSION, Ending, EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import LedgerUnavailable, NexusError
from nexus_proxy.ledger.hold import OpenHold
from nexus_proxy.ledger.protocol import AlreadySettled, Hold, Landed, Progress, Settle, Settled
from nexus_proxy.runtime.timeouts import TimeoutQueue

TIERS = (Tier(None, None, Rates(1000, 1000, 1000, 1000, 1000)),)
PRICE = Price("p1", TIERS, TIERS, "USD")
HOLD = Hold("req_1", 1, 2, "m", "p", "u", True, "p1", 1_000_000, 100, 100, opened_ms=5_000)
NOTHING = Ending(EndState.UPSTREAM_ERROR, began=False, complete=False, usage=None, prompt_estimate=4, output_bytes=0)
WHOLE = Ending(EndState.COMPLETE, began=True, complete=True, usage=Usage(5, 6), prompt_estimate=4, output_bytes=9)
GUESSED = Ending(EndState.UPSTREAM_CUT, began=True, complete=False, usage=None, prompt_estimate=4, output_bytes=9)


class Writer:
    """Remembers what it was asked; the test decides when that is durable."""

    def __init__(self) -> None:
        self.settled: list[Settle] = []
        self.progressed: list[Progress] = []
        self.told: list[Settled | AlreadySettled] = []
        self.landed: Landed

    def settle(self, op: Settle, landed: Landed) -> None:
        self.settled.append(op)
        self.landed = landed

    def progress(self, op: Progress) -> None:
        self.progressed.append(op)


def reserve(commit_s: float = 5.0, opened: float | None = None) -> tuple[OpenHold, Writer]:
    writer = Writer()
    now = asyncio.get_running_loop().time()
    open_hold = OpenHold(
        writer,
        HOLD,
        PRICE,
        loop=asyncio.get_running_loop(),
        opened=now if opened is None else opened,
        commits=TimeoutQueue(asyncio.get_running_loop(), commit_s),
        on_settled=lambda _, outcome: writer.told.append(outcome),
    )
    return open_hold, writer


@pytest.mark.parametrize("first", [NOTHING, WHOLE, GUESSED])
async def test_e4_only_the_first_verdict_is_posted(first: Ending) -> None:
    open_hold, writer = reserve()
    verdict = open_hold.settle(first, status=200)
    for other in (NOTHING, WHOLE, GUESSED):
        assert open_hold.settle(other, status=500, flags=("x",)) is verdict
    assert len(writer.settled) == 1
    assert (writer.settled[0].charge_nano, writer.settled[0].status) == (verdict.charge_nano, 200)
    assert open_hold.verdict is verdict
    assert open_hold.settled is None


async def test_a_settlement_says_all_that_the_row_needs() -> None:
    opened = asyncio.get_running_loop().time() - 2
    open_hold, writer = reserve(opened=opened)
    open_hold.settle(WHOLE, status=200, first_byte=opened + 0.5, flags=("one", "two"))
    (op,) = writer.settled
    assert (op.request_id, op.usage, op.usage_source) == ("req_1", Usage(5, 6), UsageSource.REPORTED)
    assert (op.charge_nano, op.flags, op.first_byte_ms, op.estimator) == (11, "one two", 500, None)
    assert op.duration_ms is not None
    assert 2000 <= op.duration_ms < 3000
    assert HOLD.opened_ms <= op.closed_ms < HOLD.opened_ms + 1000  # from the hold on, not from the request's first byte


async def test_an_estimate_names_its_version() -> None:
    open_hold, writer = reserve()
    open_hold.settle(GUESSED, status=200)
    (op,) = writer.settled
    assert (op.usage_source, op.estimator, op.first_byte_ms) == (UsageSource.ESTIMATED, ESTIMATOR_VERSION, None)


class Told:
    """What `when_durable` said, and when it has."""

    def __init__(self, open_hold: OpenHold) -> None:
        self.words: list[NexusError | None] = []
        self.over = asyncio.Event()
        open_hold.when_durable(self._hear)

    def _hear(self, failure: NexusError | None) -> None:
        self.words.append(failure)
        self.over.set()


async def test_what_is_durable_in_time_is_not_late() -> None:
    open_hold, writer = reserve()
    open_hold.settle(WHOLE, status=200)
    told = Told(open_hold)
    assert told.words == []
    writer.landed(Settled(1, 11, 0))
    await told.over.wait()
    assert (told.words, open_hold.settled, open_hold.late) == ([None], Settled(1, 11, 0), False)
    assert len(open_hold._commits) == 0  # nor will it be
    assert Told(open_hold).words == [None]


async def test_what_had_been_settled_before_is_no_news() -> None:
    open_hold, writer = reserve()
    open_hold.settle(WHOLE, status=200)
    writer.landed(AlreadySettled())
    assert Told(open_hold).words == [None]
    assert (open_hold.settled, open_hold.late) == (None, False)
    assert writer.told == [AlreadySettled()]


async def test_d8_the_commit_deadline_makes_it_late_and_cancels_nothing() -> None:
    open_hold, writer = reserve(commit_s=0.01)
    open_hold.settle(WHOLE, status=200)
    told = Told(open_hold)
    await told.over.wait()
    assert open_hold.late
    writer.landed(Settled(1, 11, 0))
    assert (open_hold.settled, writer.told) == (Settled(1, 11, 0), [Settled(1, 11, 0)])  # late, and told all the same
    assert told.words == [None]


@pytest.mark.parametrize("early", [False, True])
async def test_a_ledger_that_breaks_lets_no_answer_look_whole(early: bool) -> None:
    open_hold, writer = reserve()
    open_hold.settle(WHOLE, status=200)
    told = Told(open_hold) if early else None
    writer.landed(None)
    told = told or Told(open_hold)
    await told.over.wait()
    assert [type(word) for word in told.words] == [LedgerUnavailable]
    assert (open_hold.late, open_hold.settled, writer.told) == (False, None, [])


async def test_progress_is_journaled_when_it_changes_and_until_it_is_settled() -> None:
    open_hold, writer = reserve()
    open_hold.progress(None, 4, 8)
    open_hold.progress(None, 4, 7)  # the same counts
    open_hold.progress(None, 4, 9)
    open_hold.progress(Usage(5, 6), 4, 9)
    open_hold.settle(WHOLE, status=200)
    open_hold.progress(Usage(5, 7), 4, 9)
    assert [op.usage for op in writer.progressed] == [Usage(4, 2), Usage(4, 3), Usage(5, 6)]
