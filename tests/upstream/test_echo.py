"""The operator's credential, sent back by a provider in two pieces, does not leave the door in any."""

import pytest

from tests.rig.house import House
from tests.rig.settings import UPSTREAM_KEY
from tests.rig.steps import LAST_CHUNK, Chunk, Delay, Step, head, sse_head

KEY = UPSTREAM_KEY.encode()
FIRST = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'


@pytest.mark.parametrize("what", [b'data: {"error":{"message":"%b"}}\n\n', b": %b\n\n"], ids=["event", "comment"])
async def test_a_credential_cut_in_two_is_not_passed_on(house: House, what: bytes) -> None:
    whole = what % KEY
    at = whole.index(KEY)
    for cut in (at + 1, at + 9, at + len(KEY) - 1):
        pieces: list[Step] = [
            Chunk(FIRST),
            Delay(0.01),
            Chunk(whole[:cut]),
            Delay(0.02),
            Chunk(whole[cut:]),
            LAST_CHUNK,
        ]
        done = await house.ask([sse_head(), *pieces], model="m-deepseek", stream=True)
        assert bytes(done.answer.body).startswith(FIRST)
        assert KEY[:2] not in done.answer.body
        assert not done.answer.saw_last_chunk


async def test_nor_is_it_within_a_long_document(house: House) -> None:
    text = b"y" * (1 << 21) + KEY
    body = b'{"choices":[{"index":0,"message":{"content":"%b"},"finish_reason":"stop"}]}' % text
    cut = body.index(KEY) + 5
    lines = ("Content-Type: application/json", "Transfer-Encoding: chunked")
    done = await house.ask([head(200, *lines), Chunk(body[:cut]), Delay(0.02), Chunk(body[cut:]), LAST_CHUNK])
    assert KEY not in done.answer.body


async def test_what_only_begins_like_it_is_held_back_and_then_given(house: House) -> None:
    event = FIRST.replace(b"hi", KEY[:-1] + b"!")
    cut = event.index(KEY[:-1]) + 9
    done_event = b"data: [DONE]\n\n"
    pieces: list[Step] = [
        Chunk(FIRST),
        Delay(0.01),
        Chunk(event[:cut]),
        Delay(0.02),
        Chunk(event[cut:] + done_event),
        LAST_CHUNK,
    ]
    done = await house.ask([sse_head(), *pieces], model="m-deepseek", stream=True)
    assert bytes(done.answer.body) == FIRST + event + done_event
    ends_so: list[Step] = [Chunk(FIRST), Delay(0.01), Chunk(b": " + KEY[:9]), LAST_CHUNK]
    done = await house.ask([sse_head(), *ends_so], model="m-deepseek", stream=True)
    assert b": " + KEY[:9] in done.answer.body
