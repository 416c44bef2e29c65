"""One call, from the first byte sent to the settlement, between a scripted provider and a client that remembers.

Strategy: the ledger and the client write into one list, so that the order of things can be read from it. Every way in
which a call can be over is met by every way in which a client can listen; then each step is made to fail in turn.
"""

import asyncio
import gc
import gzip
import time
import weakref
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import orjson
import pytest

from nexus_proxy.config import Limits, Provider, Timeouts
from nexus_proxy.core.control.slots import Slots
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.prices import Price, Rates, Tariff, Tier
from nexus_proxy.core.money.settlement import Ending, EndState, UsageSource, Verdict, decide
from nexus_proxy.core.request.chat import Outgoing
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.core.wire.outcome import Cause
from nexus_proxy.core.wire.sniff import SniffTap
from nexus_proxy.core.wire.stream import SseTap
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import NexusError
from nexus_proxy.runtime.timeouts import TimeoutQueue
from nexus_proxy.upstream import exchange as module
from nexus_proxy.upstream import timer as timer
from nexus_proxy.upstream.connection import Connection
from nexus_proxy.upstream.delivery import Delivery
from nexus_proxy.upstream.exchange import Exchange
from nexus_proxy.upstream.pool import Upstream
from nexus_proxy.upstream.supervisor import Supervisor
from tests.rig.answers import DONE, Answer
from tests.rig.compiled import is_compiled
from tests.rig.eventually import eventually
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.steps import (
    LAST_CHUNK,
    Chunk,
    Close,
    Delay,
    Pause,
    Received,
    Reset,
    Script,
    Send,
    Stall,
    Step,
    error,
    head,
    sse_head,
    whole,
)

ANSWER = Answer(words=3, prompt=31, completion=17)
EVENTS = [event.data for event in ANSWER.events({"stream_options": {"include_usage": True}})]
STREAM = b"".join(EVENTS)
DOCUMENT = ANSWER.document({})
USAGE = Usage(31, 17)
_TIERS = (Tier(None, None, Rates(2_000, 1_000, 2_000, 8_000, 8_000)),)
PRICE = Price("p1", _TIERS, _TIERS, "USD")
DIALECT = Dialect("openai", ask_usage=True)
MODEL = Model("m", "p", "real", DIALECT, Tariff(PRICE), created=0, context=1000, max_output=100, default_output=100)

Log = list[tuple[Any, ...]]


class Ledger:
    """The books of one exchange. `gate` holds back what is durable."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.verdict: Verdict | None = None
        self.ending: Ending | None = None
        self.status = 0
        self.flags: tuple[str, ...] = ()
        self.gate = asyncio.Event()
        self.gate.set()

    def progress(self, usage: Usage | None, prompt_estimate: int, output_bytes: int, *, thought: bool = False) -> None:
        self.log.append(("progress", usage, output_bytes))

    def settle(
        self, ending: Ending, *, status: int, first_byte: float | None = None, flags: tuple[str, ...] = ()
    ) -> Verdict:
        if self.verdict is None:
            self.verdict, self.ending, self.status, self.flags = decide(ending, PRICE, 10**9), ending, status, flags
            self.log.append(("settled",))
        return self.verdict

    def when_durable(self, told: Callable[[NexusError | None], None]) -> None:
        assert self.verdict is not None
        if self.gate.is_set():
            self.log.append(("durable",))
            told(None)
        else:
            self._waiting = asyncio.create_task(self._wait(told))

    async def _wait(self, told: Callable[[NexusError | None], None]) -> None:
        await self.gate.wait()
        self.log.append(("durable",))
        told(None)


class Listener:
    """A client. `on_send` is called after each send."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.on_send: Callable[[], None] = lambda: None

    def send(self, data: bytes) -> None:
        assert data
        self.log.append(("sent", data))
        self.on_send()

    def end(self) -> None:
        self.log.append(("end",))

    def cut(self) -> None:
        self.log.append(("cut",))


