"""The outermost stage, around handlers that fail in every way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiohttp import web

from nexus_proxy.appkeys import PARTS, Readiness
from nexus_proxy.chain.boundary import boundary
from nexus_proxy.errors import ModelNotFound
from nexus_proxy.metrics import Metrics
from tests.rig.raw_client import Connection, Response, get

SECRET = "sk-what-a-client-sent"


class House:
    """One handler behind the boundary; `said` is the log."""

    def __init__(self) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.readiness = Readiness()
        self.handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
        self.port = 0

    def note(self, event: str, **values: Any) -> None:
        self.said.append((event, values))

    async def handle(self, request: web.Request) -> web.StreamResponse:
        return await self.handler(request)

    async def ask(self) -> Response:
        async with Connection("127.0.0.1", self.port) as connection:
            await connection.send(get("/"))
            return await connection.read_response()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    found = House()
    app = web.Application(middlewares=[boundary])
    logger = SimpleNamespace(info=found.note, error=found.note)
    parts = SimpleNamespace(
        readiness=found.readiness, metrics=Metrics(["m"]), logger=logger, loop=asyncio.get_running_loop()
    )
    app[PARTS] = cast(Any, parts)
    app.router.add_get("/", found.handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()


def raising(fault: Exception) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handler(request: web.Request) -> web.StreamResponse:
        raise fault

    return handler


async def test_f3_a_fault_of_our_own_is_500_and_says_only_where(house: House) -> None:
    house.handler = raising(KeyError(SECRET))
    answer = await house.ask()
    assert (answer.status, answer.code) == (500, "internal_error")
    (event, values), (_, line) = house.said
    assert (event, values["fault"], values["request_id"]) == ("fault", "KeyError", answer.request_id)
    assert values["where"].rpartition(":")[0] == str(Path(__file__))
    assert SECRET not in repr(house.said) + answer.body.decode()
    assert (line["status"], line["code"]) == (500, "internal_error")


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (ModelNotFound("no"), 404, "model_not_found"),
        (web.HTTPNotFound(text=SECRET), 404, "not_found"),
        (web.HTTPBadRequest(text=SECRET), 400, "invalid_http"),
    ],
)
async def test_what_is_raised_below_is_answered_in_our_shape(
    house: House, fault: Exception, status: int, code: str
) -> None:
    house.handler = raising(fault)
    answer = await house.ask()
    assert (answer.status, answer.code) == (status, code)
    assert SECRET.encode() not in answer.body
    assert [(event, values["code"]) for event, values in house.said] == [("request", code)]


async def test_d1_a_server_that_ends_takes_nothing_new(house: House) -> None:
    house.readiness.shutting_down = True
    answer = await house.ask()
    assert (answer.status, answer.code, answer.header("connection")) == (503, "shutting_down", "close")


@pytest.mark.parametrize("fault", [ModelNotFound("no"), KeyError(SECRET)], ids=["ours", "fault"])
async def test_a_fault_after_an_answer_has_begun_is_a_visible_cut_and_no_second_answer(
    house: House, fault: Exception
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        response.enable_chunked_encoding()
        await response.prepare(request)
        await response.write(b"half")
        raise fault

    house.handler = handler
    answer = await house.ask()
    assert (answer.status, bytes(answer.body), answer.saw_last_chunk) == (200, b"half", False)
    assert answer.ending in ("closed", "reset")


async def test_a_client_that_has_gone_is_left_to_the_socket(house: House) -> None:
    house.handler = raising(ConnectionResetError())
    assert (await house.ask()).header("x-request-id") is None
    assert [values["code"] for _, values in house.said] == ["client_gone"]


async def test_every_answer_has_its_id(house: House) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return web.Response(text="well")

    house.handler = handler
    first, second = await house.ask(), await house.ask()
    assert first.request_id != second.request_id
    assert [values["request_id"] for _, values in house.said] == [first.request_id, second.request_id]
