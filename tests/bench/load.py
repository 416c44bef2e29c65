"""Loads of whole answers: closed, where a connection asks again once it was answered; open, where requests just come.

Strategy: prepared request bytes on raw kept connections, so that the client costs less than what it measures. An answer
counts only if it is a 200 with the right body; anything else is a failure with a name. A request of an open load is
timed from when it was wanted: if no connection is free it waits, and that is the server's doing.
"""

import asyncio
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from tests.bench.framing import Messages

LAST_ANSWER_S = 30.0  # how long the answers that are under way at the end are waited for
_TICK_S = 0.001

Right = Callable[[bytes], bool]


@dataclass(slots=True)
class Measured:
    """What a load saw. `latencies_ns` are of the requests that were answered well."""

    seconds: float = 0.0
    latencies_ns: list[int] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)

    @property
    def requests(self) -> int:
        """Requests that were answered well."""
        return len(self.latencies_ns)

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def latency_ms(self, percent: float) -> float:
        """Return the latency that so many percent of the requests did not exceed."""
        return percentile_ms(self.latencies_ns, percent)


def percentile_ms(times_ns: list[int], percent: float) -> float:
    """Return the time that so many percent of the times do not exceed, in milliseconds; 0 if there is none."""
    ordered = sorted(times_ns)
    return ordered[int((len(ordered) - 1) * percent / 100)] / 1e6 if ordered else 0.0


async def closed_load(
    port: int, requests: Iterator[bytes], right: Right, *, connections: int, seconds: float
) -> Measured:
    """Ask for so long on so many connections; return when the last answer is here."""
    measured = Measured()
    until_ns = time.monotonic_ns() + int(seconds * 1e9)
    busy = connections
    over: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def idle(caller: Caller, now_ns: int) -> None:
        nonlocal busy
        if now_ns < until_ns and caller.is_open:
            caller.ask(next(requests), now_ns)
            return
        busy -= 1
        if not busy and not over.done():
            over.set_result(None)

    began = time.monotonic()
    callers = await _call(port, connections, lambda: Caller(right, measured, idle))
    for caller in callers:
        if caller.is_open:
            caller.ask(next(requests), time.monotonic_ns())
    await _end(over, seconds + LAST_ANSWER_S, callers, measured)
    measured.seconds = time.monotonic() - began
    return measured


async def open_load(
    port: int, requests: Iterator[bytes], right: Right, *, connections: int, rate: float, seconds: float
) -> Measured:
    """Ask at random times, so often a second in the mean, for so long; return when the last answer is here."""
    loop = asyncio.get_running_loop()
    measured = Measured()
    waiting: deque[int] = deque()  # since when, each
    free: list[Caller] = []
    over: asyncio.Future[None] = loop.create_future()
    chance = random.Random(1)
    left = max(round(rate * seconds), 1)
    began_ns = time.monotonic_ns()
    due_ns = float(began_ns)

    def idle(caller: Caller, now_ns: int) -> None:
        if caller.is_open and waiting:
            caller.ask(next(requests), waiting.popleft())
            return
        free.append(caller)
        over_now = not caller.is_open or (not left and len(free) == connections)
        if over_now and not over.done():
            over.set_result(None)

    def tick() -> None:
        nonlocal left, due_ns
        if over.done():
            return
        now_ns = time.monotonic_ns()
        while left and due_ns <= now_ns:
            left -= 1
            due_ns += chance.expovariate(rate) * 1e9
            if free:
                free.pop().ask(next(requests), now_ns)
            else:
                waiting.append(now_ns)
        if left:
            loop.call_later(_TICK_S, tick)

    callers = await _call(port, connections, lambda: Caller(right, measured, idle))
    free += callers
    tick()
    await _end(over, seconds + LAST_ANSWER_S, callers, measured)
    measured.failures.update({"not asked in time": left + len(waiting)} if left or waiting else {})
    measured.seconds = (time.monotonic_ns() - began_ns) / 1e9
    return measured


class Caller(asyncio.Protocol):
    """One connection. `idle` is told when it was answered, and when it is lost."""

    def __init__(self, right: Right, measured: Measured, idle: "Callable[[Caller, int], None]") -> None:
        self._right = right
        self._measured = measured
        self._idle = idle
        self._messages = Messages()
        self._asked_ns = 0  # 0: nothing is under way
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def ask(self, request: bytes, since_ns: int) -> None:
        """Send a request that was wanted at that time."""
        self._asked_ns = since_ns
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        for head, body in self._messages.feed(data):
            asked_ns, self._asked_ns = self._asked_ns, 0
            if asked_ns and head.startswith(b"HTTP/1.1 200 ") and self._right(body):
                self._measured.latencies_ns.append(now_ns - asked_ns)
            else:
                text = f"answered {head[:12].decode('latin-1')!r} with {body[:200]!r}"
                self._measured.failures[text if asked_ns else f"not asked, but {text}"] += 1
            if asked_ns:
                self._idle(self, now_ns)

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set_result(None)
        if self.is_open:
            self._measured.failures["connection lost"] += 1
            self.is_open = False
            self._idle(self, time.monotonic_ns())

    def close(self) -> None:
        """End it; what was under way has had no answer."""
        if self.is_open:
            if self._asked_ns:
                self._measured.failures["no answer in time"] += 1
            elif not self._messages.between:
                self._measured.failures["more came than was asked for"] += 1
            self.is_open = False
            self._transport.abort()


async def _call(port: int, connections: int, caller: Callable[[], Caller]) -> list[Caller]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(caller, "127.0.0.1", port))[1] for _ in range(connections)]


async def _end(over: "asyncio.Future[None]", timeout_s: float, callers: list[Caller], measured: Measured) -> None:
    await asyncio.wait([over], timeout=timeout_s)
    for caller in callers:
        caller.close()
    await asyncio.wait([caller.lost for caller in callers])