@dataclass(slots=True)
class Scene:
    """One exchange and everything around it."""

    fu: FaultUpstream
    upstream: Upstream
    exchange: Exchange
    books: Ledger
    listener: Listener
    drains: Slots
    log: Log

    @property
    def body(self) -> bytes:
        """What the client got."""
        return b"".join(entry[1] for entry in self.log if entry[0] in ("sent", "whole"))

    @property
    def farewells(self) -> list[str]:
        """How the client's answer ended, if more than once, more than once."""
        return [entry[0] for entry in self.log if entry[0] in ("end", "cut", "whole", "error")]

    async def listen(self) -> None:
        """Do what the handler does with the opening."""
        try:
            opening = await self.exchange.opening
        except NexusError as fault:
            self.log.append(("error", fault.code))
            return
        if opening.whole is not None:
            assert opening.verdict is self.books.verdict
            self.log.append(("whole", opening.whole))
        else:
            self.exchange.attach(self.listener)

    async def run(self) -> None:
        """Run it to its end. A fault of our own is raised."""
        over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def told(exchange: Exchange, fault: BaseException | None) -> None:
            assert exchange is self.exchange
            if fault is None:
                over.set_result(None)
            else:
                over.set_exception(fault)

        self.exchange.begin(told)
        await over

    async def play(self) -> None:
        """Run it with a client that listens from the opening on."""
        listening = asyncio.create_task(self.listen())
        await self.run()
        await listening

    def check(self) -> None:
        """What holds for every exchange that is over."""
        names = [entry[0] for entry in self.log]
        assert names.count("settled") == 1
        assert self.exchange.opening.done()
        assert self.drains.taken == 0
        assert len(self.farewells) <= 1, self.farewells
        if self.farewells:
            assert "sent" not in names[names.index(self.farewells[0]) :], "bytes behind the end"
        if "end" in names or "whole" in names:
            assert "durable" in names
            assert names.index("durable") < names.index("end" if "end" in names else "whole")
            assert self.books.verdict is not None
        if any(entry[0] == "sent" and b"[DONE]" in entry[1] for entry in self.log):
            first = next(i for i, entry in enumerate(self.log) if entry[0] == "sent" and b"[DONE]" in entry[1])
            assert names.index("durable") < first


SILENT_SOON = Timeouts(silence_s=0.25)
LONG = Timeouts()
WIDE = Limits()
Stage = Callable[..., Scene]


@pytest.fixture
async def stage(fu: FaultUpstream, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Stage]:
    """Make scenes before one scripted provider."""
    if not is_compiled(module):  # there it is as long as it is
        monkeypatch.setattr(module, "END_GRACE_S", 0.05)
    upstreams: list[Upstream] = []
    tags = 0

    def make(
        script: Script | Callable[[Received], Script],
        *,
        stream: bool = True,
        upstream: Upstream | None = None,
        port: int | None = None,
        timeouts: Timeouts = LONG,
        limits: Limits | None = None,
        drains: int = 1,
        injected: bool = False,
        **more: Any,
    ) -> Scene:
        nonlocal tags
        tags += 1
        tag = f"x{tags}"
        fu.scripts[tag] = script
        if upstream is None:
            base_url = f"http://127.0.0.1:{port or fu.port}/openai/v1"
            plain = Provider("p", base_url, "sk-canary-123", DIALECT, True, "drain", 10, False, None)
            upstream = Upstream(replace(plain, **more), connect_s=1.0)
            upstreams.append(upstream)
        log: Log = []
        books, places = Ledger(log), Slots(drains)
        body = orjson.dumps({"user": tag, "stream": stream, "stream_options": {"include_usage": True}})
        outgoing = Outgoing(body, stream, injected, input_bound=100, output_bound=100, prompt_estimate=8)
        exchange = Exchange(
            upstream,
            MODEL,
            outgoing,
            books,
            timeouts=timeouts,
            first_bytes=TimeoutQueue(asyncio.get_running_loop(), timeouts.first_byte_s),
            limits=limits or Limits(),
            drains=places,
        )
        return Scene(fu, upstream, exchange, books, Listener(log), places, log)

    yield make
    for each in upstreams:
        each.close()
    await asyncio.sleep(0.01)


# --- every cause, by every way to listen --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Case:
    """A way in which a call is over, and what a client that was there to the end must have got."""

    cause: Cause
    script: Script
    farewell: str  # end, cut, whole, or the code of an error
    end_state: EndState
    source: UsageSource
    stream: bool = True
    began: bool = True  # part of the answer comes before the call is over
    timeouts: Timeouts = LONG
    limits: Limits = WIDE
    shut_down: bool = False  # once the provider has said all that it will say
    passes_s: float = 0.0  # and so much time then passes on the exchange's clock


