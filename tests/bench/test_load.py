"""A load counts what was answered well, and nothing else."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from itertools import repeat

from tests.bench.load import Measured, closed_load, open_load, percentile_ms

MESSAGE = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
ABC: Callable[[bytes], bool] = b"abc".__eq__


async def hang_up(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and see it closed."""
    writer.close()
    with suppress(ConnectionError):
        await writer.wait_closed()


@asynccontextmanager
async def serving(*answers: bytes) -> AsyncIterator[int]:
    """Give each connection these answers to requests of two bytes, and hang up."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            for answer in answers:
                await reader.readexactly(2)
                writer.write(answer)
            await reader.readexactly(2)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        await hang_up(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


async def test_an_unexpected_answer_and_a_lost_connection_are_failures() -> None:
    async with serving(MESSAGE, MESSAGE.replace(b"abc", b"abd"), MESSAGE.replace(b"200", b"503")) as port:
        measured = await closed_load(port, repeat(b"?\n"), ABC, connections=2, seconds=60)
    assert measured.requests == 2
    assert sorted(measured.failures.values()) == [2, 2, 2]


async def test_more_than_was_asked_for_is_a_failure() -> None:
    for answer in (MESSAGE + MESSAGE, MESSAGE + b"H"):
        async with serving(answer) as port:
            measured = await closed_load(port, repeat(b"?\n"), ABC, connections=1, seconds=0)
        assert measured.requests == 1
        assert sum(measured.failures.values()) == 1


async def test_an_open_load_asks_as_often_as_it_says() -> None:
    async with serving(*[MESSAGE] * 200) as port:
        measured = await open_load(port, repeat(b"?\n"), ABC, connections=3, rate=1000, seconds=0.1)
    assert measured.requests == 100
    assert not measured.failures


async def test_an_open_load_ends_when_a_connection_is_lost_and_tells_what_it_did_not_ask() -> None:
    async with serving(MESSAGE) as port:
        measured = await open_load(port, repeat(b"?\n"), ABC, connections=1, rate=1000, seconds=0.1)
    assert measured.requests == 1
    assert measured.failures["connection lost"] == 1
    assert measured.failures["not asked in time"] == 98  # one was answered, one was asked and not


def test_percentiles_are_of_the_sorted_times() -> None:
    times = [int(n * 1e6) for n in (3, 1, 2, 5, 4)]
    assert [percentile_ms(times, percent) for percent in (0, 50, 99, 100)] == [1, 3, 4, 5]
    assert Measured().latency_ms(50) == 0
