"""The whole chain, in every way in which a request can come: it is the same request, and has the same answer.

Strategy: what differs is only who reads it (`came`), which the test looks at too: a way that silently became another
would prove nothing.
"""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from nexus_proxy import server as app
from nexus_proxy.request.context import RequestContext
from nexus_proxy.web import protocol as listener
from nexus_proxy.web.incoming import FramedIncomingRequest, WholeIncomingRequest
from nexus_proxy.web.protocol import WHOLE_BYTES_MAX
from tests.rig.answers import Answer, chunks
from tests.rig.house import House
from tests.rig.raw_client import Connection, Response
from tests.rig.steps import LAST_CHUNK, Pause, Received, Script, Step, sse_head, whole

ANSWER = Answer(words=4, prompt=31, completion=17, cached=5)


def in_chunks(data: bytes) -> list[bytes]:
    """Return a request with its body in chunks."""
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.lower().startswith(b"content-length")]
    framed = b"".join(b"1\r\n%b\r\n" % body[at : at + 1] for at in range(len(body)))
    return [b"\r\n".join([*lines, b"Transfer-Encoding: chunked", b"", framed + b"0\r\n\r\n"])]


def head_then_body(data: bytes) -> list[bytes]:
    head, end, body = data.partition(b"\r\n\r\n")
    return [head + end, body]


WAYS: dict[str, tuple[type, Callable[[bytes], list[bytes]]]] = {
    "whole": (WholeIncomingRequest, lambda data: [data]),
    "head, then body": (WholeIncomingRequest, head_then_body),
    "a head in two": (FramedIncomingRequest, lambda data: [data[:70], data[70:]]),
    "in chunks": (FramedIncomingRequest, in_chunks),
}


@pytest.fixture(params=list(WAYS))
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> "Way":
    found = Way(*WAYS[request.param])

    def note(services: object, incoming: object, *where: object) -> RequestContext:
        found.came.append(type(incoming))
        return RequestContext(services, incoming, *where)  # type: ignore[arg-type]

    monkeypatch.setattr(app, "RequestContext", note)
    monkeypatch.setattr(listener, "REST_S", 5.0)  # a busy machine makes no body late
    return found


class Way:
    """How requests are sent; `came` is how they arrived."""

    def __init__(self, expected: type, pieces: Callable[[bytes], list[bytes]]) -> None:
        self.came: list[type] = []
        self._expected = expected
        self._pieces = pieces

    async def send(self, connection: Connection, data: bytes) -> None:
        for piece in self._pieces(data):
            await connection.send(piece)
            await asyncio.sleep(0.005)

    async def ask(self, house: House, data: bytes) -> Response:
        async with house.door.connect() as connection:
            await self.send(connection, data)
            answer = await connection.read_response()
        assert set(self.came) == {self._expected}
        return answer


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_is_the_providers_to_the_byte_and_charged(house: House, way: Way, stream: bool) -> None:
    tag = house.tag()
    house.fu.scripts[tag] = ANSWER.script
    members: dict[str, Any] = {"stream": True, "stream_options": {"include_usage": True}} if stream else {}
    answer = await way.ask(house, house.door.request(tag, **members))
    assert (answer.status, bytes(answer.body)) == (200, bytes(house.fu.one(tag).sent))
    row = await house.door.row(answer)
    assert (row["end_state"], row["usage_source"], row["prompt_tokens"]) == ("complete", "reported", 31)
    assert answer.header("x-ratelimit-limit-requests") is not None


async def test_a_refusal_has_the_one_shape(house: House, way: Way) -> None:
    refused = await way.ask(house, house.door.request(house.tag(), temperature=3))
    assert (refused.status, refused.code, refused.error["param"]) == (400, "invalid_parameter", "temperature")
    unknown = await way.ask(house, house.door.request(house.tag(), key="sk-ai-nexus-" + "x" * 49))
    assert (unknown.status, unknown.code, unknown.header("www-authenticate")) == (401, "invalid_api_key", "Bearer")
    tag = house.tag()
    house.fu.scripts[tag] = whole(503, b"{}")
    failed = await way.ask(house, house.door.request(tag))
    assert (failed.status, failed.code) == (503, "upstream_overloaded")


async def test_c3_a_client_that_leaves_is_charged_for_all_that_was_reported(house: House, way: Way) -> None:
    tag, go, reached = house.tag(), asyncio.Event(), asyncio.Event()

    def script(received: Received) -> Script:
        steps: list[Step] = list(chunks(ANSWER.events(received.json)))
        return [sse_head(), *steps[:2], Pause(go, reached), *steps[2:], LAST_CHUNK]

    house.fu.scripts[tag] = script
    async with house.door.connect() as connection:
        await way.send(connection, house.door.request(tag, stream=True))
        await reached.wait()
        await connection.read_head()
        connection.reset()
    await asyncio.sleep(0.02)
    go.set()
    (row,) = await house.door.closed_rows()
    assert (row["end_state"], row["usage_source"], row["completion_tokens"]) == ("client_gone", "drained", 17)
    assert house.fu.one(tag).ended == "played"


async def test_a_kept_connection_takes_large_requests_between_small_ones(house: House) -> None:
    async with house.door.connect() as connection:
        for words in (1, WHOLE_BYTES_MAX, 1, 10 * WHOLE_BYTES_MAX, 1):
            tag = house.tag()
            house.fu.scripts[tag] = ANSWER.script
            message = {"role": "user", "content": "w" * words}
            await connection.send(house.door.request(tag, messages=[message]))
            answer = await connection.read_response()
            assert (answer.status, house.fu.one(tag).json["messages"]) == (200, [message])


async def test_a_key_that_is_revoked_is_no_longer_known_on_a_connection_that_is_kept(house: House) -> None:
    tag = house.tag()
    house.fu.scripts[tag] = ANSWER.script
    key = await house.door.mint("leaver", topup="1.00")
    shown = await house.door.admin("account_show", account="leaver")
    async with house.door.connect() as connection:
        for status in (200, 200, 401):
            if status == 401:
                await house.door.admin("key_revoke", key_id=shown["keys"][0]["id"])
            await connection.send(house.door.request(tag, key=key))
            assert (await connection.read_response()).status == status


async def test_a_key_is_asked_of_each_head_of_a_connection(house: House) -> None:
    tag = house.tag()
    house.fu.scripts[tag] = ANSWER.script
    other = await house.door.mint("other", topup="1.00")
    good, known = house.door.request(tag), house.door.request(tag, key=other)
    bad = house.door.request(tag, key="sk-ai-nexus-" + "x" * 49)
    async with house.door.connect() as connection:
        for data, status in ((good, 200), (bad, 401), (good, 200), (known, 200), (bad, 401), (known, 200)):
            await connection.send(data)
            assert (await connection.read_response()).status == status
    for account in ("acme", "other"):
        assert len(await house.door.closed_rows(account, 2)) == 2
