"""Group D of the failure catalogue: the server's own end, with the real program where it has to die.

Strategy: the upstream withholds the rest of an answer, so that streams are open at the instant of the signal.
"""

import asyncio
import contextlib
import signal
import sqlite3
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.rig import reckon
from tests.rig.answers import Answer, chunks
from tests.rig.door import DoorUnderTest, door_process
from tests.rig.eventually import eventually
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.house import House, open_house
from tests.rig.invariants import copied, violations
from tests.rig.kill_loop import KillLoop
from tests.rig.raw_client import Connection, Response
from tests.rig.settings import ENVIRON, PRICES, merged, write
from tests.rig.steps import LAST_CHUNK, Pause, Received, Script, sse_head
from tests.rig.threads import Withheld

ANSWER = Answer(words=5, prompt=30, completion=20, cached=10)


def half(go: asyncio.Event) -> Any:
    """Return a planner whose streams stop after three events until `go`."""

    def plan(received: Received) -> Script:
        events = ANSWER.events(received.json)
        return [sse_head(), *chunks(events[:3]), Pause(go), *chunks(events[3:]), LAST_CHUNK]

    return plan


async def is_unready(door: DoorUnderTest) -> bool:
    return not await door.is_ready()


async def begin(door: DoorUnderTest, stack: contextlib.AsyncExitStack, tag: str) -> tuple[Connection, Response]:
    """Open a stream and read its first two events."""
    connection = await stack.enter_async_context(door.connect())
    await connection.send(door.request(tag, stream=True))
    answer = await connection.read_head()
    await connection.read_events(2)
    return connection, answer


async def test_d1_sigterm_lets_open_streams_finish_and_takes_nothing_new(tmp_path: Path, fu: FaultUpstream) -> None:
    go = asyncio.Event()
    fu.planner = half(go)
    async with door_process(tmp_path, fu.url) as door, contextlib.AsyncExitStack() as stack:
        streams = [await begin(door, stack, f"s{i}") for i in range(20)]
        door.process.send_signal(signal.SIGTERM)
        await eventually(lambda: is_unready(door))
        assert (await door.operators("/readyz")).status == 503
        assert (await door.operators("/healthz")).status == 200
        with pytest.raises(ConnectionError):
            await door.chat("late")
        go.set()
        for connection, answer in streams:
            await connection.read_rest()
            assert answer.saw_last_chunk
            assert answer.body.endswith(b"data: [DONE]\n\n")
        assert await door.stop() == 0
        assert fu.of("late") == []
        rows = door.rows()
        assert len(rows) == 20
        for row in rows:
            assert (row["end_state"], row["usage_source"]) == ("complete", "reported")
            assert reckon.nano(row["charge"]) == reckon.charge_nano(ANSWER.counts(), PRICES["openai"])


@pytest.mark.parametrize("used", [False, True], ids=["fresh", "kept_alive"])
async def test_d1_an_idle_connection_is_refused_or_closed_at_once(
    tmp_path: Path, fu: FaultUpstream, used: bool
) -> None:
    go = asyncio.Event()
    fu.scripts["open"] = half(go)
    async with door_process(tmp_path, fu.url) as door, contextlib.AsyncExitStack() as stack:
        await begin(door, stack, "open")
        idle = await stack.enter_async_context(door.connect())
        if used:
            await idle.send(door.request("early"))
            assert (await idle.read_response()).status == 200
        door.process.send_signal(signal.SIGTERM)
        await eventually(lambda: is_unready(door))
        await idle.send(door.request("late"))
        with contextlib.suppress(ConnectionError):  # closed is as good an answer
            late = await idle.read_response(timeout_s=2)
            assert (late.status, late.code) == (503, "shutting_down")
        assert fu.of("late") == []
        go.set()
        assert await door.stop() == 0


async def test_d1_a_large_body_whose_turn_comes_at_the_end_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with open_house(tmp_path) as house:
        door = house.door
        threads = Withheld(monkeypatch)
        asked = [
            asyncio.create_task(door.chat(messages=[{"role": "user", "content": "x" * 300_000}])) for _ in range(3)
        ]
        await eventually(lambda: threads.asked == 1)
        await asyncio.sleep(0.1)  # the others have come, and wait for their turn
        door.door.readiness.shutting_down = True
        threads.go.set()
        answers = await asyncio.gather(*asked)
        assert [(answer.status, answer.code) for answer in answers] == [(503, "shutting_down")] * 3
        assert threads.asked == 1
        assert len(door.rows()) == 1  # of the one that was being read
        assert house.fu.received == []


