"""A stream counts if it is whole and right to the byte; its events are timed from their stamps."""

import asyncio
import sys
from itertools import repeat

import pytest

from tests.bench.answers import BEGIN, END, Asked, event, question
from tests.bench.processes import program
from tests.bench.streams import Heard, Moment, Streamed, closed_streams, open_streams
from tests.bench.systems import head
from tests.bench.test_load import hang_up
from tests.rig.raw_client import ask

STREAM = BEGIN + event(1_000) + event(2_000) + END


def taken(*pieces: bytes, events: int = 2) -> Streamed:
    """Take one answer that came in these pieces, at 10,001, 10,002… ns, asked for at 10,000."""
    streamed = Streamed()
    heard = Heard(10_000, [(10_001 + number, piece) for number, piece in enumerate(pieces)])
    streamed.take(heard, events, exact=True)
    return streamed


@pytest.mark.parametrize("size", [*range(1, 60), 200, len(STREAM)])
def test_pieces_of_any_size_are_the_same_stream(size: int) -> None:
    streamed = taken(*(STREAM[at : at + size] for at in range(0, len(STREAM), size)))
    assert (streamed.streams, streamed.events) == (1, 2)
    assert not streamed.failures


def test_an_event_has_come_with_the_piece_that_completes_it() -> None:
    one, two = event(1_000), event(2_000)
    streamed = taken(BEGIN, one[:100], one[100:] + two[:100], two[100:] + END)
    assert streamed.first_byte_ns == [1]
    assert streamed.came_ns == [10_003, 10_004]
    assert streamed.delays_ns == [10_003 - 1_000, 10_004 - 2_000]


@pytest.mark.parametrize(
    "wrong",
    [
        STREAM[:-1],
        STREAM[: -len(END)],
        STREAM.replace(b"200 OK", b"503 No"),
        STREAM.replace(b"stop", b"halt"),
        STREAM.replace(b"0 " + b'"}', b"1 " + b'"}', 1),
        BEGIN + event(1_000) + END,
        BEGIN + event(1_000) * 3 + END,
        b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n",
        b"nonsense\r\n\r\n",
    ],
)
def test_anything_else_is_a_failure(wrong: bytes) -> None:
    for pieces in ((wrong,), (wrong[:50], wrong[50:])):
        streamed = taken(*pieces)
        assert (streamed.streams, streamed.events, streamed.delays_ns) == (0, 0, [])
        assert sum(streamed.failures.values()) == 1


def test_bytes_behind_the_end_are_a_failure() -> None:
    for more in (b"0\r\n\r\n", STREAM, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"H"):
        assert taken(STREAM, more).failures
        assert taken(STREAM + more).failures


def test_what_came_while_all_ran_is_told_from_what_came_before_and_after() -> None:
    streamed = Streamed(came_ns=[7, 14, 5, 10, 15, 11], delays_ns=[1, 2_000_000, 3, 4, 5, 6_000_000])
    streamed.all_open, streamed.first_over = Moment(10, 100), Moment(14, 175)
    running = streamed.running()
    assert running is not None
    assert running == ([2_000_000, 6_000_000], 75)
    assert [running.delay_ms(percent) for percent in (0, 100)] == [2, 6]


@pytest.mark.parametrize(
    ("all_open", "first_over"),
    [
        (None, None),
        (Moment(10, 1), None),
        (None, Moment(20, 2)),
        (Moment(20, 1), Moment(10, 2)),
        (Moment(20, 1), Moment(20, 1)),
        (Moment(31, 1), Moment(40, 2)),
    ],
)
def test_if_not_all_ran_at_once_nothing_is_told(all_open: Moment | None, first_over: Moment | None) -> None:
    streamed = Streamed(came_ns=[15, 20, 30], delays_ns=[1, 2, 3], all_open=all_open, first_over=first_over)
    assert streamed.running() is None


async def test_all_run_from_the_last_ones_first_byte_to_the_first_ones_end() -> None:
    all_open, first_over = asyncio.Event(), asyncio.Event()
    moments = iter([(all_open, 100), (first_over, 175)])  # a third look would be an error
    asked = 0

    def meter() -> int:
        moment, metered = next(moments)
        moment.set()
        return metered

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal asked
        asked += 1
        last = asked == 2
        await reader.readexactly(1)
        writer.write(BEGIN if last else BEGIN + event(1))
        await all_open.wait()
        if last:
            await first_over.wait()
            writer.write(event(1))
        writer.write(event(2) + END)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        streamed = await open_streams(
            port, repeat(b"?"), 2, exact=True, streams=2, spread_s=0.0, timeout_s=10, meter=meter
        )
    assert (streamed.streams, streamed.events) == (2, 4)
    running = streamed.running()
    assert running is not None
    assert (len(running.delays_ns), running.metered) == (1, 75)


async def test_a_load_takes_what_the_provider_sends_and_the_gate_holds() -> None:
    def requests(wanted: Asked) -> bytes:
        body = question("m", stream=wanted)
        return head("k") + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)

    async with program("tests.bench.upstream", core=0) as (_, port):
        burst = await closed_streams(
            port, repeat(requests(Asked("burst", 30))), 30, exact=True, connections=2, seconds=0.1
        )
        paced = await open_streams(
            port, repeat(requests(Asked("paced", 3))), 3, exact=True, streams=5, spread_s=0.02, timeout_s=10
        )
        released = []

        async def all_open() -> None:
            released.append((await ask("127.0.0.1", port, b"POST /release HTTP/1.1\r\n\r\n")).status)

        gated = await open_streams(
            port, repeat(requests(Asked("gated", 10))), 10,
            exact=True, streams=7, spread_s=0.0, timeout_s=10, all_open=all_open,
        )  # fmt: skip
    assert not burst.failures + paced.failures + gated.failures
    assert burst.events == 30 * burst.streams >= 60
    assert (paced.streams, paced.events) == (5, 15)
    assert (gated.streams, gated.events, released) == (7, 70, [200])
    assert 0 < min(burst.delays_ns + paced.delays_ns + gated.delays_ns) < sys.maxsize


@pytest.mark.parametrize("answer", [STREAM[:-3], b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", b""])
async def test_who_hangs_up_or_refuses_has_failed(answer: bytes) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(1)
        writer.write(answer)
        await hang_up(writer)

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        streamed = await open_streams(port, repeat(b"?"), 2, exact=True, streams=3, spread_s=0.0, timeout_s=10)
    assert (streamed.streams, sum(streamed.failures.values())) == (0, 3)
