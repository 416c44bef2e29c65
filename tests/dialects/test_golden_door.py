"""Every golden answer of every dialect through a real door and real sockets: bytes, charge, errors (B16, B32).

Strategy: the scripted upstream sends the file as it stands, cut at a stride and at random places; the client must get
the same bytes, less exactly the event that only the door asked for, and be charged what stands beside the file.
`NEXUS_TEST_LONG=1` takes every cut, and 10,000 random ones. The upstream's errors repeat the door's credential and tell
of our account; neither may come through.
"""

import asyncio
import json
import os
import random
from itertools import pairwise
from typing import Any

import pytest

from nexus_proxy.catalogue import load_catalogue
from tests.dialects.golden import ALL, DIALECTS, Golden
from tests.rig import reckon
from tests.rig.eventually import eventually
from tests.rig.house import Asked, House
from tests.rig.settings import UPSTREAM_KEY
from tests.rig.steps import LAST_CHUNK, Chunk, Step, head, whole

pytestmark = pytest.mark.asyncio(loop_scope="module")
LONG = bool(os.environ.get("NEXUS_TEST_LONG"))
SINGLE = 3  # cuts of each stream at a stride, if not LONG
RANDOM = 10_000 if LONG else 300  # multi-cuts of all of them together
AT_ONCE = 32
ASKS = {name for name, dialect in load_catalogue().dialects.items() if dialect.ask_usage}
STREAMS = [g for g in ALL if g.streams and g.expect["error"] is None]
DOCUMENTS = [g for g in ALL if not g.streams and g.expect["error"] is None]
ERRORS = [g for g in ALL if g.expect["error"] is not None]
STATUS = {
    "upstream_no_funds": (503, "false"),
    "upstream_rate_limited": (429, None),
    "upstream_auth": (502, "false"),
    "upstream_model": (502, "false"),
    "upstream_overloaded": (503, None),
    "invalid_parameter": (400, "false"),
}
PROMPT = "How do I get to the island? " * 100  # long enough for what the files say that it was


def name_of(golden: Golden) -> str:
    return golden.name


def members(golden: Golden, *, asked: bool, stream: bool = True) -> dict[str, Any]:
    """Return what the client's request says."""
    options: dict[str, Any] = {"stream_options": {"include_usage": True}} if asked else {}
    messages = [{"role": "user", "content": PROMPT}]
    return {"model": f"g-{golden.dialect}", "stream": stream, "messages": messages, **options}


def stream(golden: Golden, pieces: list[bytes]) -> list[Step]:
    """Return the steps that send it, a chunk for each piece."""
    lines = (f"Content-Type: {golden.expect['content_type']}", "Transfer-Encoding: chunked")
    return [head(golden.expect["status"], *lines), *map(Chunk, pieces), LAST_CHUNK]


