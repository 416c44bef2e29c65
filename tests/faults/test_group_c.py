"""Group C of the failure catalogue: clients that leave, or that do not read.

Strategy: the upstream waits for the test at the point in question, so that the client leaves exactly there. What is
charged is what the upstream reports to the end, and the upstream is read to its end.
"""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.rig import reckon
from tests.rig.answers import Answer, chunks
from tests.rig.house import House, open_house
from tests.rig.raw_client import Connection
from tests.rig.steps import LAST_CHUNK, Chunk, Delay, Pause, Received, Script, Step, sse_head

pytestmark = pytest.mark.asyncio(loop_scope="module")
ANSWER = Answer(words=4, prompt=31, completion=17, cached=5)
EVENTS = len(ANSWER.events({"stream_options": {"include_usage": True}}))


@contextlib.asynccontextmanager
async def paused_after(house: House, count: int, tag: str) -> AsyncIterator[tuple[Connection, asyncio.Event]]:
    """Open a stream whose upstream waits after so many events; the client has read them (one may be kept back)."""
    go, reached = asyncio.Event(), asyncio.Event()

    def script(received: Received) -> Script:
        steps: list[Step] = list(chunks(ANSWER.events(received.json)))
        steps.insert(count, Pause(go, reached))
        return [sse_head(), *steps, LAST_CHUNK]

    house.fu.scripts[tag] = script
    async with house.door.connect() as connection:
        await connection.send(house.door.request(tag, stream=True))
        await reached.wait()
        if count:
            await connection.read_head()
            await connection.read_events(min(count, EVENTS - 2))
        yield connection, go
        go.set()


async def exact_after_all(house: House, account: str, tag: str, *sources: str) -> dict[str, Any]:
    """The only request of the account is closed, charged by what the upstream reported, and was read to its end."""
    (row,) = await house.door.closed_rows(account)
    await house.fu.wait_for(1, tag, ended=True)
    received = house.fu.one(tag)
    assert received.ended == "played"
    assert received.usage is not None
    assert reckon.nano(row["charge"]) == reckon.charge_nano(received.usage, house.price(row["model"])), row
    assert row["usage_source"] in sources, row
    return row


async def fresh(house: House) -> tuple[str, str]:
    """Return a tag, and the account of that name whose key the door uses from now on."""
    tag = house.tag()
    house.door.key = await house.door.mint(tag)
    return tag, tag


async def test_c1_gone_before_the_body_is_complete_leaves_nothing(shared_house: House) -> None:
    async with shared_house.nothing_happens():
        for part in (10, 200, -1):
            async with shared_house.door.connect() as connection:
                await connection.send(shared_house.door.request("gone")[:part])
                connection.reset()
        assert (await shared_house.door.balance())["held"] == 0


