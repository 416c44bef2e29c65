"""A provider that costs next to nothing: completions and streams, written from the parser's callback.

Strategy: raw bytes on a protocol, connections kept, an event written straight to the socket so that its stamp is the
time at which it left. All paced streams hang on one timer, which ticks every millisecond: what is due then goes out.
Streams that are begun at even intervals would march in step, so each has its first event at a time of its own chance.
It runs as a process of its own and prints its port: `python -m tests.bench.upstream`. A request for `/release` lets go
what is gated.
"""

import asyncio
import contextlib
import gc
import heapq
import os
import random
import time
from typing import cast

import uvloop

from tests.bench.answers import BEGIN, END, EVENTS_A_SECOND, GATED_AFTER, WHOLE, Asked, asked, event
from tests.bench.framing import Messages

_TICK_S = 0.001
_PERIOD_NS = 1_000_000_000 // EVENTS_A_SECOND
_RELEASED = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"


class Pacer:
    """Every paced stream that is under way, by the time at which its next event is due."""

    def __init__(self) -> None:
        self._due: list[tuple[int, int, FastUpstream]] = []
        self._number = 0  # keeps two streams from being compared
        self._ticking = False
        self._chance = random.Random(1)

    def begin(self, stream: "FastUpstream") -> None:
        """Send that stream's events from now on, the first one within a period."""
        due_ns = time.monotonic_ns() + int(self._chance.random() * _PERIOD_NS)
        self._number += 1
        heapq.heappush(self._due, (due_ns, self._number, stream))
        if not self._ticking:
            self._ticking = True
            asyncio.get_running_loop().call_later(_TICK_S, self._tick)

    def _tick(self) -> None:
        due = self._due
        now_ns = time.monotonic_ns()
        while due and due[0][0] <= now_ns:
            due_ns, _, stream = heapq.heappop(due)
            if stream.step():
                self._number += 1
                heapq.heappush(due, (due_ns + _PERIOD_NS, self._number, stream))
        self._ticking = bool(due)
        if due:
            asyncio.get_running_loop().call_later(_TICK_S, self._tick)


class FastUpstream(asyncio.Protocol):
    """One connection."""

    def __init__(self, pacer: Pacer, gated: "set[FastUpstream]") -> None:
        self._messages = Messages()
        self._pacer = pacer
        self._gated = gated
        self._left = 0  # events of the stream in hand

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._fd: int = transport.get_extra_info("socket").fileno()

    def connection_lost(self, exc: Exception | None) -> None:
        self._gated.discard(self)

    def data_received(self, data: bytes) -> None:
        for head, body in self._messages.feed(data):
            wanted = asked(body)
            if wanted is not None:
                self._begin(wanted)
            elif head.startswith(b"POST /release "):
                released, waiting = list(self._gated), self._gated
                waiting.clear()
                for stream in released:
                    stream.burst()
                self._write(_RELEASED)
            else:
                self._transport.write(WHOLE)

    def _begin(self, wanted: Asked) -> None:
        self._left = wanted.events
        self._write(BEGIN)
        if wanted.pace == "paced":
            self._pacer.begin(self)
        elif wanted.pace == "burst":
            self.burst()
        else:
            for _ in range(min(GATED_AFTER, self._left)):
                self.step()
            self._gated.add(self)

    def burst(self) -> None:
        """Send an event, and the next one when the other connections had their turn."""
        if self.step():
            asyncio.get_running_loop().call_soon(self.burst)

    def step(self) -> bool:
        """Send the next event, or the end; tell whether there is more to send."""
        if self._left == 0:
            self._write(END)
            return False
        self._left -= 1
        self._write(event(time.monotonic_ns()))
        return not self._transport.is_closing()

    def _write(self, data: bytes) -> None:
        """Write at once: the transport would wait for the end of the loop's turn, and the stamp would be too early."""
        if self._transport.is_closing():
            return
        if self._transport.get_write_buffer_size() == 0:
            sent = 0
            with contextlib.suppress(OSError):  # full, or lost: the transport finds out which
                sent = os.write(self._fd, data)
            if sent == len(data):
                return
            data = data[sent:]
        self._transport.write(data)


async def main() -> None:
    """Serve until killed."""
    gc.disable()  # it makes no cycles to speak of, and a collection would be taken for the gateway's delay
    pacer, gated = Pacer(), set[FastUpstream]()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: FastUpstream(pacer, gated), "127.0.0.1", 0, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
