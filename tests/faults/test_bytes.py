"""Every byte that the upstream's socket sent reaches the client's, however it was cut (B32).

Strategy: for golden streams, single cuts at a stride and random multi-cuts go through real sockets; the sum of what
came must be the sum of what was sent, less exactly the event that our own question caused. Every cut, without sockets,
is the tap's own test. `NEXUS_TEST_LONG=1` takes every cut and 10,000 random ones.
"""

import asyncio
import hashlib
import os
import random
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.rig import reckon
from tests.rig.answers import SHAPES, Answer, Shape
from tests.rig.house import House
from tests.rig.raw_client import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONG = bool(os.environ.get("NEXUS_TEST_LONG"))
STRIDE, RANDOM = (1, 10_000) if LONG else (37, 40)
AT_ONCE = 32

GOLDEN = {
    "plain": Answer(words=3, prompt=40, completion=12, cached=8),
    "thinking": Answer(words=2, prompt=400, completion=120, cached=128, reasoning=60, text="思考 🤔 \\n data: "),
    "long": Answer(words=40, prompt=9, completion=400),
}


def cuttings(length: int) -> Iterator[tuple[int, ...]]:
    """Return the single cuts and the random multi-cuts of a stream of that length."""
    yield from ((at,) for at in range(1, length, STRIDE))
    dice = random.Random(length)
    for _ in range(RANDOM):
        yield tuple(sorted(dice.sample(range(1, length), dice.randint(2, 9))))


@pytest.mark.parametrize("asked", [False, True], ids=["usage_injected", "usage_asked"])
@pytest.mark.parametrize("golden", GOLDEN)
@pytest.mark.parametrize("shape", SHAPES)
async def test_b32_bytes_are_identical_at_any_cut(shared_house: House, shape: Shape, golden: str, asked: bool) -> None:
    answer = replace(GOLDEN[golden], shape=shape)
    length = sum(len(e.data) for e in answer.events({"model": "x", "stream_options": {"include_usage": True}}))
    limit = asyncio.Semaphore(AT_ONCE)
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    got: dict[str, Response] = {}

    async def one(cuts: tuple[int, ...]) -> None:
        tag = shared_house.tag()
        shared_house.fu.scripts[tag] = replace(answer, cuts=cuts).script
        async with limit:
            got[tag] = await shared_house.door.chat(tag, model=f"m-{shape}", stream=True, **options)

    await asyncio.gather(*(one(cuts) for cuts in cuttings(length)))
    charges = set()
    for tag, response in got.items():
        sent = shared_house.fu.one(tag)
        expected = answer.seen_by_client(sent.json, client_asked=asked)
        whole = b"".join(e.data for e in answer.events(sent.json))
        assert bytes(sent.sent) == whole
        assert hashlib.sha256(response.body).digest() == hashlib.sha256(expected).digest()
        assert response.saw_last_chunk
        charges.add((await shared_house.door.row(response))["charge"])
    assert [reckon.nano(charge) for charge in charges] == [
        reckon.charge_nano(answer.counts(), shared_house.price(f"m-{shape}"))
    ]