async def test_c2_gone_while_the_hold_waits_sends_nothing_upstream(shared_house: House) -> None:
    tag, account = await fresh(shared_house)
    with contextlib.closing(sqlite3.connect(shared_house.door.ledger_path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")  # nobody can commit a hold now
        async with shared_house.door.connect() as connection:
            await connection.send(shared_house.door.request(tag))
            await asyncio.sleep(0.1)
            connection.reset()
        await asyncio.sleep(0.1)
        other.execute("ROLLBACK")
    assert (await shared_house.ask()).answer.status == 200  # what was queued before this has been decided
    assert shared_house.fu.of(tag) == []
    for row in await shared_house.door.closed_rows(account, 1):
        assert row["model"] == "m-openai"
    assert shared_house.door.account(account)["held"] == 0
    assert sum(row["usage_source"] != "none" for row in shared_house.door.rows(account)) == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_c3_gone_while_waiting_for_headers_is_drained(shared_house: House, stream: bool) -> None:
    tag, account = await fresh(shared_house)
    go, reached = asyncio.Event(), asyncio.Event()
    shared_house.fu.scripts[tag] = lambda received: [Pause(go, reached), *ANSWER.script(received)]
    async with shared_house.door.connect() as connection:
        await connection.send(shared_house.door.request(tag, stream=stream))
        await reached.wait()
        connection.reset()
    await asyncio.sleep(0.05)  # the RST reaches the door before the answer does
    go.set()
    row = await exact_after_all(shared_house, account, tag, "drained")
    assert (row["status"], row["end_state"]) == (499, "client_gone")


@pytest.mark.parametrize("leave", ["reset", "fin"])
@pytest.mark.parametrize("count", range(EVENTS + 1))
async def test_c4_c5_gone_after_any_event_is_charged_by_the_report(shared_house: House, count: int, leave: str) -> None:
    tag, account = await fresh(shared_house)
    async with paused_after(shared_house, count, tag) as (connection, go):
        if leave == "reset":
            connection.reset()
        else:
            connection.writer.close()
        await asyncio.sleep(0.02)
        go.set()
        await exact_after_all(shared_house, account, tag, "drained", "reported")


async def test_c4_gone_after_the_third_event_is_read_to_the_end(shared_house: House) -> None:
    tag, account = await fresh(shared_house)
    async with paused_after(shared_house, 3, tag) as (connection, go):
        connection.reset()
        await asyncio.sleep(0.05)
        go.set()
        row = await exact_after_all(shared_house, account, tag, "drained")
    assert row["end_state"] == "client_gone"
    assert row["completion_tokens"] == 17


async def test_c4_a_provider_that_is_cancelled_is_charged_an_estimate(tmp_path: Path) -> None:
    async with open_house(tmp_path, {"providers": {"p-openai": {"on_disconnect": "cancel"}}}) as house:
        tag, account = await fresh(house)
        async with paused_after(house, 3, tag) as (connection, _):
            connection.reset()
            (row,) = await house.door.closed_rows(account)
        assert (row["usage_source"], row["end_state"]) == ("estimated", "client_gone")
        assert 0 < reckon.nano(row["charge"]) <= reckon.nano(row["hold"])


@pytest.mark.parametrize("limit", ["drain_bytes", "drain_s"])
async def test_c4_a_drain_ends_at_its_limit_with_an_estimate(tmp_path: Path, limit: str) -> None:
    limits = {"drain_bytes": 2000} if limit == "drain_bytes" else {"drain_s": 0.3}
    async with open_house(tmp_path, {"server": {"limits": limits}}) as house:
        tag, account = await fresh(house)
        go = asyncio.Event()
        words = [Chunk(e.data) for e in Answer(words=100).events({})[:-2]]
        more: list[Step] = [*words] if limit == "drain_bytes" else [s for w in words for s in (w, Delay(0.05))]
        house.fu.scripts[tag] = [sse_head(), *words[:3], Pause(go), *more, Pause(asyncio.Event())]
        async with house.door.connect() as connection:
            await connection.send(house.door.request(tag, stream=True))
            await connection.read_head()
            await connection.read_events(2)
            connection.reset()
        await asyncio.sleep(0.05)
        go.set()
        (row,) = await house.door.closed_rows(account)
        assert (row["usage_source"], row["end_state"]) == ("estimated", "client_gone")


async def test_c5_gone_exactly_at_the_end(shared_house: House) -> None:
    for _ in range(10):
        tag, account = await fresh(shared_house)
        async with shared_house.door.connect() as connection:
            await connection.send(shared_house.door.request(tag, stream=True))
            await connection.read_head()
            while b"[DONE]" not in await connection.read_piece():
                pass
            connection.reset()
        await exact_after_all(shared_house, account, tag, "reported", "drained")


async def test_c2_c3_e10_gone_at_any_turn_of_the_loop_ends_every_hold_once(shared_house: House) -> None:
    """The door runs on this loop: leaving n turns after the request was sent visits its suspension points."""
    shared_house.door.key = await shared_house.door.mint("turns")
    tags = []
    for turns in range(0, 120):
        tag = shared_house.tag()
        tags.append(tag)
        async with shared_house.door.connect() as connection:
            await connection.send(shared_house.door.request(tag, stream=turns % 2 == 0))
            for _ in range(turns):
                await asyncio.sleep(0)
            connection.reset()
    assert (await shared_house.ask()).answer.status == 200
    rows = await shared_house.door.closed_rows("turns")
    reached = [shared_house.fu.one(tag) for tag in tags if shared_house.fu.of(tag)]
    assert len(rows) >= len(reached) + 1, "the upstream saw a request without a hold"
    charged = [row for row in rows if row["usage_source"] != "none"]
    assert len(charged) <= len(reached) + 1
    assert all(reckon.nano(row["charge"]) == 0 for row in rows if row["usage_source"] == "none")
    reported = [r for r in reached if r.ended == "played"]
    total = sum(reckon.charge_nano(r.usage or {}, shared_house.price("m-openai")) for r in reported)
    assert sum(reckon.nano(r["charge"]) for r in charged if r["usage_source"] in ("reported", "drained")) >= total
    assert shared_house.door.account("turns")["held"] == 0


BIG = 600  # events of 64 KiB each: more than all buffers of the kernel on the way hold together


def big_script() -> Script:
    """Return a long stream with usage at its end."""
    filler = b'data: {"choices":[{"index":0,"delta":{"content":"' + b"x" * 65_000 + b'"},"finish_reason":null}]}\n\n'
    end = Answer(shape="deepseek", words=0, prompt=9, completion=9).events({})
    return [sse_head(), *([Chunk(filler)] * BIG), *chunks(end), LAST_CHUNK]


async def test_c6_a_slow_reader_slows_the_upstream_down(tmp_path: Path) -> None:
    timeouts = {"client_stalled_s": 20.0, "silence_s": 20.0}
    async with open_house(tmp_path, {"server": {"timeouts": timeouts}}) as house:
        tag = house.tag()
        house.fu.scripts[tag] = big_script()
        async with house.door.connect(receive_buffer=4096) as connection:
            await connection.send(house.door.request(tag, stream=True, model="m-deepseek"))
            answer = await connection.read_head()
            before = -1
            async with asyncio.timeout(10):
                while before != len(house.fu.one(tag).sent):  # until nothing moves any more
                    before = len(house.fu.one(tag).sent)
                    await asyncio.sleep(0.3)
            assert before < BIG * 65_000 * 0.7, "the upstream was not slowed down"
            await connection.read_rest(timeout_s=60)
        assert answer.saw_last_chunk
        assert bytes(answer.body) == bytes(house.fu.one(tag).sent)
        row = await house.door.row(answer)
        assert row["usage_source"] == "reported"


async def test_c7_a_reader_that_stops_for_ever_is_left_and_the_rest_drained(tmp_path: Path) -> None:
    overrides = {"server": {"timeouts": {"client_stalled_s": 0.5}, "limits": {"drain_bytes": 1 << 30}}}
    async with open_house(tmp_path, overrides) as house:
        tag, account = await fresh(house)
        house.fu.scripts[tag] = big_script()
        async with house.door.connect(receive_buffer=4096) as connection:
            await connection.send(house.door.request(tag, stream=True, model="m-deepseek"))
            await connection.read_head()
            row = await exact_after_all(house, account, tag, "drained")
            assert row["end_state"] == "client_gone"
            answer = await connection.read_rest(timeout_s=20)
        assert not answer.saw_last_chunk
