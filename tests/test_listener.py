"""The door's socket with an application behind it that does what the test says: its timers, and what it says itself.

Strategy: real sockets and short times; the fault tests have the same through the whole door with the real chain.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong

from nexus_proxy.config import Limits, Timeouts
from nexus_proxy.listener import DoorProtocol, DoorRunner, direct
from tests.rig.eventually import eventually
from tests.rig.raw_client import Connection, get

TIMES = Timeouts(client_headers_s=0.15, client_idle_s=0.6, client_stalled_s=0.15)
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class House:
    """A door whose handler is set by the test."""

    port = 0

    def __init__(self) -> None:
        self.handler: Handler = self._hello
        self.protocols: list[DoorProtocol] = []

    async def _hello(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="hello")

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.protocols.append(cast(DoorProtocol, request.protocol))
        return await self.handler(request)

    def connect(self, **options: Any) -> Connection:
        return Connection("127.0.0.1", self.port, **options)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    found = House()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", found.handle)
    runner = DoorRunner(app, TIMES, Limits())
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
        request = cast(Any, SimpleNamespace(writer=SimpleNamespace(output_size=output_size)))
        return house.protocols[0].handle_error(request, status, fault, "sk-ai-nexus-secret")

    async with house.connect() as connection:
        await connection.send(get("/"))
        await connection.read_response()
    response = handled(0)
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    assert f'"code":"{code}"'.encode() in response.body
    assert b"secret" not in response.body
    assert response.keep_alive is False
    assert response.headers["x-request-id"].startswith("req_")
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


async def test_a_target_with_a_shortcut_does_not_go_through_the_router(monkeypatch: pytest.MonkeyPatch) -> None:
    async def name(request: web.Request) -> web.StreamResponse:
        return web.Response(text=str(request.match_info.route.name))

    app = web.Application()
    route = app.router.add_get("/short", name, name="short")
    app.router.add_get("/long", name, name="long")
    asked: list[str] = []
    resolve = app.router.resolve

    async def note(request: web.Request) -> Any:
        asked.append(request.path)
        return await resolve(request)

    monkeypatch.setattr(app.router, "resolve", note)
    runner = DoorRunner(app, TIMES, Limits(), {("GET", "/short"): direct(app, route, name)})
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    bodies = []
    for target in ("/short", "/long", "/short?x"):
        async with Connection("127.0.0.1", runner.addresses[0][1]) as connection:
            await connection.send(get(target))
            bodies.append((await connection.read_response()).body)
    await runner.cleanup()
    assert bodies == [b"short", b"long", b"short"]
    assert asked == ["/long", "/short"]
