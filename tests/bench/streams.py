"""Loads of streamed answers, and what became of every event.

Strategy: while it is measured a client only notes each piece and the time at which it came; the answers are taken apart
afterwards. llhttp removes the framing, the payload must be right to the byte, and each event has been under way from
its stamp to the piece that completed it: provider and client have one clock, the machine's. What streams cost while
they run is told from what it costs to open and to end them, by the time in which all have begun and none is over.
"""

import asyncio
import bisect
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple, cast

import httptools

from tests.bench.answers import LAST_CHUNK, loose_stamps, payload, unstamped
from tests.bench.load import LAST_ANSWER_S, percentile_ms

_OPENING_MAX = 128  # streams that are begun but silent, so that no backlog overflows


@dataclass(slots=True)
class Heard:
    """One answer, as it came."""

    asked_ns: int
    pieces: list[tuple[int, bytes]] = field(default_factory=list)


class Moment(NamedTuple):
    """A time, and what the meter showed then."""

    at_ns: int
    metered: int


@dataclass(slots=True)
class Streamed:
    """What a load of streams saw. The times are of answers that were whole and right, in nanoseconds."""

    seconds: float = 0.0
    streams: int = 0
    first_byte_ns: list[int] = field(default_factory=list)
    came_ns: list[int] = field(default_factory=list)  # when each event was here
    delays_ns: list[int] = field(default_factory=list)  # of each event, from the provider's socket to the client
    failures: Counter[str] = field(default_factory=Counter)
    all_open: Moment | None = None  # every stream has begun to answer
    first_over: Moment | None = None  # the first one has ended

    @property
    def events(self) -> int:
        """Events that came, stamped ones."""
        return len(self.delays_ns)

    def delay_ms(self, percent: float) -> float:
        """Return the delay that so many percent of the events did not exceed."""
        return percentile_ms(self.delays_ns, percent)

    def running(self) -> "Running | None":
        """Return what was seen while all streams ran; None if one was over before the last had begun."""
        since, until = self.all_open, self.first_over
        if since is None or until is None or until.at_ns <= since.at_ns:
            return None
        delays_ns = [
            delay_ns
            for came_ns, delay_ns in zip(self.came_ns, self.delays_ns, strict=True)
            if since.at_ns < came_ns <= until.at_ns
        ]
        return Running(delays_ns, until.metered - since.metered) if delays_ns else None

    def take(self, heard: Heard, events: int, *, exact: bool) -> None:
        """Count an answer, if it is right: to the byte, or as far as a gateway that writes its own bytes lets see."""
        try:
            body, marks = _unframed(heard)
        except (httptools.HttpParserError, ValueError) as error:
            self.failures[f"not a whole answer: {error!r}, {b''.join(data for _, data in heard.pieces)[:200]!r}"] += 1
            return
        plain, stamps = unstamped(body) if exact else (body, loose_stamps(body))
        if len(stamps) != events or (plain != payload(events) if exact else not plain.rstrip().endswith(b"[DONE]")):
            self.failures[f"a wrong payload: {len(stamps)} of {events} events, ending {plain[-60:]!r}"] += 1
            return
        ends = [end for end, _ in marks]
        self.streams += 1
        self.first_byte_ns.append(marks[0][1] - heard.asked_ns)
        for end, sent_ns in stamps:
            came_ns = marks[bisect.bisect_left(ends, end)][1]
            self.came_ns.append(came_ns)
            self.delays_ns.append(came_ns - sent_ns)


class Running(NamedTuple):
    """The events that came while all streams ran: the delay of each, and by how much the meter went on meanwhile."""

    delays_ns: list[int]
    metered: int

    def delay_ms(self, percent: float) -> float:
        """Return the delay that so many percent of these events did not exceed."""
        return percentile_ms(self.delays_ns, percent)


def _unframed(heard: Heard) -> tuple[bytes, list[tuple[int, int]]]:
    """Return the body, and of each piece where its share of the body ends and when it came. ValueError if not whole."""
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    marks, size = [], 0
    for at_ns, data in heard.pieces:
        parser.feed_data(data)
        if len(answer.body) > size:
            size = len(answer.body)
            marks.append((size, at_ns))
    if (answer.begun, answer.ended) != (1, 1):
        raise ValueError(f"{answer.begun} answers began, {answer.ended} ended")
    if not marks or parser.get_status_code() != 200:
        raise ValueError(f"status {parser.get_status_code()}")
    return bytes(answer.body), marks


