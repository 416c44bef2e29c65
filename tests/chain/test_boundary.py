"""The outermost stage, around handlers that fail in every way; each is asked in both ways that a request can come."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from aiohttp import web

from nexus_proxy.chain.boundary import boundary
from nexus_proxy.config import Limits, Timeouts
from nexus_proxy.errors import ModelNotFound
from nexus_proxy.observe.log_writer import ExchangeLog, Redactor, nowhere
from nexus_proxy.observe.metrics import Metrics
from nexus_proxy.observe.request_log import RequestLog
from nexus_proxy.request.context import RequestContext
from nexus_proxy.request.services import Readiness
from nexus_proxy.web.incoming import IncomingRequest
from nexus_proxy.web.protocol import FastPath, ListenerRunner
from nexus_proxy.web.response import Reply
from nexus_proxy.web.response import Response as Written
from tests.rig.compiled import gives_stand_ins
from tests.rig.raw_client import Connection, Response, get, post

pytestmark = gives_stand_ins

SECRET = "sk-what-a-client-sent"
WAYS = {"whole": post("/", b"{}", None), "framed": get("/")}


class House:
    """One handler behind the boundary; `said` is the log."""

    def __init__(self, data: bytes) -> None:
        self.said: list[tuple[str, dict[str, Any]]] = []
        self.readiness = Readiness()
        self.handler: Callable[[RequestContext], Awaitable[Reply]]
        self.port = 0
        self.ways: list[str] = []
        logger: Any = SimpleNamespace(info=self._note, error=self._note)
        self.services: Any = SimpleNamespace(
            setup=None,
            readiness=self.readiness,
            observers=(Metrics({"m": "p"}), RequestLog(logger, ExchangeLog(nowhere, Redactor()))),
            logger=logger,
            loop=asyncio.get_running_loop(),
        )
        self._data = data

    def _note(self, event: str, **values: Any) -> None:
        self.said.append((event, values))

    async def serve(self, incoming: IncomingRequest) -> Reply:
        self.ways.append(type(incoming).__name__)
        return await boundary(RequestContext(self.services, incoming, "route"), lambda context: self.handler(context))

    async def serve_framed(self, request: web.Request, incoming: IncomingRequest) -> Reply:
        return await self.serve(incoming)

    async def ask(self) -> Response:
        async with Connection("127.0.0.1", self.port) as connection:
            await connection.send(self._data)
            return await connection.read_response()


@pytest.fixture(params=list(WAYS))
async def house(request: pytest.FixtureRequest) -> AsyncIterator[House]:
    found = House(WAYS[request.param])
    fast_path = FastPath(b"POST / HTTP/1.1\r\n", found.serve, found.serve_framed)
    runner = ListenerRunner(web.Application(), Timeouts(), Limits(), fast_path)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.port = runner.addresses[0][1]
    yield found
    await runner.cleanup()
    assert {way.lower() for way in found.ways} == {f"{request.param}incomingrequest"}


def raising(fault: Exception) -> Callable[[RequestContext], Awaitable[Reply]]:
    async def handler(context: RequestContext) -> Reply:
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


async def test_what_is_raised_below_is_answered_in_our_shape(house: House) -> None:
    house.handler = raising(ModelNotFound("no"))
    answer = await house.ask()
    assert (answer.status, answer.code) == (404, "model_not_found")
    assert [(event, values["code"]) for event, values in house.said] == [("request", "model_not_found")]


async def test_d1_a_server_that_ends_takes_nothing_new(house: House) -> None:
    house.readiness.shutting_down = True
    answer = await house.ask()
    assert (answer.status, answer.code, answer.header("connection")) == (503, "shutting_down", "close")


@pytest.mark.parametrize("fault", [ModelNotFound("no"), KeyError(SECRET)], ids=["ours", "fault"])
async def test_a_fault_after_an_answer_has_begun_is_a_visible_cut_and_no_second_answer(
    house: House, fault: Exception
) -> None:
    async def handler(context: RequestContext) -> Reply:
        transport = context.incoming.connection.transport
        assert transport is not None
        context.answering = True
        transport.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        raise fault

    house.handler = handler
    answer = await house.ask()
    assert (answer.status, bytes(answer.body), answer.saw_last_chunk) == (200, b"half", False)
    assert answer.ending in ("closed", "reset")


async def test_a_client_that_has_gone_is_left_to_the_socket(house: House) -> None:
    house.handler = raising(ConnectionResetError())
    with pytest.raises(ConnectionError, match="closed after b''"):
        await house.ask()
    assert [values["code"] for _, values in house.said] == ["client_gone"]


async def test_every_answer_has_its_id(house: House) -> None:
    async def handler(context: RequestContext) -> Reply:
        return Written(200, context.headers, b"well")

    house.handler = handler
    first, second = await house.ask(), await house.ask()
    assert first.request_id != second.request_id
    assert [values["request_id"] for _, values in house.said] == [first.request_id, second.request_id]
