"""The rig itself: a measuring stick that is wrong proves nothing."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from tests.rig.answers import DONE, SHAPES, Answer, Shape
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.raw_client import Connection, ask, post
from tests.rig.reckon import Truth, charge_nano, differences
from tests.rig.settings import PRICES, settings
from tests.rig.steps import LAST_CHUNK, Chunk, Close, Pause, Reset, Stall, head, sse_head

PATH = "/openai/v1/chat/completions"


@pytest.fixture
async def fu(tmp_path: Path) -> AsyncIterator[FaultUpstream]:
    async with FaultUpstream(log=tmp_path / "truth.jsonl") as upstream:
        yield upstream


@pytest.mark.parametrize("shape", SHAPES)
async def test_a_stream_arrives_chunk_for_chunk_and_its_usage_is_the_truth(fu: FaultUpstream, shape: Shape) -> None:
    answer = Answer(shape=shape, prompt=30, completion=7, cached=11, reasoning=2)
    body = {"user": "t", "stream": True, "stream_options": {"include_usage": True}, "n": 2}
    fu.scripts["t"] = answer.script
    got = await ask("127.0.0.1", fu.port, post(f"/{shape}/v1/chat/completions", body, "k"))
    assert got.complete
    assert got.saw_last_chunk
    assert got.pieces == [e.data for e in answer.events(body)]
    assert bytes(got.body) == bytes(fu.one("t").sent)
    assert got.body.endswith(DONE)
    usage = fu.one("t").usage
    assert usage is not None
    assert charge_nano(usage, {"input": "1", "cached_input": "0.5", "output": "2"}) == 38_500


async def test_a_stream_is_cut_where_the_script_says_and_usage_counts_only_once_it_is_out(fu: FaultUpstream) -> None:
    body = {"user": "t", "stream": True}
    answer = Answer(shape="deepseek", cuts=(1, 2, 50))
    fu.scripts["t"] = lambda received: [*answer.script(received)[:4], Reset()]
    got = await ask("127.0.0.1", fu.port, post(PATH, body, None))
    assert [len(p) for p in got.pieces] == [1, 1, 48]
    assert got.ending == "reset"
    assert not got.complete
    assert fu.one("t").usage is None
    assert fu.one("t").ended == "reset"


async def test_a_short_body_a_clean_close_and_a_reset_are_told_apart(fu: FaultUpstream) -> None:
    fu.scripts["short"] = [head(200, "Content-Length: 10"), Chunk(b"ab"), Close()]
    fu.scripts["cut"] = [sse_head(), Chunk(b"data: 1\n\n"), Close()]
    fu.scripts["whole"] = [sse_head(), Chunk(b"data: 1\n\n"), LAST_CHUNK]
    short, cut, whole = [await ask("127.0.0.1", fu.port, post(PATH, {"user": t}, None)) for t in fu.scripts]
    assert (short.complete, short.ending) == (False, "closed")
    assert (cut.complete, cut.saw_last_chunk, cut.ending, bytes(cut.body)) == (False, False, "closed", b"data: 1\n\n")
    assert (whole.complete, whole.ending) == (True, "open")


async def test_a_pause_holds_and_a_stall_sees_the_peer_go(fu: FaultUpstream) -> None:
    go, reached = asyncio.Event(), asyncio.Event()
    fu.scripts["t"] = [sse_head(), Chunk(b"data: 1\n\n"), Pause(go, reached), Chunk(b"data: 2\n\n"), Stall()]
    async with Connection("127.0.0.1", fu.port) as connection:
        await connection.send(post(PATH, {"user": "t"}, None))
        await connection.read_head()
        assert await connection.read_events(1) == b"data: 1\n\n"
        await reached.wait()
        go.set()
        assert await connection.read_events(2) == b"data: 1\n\ndata: 2\n\n"
        connection.reset()
    await fu.wait_for(1, "t", ended=True)
    assert fu.one("t").ended == "peer_gone"


async def test_hundreds_of_connections_and_keep_alive(fu: FaultUpstream) -> None:
    async def two(i: int) -> None:
        async with Connection("127.0.0.1", fu.port) as connection:
            for _ in range(2):
                await connection.send(post(PATH, {"user": f"u{i}"}, None))
                assert (await connection.read_response()).json["usage"]["prompt_tokens"] == 25

    await asyncio.gather(*(two(i) for i in range(300)))
    assert fu.connections == 300
    assert len(fu.received) == 600


async def test_the_truth_is_on_disk_line_by_line(fu: FaultUpstream, tmp_path: Path) -> None:
    await ask("127.0.0.1", fu.port, post(PATH, {"user": "t"}, None))
    await fu.wait_for(1, ended=True)
    lines = [orjson.loads(line) for line in (tmp_path / "truth.jsonl").read_bytes().splitlines()]
    assert [line["event"] for line in lines] == ["received", "usage", "ended"]
    assert lines[1]["usage"]["completion_tokens"] == 10


async def test_reckoning_finds_a_charge_that_is_off_by_one_nano_unit() -> None:
    usage = Answer(shape="deepseek", prompt=33, completion=9, cached=8).counts()
    exact = charge_nano(usage, PRICES["deepseek"])
    truths = {"r1": Truth("m-deepseek", usage)}
    for off in (-1, 0, 1):
        charge = f"{(exact + off) / 10**9:.9f}"
        row = {"charge": charge, "hold": "1.0", "usage_source": "reported", "closed_at": "now"}
        assert bool(differences({"r1": row}, truths, settings(""))) is (off != 0)
    assert differences({}, truths, settings(""))