class _Answer:
    """What llhttp is told."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.begun = self.ended = 0

    def on_message_begin(self) -> None:
        self.begun += 1

    def on_body(self, data: bytes) -> None:
        self.body += data

    def on_message_complete(self) -> None:
        self.ended += 1


class Listener(asyncio.Protocol):
    """One connection. `began` hears of an answer's first piece, `ended` of its end, whatever that is."""

    def __init__(self, began: "Callable[[Listener], None]", ended: "Callable[[Listener], None]") -> None:
        self._began = began
        self._ended = ended
        self._heard: Heard | None = None  # what is under way
        self.all_heard: list[Heard] = []
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.is_open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self.is_open = True

    def ask(self, request: bytes) -> None:
        """Send a request."""
        self._heard = Heard(time.monotonic_ns())
        self.all_heard.append(self._heard)
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        now_ns = time.monotonic_ns()
        heard = self._heard
        if heard is None:  # nobody asked: it belongs to the answer before, and makes it wrong
            if self.all_heard:
                self.all_heard[-1].pieces.append((now_ns, data))
            return
        heard.pieces.append((now_ns, data))
        if len(heard.pieces) == 1:
            self._began(self)
            if not data.startswith(b"HTTP/1.1 200 "):
                self._end()
                return
        elif len(data) < len(LAST_CHUNK):
            data = heard.pieces[-2][1] + data
        if data.endswith(LAST_CHUNK):
            self._end()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self.lost.set_result(None)
        if self._heard is not None:
            if not self._heard.pieces:
                self._began(self)
            self._end()

    def _end(self) -> None:
        self._heard = None
        self._ended(self)

    def close(self) -> None:
        """End it, without telling anybody."""
        self._heard = None
        self._transport.abort()


async def closed_streams(
    port: int, requests: Iterator[bytes], events: int, *, exact: bool, connections: int, seconds: float
) -> Streamed:
    """Ask for so long on so many connections, one stream after the other; return when the last one is over."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    until_ns = time.monotonic_ns() + int(seconds * 1e9)
    busy = connections

    def ended(listener: Listener) -> None:
        nonlocal busy
        if listener.is_open and time.monotonic_ns() < until_ns:
            listener.ask(next(requests))
            return
        busy -= 1
        if not busy and not over.done():
            over.set_result(None)

    began = time.monotonic()
    listeners = [await _listen(port, lambda _: None, ended) for _ in range(connections)]
    for listener in listeners:
        listener.ask(next(requests))
    streamed = Streamed()
    await _hear(listeners, over, seconds + LAST_ANSWER_S, began, events, streamed, exact=exact)
    return streamed


async def open_streams(
    port: int,
    requests: Iterator[bytes],
    events: int,
    *,
    exact: bool,
    streams: int,
    spread_s: float,
    timeout_s: float,
    all_open: Callable[[], Awaitable[None]] | None = None,
    meter: Callable[[], int] = lambda: 0,
) -> Streamed:
    """Begin so many streams, spread over that time; return when the last one is over.

    `all_open` is called when each of them has begun to answer. `meter` is read then, and when the first one ends.
    """
    streamed = Streamed()
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()
    every: asyncio.Future[None] = loop.create_future()
    opening = asyncio.Semaphore(_OPENING_MAX)
    silent = left = streams

    def has_begun(_: Listener) -> None:
        nonlocal silent
        silent -= 1
        opening.release()
        if not silent and not every.done():
            every.set_result(None)
            streamed.all_open = Moment(time.monotonic_ns(), meter())

    def ended(_: Listener) -> None:
        nonlocal left
        if streamed.first_over is None:
            streamed.first_over = Moment(time.monotonic_ns(), meter())
        left -= 1
        if not left and not over.done():
            over.set_result(None)

    began = time.monotonic()
    listeners = []
    for number in range(streams):
        await asyncio.sleep(began + spread_s * number / streams - time.monotonic())
        await opening.acquire()
        listener = await _listen(port, has_begun, ended)
        listener.ask(next(requests))
        listeners.append(listener)
    if all_open is not None:
        await asyncio.wait([every], timeout=timeout_s)
        await all_open()
    await _hear(listeners, over, timeout_s, began, events, streamed, exact=exact)
    return streamed


async def _listen(port: int, began: Callable[[Listener], None], ended: Callable[[Listener], None]) -> Listener:
    loop = asyncio.get_running_loop()
    return (await loop.create_connection(lambda: Listener(began, ended), "127.0.0.1", port))[1]


async def _hear(
    listeners: list[Listener],
    over: "asyncio.Future[None]",
    timeout_s: float,
    began: float,
    events: int,
    streamed: Streamed,
    *,
    exact: bool,
) -> None:
    await asyncio.wait([over], timeout=timeout_s)
    streamed.seconds = time.monotonic() - began
    for listener in listeners:
        listener.close()
    await asyncio.wait([listener.lost for listener in listeners])
    for listener in listeners:
        for heard in listener.all_heard:
            streamed.take(heard, events, exact=exact)
