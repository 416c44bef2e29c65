"""The loads that every system is put under, and what is measured of each.

Strategy: a scenario is a name and a function from a system to figures. A figure's name is its unit, so that systems,
rounds and files agree on it without a table. CPU time is the system's alone; a failed request makes the run worthless.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

from tests.bench.answers import EVENTS_A_SECOND, Asked, question
from tests.bench.door import Door
from tests.bench.load import Measured, closed_load, open_load, percentile_ms
from tests.bench.loaded import LoadedDoor
from tests.bench.peers import LiteLLM, Portkey
from tests.bench.processes import cpu_ns, rss_bytes
from tests.bench.proxies import Bare, Nginx
from tests.bench.streams import Streamed, closed_streams, open_streams
from tests.bench.systems import MODEL, Direct, System, Worthless
from tests.rig.raw_client import ask

BURST = Asked("burst", 200)
BURSTS_AT_ONCE = 32
PROMPT_BYTES = 400_000
PROMPTS_AT_ONCE = 8
PROBES_A_SECOND = 200
OPENED_A_SECOND = 1_000  # of the streams that stay open
STREAMS_S = 90.0  # how long streams may take beyond their own time

Figures = dict[str, float]


@dataclass(frozen=True, slots=True)
class Setting:
    """How much of everything."""

    seconds: float = 5.0
    open_streams: int = 5_000
    paced_streams: int | None = None  # instead of each paced scenario's own number


@dataclass(frozen=True, slots=True)
class Scenario:
    """One load. `systems` are those that it says something about."""

    name: str
    about: str
    run: Callable[[System, Setting], Awaitable[Figures]]
    systems: frozenset[str]


class _Used:
    """What a system has used since this was made."""

    def __init__(self, system: System) -> None:
        self.measured = system.pid is not None
        self._pid = system.pid
        self._before_ns = self.total_ns()

    def total_ns(self) -> int:
        """Return the CPU time that it has used since it was started; 0 where nobody is measured."""
        return 0 if self._pid is None else cpu_ns(self._pid)

    def so_far_us(self) -> float:
        """Return the CPU time that it has used since this was made."""
        return (self.total_ns() - self._before_ns) / 1e3

    def per(self, what: str, number: int, seconds: float) -> Figures:
        """Return the CPU time of each of so many, and the share of a core; nothing where nobody is measured."""
        if not self.measured:
            return {}
        used_us = self.so_far_us()
        return {f"CPU µs/{what}": used_us / number, "core %": used_us / 1e4 / seconds}


def _take(system: System, measured: Measured) -> None:
    if measured.failures or not measured.requests:
        raise Worthless(f"{system.name}: requests failed: {dict(measured.failures)}")
    system.served[False] += measured.requests


def _take_streams(system: System, streamed: Streamed) -> None:
    if streamed.failures or not streamed.streams:
        raise Worthless(f"{system.name}: streams failed: {dict(streamed.failures)}")
    system.served[True] += streamed.streams


async def _json(connections: int, system: System, setting: Setting) -> Figures:
    requests, used = system.requests(question(MODEL)), _Used(system)
    measured = await closed_load(system.port, requests, system.right, connections=connections, seconds=setting.seconds)
    spent = used.per("request", max(measured.requests, 1), measured.seconds)
    _take(system, measured)
    times = {"p50 ms": measured.latency_ms(50), "p99 ms": measured.latency_ms(99)}
    return {"requests/s": measured.rate, **times, **spent}


async def _half(system: System, setting: Setting) -> Figures:
    """Half as many requests a second as the system has just managed; and then as many without it, to tell what it adds.

    Where all systems are asked the same, `rounds` tells that; here each has a rate of its own.
    """
    requests = system.requests(question(MODEL))
    full = await closed_load(system.port, requests, system.right, connections=32, seconds=setting.seconds / 2)
    _take(system, full)
    used = _Used(system)
    half = await _as_many(system, full.rate / 2, setting)
    spent = used.per("request", max(half.requests, 1), half.seconds)
    direct = Direct(system.place)  # of its own: the run's may not take part
    await direct.start()
    alone = await _as_many(direct, full.rate / 2, setting)
    times, added = {}, {}
    for percent in (50, 99, 99.9):
        times[f"p{percent:g} ms"] = half.latency_ms(percent)
        added[f"added p{percent:g} ms"] = half.latency_ms(percent) - alone.latency_ms(percent)
    return {"requests/s": half.rate, **times, **spent, **added}


async def _as_many(system: System, rate: float, setting: Setting) -> Measured:
    requests = system.requests(question(MODEL))
    measured = await open_load(system.port, requests, system.right, connections=64, rate=rate, seconds=setting.seconds)
    _take(system, measured)
    return measured


async def _burst(system: System, setting: Setting) -> Figures:
    requests, used = system.requests(question(MODEL, stream=BURST)), _Used(system)
    streamed = await closed_streams(
        system.port, requests, BURST.events, exact=system.exact, connections=BURSTS_AT_ONCE, seconds=setting.seconds
    )
    spent = used.per("event", max(streamed.events, 1), streamed.seconds)
    _take_streams(system, streamed)
    return {"events/s": streamed.events / streamed.seconds, **spent}


async def _paced(streams: int, system: System, setting: Setting) -> Figures:
    """Streams that are begun one after the other, and then all run for the time of a load."""
    number, spread_s = setting.paced_streams or streams, min(1.0, setting.seconds)
    lasting_s = spread_s + setting.seconds
    wanted = Asked("paced", max(round(lasting_s * EVENTS_A_SECOND), 1))
    requests, used = system.requests(question(MODEL, stream=wanted)), _Used(system)
    streamed = await open_streams(
        system.port, requests, wanted.events, exact=system.exact,
        streams=number, spread_s=spread_s, timeout_s=lasting_s + STREAMS_S, meter=used.total_ns,
    )  # fmt: skip
    all_us = used.so_far_us()
    spent = used.per("event", max(streamed.events, 1), streamed.seconds)
    _take_streams(system, streamed)
    times = {"p50 ms": streamed.delay_ms(50), "p99 ms": streamed.delay_ms(99)}
    firsts = {f"first byte p{percent} ms": percentile_ms(streamed.first_byte_ns, percent) for percent in (50, 99)}
    apart = _apart(streamed, all_us, measured=used.measured)
    return {**apart, **firsts, **times, **spent}


def _apart(streamed: Streamed, all_us: float, *, measured: bool) -> Figures:
    """Tell what streams cost while all of them run from what it costs to open and to end one. Nothing if they never
    all ran at once."""
    running = streamed.running()
    if running is None:
        return {}
    figures = {f"running p{percent} ms": running.delay_ms(percent) for percent in (50, 99)}
    if measured:
        event_us = running.metered / 1e3 / len(running.delays_ns)
        figures["running CPU µs/event"] = event_us
        figures["CPU µs/stream"] = (all_us - event_us * streamed.events) / streamed.streams
    return figures


async def _memory(system: System, setting: Setting) -> Figures:
    """A process that has served little, then has so many streams open."""
    await system.restart()
    assert system.pid is not None
    pid = system.pid
    warm = await closed_streams(
        system.port, system.requests(question(MODEL, stream=BURST)), BURST.events,
        exact=system.exact, connections=8, seconds=0.2,
    )  # fmt: skip
    _take_streams(system, warm)
    before = rss_bytes(pid)
    after = 0

    async def all_open() -> None:
        nonlocal after
        after = rss_bytes(pid)
        await ask("127.0.0.1", system.place.upstream_port, b"POST /release HTTP/1.1\r\n\r\n")

    wanted, number = Asked("gated", 10), setting.open_streams
    streamed = await open_streams(
        system.port, system.requests(question(MODEL, stream=wanted)), wanted.events, exact=system.exact,
        streams=number, spread_s=number / OPENED_A_SECOND, timeout_s=STREAMS_S, all_open=all_open,
    )  # fmt: skip
    _take_streams(system, streamed)
    return {"KiB/stream": (after - before) / 1024 / number, "MiB before": before / 2**20, "MiB": after / 2**20}


async def _prompt(system: System, setting: Setting) -> Figures:
    requests, used = system.requests(question(MODEL, prompt_bytes=PROMPT_BYTES)), _Used(system)
    measured = await closed_load(
        system.port, requests, system.right, connections=PROMPTS_AT_ONCE, seconds=setting.seconds
    )
    spent = used.per("request", max(measured.requests, 1), measured.seconds)
    _take(system, measured)
    times = {"p50 ms": measured.latency_ms(50), "p99 ms": measured.latency_ms(99)}
    return {"requests/s": measured.rate, **times, **spent}


async def _prompt_beside(system: System, setting: Setting) -> Figures:
    """Small requests beside one connection of large ones: nobody can be kept waiting for longer than they are."""
    large, small = await asyncio.gather(
        closed_load(
            system.port, system.requests(question(MODEL, prompt_bytes=PROMPT_BYTES)), system.right,
            connections=1, seconds=setting.seconds,
        ),
        open_load(
            system.port, system.requests(question(MODEL)), system.right,
            connections=16, rate=PROBES_A_SECOND, seconds=setting.seconds,
        ),
    )  # fmt: skip
    _take(system, large)
    _take(system, small)
    times = {f"p{percent:g} ms": small.latency_ms(percent) for percent in (50, 99)}
    return {"requests/s": large.rate, **times, "longest ms": small.latency_ms(100)}


async def _start(system: System, _: Setting) -> Figures:
    return {"start s": await system.restart()}


_PROXIES = frozenset({Door.name, Nginx.name, Bare.name})
_ALL = _PROXIES | {Direct.name}
_PEERS = frozenset({LiteLLM.name, Portkey.name})
_STREAMING_PEERS = frozenset({LiteLLM.name})  # Portkey 1.15.2 answers every such request with 500, on Node 20
_LOADED = frozenset({LoadedDoor.name})

SCENARIOS = {
    scenario.name: scenario
    for scenario in (
        Scenario("json-1", "JSON, one connection", partial(_json, 1), _ALL | _PEERS | _LOADED),
        Scenario("json-32", "JSON, 32 connections", partial(_json, 32), _PROXIES | _PEERS | _LOADED),
        Scenario("json-256", "JSON, 256 connections", partial(_json, 256), _PROXIES | _LOADED),
        Scenario("json-half", "JSON at half of the most that the system manages", _half, _PROXIES),
        Scenario("stream-burst", "32 streams, as fast as they go", _burst, _PROXIES | _STREAMING_PEERS | _LOADED),
        *(
            Scenario(
                f"stream-{streams}", f"{streams} streams of {EVENTS_A_SECOND} events a second; an event's delay",
                partial(_paced, streams), _ALL,
            )
            for streams in (50, 100, 200, 400, 800)
        ),
        Scenario("memory", "streams open at once", _memory, _PROXIES),
        Scenario("prompt-400k", f"{PROMPTS_AT_ONCE} connections with prompts of 400 KB", _prompt, _PROXIES),
        Scenario("prompt-beside", "small requests beside a prompt of 400 KB; their delay", _prompt_beside, _ALL),
        Scenario("start", "from the command to readiness", _start, frozenset({Door.name}) | _LOADED),
    )
}  # fmt: skip