def cuttings(golden: Golden, *, asked: bool) -> list[tuple[bytes, tuple[int, ...]]]:
    """Return forms of the body with the cuts that they are sent with; every cut, if LONG, but not twice."""
    dice = random.Random(golden.name)
    size = len(golden.body)
    singles = [(golden.body, (at,)) for at in range(1, size, 1 if LONG and not asked else max(1, size // SINGLE))]
    many = []
    for number in range(RANDOM // (2 * len(STREAMS)) + 1):
        body = golden.form(("crlf", "commented", "lf", "cr", "commented crlf")[number % 5])
        many.append((body, tuple(sorted(dice.sample(range(1, len(body)), 7)))))
    return [*singles, *many]


@pytest.mark.parametrize("golden", STREAMS, ids=name_of)
@pytest.mark.parametrize("asked", [False, True], ids=["usage_injected", "usage_asked"])
async def test_b32_a_stream_is_identical_at_any_cut(golden_house: House, golden: Golden, asked: bool) -> None:
    drop = golden.expect["include_usage"] and not asked
    if drop and golden.dialect not in ASKS:
        drop = False  # nobody asked, so it cannot have been sent: whatever comes is the client's
    limit = asyncio.Semaphore(AT_ONCE)
    golden_house.fu.received.clear()
    expect = golden.expect

    async def one(body: bytes, cuts: tuple[int, ...]) -> str:
        pieces = [body[a:b] for a, b in pairwise((0, *cuts, len(body)))]
        async with limit:
            done = await golden_house.ask(stream(golden, pieces), **members(golden, asked=asked))
        got, sent = bytes(done.answer.body), golden.for_client(body, drop=drop)
        whole_answer = expect["complete"] or expect["late_error"]
        assert done.answer.status == 200
        assert done.answer.saw_last_chunk is whole_answer
        assert got == sent if whole_answer else got.startswith(sent)
        return done.answer.request_id

    rows = await rows_of(golden_house, await asyncio.gather(*(one(*cut) for cut in cuttings(golden, asked=asked))))
    for received in golden_house.fu.received:
        assert received.json.get("stream_options", {}).get("include_usage", False) is (asked or golden.dialect in ASKS)
    for row in rows:
        assert 0 < reckon.nano(row["charge"]) <= reckon.nano(row["hold"])
        usage = expect["usage"]
        assert row["usage_source"] in (("estimated",) if usage is None else ("reported", "cumulative"))
        if usage is not None:
            counts = (row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"], row["reasoning_tokens"])
            assert counts == (usage["prompt"], usage["completion"], usage["cached"], usage["reasoning"])
            assert reckon.nano(row["charge"]) == expect["charge_nano"]


async def rows_of(golden_house: House, request_ids: list[str]) -> list[dict[str, Any]]:
    """Wait until nothing is open any more; return the rows of these requests, which must all be there."""
    await eventually(lambda: golden_house.door.open_holds() == 0)
    among = "SELECT * FROM usage WHERE request_id IN (SELECT value FROM json_each(?))"
    rows = golden_house.door.sql(among, json.dumps(request_ids))
    assert len(rows) == len(request_ids)
    return rows


@pytest.mark.parametrize("golden", DOCUMENTS, ids=name_of)
async def test_a_document_is_identical_and_charged_exactly(golden_house: House, golden: Golden) -> None:
    script = whole(200, golden.body)
    done = await golden_house.ask(script, **members(golden, asked=False, stream=False))
    assert bytes(done.answer.body) == golden.body
    row = await golden_house.door.row(done.answer)
    assert (row["usage_source"], row["end_state"]) == ("reported", "complete")
    assert reckon.nano(row["charge"]) == golden.expect["charge_nano"]


@pytest.mark.parametrize("golden", ERRORS, ids=name_of)
async def test_b16_an_error_is_the_clients_in_our_words(golden_house: House, golden: Golden) -> None:
    if golden.streams:
        # A keep-alive before it goes out at once: then it is too late for a status of ours, unless all came together.
        step = 7 if not golden.body.startswith(b":") else len(golden.body)
        pieces = [golden.body[n : n + step] for n in range(0, len(golden.body), step)]
        scripts = [(stream(golden, [golden.body]), True), (stream(golden, pieces), True)]
    else:
        steps = whole(golden.expect["status"], golden.body)
        scripts = [(steps, False), (steps, True)]
    asked = (golden_house.ask(steps, **members(golden, asked=False, stream=streamed)) for steps, streamed in scripts)
    await asyncio.gather(*(_is_in_our_words(golden, done) for done in await asyncio.gather(*asked)))


async def _is_in_our_words(golden: Golden, done: Asked) -> None:
    code = golden.expect["error"]
    status, retry = STATUS[code]
    error = done.answer.json["error"]
    assert (done.answer.status, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert done.answer.header("x-should-retry") == retry
    assert UPSTREAM_KEY.encode() not in done.answer.body
    row = await done.is_void()
    assert row["end_state"] == "upstream_error"


@pytest.mark.parametrize("dialect", DIALECTS)
async def test_no_answer_of_any_status_passes_the_credential_on(golden_house: House, dialect: str) -> None:
    said = f"the key {UPSTREAM_KEY} is wrong"
    bodies = [
        f'{{"error":{{"message":"{said}","type":"invalid_request_error","code":null}}}}',
        f'{{"code":400,"message":"{said}"}}',
        f'{{"detail":"{said}"}}',
        f'"{said}"',
        said,
    ]
    scripts = [whole(status, body.encode()) for status in (400, 401, 422, 500) for body in bodies]
    for done in await asyncio.gather(*(golden_house.ask(script, model=f"g-{dialect}") for script in scripts)):
        assert done.answer.status >= 400
        assert UPSTREAM_KEY.encode() not in done.answer.body
        assert UPSTREAM_KEY not in str(done.answer.headers)
