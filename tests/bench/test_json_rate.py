"""The benchmark itself: it counts right, and it reports nothing that is not so. Never how fast."""

import asyncio
from pathlib import Path

import pytest
from rich.console import Console

from tests.bench import json_rate
from tests.bench.framing import cut
from tests.bench.json_rate import BARE, DOOR, Worthless, measure, report
from tests.bench.load import load
from tests.rig.door import DoorProcess

MESSAGE = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"


def test_a_message_is_cut_where_its_length_says_and_not_before() -> None:
    assert cut(MESSAGE + MESSAGE) == (MESSAGE[:-7], b"abc", MESSAGE)
    assert [cut(MESSAGE[:end]) for end in range(len(MESSAGE))] == [None] * len(MESSAGE)


async def test_an_unexpected_answer_and_a_lost_connection_are_failures() -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in (MESSAGE, MESSAGE.replace(b"abc", b"abd"), MESSAGE.replace(b"200", b"503")):
            await reader.readexactly(2)
            writer.write(answer)
        await reader.readexactly(2)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        measured = await load(port, b"?\n", b"abc", connections=1, seconds=60)
    assert measured.requests == 1
    assert sorted(measured.failures.values()) == [1, 1, 1]


async def test_a_run_is_reported_only_if_its_ledger_agrees(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check, refused = json_rate._check, []

    async def check_twice(door: DoorProcess, served: int) -> None:
        with pytest.raises(Worthless, match="the ledger has") as why:
            await check(door, served + 1)
        refused.append(why)
        await check(door, served)

    monkeypatch.setattr(json_rate, "_check", check_twice)
    rounds = await measure(tmp_path, connections=4, seconds=0.3, rounds=1, warm_s=0.1)
    assert refused
    assert [round_.target for round_ in rounds] == [DOOR, BARE]
    console = Console(record=True, width=120)
    report(rounds, console)
    assert "door / bare" in console.export_text()
