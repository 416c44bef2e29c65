"""Every byte that the upstream's socket sent reaches the client's, however it was cut (B32).

Strategy: for golden streams, single cuts at a stride and random multi-cuts go through real sockets; the sum of what
came must be the sum of what was sent, less exactly the event that our own question caused. Every cut, without sockets,
is the tap's own test. `NEXUS_TEST_LONG=1` takes every cut and 10,000 random ones.
"""

import asyncio
import hashlib
import os
import random
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio

from tests.rig import reckon
from tests.rig.answers import SHAPES, Answer, Shape, stream_of
from tests.rig.house import House, open_house
from tests.rig.raw_client import Response

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONG = bool(os.environ.get("NEXUS_TEST_LONG"))
STRIDE = 1 if LONG else 59
RANDOM = 10_000 if LONG else 400  # multi-cuts of all golden files together, and of all built-in answers together
AT_ONCE = 32

GOLDEN = {
    "plain": Answer(words=3, prompt=40, completion=12, cached=8),
    "thinking": Answer(words=2, prompt=400, completion=120, cached=128, reasoning=60, text="思考 🤔 \\n data: "),
    "long": Answer(words=40, prompt=9, completion=400),
}

# So many at once, in one process with their provider, can take longer than a test of timeouts waits.
PATIENT = {"server": {"timeouts": {"first_byte_s": 60.0, "silence_s": 60.0}}}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def patient_house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    """One door for all the tests in here."""
    async with open_house(tmp_path_factory.mktemp("house"), PATIENT) as opened:
        yield opened


def cuttings(length: int) -> Iterator[tuple[int, ...]]:
    """Return the single cuts and the random multi-cuts of a stream of that length."""
    yield from ((at,) for at in range(1, length, STRIDE))
    dice = random.Random(length)
    for _ in range(RANDOM // (2 * len(GOLDEN) * len(SHAPES)) + 1):
        yield tuple(sorted(dice.sample(range(1, length), dice.randint(2, 9))))


@pytest.mark.parametrize("asked", [False, True], ids=["usage_injected", "usage_asked"])
@pytest.mark.parametrize("golden", GOLDEN)
@pytest.mark.parametrize("shape", SHAPES)
async def test_b32_bytes_are_identical_at_any_cut(patient_house: House, shape: Shape, golden: str, asked: bool) -> None:
    answer = replace(GOLDEN[golden], shape=shape)
    length = sum(len(e.data) for e in answer.events({"model": "x", "stream_options": {"include_usage": True}}))
    limit = asyncio.Semaphore(AT_ONCE)
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    got: dict[str, Response] = {}

    async def one(cuts: tuple[int, ...]) -> None:
        tag = patient_house.tag()
        patient_house.fu.scripts[tag] = replace(answer, cuts=cuts).script
        async with limit:
            got[tag] = await patient_house.door.chat(tag, model=f"m-{shape}", stream=True, **options)

    await asyncio.gather(*(one(cuts) for cuts in cuttings(length)))
    charges = set()
    for tag, response in got.items():
        sent = patient_house.fu.one(tag)
        expected = answer.seen_by_client(sent.json, client_asked=asked)
        whole = b"".join(e.data for e in answer.events(sent.json))
        assert response.status == 200, response.body
        assert bytes(sent.sent) == whole
        assert hashlib.sha256(response.body).digest() == hashlib.sha256(expected).digest()
        assert response.saw_last_chunk
        charges.add((await patient_house.door.row(response))["charge"])
    assert [reckon.nano(charge) for charge in charges] == [
        reckon.charge_nano(answer.counts(), patient_house.price(f"m-{shape}"))
    ]


def load(file: Path) -> tuple[bytes, dict[str, Any]]:
    """Return a golden stream and what is expected of it."""
    return file.read_bytes(), orjson.loads(file.with_name(file.name + ".expect.json").read_bytes())


GOLDEN_DIRECTORY = Path(__file__).parents[1] / "golden"
# Of a stream that begins with an error the client gets an HTTP error instead: B16.
FILES = [file for file in sorted(GOLDEN_DIRECTORY.glob("*.sse")) if not load(file)[1]["refusal"]]


@pytest.mark.parametrize("asked", [False, True], ids=["usage_injected", "usage_asked"])
@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
async def test_b32_golden_files_are_identical_at_any_cut(patient_house: House, file: Path, asked: bool) -> None:
    (whole, expected), shape = load(file), file.name.split("-")[0]
    injected = shape in ("openai", "qwen") and not asked
    seen = b"".join(e for e in EVENT.findall(whole) if not (injected and is_usage_only(e)))
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    dice = random.Random(file.name)
    singles = [(at,) for at in range(1, len(whole), 1 if LONG else max(1, len(whole) // 12))]
    many = [tuple(sorted(dice.sample(range(1, len(whole)), 7))) for _ in range(RANDOM // (2 * len(FILES)) + 1)]
    limit = asyncio.Semaphore(AT_ONCE)

    async def one(cuts: tuple[int, ...]) -> None:
        pieces = [whole[a:b] for a, b in pairwise((0, *cuts, len(whole)))]
        async with limit:
            asked_once = await patient_house.ask(stream_of(*pieces), model=f"m-{shape}", stream=True, **options)
        body = bytes(asked_once.answer.body)
        told = b'data: {"error"' in whole  # a provider that says so itself and ends properly has not been cut
        assert asked_once.answer.saw_last_chunk is (expected["complete"] or told)
        row = await patient_house.door.row(asked_once.answer)
        if not expected["complete"]:  # at most our one error event follows
            assert body.startswith(seen)
            assert body.count(b"\n\n") <= seen.count(b"\n\n") + 1
            return
        assert hashlib.sha256(body).digest() == hashlib.sha256(seen).digest()
        if (usage := expected["usage"]) is not None:
            counts = (row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"], row["reasoning_tokens"])
            assert counts == (usage["prompt"], usage["completion"], usage["cached"], usage["reasoning"])

    await asyncio.gather(*(one(cuts) for cuts in [*singles, *many]))


EVENT = re.compile(rb".*?(?:\r\n\r\n|\n\n|\Z)", re.DOTALL)


def is_usage_only(event: bytes) -> bool:
    """Tell whether an event has usage and no choice."""
    data = event.strip().removeprefix(b"data:").strip()
    if not data.startswith(b"{"):
        return False
    value = orjson.loads(data)
    return value.get("choices") == [] and bool(value.get("usage"))