FIRST: list[Step] = [sse_head(), Chunk(EVENTS[0]), Chunk(EVENTS[1])]
NONE, ESTIMATED, REPORTED = UsageSource.NONE, UsageSource.ESTIMATED, UsageSource.REPORTED
CASES: dict[str, Case] = {
    "ended": Case(
        Cause.ENDED,
        [sse_head(), Chunk(STREAM[:50]), Chunk(STREAM[50 : -len(DONE)]), LAST_CHUNK],
        "end",
        EndState.COMPLETE,
        REPORTED,
    ),
    "ended_whole": Case(Cause.ENDED, whole(200, DOCUMENT), "whole", EndState.COMPLETE, REPORTED, stream=False),
    "ended_early": Case(Cause.ENDED, [*FIRST, LAST_CHUNK], "cut", EndState.UPSTREAM_CUT, ESTIMATED),
    "ended_empty": Case(
        Cause.ENDED, whole(200, b""), "upstream_broken", EndState.UPSTREAM_ERROR, NONE, stream=False, began=False
    ),
    "done": Case(Cause.DONE, [sse_head(), Chunk(STREAM), Stall()], "end", EndState.COMPLETE, REPORTED),
    "done_without_usage": Case(
        Cause.DONE, [*FIRST, Chunk(DONE), Stall()], "end", EndState.COMPLETE, ESTIMATED
    ),
    "done_then_broken": Case(Cause.DONE, [*FIRST, Chunk(DONE), Reset()], "end", EndState.COMPLETE, ESTIMATED),
    "refused": Case(
        Cause.REFUSED, error(429, message="no"), "upstream_rate_limited", EndState.UPSTREAM_ERROR, NONE, began=False
    ),
    "refused_without_end": Case(
        Cause.REFUSED,
        [head(503, "Content-Length: 9"), Stall()],
        "upstream_overloaded",
        EndState.UPSTREAM_ERROR,
        NONE,
        began=False,
    ),
    "refused_and_broken": Case(
        Cause.REFUSED,
        [head(402, "Content-Length: 9"), Send(b"x"), Reset()],
        "upstream_no_funds",
        EndState.UPSTREAM_ERROR,
        NONE,
        began=False,
    ),
    "refused_in_a_stream": Case(
        Cause.REFUSED,
        [sse_head(), Chunk(b'data: {"error":{"message":"x"}}\n\n'), Stall()],
        "upstream_broken",
        EndState.UPSTREAM_ERROR,
        NONE,
        began=False,
    ),
    "refused_at_the_end": Case(
        Cause.REFUSED,
        whole(200, b'{"error":{"message":"x","type":"rate_limit_error"}}'),
        "upstream_rate_limited",
        EndState.UPSTREAM_ERROR,
        NONE,
        stream=False,
        began=False,
    ),
    "broken_before": Case(Cause.BROKEN, [Reset()], "upstream_broken", EndState.UPSTREAM_ERROR, NONE, began=False),
    "broken_midway": Case(Cause.BROKEN, [*FIRST, Reset()], "cut", EndState.UPSTREAM_CUT, ESTIMATED),
    "broken_document": Case(
        Cause.BROKEN,
        [head(200, "Content-Type: application/json", "Content-Length: 999"), Send(DOCUMENT[:-9]), Close()],
        "cut",
        EndState.UPSTREAM_CUT,
        ESTIMATED,
        stream=False,
    ),
    "late": Case(
        Cause.LATE,
        [Stall()],
        "upstream_timeout",
        EndState.TIMEOUT,
        NONE,
        began=False,
        timeouts=Timeouts(first_byte_s=10),
        passes_s=10,
    ),
    "silent": Case(
        Cause.SILENT,
        [*FIRST, Stall()],
        "cut",
        EndState.TIMEOUT,
        ESTIMATED,
        timeouts=Timeouts(silence_s=10),
        passes_s=10,
    ),
    "too_long": Case(
        Cause.TOO_LONG,
        [*FIRST, Stall()],
        "cut",
        EndState.TIMEOUT,
        ESTIMATED,
        timeouts=Timeouts(exchange_s=10),
        passes_s=10,
    ),
    "too_large": Case(
        Cause.TOO_LONG, [*FIRST, Stall()], "cut", EndState.TIMEOUT, ESTIMATED, limits=Limits(answer_bytes=50)
    ),
    "shut_down": Case(
        Cause.SHUT_DOWN, [*FIRST, Stall()], "cut", EndState.TIMEOUT, ESTIMATED, shut_down=True
    ),
    "shut_down_before": Case(
        Cause.SHUT_DOWN, [Stall()], "shutting_down", EndState.TIMEOUT, NONE, began=False, shut_down=True
    ),
}  # fmt: skip


def scene_of(stage: Stage, case: Case, **more: Any) -> Scene:
    return stage(case.script, stream=case.stream, timeouts=case.timeouts, limits=case.limits, **more)


