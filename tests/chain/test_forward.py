"""An answer on its way out: framing, headers, and the clients of older days."""

import gzip
from fractions import Fraction

import pytest

from tests.rig.answers import DONE, Answer
from tests.rig.house import House
from tests.rig.steps import LAST_CHUNK, Chunk, sse_head, whole

ANSWER = Answer(words=3)


def of_http_10(data: bytes) -> bytes:
    return data.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_of_http_10_gets_the_same_bytes_without_chunks(house: House, stream: bool) -> None:
    tag = house.tag()
    house.fu.scripts[tag] = ANSWER.script
    answer = await house.door.raw(of_http_10(house.door.request(tag, stream=stream, model="m-deepseek")))
    assert answer.status == 200
    assert answer.header("transfer-encoding") is None
    assert bytes(answer.body) == bytes(house.fu.one(tag).sent)
    assert (await house.door.row(answer))["end_state"] == "complete"


async def test_b31_an_encoded_answer_keeps_its_coding(house: House) -> None:
    data = gzip.compress(ANSWER.document({}))
    asked = await house.ask(whole(200, data, "Content-Encoding: gzip"))
    assert (asked.answer.header("content-encoding"), bytes(asked.answer.body)) == ("gzip", data)
    await asked.is_estimate()
    events = gzip.compress(b"".join(event.data for event in ANSWER.events({})))
    asked = await house.ask([sse_head("Content-Encoding: gzip"), Chunk(events), LAST_CHUNK], stream=True)
    assert (asked.answer.header("content-encoding"), bytes(asked.answer.body)) == ("gzip", events)
    assert asked.answer.complete
    await asked.is_estimate()


async def test_an_unstreamed_answer_says_what_it_cost(house: House) -> None:
    asked = await house.ask(ANSWER.script)
    row = await asked.is_exact()
    assert asked.answer.header("x-nexus-currency") == "USD"
    assert Fraction(asked.answer.header("x-nexus-charge") or "") == Fraction(row["charge"]) > 0


async def test_a_stream_is_not_to_be_collected_on_its_way(house: House) -> None:
    asked = await house.ask(ANSWER.script, stream=True)
    assert asked.answer.header("cache-control") == "no-cache"
    assert asked.answer.header("x-accel-buffering") == "no"
    assert asked.answer.header("x-nexus-charge") is None
    assert bytes(asked.answer.body).endswith(DONE)


async def test_a_kept_connection_serves_stream_after_stream(house: House) -> None:
    """What ends one answer must not end the connection, however fast the answer was."""
    async with house.door.connect() as connection:
        for _ in range(20):
            tag = house.tag()
            house.fu.scripts[tag] = ANSWER.script
            await connection.send(house.door.request(tag, stream=True))
            answer = await connection.read_response()
            assert (answer.status, answer.saw_last_chunk, answer.ending) == (200, True, "open")
