"""The door's socket with an application behind it that does what the test says: its timers, and what it says itself.

Strategy: real sockets and short times; the fault tests have the same through the whole door with the real chain.
"""

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from nexus_proxy.config import Limits, Timeouts
from nexus_proxy.core.request.head import WholeReader
from nexus_proxy.errors import InvalidKey, NexusError, RequestTooLarge
from nexus_proxy.web.incoming import IncomingRequest, WholeIncomingRequest
from nexus_proxy.web.protocol import (
    EARLY_BYTES_MAX,
    REST_S,
    WHOLE_BYTES_MAX,
    FastPath,
    ListenerProtocol,
    ListenerRunner,
)
from nexus_proxy.web.response import (
    JOINED_BYTES_MAX,
    AlreadySentResponse,
    Reply,
    Response,
    error_response,
    first_headers,
)
from tests.rig.eventually import eventually
from tests.rig.raw_client import Connection, get, post

TIMES = Timeouts(client_headers_s=0.15, client_idle_s=0.6, client_stalled_s=0.15)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class House:
    """A door whose handler is set by the test."""

    port = 0

    def __init__(self) -> None:
        self.handler: Handler = self._hello
        self.protocols: list[ListenerProtocol] = []

    async def _hello(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="hello")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.protocols.append(cast(ListenerProtocol, request.protocol))
        return await self.handler(request)

    def connect(self, **options: Any) -> Connection:
        return Connection("127.0.0.1", self.port, **options)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    found = House()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = ListenerRunner(app, TIMES, Limits())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