class LaterLoop:
    """A loop for an `ExchangeTimer` whose clock is ahead, so that a test need not wait, however fast the machine is."""

    def __init__(self, loop: asyncio.AbstractEventLoop, by: float) -> None:
        self._loop = loop
        self._by = by

    def time(self) -> float:
        return self._loop.time() + self._by

    def call_at(self, when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        return self._loop.call_at(when - self._by, callback, *args)


async def stop_when_due(scene: Scene, case: Case) -> None:
    """Where that is the case, shut down or let the time pass, once all was heard that the provider will say."""
    if case.shut_down or case.passes_s:
        said = [step.data for step in cast("list[Step]", case.script) if isinstance(step, Chunk)]
        await scene.fu.wait_for(1)
        await eventually(lambda: scene.exchange._received == len(b"".join(said)))
    if case.shut_down:
        scene.exchange.shut_down()
    elif case.passes_s:
        clock = scene.exchange._timer
        clock._loop = cast(Any, LaterLoop(clock._loop, case.passes_s))
        clock._arm()


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("late", [False, True], ids=["attached", "attached_at_the_end"])
async def test_a_client_that_listens_gets_what_the_cause_allows(stage: Stage, case: Case, late: bool) -> None:
    scene = scene_of(stage, case)
    listening = None if late else asyncio.create_task(scene.listen())
    stopping = asyncio.create_task(stop_when_due(scene, case))
    await scene.run()
    await stopping
    await (listening or scene.listen())
    scene.exchange.client_left()  # as the handler does when it is through: changes nothing any more
    scene.check()
    books, verdict = scene.books, scene.books.verdict
    assert verdict is not None
    assert scene.exchange.cause is case.cause
    assert (verdict.end_state, verdict.usage_source) == (case.end_state, case.source)
    assert scene.farewells == [case.farewell if case.farewell in ("end", "cut", "whole") else "error"]
    if scene.farewells == ["error"]:
        assert ("error", case.farewell) in scene.log
        assert scene.exchange.error is not None
        assert scene.exchange.error.code == case.farewell
        assert books.status == scene.exchange.error.status
        assert scene.body == b""
    else:
        assert books.status == 200
        sent = bytes(scene.fu.received[0].sent)
        assert scene.body.startswith(sent) if case.farewell == "cut" else scene.body == sent
        assert (scene.exchange.error is None) is (case.farewell != "cut")
    assert scene.exchange.status == books.status


LEAVING = [
    pytest.param(case, moment, id=f"{name}-{moment}")
    for name, case in CASES.items()
    for moment in ("before", "waiting", "midway")
    if moment != "midway" or (case.began and case.stream)
]


@pytest.mark.parametrize(("case", "moment"), LEAVING)
@pytest.mark.parametrize("policy", ["drain", "no_drain_left", "cancel"])
async def test_c2_c3_c4_a_client_that_leaves_changes_only_who_listens(
    stage: Stage, case: Case, moment: str, policy: str
) -> None:
    reached, go = asyncio.Event(), asyncio.Event()
    script: Script = [Pause(go, reached), *case.script] if moment == "waiting" else case.script
    scene = scene_of(
        stage,
        replace(case, script=script),
        on_disconnect="cancel" if policy == "cancel" else "drain",
        drains=0 if policy == "no_drain_left" else 1,
    )
    exchange = scene.exchange
    if moment == "before":
        exchange.client_left()
    if moment == "midway":
        scene.listener.on_send = exchange.client_left
    listening = asyncio.create_task(scene.listen())
    running = asyncio.create_task(scene.run())
    if moment == "waiting":
        await reached.wait()
        exchange.client_left()
        go.set()
    if moment != "before" and policy == "drain":
        await stop_when_due(scene, case)
    await running
    await listening
    exchange.client_left()
    scene.check()
    verdict = scene.books.verdict
    assert verdict is not None
    assert verdict.end_state is EndState.CLIENT_GONE
    assert "end" not in scene.farewells
    assert "whole" not in scene.farewells
    if moment == "before":
        assert scene.fu.received == []
    if moment != "midway":
        assert (exchange.status, scene.books.status) == (499, 499)
        assert scene.farewells == ["error"]
        assert ("error", "client_gone") in scene.log
        if policy != "drain" or moment == "before":
            assert exchange.cause is Cause.ABANDONED
            assert verdict.usage_source is NONE
        else:
            too_large = case.limits is not WIDE  # past a drain's limit it is abandoned
            assert exchange.cause is (Cause.ABANDONED if too_large else case.cause)
            expected = UsageSource.DRAINED if case.source is REPORTED else case.source
            assert verdict.usage_source is expected
    else:
        assert exchange.status == 200
        assert scene.farewells == ["cut"]
        assert verdict.usage_source is not NONE


# --- limits of a drain, and the client's slowness -----------------------------------------------------------------


@pytest.mark.parametrize("limits", [Limits(drain_s=0.05), Limits(drain_bytes=100)], ids=["time", "bytes"])
async def test_c4_a_drain_ends_at_its_limits(stage: Stage, limits: Limits) -> None:
    go = asyncio.Event()
    scene = stage([*FIRST, Pause(go), Chunk(b": " + b"x" * 200 + b"\n\n"), Stall()], limits=limits, timeouts=LONG)

    def leave() -> None:
        scene.exchange.client_left()
        go.set()

    scene.listener.on_send = leave
    await scene.play()
    scene.check()
    assert scene.exchange.cause is Cause.ABANDONED
    assert scene.books.verdict is not None
    assert scene.books.verdict.usage_source is ESTIMATED


async def test_c6_a_pause_is_no_silence_of_the_provider(stage: Stage) -> None:
    script = [*FIRST, *[Chunk(event) for event in EVENTS[2:]], LAST_CHUNK]
    scene = stage(script, timeouts=SILENT_SOON)
    paused = asyncio.Event()

    def slow() -> None:
        scene.listener.on_send = lambda: None
        scene.exchange.pause()
        scene.exchange.pause()
        paused.set()

    scene.listener.on_send = slow
    playing = asyncio.create_task(scene.play())
    await paused.wait()
    await asyncio.sleep(0.6)
    scene.exchange.resume()
    scene.exchange.resume()
    await playing
    scene.check()
    assert scene.farewells == ["end"]


async def test_b22_a_silence_after_a_pause_is_noticed_in_its_own_time(stage: Stage) -> None:
    scene = stage([*FIRST, Stall()], timeouts=SILENT_SOON)

    def slow() -> None:
        scene.exchange.pause()
        scene.exchange.resume()

    scene.listener.on_send = slow
    async with asyncio.timeout(3):
        await scene.play()
    assert scene.exchange.cause is Cause.SILENT


async def test_c6_a_client_that_is_slow_to_the_end_leaves_a_connection_that_reads(stage: Stage) -> None:
    scene = stage([sse_head(), Chunk(STREAM), LAST_CHUNK])
    scene.listener.on_send = scene.exchange.pause
    await scene.play()
    assert scene.farewells == ["end"]
    again = stage([sse_head(), Chunk(STREAM), LAST_CHUNK], upstream=scene.upstream)
    await again.play()
    assert again.farewells == ["end"]


# --- connections that are used again ------------------------------------------------------------------------------


async def test_b7_a_kept_connection_is_used_again_and_one_that_said_too_little_is_not(stage: Stage) -> None:
    good = [sse_head(), Chunk(STREAM), LAST_CHUNK]
    first = stage(good)
    await first.play()
    second = stage([*FIRST, Stall()], upstream=first.upstream, timeouts=SILENT_SOON)
    await second.play()
    third = stage(good, upstream=first.upstream)
    await third.play()
    numbers = [received.connection for received in first.fu.received]
    assert numbers[0] == numbers[1] != numbers[2]


async def test_a_connection_made_for_a_client_that_left_is_kept_unused(stage: Stage) -> None:
    scene = stage([sse_head(), Chunk(STREAM), LAST_CHUNK])
    scene.exchange.client_left()
    await scene.play()
    assert scene.fu.received == []
    fresh = scene.upstream.take_idle()
    assert fresh is None or not fresh.heard


async def test_b7_a_retry_that_cannot_connect_is_void_and_leaves_nothing_behind(stage: Stage) -> None:
    first = stage([sse_head(), Chunk(STREAM), LAST_CHUNK], retry_stale=True)
    await first.play()
    second = stage([Reset()], upstream=first.upstream)
    server = first.fu._server
    assert server is not None
    server.close()  # no new connection will do
    await second.play()
    second.exchange.client_left()
    second.check()
    assert ("error", "upstream_unreachable") in second.log
    assert second.books.verdict is not None
    assert second.books.verdict.usage_source is NONE


async def test_b7_c2_a_client_that_leaves_during_the_retry_gets_no_second_call(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = stage([sse_head(), Chunk(STREAM), LAST_CHUNK], retry_stale=True)
    await first.play()
    second = stage([Reset()], upstream=first.upstream)
    connect = first.upstream.connect

    async def leave_and_connect() -> Any:
        second.exchange.client_left()
        return await connect()

    monkeypatch.setattr(first.upstream, "connect", leave_and_connect)
    await second.play()
    second.check()
    assert len(first.fu.received) == 2
    assert second.books.status == 499


# --- what is odd about an answer ----------------------------------------------------------------------------------


async def test_nothing_terminal_goes_out_before_the_settlement_is_durable(stage: Stage) -> None:
    scene = stage([sse_head(), Chunk(STREAM), LAST_CHUNK])
    scene.books.gate.clear()
    playing = asyncio.create_task(scene.play())
    await eventually(lambda: scene.books.verdict is not None)
    assert scene.body == STREAM[: -len(DONE)]
    assert scene.farewells == []
    scene.books.gate.set()
    await playing
    assert scene.body == STREAM
    assert scene.farewells == ["end"]


@pytest.mark.parametrize(
    ("usage", "flags"), [({"prompt_tokens": 10**6, "completion_tokens": 1}, ("implausible_usage",)), ({}, ())]
)
async def test_e16_a_usage_that_cannot_be_is_an_estimate_and_flagged(
    stage: Stage, usage: dict[str, Any], flags: tuple[str, ...]
) -> None:
    document = orjson.loads(DOCUMENT) | {"usage": usage}
    scene = stage(whole(200, orjson.dumps(document)), stream=False)
    await scene.play()
    assert scene.books.verdict is not None
    assert (scene.books.verdict.usage_source, scene.books.flags) == (ESTIMATED, flags)


@pytest.mark.parametrize("script", [[Reset()], [Stall()]], ids=["broken", "late"])
async def test_b6_b8_what_the_provider_may_bill_though_it_said_nothing_is_flagged(stage: Stage, script: Script) -> None:
    scene = stage(script, timeouts=Timeouts(first_byte_s=0.1))
    await scene.play()
    assert scene.books.flags == ("unknown_upstream_cost",)


@pytest.mark.parametrize("end", [LAST_CHUNK, Reset()], ids=["ended", "broken"])
@pytest.mark.parametrize(
    "data", [gzip.compress(STREAM), b"\x1f\x8bx", b"\x1f\x8b\n\nx"], ids=["gzip", "short", "lines"]
)
async def test_b31_an_encoded_answer_is_relayed_and_estimated(stage: Stage, data: bytes, end: Any) -> None:
    scene = stage([sse_head("Content-Encoding: gzip"), Chunk(data), end], injected=True)
    await scene.play()
    scene.check()
    assert scene.body == data
    assert scene.farewells in ([["end"], ["whole"]] if end is LAST_CHUNK else [["cut"]])
    assert scene.exchange.opening.result().content_encoding == "gzip"
    assert scene.books.verdict is not None
    assert scene.books.verdict.usage_source is ESTIMATED


async def test_b9_an_error_body_is_read_to_a_limit(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ERROR_BODY_MAX", 100)
    scene = stage([head(400, "Transfer-Encoding: chunked"), *[Chunk(b"x" * 60)] * 9, LAST_CHUNK])
    await scene.play()
    assert len(scene.exchange._error_body) == 100
    assert ("error", "invalid_parameter") in scene.log


@pytest.mark.parametrize("form", [b'{"error":%b}', b'data: {"error":%b}\n\n', b'data:{"error":%b}'], ids=repr)
async def test_b9_an_error_body_may_be_dressed_as_an_event(stage: Stage, form: bytes) -> None:
    scene = stage(whole(400, form % b'{"message":"too hot"}'))
    await scene.play()
    assert scene.exchange.error is not None
    assert scene.exchange.error.message == "too hot"


async def test_progress_is_journaled_at_the_first_byte_and_while_it_changes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timer, "PROGRESS_S", 0.05)
    go = asyncio.Event()
    scene = stage([*FIRST, Pause(go), *[Chunk(event) for event in EVENTS[2:]], LAST_CHUNK], timeouts=LONG)
    playing = asyncio.create_task(scene.play())
    await eventually(lambda: sum(entry[0] == "progress" for entry in scene.log) >= 3)
    go.set()
    await playing
    counts = [entry[2] for entry in scene.log if entry[0] == "progress"]
    assert counts == sorted(counts)
    assert counts[-1] > 0


# --- E10: every step, failing ---------------------------------------------------------------------------------------


FAILING: dict[str, tuple[object, str]] = {
    "take_idle": (Upstream, "take_idle"),
    "connect": (Upstream, "_connect"),
    "head": (Upstream, "head"),
    "keep": (Upstream, "keep"),
    "send": (Connection, "send"),
    "make_tap": (module, "make_tap"),
    "feed": (SniffTap, "feed"),
    "end": (SniffTap, "end"),
    "release": (SniffTap, "release"),
    "partial": (SniffTap, "partial"),
    "read_refusal": (module, "read_refusal"),
    "fault_of": (module, "fault_of"),
    "ending_of": (module, "ending_of"),
    "flags_of": (module, "flags_of"),
    "settle": (Ledger, "settle"),
    "when_durable": (Ledger, "when_durable"),
    "error_event": (module, "error_event"),
}
SCENARIOS = ["ended", "ended_whole", "done", "refused", "broken_midway", "broken_before"]


@pytest.mark.parametrize("fault", [asyncio.CancelledError, ZeroDivisionError])
@pytest.mark.parametrize("listens", [True, False], ids=["listens", "left"])
@pytest.mark.parametrize("name", SCENARIOS)
async def test_e10_a_fault_in_any_step_leaves_the_hold_settled_and_the_client_answered(
    stage: Stage, name: str, listens: bool, fault: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = 0
    for owner, step in FAILING.values():
        if fault is asyncio.CancelledError and step != "_connect":  # nothing else is awaited
            continue
        scene = scene_of(stage, CASES[name])
        steps = 0
        sound = getattr(owner, step)

        def once(*args: Any, sound: Callable[..., Any] = sound, **options: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == 1:
                raise fault
            return sound(*args, **options)

        faults: list[BaseException] = []
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, context, faults=faults: faults.append(context["exception"]))  # type: ignore[misc]
        listening = asyncio.create_task(scene.listen())
        if not listens:
            scene.listener.on_send = scene.exchange.client_left
        supervisor = Supervisor(faults.append)
        with monkeypatch.context() as patch:
            patch.setattr(owner, step, once)
            supervisor.start(scene.exchange, lambda _: None)
            assert await supervisor.finish(5) == 0, step
        await listening
        scene.exchange.client_left()
        scene.check()
        assert scene.farewells, "the client was left waiting"
        assert len(supervisor) == 0
        failed += bool(steps)
        assert [type(each) for each in faults] == ([fault] if steps and fault is not asyncio.CancelledError else []), (
            step
        )
        scene.upstream.close()
    loop.set_exception_handler(None)
    assert failed >= (1 if fault is asyncio.CancelledError else 8)


# What calls, in which case, what fails in it, and at which call of that.
WAYS_IN: dict[str, tuple[str, object, str, int]] = {
    "grace_without_usage": ("done_without_usage", SseTap, "end", 1),
    "grace_at_the_end": ("done", Delivery, "end", 1),
    "end": ("ended", SseTap, "end", 1),
    "broken": ("done_then_broken", SseTap, "end", 1),
    "durable": ("ended", Delivery, "end", 1),
    "first_byte": ("done_without_usage", timer.ExchangeTimer, "begin", 1),
    "progress": ("done_without_usage", Ledger, "progress", 2),
}


@pytest.mark.parametrize("way", WAYS_IN)
async def test_e10_each_way_in_catches_what_it_raises(stage: Stage, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, owner, step, failing = WAYS_IN[way]
    monkeypatch.setattr(timer, "PROGRESS_S", 0.01)
    sound = getattr(owner, step)
    steps = 0

    def fail(*args: Any, **options: Any) -> Any:
        nonlocal steps
        steps += 1
        if steps == failing:
            raise ZeroDivisionError
        return sound(*args, **options)

    uncaught: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: uncaught.append(context))
    scene = scene_of(stage, CASES[name])
    scene.books.gate.clear()  # so that it is the ledger that calls when it is durable
    listening = asyncio.create_task(scene.listen())
    faults: list[BaseException] = []
    supervisor = Supervisor(faults.append)
    monkeypatch.setattr(owner, step, fail)
    supervisor.start(scene.exchange, lambda _: None)
    await eventually(lambda: scene.books.verdict is not None)
    scene.books.gate.set()
    assert await supervisor.finish(5) == 0
    await listening
    scene.check()
    assert ([type(fault) for fault in faults], uncaught) == ([ZeroDivisionError], [])
    assert scene.farewells, "the client was left waiting"


async def test_d2_the_supervisor_stops_what_outlasts_its_limit(stage: Stage) -> None:
    scene = stage([*FIRST, Stall()], timeouts=LONG)
    supervisor = Supervisor(lambda fault: None)
    listening = asyncio.create_task(scene.listen())
    supervisor.start(scene.exchange, lambda _: None)
    await eventually(lambda: scene.exchange.first_byte is not None)
    assert len(supervisor) == 1
    assert await supervisor.finish(0.01) == 1
    await listening
    scene.check()
    assert scene.exchange.cause is Cause.SHUT_DOWN
    assert b"shutting_down" in scene.body
    assert await supervisor.finish(0.01) == 0


async def test_d21_a_process_that_was_stopped_reads_first_and_times_out_then(stage: Stage) -> None:
    scene = stage([*FIRST, Stall()], timeouts=SILENT_SOON)
    play = asyncio.create_task(scene.play())
    await eventually(lambda: scene.exchange.first_byte is not None)
    time.sleep(1.0)  # noqa: ASYNC251 - the loop is held, as by SIGSTOP: longer than the silence that is allowed
    async with asyncio.timeout(3):
        await play
    assert scene.exchange.cause is Cause.SILENT
    scene.check()


async def test_b26_a_usage_behind_the_end_counts_however_the_connection_ends(stage: Stage) -> None:
    behind = STREAM.replace(EVENTS[-2], b"").replace(DONE, DONE + EVENTS[-2])
    assert behind != STREAM
    for end in (LAST_CHUNK, Reset(), Close()):
        scene = stage([sse_head(), Chunk(behind), end])
        await scene.play()
        assert scene.books.verdict is not None
        assert (scene.books.verdict.usage_source, scene.books.verdict.usage) == (REPORTED, USAGE), end


async def test_c6_what_comes_behind_the_end_fills_no_buffer_of_a_slow_client(stage: Stage) -> None:
    scene = stage([sse_head(), Chunk(STREAM), *[Chunk(b": " + b"x" * 9_000 + b"\n\n")] * 9, Stall()])
    ended = asyncio.create_task(scene.play())
    await eventually(lambda: STREAM in scene.body)
    scene.exchange.pause()
    await ended
    assert scene.farewells == ["end"]
    assert len(scene.body) < len(STREAM) + 99_000
    scene.check()


@pytest.mark.parametrize("case", ["refused", "refused_at_the_end", "broken_before", "ended_whole", "broken_midway"])
async def test_an_exchange_that_is_over_is_no_cycle(stage: Stage, case: str) -> None:
    gc.disable()
    try:
        scene = scene_of(stage, CASES[case])
        await scene.play()
        seen = weakref.ref(scene.exchange.opening)
        scene.exchange = cast(Any, None)  # a traceback may hold the scene
        await asyncio.sleep(0)
        assert seen() is None
    finally:
        gc.enable()


async def test_nor_is_one_that_could_not_connect(stage: Stage) -> None:
    gc.disable()
    try:
        scene = stage([], port=1)
        await scene.play()
        assert ("error", "upstream_unreachable") in scene.log
        seen = weakref.ref(scene.exchange.opening)
        scene.exchange = cast(Any, None)  # a traceback may hold the scene
        await asyncio.sleep(0)
        assert seen() is None
    finally:
        gc.enable()


ECHO = b'data: {"choices":[{"index":0,"delta":{"content":"sk-canary-123"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize("late", [False, True])
async def test_f6_our_credential_goes_to_no_client_and_what_nobody_got_is_not_charged(stage: Stage, late: bool) -> None:
    scene = stage([*FIRST, Delay(0.05), Chunk(ECHO), *[Chunk(event) for event in EVENTS[2:]], LAST_CHUNK] if late else [
        sse_head(), Chunk(ECHO), Chunk(STREAM), LAST_CHUNK
    ])  # fmt: skip
    await scene.play()
    assert b"sk-canary" not in scene.body
    assert scene.books.flags == ("credential_echoed",)
    assert scene.farewells == (["cut"] if late else ["error"])
    assert scene.books.verdict is not None
    assert (scene.books.verdict.charge_nano > 0) is late
    assert (b"upstream_broken" in scene.body) is late  # our own event follows what the client has
    scene.check()


async def test_f6_our_credential_in_the_terminal_bytes_cuts_the_answer(stage: Stage) -> None:
    scene = stage(
        [sse_head(), Chunk(STREAM[: -len(DONE)]), Delay(0.02), Chunk(DONE + b": sk-canary-123\n\n"), LAST_CHUNK]
    )
    await scene.play()
    assert b"sk-canary" not in scene.body
    assert DONE not in scene.body
    assert (scene.farewells, scene.books.flags) == (["cut"], ("credential_echoed",))
    assert scene.books.verdict is not None
    assert (scene.books.verdict.usage, scene.books.verdict.usage_source) == (USAGE, UsageSource.CUMULATIVE)
    scene.check()


async def test_f6_our_credential_behind_the_end_takes_nothing_from_what_was_before_it(stage: Stage) -> None:
    scene = stage([sse_head(), Chunk(STREAM), Delay(0.02), Chunk(b": sk-canary-123\n\n"), LAST_CHUNK])
    scene.books.gate.clear()
    playing = asyncio.create_task(scene.play())
    await eventually(lambda: bool(scene.exchange._late))
    assert scene.body == STREAM[: -len(DONE)]
    scene.books.gate.set()
    await playing
    assert (scene.body, scene.farewells) == (STREAM, ["cut"])
    assert scene.exchange.echoed
    scene.check()


async def test_f6_our_credential_in_a_document_that_breaks_off(stage: Stage) -> None:
    part = b'{"choices":[{"index":0,"message":{"content":"sk-canary-123'
    scene = stage(
        [head(200, "Content-Type: application/json", "Content-Length: 999"), Send(part), Close()], stream=False
    )
    await scene.play()
    assert (scene.body, scene.farewells, scene.books.status) == (b"", ["error"], 502)
    assert scene.books.verdict is not None
    assert (scene.books.verdict.charge_nano, scene.books.flags) == (0, ("credential_echoed",))
    scene.check()


async def test_f6_a_whole_answer_with_our_credential_is_not_passed_on_and_not_charged(stage: Stage) -> None:
    document = b'{"choices":[{"index":0,"message":{"content":"sk-canary-123"},"finish_reason":"stop"}],"usage":'
    scene = stage(whole(200, document + b'{"prompt_tokens":5,"completion_tokens":5}}'), stream=False)
    await scene.play()
    assert (scene.body, scene.farewells) == (b"", ["error"])
    assert scene.books.verdict is not None
    assert (scene.books.verdict.charge_nano, scene.books.flags) == (0, ("credential_echoed",))
    scene.check()
