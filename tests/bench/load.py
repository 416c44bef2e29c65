"""A closed load: so many connections, each of which asks again as soon as it was answered.

Strategy: the same request bytes over and over on raw kept connections, so that the client costs less than what it
measures. An answer counts only if it is a 200 with exactly the expected body; anything else is a failure with a name.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import cast

from tests.bench.framing import cut

LAST_ANSWER_S = 15.0  # how long the answers that are under way at the end are waited for


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

    def latency_ms(self, percent: int) -> float:
        """Return the latency that so many percent of the requests did not exceed."""
        ordered = sorted(self.latencies_ns)
        return ordered[(len(ordered) - 1) * percent // 100] / 1e6 if ordered else 0.0


async def load(port: int, request: bytes, expected: bytes, *, connections: int, seconds: float) -> Measured:
    """Ask for so long on so many connections; return when the last answer is here."""
    loop = asyncio.get_running_loop()
    measured = Measured()
    until_ns = time.perf_counter_ns() + int(seconds * 1e9)
    callers = [_Caller(request, expected, until_ns, measured) for _ in range(connections)]
    began = time.perf_counter()
    for caller in callers:
        await loop.create_connection(lambda caller=caller: caller, "127.0.0.1", port)  # type: ignore[misc]
    _, late = await asyncio.wait([caller.over for caller in callers], timeout=seconds + LAST_ANSWER_S)
    measured.seconds = time.perf_counter() - began
    measured.failures.update({"no answer in time": len(late)} if late else {})
    for caller in callers:
        caller.close()
    return measured


class _Caller(asyncio.Protocol):
    """One connection. `over` ends with its last answer, or with its loss."""

    def __init__(self, request: bytes, expected: bytes, until_ns: int, measured: Measured) -> None:
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._expected = expected
        self._until_ns = until_ns
        self._measured = measured
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._ask(time.perf_counter_ns())

    def _ask(self, now_ns: int) -> None:
        self._asked_ns = now_ns
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        message = cut(self._received)
        if message is None:
            return
        now_ns = time.perf_counter_ns()
        head, body, self._received = message
        if head.startswith(b"HTTP/1.1 200 ") and body == self._expected and not self._received:
            self._measured.latencies_ns.append(now_ns - self._asked_ns)
        else:
            self._measured.failures[f"answered {head[:12].decode('latin-1')!r} with {body[:200]!r}"] += 1
        if now_ns < self._until_ns:
            self._ask(now_ns)
        else:
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.over.done():
            self._measured.failures["connection lost"] += 1
            self._end()

    def _end(self) -> None:
        if not self.over.done():
            self.over.set_result(None)

    def close(self) -> None:
        self._end()
        self._transport.close()