async def test_d2_streams_that_outlast_the_shutdown_are_cut_and_accounted_for(
    tmp_path: Path, fu: FaultUpstream
) -> None:
    fu.planner = half(asyncio.Event())
    overrides = {"server": {"timeouts": {"shutdown_s": 0.5}}}
    async with door_process(tmp_path, fu.url, overrides) as door, contextlib.AsyncExitStack() as stack:
        connection, answer = await begin(door, stack, "s")
        assert await door.stop(timeout_s=10) == 0
        await connection.read_rest()
        assert not answer.saw_last_chunk
        with copied(door.ledger_path, tmp_path / "copy") as db:
            assert violations(db) == []
        await door.start()
        (row,) = await door.closed_rows()
        assert row["end_state"] in ("crashed", "upstream_cut", "timeout", "client_gone")
        assert 0 < reckon.nano(row["charge"]) <= reckon.nano(row["hold"])


async def test_d3_e6_a_stream_that_a_kill_cut_is_recovered_at_the_price_of_its_hold(
    tmp_path: Path, fu: FaultUpstream
) -> None:
    """Progress was journaled at the first byte; after the restart prices are ten times as high."""
    fu.planner = half(asyncio.Event())
    async with door_process(tmp_path, fu.url) as door, contextlib.AsyncExitStack() as stack:
        _, answer = await begin(door, stack, "s")
        await eventually(lambda: door.sql("SELECT 1 FROM usage WHERE prompt_tokens > 0") != [])  # progress is journaled
        await door.stop(signal.SIGKILL)
        dear = {"price": {"input": "3.7", "cached_input": "0.31", "output": "19.3"}}
        write(door.config_path, merged(door.values, {"models": {"m-openai": dear}}))
        await door.start()
        row = await door.row(answer)
        assert (row["end_state"], row["usage_source"]) == ("crashed", "recovered")
        counts = {"prompt_tokens": row["prompt_tokens"], "completion_tokens": row["completion_tokens"]}
        assert reckon.nano(row["charge"]) == reckon.charge_nano(counts, PRICES["openai"])
        assert door.open_holds() == 0


async def test_d3_kill_9_under_load(tmp_path: Path) -> None:
    assert await KillLoop(tmp_path, seed=1, clients=16).run(kills=3) == []


async def test_d10_an_admin_who_locks_the_ledger_stops_holds_but_loses_nothing(tmp_path: Path) -> None:
    go = asyncio.Event()
    async with open_house(tmp_path, {"server": {"timeouts": {"first_byte_s": 10.0, "silence_s": 10.0}}}) as house:
        house.fu.scripts["open"] = half(go)
        async with contextlib.AsyncExitStack() as stack:
            connection, answer = await begin(house.door, stack, "open")
            other = stack.enter_context(
                contextlib.closing(sqlite3.connect(house.door.ledger_path, isolation_level=None))
            )
            other.execute("BEGIN IMMEDIATE")
            loop = asyncio.get_running_loop()
            before = loop.time()
            refused = await house.door.chat("refused")
            assert 0.5 < loop.time() - before < 2
            assert (refused.status, refused.code) == (503, "ledger_unavailable")
            assert refused.header("retry-after")
            assert refused.header("x-should-retry") != "false"
            assert house.fu.of("refused") == []
            assert (await house.door.operators("/readyz")).status == 503
            go.set()
            await connection.read_rest()
            assert answer.saw_last_chunk, "a settlement that is late must not cut the answer"
            assert await house.door.metric("nexus_settle_late_total") == 1
            other.execute("ROLLBACK")
            row = await house.door.row(answer)
            assert reckon.nano(row["charge"]) == reckon.charge_nano(ANSWER.counts(), PRICES["openai"])
            await eventually(house.door.is_ready)
            assert (await house.door.chat("after")).status == 200
            assert sum(row["usage_source"] != "none" for row in await house.door.closed_rows()) == 2


async def test_d14_a_second_server_on_the_same_ledger_refuses(tmp_path: Path, fu: FaultUpstream) -> None:
    async with door_process(tmp_path, fu.url) as door:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "nexus_proxy", "--config", str(door.config_path), "serve",
            env=ENVIRON, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(15):
            output, _ = await process.communicate()
        assert process.returncode in (1, 3)
        assert b"Traceback" not in output
        assert b"nexus.db" in output
        assert (await door.chat()).status == 200


async def test_a_server_that_serves_is_ready_and_healthy(house: House) -> None:
    assert (await house.door.operators("/readyz")).status == 200
    assert (await house.door.operators("/healthz")).status == 200