class Watcher:
    """Who is told of the client."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.left = asyncio.Event()

    def client_left(self) -> None:
        self.told.append("left")
        self.left.set()

    def pause(self) -> None:
        self.told.append("pause")

    def resume(self) -> None:
        self.told.append("resume")


async def test_a26_a_silent_connection_is_closed_without_a_word(house: House) -> None:
    async with house.connect() as connection:
        assert await connection.is_closed()


@pytest.mark.parametrize("data", [b"G", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n"])
async def test_a24_half_a_head_is_408_and_closed(house: House, data: bytes) -> None:
    async with house.connect() as connection:
        await connection.send(data)
        answer = await connection.read_response()
        assert (answer.status, answer.code, answer.reason) == (408, "request_timeout", "Request Timeout")
        assert answer.header("connection") == "close"
        assert await connection.is_closed()


async def test_a24_half_a_second_head_is_408_too(house: House) -> None:
    async with house.connect() as connection:
        await connection.send(get("/"))
        assert (await connection.read_response()).status == 200
        await connection.send(b"GET / HT")
        assert (await connection.read_response()).code == "request_timeout"


async def test_a26_an_idle_connection_is_closed(house: House) -> None:
    async with house.connect() as connection:
        await connection.send(get("/"))
        assert (await connection.read_response()).status == 200
        assert await connection.is_closed()


async def test_a_handler_that_takes_its_time_is_not_disturbed_by_the_heads_timer(house: House) -> None:
    async def slow(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(2 * TIMES.client_headers_s)
        return web.Response(text="late")

    house.handler = slow
    async with house.connect() as connection:
        await connection.send(get("/"))
        assert bytes((await connection.read_response()).body) == b"late"


async def test_c3_a_handler_that_waits_is_told_that_its_client_has_gone(house: House) -> None:
    watcher = Watcher()

    async def wait(request: web.Request) -> web.StreamResponse:
        house.protocols[-1].watcher = watcher
        await watcher.left.wait()
        return web.Response()

    house.handler = wait
    async with house.connect() as connection:
        await connection.send(get("/"))
        await eventually(lambda: bool(house.protocols))
        connection.reset()
        async with asyncio.timeout(5):
            await watcher.left.wait()
    assert watcher.told == ["left"]


async def test_c6_c7_a_client_that_does_not_read_is_noticed_and_at_last_left(house: House) -> None:
    watcher = Watcher()

    async def pour(request: web.Request) -> web.StreamResponse:
        house.protocols[-1].watcher = watcher
        response = web.StreamResponse()
        await response.prepare(request)
        assert request.transport is not None
        request.transport.write(b"x" * 50_000_000)
        await watcher.left.wait()
        return response

    house.handler = pour
    async with house.connect(receive_buffer=4096) as connection:
        await connection.send(get("/"))
        connection.pause_reading()
        async with asyncio.timeout(5):
            await watcher.left.wait()
        assert watcher.told == ["pause", "left"]


async def test_c6_a_client_that_reads_again_is_not_left(house: House) -> None:
    watcher = Watcher()
    done = asyncio.Event()

    async def pour(request: web.Request) -> web.StreamResponse:
        house.protocols[-1].watcher = watcher
        response = web.StreamResponse(headers={"Content-Length": "20000000"})
        await response.prepare(request)
        await response.write(b"x" * 20_000_000)
        house.protocols[-1].watcher = None
        done.set()
        return response

    house.handler = pour
    async with house.connect() as connection:
        await connection.send(get("/"))
        answer = await connection.read_response()
    assert len(answer.body) == 20_000_000
    assert watcher.told[0] == "pause"
    assert watcher.told[-1] == "resume"
    assert done.is_set()


async def test_c7_a_closed_connection_with_unread_bytes_is_not_kept_for_ever(house: House) -> None:
    watcher = Watcher()

    async def pour_and_close(request: web.Request) -> web.StreamResponse:
        protocol = house.protocols[-1]
        protocol.watcher = watcher
        response = web.StreamResponse()
        await response.prepare(request)
        assert request.transport is not None
        request.transport.write(b"x" * 50_000_000)
        protocol.force_close()
        await watcher.left.wait()
        return response

    house.handler = pour_and_close
    async with house.connect(receive_buffer=4096) as connection:
        await connection.send(get("/"))
        connection.pause_reading()
        async with asyncio.timeout(5):
            await watcher.left.wait()


async def test_d1_an_idle_connection_is_closed_at_the_end(house: House) -> None:
    async with house.connect() as connection:
        await connection.send(get("/"))
        assert (await connection.read_response()).status == 200
        house.protocols[-1].close()
        assert await connection.is_closed(timeout_s=0.1)


# --- what the parser refuses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "fault", "code"),
    [
        (400, LineTooLong(b"Authorization: Bearer sk-ai-nexus-secret", 8190), "headers_too_large"),
        (400, BadHttpMessage("Too many headers received"), "headers_too_large"),
        (400, BadHttpMessage("Authorization: Bearer sk-ai-nexus-secret"), "invalid_http"),
        (400, None, "invalid_http"),
        (500, ValueError("sk-ai-nexus-secret"), "internal_error"),
    ],
)
async def test_a21_a34_a_parser_error_is_json_closes_and_repeats_nothing(
    house: House, status: int, fault: Exception | None, code: str
) -> None:
    def handled(output_size: int) -> web.StreamResponse:
        request = cast(Any, SimpleNamespace(writer=SimpleNamespace(output_size=output_size), keep_alive=True))
        return house.protocols[0].handle_error(request, status, fault, "sk-ai-nexus-secret")

    async with house.connect() as connection:
        await connection.send(get("/"))
        await connection.read_response()
    response = handled(0)
    assert response.keep_alive is False
    written = bytearray()
    transport = SimpleNamespace(write=written.extend)
    incoming: Any = SimpleNamespace(
        connection=SimpleNamespace(transport=transport), http10=True, keep_alive=True, method="UNKNOWN"
    )
    assert isinstance(response, AlreadySentResponse)
    response._reply.write_to(incoming)
    head, _, body = bytes(written).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.0 ")
    assert b"\r\nContent-Type: application/json\r\n" in head + b"\r\n"
    assert b"x-request-id: req_" in head
    assert f'"code":"{code}"'.encode() in body
    assert b"secret" not in written
    with pytest.raises(ConnectionError):  # never into an answer that has begun
        handled(1)


async def test_f3_a_fault_is_logged_without_what_was_sent(house: House, caplog: pytest.LogCaptureFixture) -> None:
    async with house.connect() as connection:
        await connection.send(get("/"))
        await connection.read_response()
    with caplog.at_level(logging.ERROR):
        house.protocols[0].log_exception("Unhandled %s", "sk-secret", exc_info=ValueError("sk-secret"))
        house.protocols[0].log_exception("Unhandled %s", "sk-secret")
    assert [record.getMessage() for record in caplog.records] == [
        "connection fault: ValueError",
        "connection fault: unknown",
    ]
    assert all(record.exc_info is None for record in caplog.records)


async def test_a_client_that_is_not_there_is_not_answered(house: House) -> None:
    async def gone(request: web.Request) -> web.StreamResponse:
        raise ConnectionResetError("gone")

    house.handler = gone
    async with house.connect() as connection:
        await connection.send(get("/"))
        assert await connection.is_closed()


async def test_who_asks_and_leaves_in_one_turn_is_no_fault(house: House) -> None:
    said: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    async with house.connect() as connection:
        await connection.send(get("/"))
        await connection.read_response()
        loop.set_exception_handler(lambda _, context: said.append(context))
        try:
            house.protocols[0].data_received(get("/"))
            house.protocols[0].connection_lost(None)
            await asyncio.sleep(0.05)
            gc.collect()  # a task that failed says so when it goes
        finally:
            loop.set_exception_handler(None)
    assert said == []
    assert len(house.protocols) == 1


# --- requests that come whole -------------------------------------------------------------------------------------

ID = first_headers("req_1")
LINE = b"POST /ask HTTP/1.1\r\n"


class Counter:
    """Who answers at a fast path: with what it was asked, and how that came. `gate` holds every answer."""

    def __init__(self) -> None:
        self.port = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None
        self.refusal: NexusError | None = None  # of what is read by aiohttp, before its body
        self.answer: Callable[[bytes], Response] = lambda body: Response(200, ID, body)
        self.asked: list[tuple[str, bytes]] = []
        self.requests: list[IncomingRequest] = []
        self.runner: ListenerRunner

    async def serve(self, incoming: IncomingRequest) -> Reply:
        body = b""
        if incoming.method == "POST":
            body = await incoming.take_body(incoming.check_head(10_000_000), 5.0)
        way = "whole" if isinstance(incoming, WholeIncomingRequest) else "framed"
        self.asked.append((way, body))
        self.requests.append(incoming)
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault
        return self.answer(way.encode() + b" " + body[:40])

    async def serve_framed(self, request: web.Request, incoming: IncomingRequest) -> Reply:
        return await self.serve(incoming) if self.refusal is None else error_response(self.refusal, ID)

    def connect(self, **options: Any) -> Connection:
        return Connection("127.0.0.1", self.port, **options)


@pytest.fixture
async def counter() -> AsyncIterator[Counter]:
    found = Counter()
    runner = found.runner = ListenerRunner(
        web.Application(), TIMES, Limits(), FastPath(LINE, found.serve, found.serve_framed)
    )
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    found.gate.set()
    await runner.cleanup()


def ask(body: bytes, *headers: str) -> bytes:
    return post("/ask", body, None, *headers)


CHUNKED = LINE + b"Host: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
LARGE = b"l" * (WHOLE_BYTES_MAX + 1)
BETWEEN = {
    "nothing": b"",
    "get": get("/ask"),
    "large": ask(LARGE),
    "http/1.0 kept": ask(b"old", "Connection: keep-alive").replace(b" HTTP/1.1", b" HTTP/1.0", 1),
    "two at once": ask(b"one") + ask(b"two"),
    "expect": ask(b"x", "Expect: nothing-known"),
}


async def answer_to(connection: Connection, data: bytes) -> bytes:
    await connection.send(data)
    return bytes((await connection.read_response()).body)


@pytest.mark.parametrize("between", list(BETWEEN))
async def test_a_connection_takes_whole_requests_between_others(counter: Counter, between: str) -> None:
    data = BETWEEN[between]
    async with counter.connect() as connection:
        assert await answer_to(connection, ask(b"first")) == b"whole first"
        for _ in range(data.count(b" HTTP/1.")):
            await connection.send(data)
            data = b""
            assert (await connection.read_response()).status == 200
        answers = [await answer_to(connection, ask(b"%d" % number)) for number in range(3)]
    assert [answer.split()[-1] for answer in answers] == [b"0", b"1", b"2"]
    ways = {answer.split()[0] for answer in answers}
    # Behind two at once nobody but aiohttp knows where its parser stands.
    assert ways == ({b"framed"} if between == "two at once" else {b"whole"})


@pytest.mark.parametrize("cut", range(1, len(ask(b"a body")), 3))
async def test_a_request_in_two_reads_is_the_same_request(counter: Counter, cut: int) -> None:
    data = ask(b"a body")
    async with counter.connect() as connection:
        await connection.send(data[:cut])
        await asyncio.sleep(0.005)
        answer = await answer_to(connection, data[cut:])
        assert answer.endswith(b" a body")
        head = data.index(b"\r\n\r\n") + 4
        assert answer.startswith(b"whole" if cut >= head else b"framed")
        assert (await answer_to(connection, ask(b"next"))).endswith(b" next")
    assert [body for _, body in counter.asked] == [b"a body", b"next"]


async def test_a_body_that_is_late_does_not_keep_its_head_waiting(counter: Counter) -> None:
    counter.refusal = RequestTooLarge("too large")
    async with counter.connect() as connection:
        await connection.send(ask(b"a body")[:-1])
        started = asyncio.get_running_loop().time()
        assert (await connection.read_response()).code == "request_too_large"
        assert asyncio.get_running_loop().time() - started >= REST_S * 0.9
    assert counter.asked == []


async def test_a_body_that_trickles_is_soon_left_to_aiohttp_and_its_timers(counter: Counter) -> None:
    data = ask(b"x" * 40)
    async with counter.connect() as connection:
        await connection.send(data[:-40])
        for at in range(40):
            await connection.send(data[len(data) - 40 + at :][:1])
            await asyncio.sleep(REST_S / 10)
        assert bytes((await connection.read_response()).body) == b"framed " + b"x" * 40


async def test_a_connection_that_is_lost_keeps_no_head_with_its_key(counter: Counter) -> None:
    async with counter.connect() as connection:
        await answer_to(connection, ask(b"first", "Authorization: Bearer secret"))
        protocol = cast(ListenerProtocol, counter.requests[0].connection)
        assert isinstance(protocol._reader, WholeReader)
    await eventually(lambda: protocol.transport is None)
    assert protocol._reader is None


@pytest.mark.parametrize("size", [1, 40, EARLY_BYTES_MAX + 70_000])
async def test_what_comes_early_waits_for_the_answer_in_hand(counter: Counter, size: int) -> None:
    counter.gate.clear()
    async with counter.connect() as connection:
        await connection.send(ask(b"first"))
        await eventually(lambda: bool(counter.asked))
        early = ask(b"e" * size)
        half = len(early) // 2
        await connection.send(early[:half])
        await asyncio.sleep(0.02)
        await connection.send(early[half:] + ask(b"third"))
        await asyncio.sleep(0.02)
        assert counter.asked == [("whole", b"first")]
        counter.gate.set()
        bodies = [bytes((await connection.read_response()).body) for _ in range(3)]
    assert bodies[0] == b"whole first"
    assert [body for _, body in counter.asked] == [b"first", b"e" * size, b"third"]
    assert [body.split()[-1] for body in bodies[1:]] == [b"e" * min(size, 40), b"third"]


HIDDEN = ask(b"hidden", "Authorization: Bearer good")


def announcing(length: int) -> bytes:
    """Return a head, as long as HIDDEN, that announces a body of so many bytes."""
    head = LINE + b"Host: a\r\nContent-Type: application/json\r\nContent-Length: %d\r\nX: %%b\r\n\r\n" % length
    return head % (b"x" * (len(HIDDEN) - len(head) + 2))


@pytest.mark.parametrize("blank", [b"", b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\r\n\r\n", b"\n\r\n\r\n"])
@pytest.mark.parametrize("padding", [0, 1, 200])
async def test_a_request_in_a_body_is_never_a_request(counter: Counter, blank: bytes, padding: int) -> None:
    """Not even when its head was refused, and blank lines before it have the head taken for so much shorter."""
    counter.refusal = InvalidKey("nobody is known")
    head = announcing(padding + len(HIDDEN))
    assert len(head) == len(HIDDEN)
    async with counter.connect() as connection:
        await connection.send(blank + head)
        await asyncio.sleep(2 * REST_S)  # it is aiohttp's now
        for piece in (b"p" * padding, HIDDEN):
            await connection.send(piece)
            await asyncio.sleep(0.01)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await connection.read_response(timeout_s=1)
    assert counter.asked == []


async def test_a_request_in_a_chunk_is_never_a_request(counter: Counter) -> None:
    async with counter.connect() as connection:
        await connection.send(CHUNKED.partition(b"3\r\n")[0])
        await asyncio.sleep(0.01)
        await connection.send(b"%x\r\n" % len(HIDDEN))
        await asyncio.sleep(0.01)
        await connection.send(HIDDEN)
        await asyncio.sleep(0.01)
        await connection.send(b"\r\n0\r\n\r\n")
        assert (await connection.read_response()).status == 200
    assert counter.asked == [("framed", HIDDEN)]


async def test_what_is_bad_behind_a_good_request_does_not_lose_it(counter: Counter) -> None:
    data = ask(b"good")
    async with counter.connect() as connection:
        await connection.send(data[:-4])
        await asyncio.sleep(0.01)
        await connection.send(data[-4:] + b"garbage\r\n\r\n")
        assert bytes((await connection.read_response()).body) == b"framed good"
        assert (await connection.read_response()).code == "invalid_http"
    assert counter.asked == [("framed", b"good")]


async def test_a26_a_request_that_has_begun_is_not_idle(counter: Counter) -> None:
    data = ask(b"late")
    async with counter.connect() as connection:
        await answer_to(connection, ask(b"first"))
        protocol = cast(ListenerProtocol, counter.requests[0].connection)
        await connection.send(data[:-4])
        await eventually(lambda: bool(protocol._begun))
        protocol._next_keepalive_close_time = 0.0
        protocol._process_keepalive()
        assert bytes(await answer_to(connection, data[-4:])) == b"whole late"


async def test_d1_a_request_that_has_begun_is_answered_at_the_end(counter: Counter) -> None:
    counter.refusal = RequestTooLarge("any refusal")
    async with counter.connect() as connection:
        await answer_to(connection, ask(b"first"))
        protocol = cast(ListenerProtocol, counter.requests[0].connection)
        await connection.send(ask(b"late")[:-1])
        await eventually(lambda: bool(protocol._begun))
        protocol.close()
        protocol.close()  # as the runner does it once more
        assert (await connection.read_response()).code == "request_too_large"
        assert await connection.is_closed()


@pytest.mark.parametrize("size", [0, 1, JOINED_BYTES_MAX - 1, JOINED_BYTES_MAX, 3_000_000])
async def test_an_answer_of_any_size_is_written_in_both_ways(counter: Counter, size: int) -> None:
    counter.answer = lambda body: Response(200, ID, b"a" * size)
    async with counter.connect() as connection:
        for data in (ask(b"x"), CHUNKED):
            answer = await answer_to(connection, data)
            assert answer == b"a" * size


async def test_a_head_has_no_body_and_http_10_is_kept_if_it_asks(counter: Counter) -> None:
    async with counter.connect() as connection:
        await connection.send(get("/ask", method="HEAD"))
        head = await connection.reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n")
        old = ask(b"old", "Connection: keep-alive").replace(b" HTTP/1.1", b" HTTP/1.0", 1)
        await connection.send(old)
        answer = await connection.read_response()
        assert (answer.header("connection"), bytes(answer.body)) == ("keep-alive", b"framed old")
        assert await answer_to(connection, ask(b"next")) == b"whole next"


async def test_nobody_is_served_who_has_not_read_the_answer_before(counter: Counter) -> None:
    counter.answer = lambda body: Response(200, ID, b"x" * 20_000_000)
    async with counter.connect(receive_buffer=4096) as connection:
        connection.pause_reading()
        await connection.send(ask(b"first") + ask(b"second"))
        await connection.send(ask(b"third"))
        await eventually(lambda: bool(counter.asked))
        await asyncio.sleep(TIMES.client_stalled_s / 3)
        assert len(counter.asked) == 1
        connection.reset()


@pytest.mark.parametrize("first", [CHUNKED, get("/ask")])
async def test_what_comes_while_aiohttp_answers_waits_too(counter: Counter, first: bytes) -> None:
    counter.gate.clear()
    async with counter.connect() as connection:
        await connection.send(first)
        await eventually(lambda: bool(counter.asked))
        await connection.send(ask(b"second"))
        await asyncio.sleep(0.02)
        assert len(counter.asked) == 1
        counter.gate.set()
        await connection.read_response()
        assert bytes((await connection.read_response()).body) == b"framed second"


async def test_a_whole_request_right_behind_an_answer_of_aiohttps_is_not_left_to_it(counter: Counter) -> None:
    """aiohttp takes some turns of the loop to end a request that is answered: a fast client would stay its for ever."""
    async with counter.connect() as connection:
        await connection.send(get("/ask"))
        await eventually(lambda: bool(counter.requests))
        protocol = cast(ListenerProtocol, counter.requests[0].connection)
        await eventually(lambda: protocol._waiter is not None)
        protocol._waiter, waiter = None, protocol._waiter  # as it is in these turns
        await connection.read_response()
        await connection.send(ask(b"next"))
        assert bytes((await connection.read_response()).body) == b"whole next"
        protocol._waiter = waiter


async def test_nothing_is_served_behind_an_answer_that_closes(counter: Counter) -> None:
    counter.answer = lambda body: Response(400, ID, body, close=True)
    async with counter.connect() as connection:
        await connection.send(get("/ask"))
        await eventually(lambda: bool(counter.requests))
        protocol = cast(ListenerProtocol, counter.requests[0].connection)
        await eventually(lambda: protocol._ends)
        protocol.data_received(ask(b"never"))
        assert (await connection.read_response()).status == 400
        assert await connection.is_closed()
    assert len(counter.asked) == 1


async def test_early_bytes_are_bounded(counter: Counter) -> None:
    counter.gate.clear()
    async with counter.connect() as connection:
        await connection.send(ask(b"first"))
        await eventually(lambda: bool(counter.asked))
        protocol = cast(ListenerProtocol, counter.requests[0].connection)
        connection.writer.write(b"x" * 50_000_000)
        await eventually(lambda: len(protocol._early) > EARLY_BYTES_MAX)
        await asyncio.sleep(0.05)
        assert len(protocol._early) <= EARLY_BYTES_MAX + 1_000_000  # and what one read may bring
        connection.reset()


async def test_c3_who_serves_a_whole_request_is_told_that_its_client_has_gone(counter: Counter) -> None:
    counter.gate.clear()
    watcher = Watcher()
    async with counter.connect() as connection:
        await connection.send(ask(b"first"))
        await eventually(lambda: bool(counter.requests))
        counter.requests[0].connection.watcher = watcher
        connection.reset()
        async with asyncio.timeout(5):
            await watcher.left.wait()
    assert watcher.told == ["left"]
    assert counter.requests[0].connection.transport is None


async def test_a26_a_connection_is_idle_when_its_whole_request_is_answered_and_not_before(counter: Counter) -> None:
    counter.gate.clear()
    async with counter.connect() as connection:
        await connection.send(ask(b"slow"))
        await asyncio.sleep(2 * TIMES.client_idle_s)
        counter.gate.set()
        assert bytes((await connection.read_response()).body) == b"whole slow"
        assert await connection.is_closed(timeout_s=4 * TIMES.client_idle_s)


@pytest.mark.parametrize("fault", [ConnectionResetError("gone"), ValueError("sk-secret")])
async def test_a_fast_path_that_fails_closes_the_connection(
    counter: Counter, fault: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    counter.fault = fault
    async with counter.connect() as connection:
        await connection.send(ask(b"x"))
        assert await connection.is_closed()
    said = [record.getMessage() for record in caplog.records]
    assert said == (["connection fault: ValueError"] if isinstance(fault, ValueError) else [])


async def test_an_answer_that_closes_ends_the_connection(counter: Counter) -> None:
    counter.answer = lambda body: Response(503, ID, body, close=True)
    async with counter.connect() as connection:
        await connection.send(ask(b"x") + ask(b"never"))
        answer = await connection.read_response()
        assert (answer.status, answer.header("connection")) == (503, "close")
        assert await connection.is_closed()
    assert len(counter.asked) == 1


async def test_c7_a_client_that_does_not_read_its_whole_answer_is_left(counter: Counter) -> None:
    counter.answer = lambda body: Response(200, ID, b"x" * 50_000_000)
    async with counter.connect(receive_buffer=4096) as connection:
        connection.pause_reading()
        await connection.send(ask(b"x"))
        await eventually(lambda: bool(counter.requests))
        await eventually(lambda: counter.requests[0].connection.transport is None)


async def test_d1_a_server_that_ends_lets_a_whole_request_be_answered(counter: Counter) -> None:
    counter.gate.clear()
    async with counter.connect() as connection:
        await connection.send(ask(b"last"))
        await eventually(lambda: bool(counter.asked))
        ending = asyncio.create_task(counter.runner.cleanup())
        await asyncio.sleep(0.05)
        assert not ending.done()
        counter.gate.set()
        assert bytes((await connection.read_response()).body) == b"whole last"
        assert await connection.is_closed()
        async with asyncio.timeout(5):
            await ending


async def test_d1_who_does_not_answer_in_time_is_stopped(counter: Counter) -> None:
    counter.gate.clear()
    counter.runner._shutdown_timeout = 0.1
    async with counter.connect() as connection:
        await connection.send(ask(b"never"))
        await eventually(lambda: bool(counter.asked))
        async with asyncio.timeout(5):
            await counter.runner.cleanup()
        assert await connection.is_closed()
        assert cast(ListenerProtocol, counter.requests[0].connection)._serving is None
