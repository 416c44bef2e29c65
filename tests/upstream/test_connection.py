"""One connection to a provider: its parser at every cut of the bytes, and what makes it fit for another request.

Strategy: the transport is a list of what was done to it, so every response is a sequence of pieces and every end is
played exactly; the sink is a list of what it was told.
"""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from nexus_proxy.upstream.connection import FRAMING_BYTES_MAX, HEADERS_MAX, INTERIM_MAX, Connection, Headers, chunk_head

HEAD, BODY = b"POST /v1/chat/completions HTTP/1.1\r\n\r\n", b"{}"


class Wire(asyncio.Transport):
    """A transport that remembers."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []
        self.reading = True
        self.closed = self.aborted = False
        self.unsent = 0

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def write(self, data: Any) -> None:
        self.sent.append(bytes(data))

    def writelines(self, list_of_data: Iterable[Any]) -> None:
        self.sent += [bytes(data) for data in list_of_data]

    def is_closing(self) -> bool:
        return self.closed or self.aborted

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.aborted = True

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Heard:
    """A sink that remembers; `last` is how it ended."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: Headers = []
        self.body = b""
        self.ends: list[str] = []

    def on_head(self, status: int, headers: Headers) -> None:
        assert not self.ends
        assert not self.status
        self.status, self.headers = status, headers

    def on_body(self, data: bytes) -> None:
        assert self.status
        assert not self.ends
        self.body += data

    def on_end(self) -> None:
        self.ends.append("end")

    def on_broken(self, reason: str) -> None:
        self.ends.append(reason)

    @property
    def ended(self) -> str:
        """`end`, `broken`, or nothing yet; twice is a failure."""
        assert len(self.ends) <= 1, self.ends
        return "" if not self.ends else "end" if self.ends == ["end"] else "broken"


class Line:
    """A connection, its wire, the sink of its last request, and how often it was said to be lost."""

    def __init__(self) -> None:
        self.lost = 0
        self.wire = Wire()
        self.connection = Connection(self._on_lost)
        self.connection.connection_made(self.wire)

    def _on_lost(self, connection: Connection) -> None:
        assert connection is self.connection
        self.lost += 1

    def ask(self, body: bytes = BODY) -> Heard:
        """Send a request."""
        heard = Heard()
        self.connection.send(HEAD, body, heard)
        return heard

    def feed(self, *pieces: bytes) -> None:
        """Deliver pieces, as a transport does: none once it is aborted."""
        for piece in pieces:
            if not self.wire.aborted and piece:
                self.connection.data_received(piece)

    def hang_up(self, fault: Exception | None = None) -> None:
        """End the connection."""
        if fault is None:
            self.connection.eof_received()
        self.connection.connection_lost(fault)


def answer(*lines: bytes, body: bytes = b"", status: bytes = b"200 OK", version: bytes = b"1.1") -> bytes:
    return b"\r\n".join([b"HTTP/%b %b" % (version, status), *lines, b"", b""]) + body


CHUNKS = b"7\r\nhel\r\nlo\r\n6;ext=1\r\n w\xc3\xb6rl\r\n1\r\nd\r\n0\r\nTrailer: x\r\n\r\n"
TEXT = "hel\r\nlo wörld".encode()
WHOLE: dict[str, tuple[bytes, bytes]] = {  # what comes, and the body in it; all of them end by themselves
    "length": (answer(b"Content-Length: %d" % len(TEXT), body=TEXT), TEXT),
    "empty": (answer(b"content-length: 0"), b""),
    "chunked": (answer(b"Transfer-Encoding: chunked", body=CHUNKS), TEXT),
    "interim": (
        answer(status=b"100 Continue")
        + answer(b"Link: </a>", status=b"103 E")
        + answer(b"Content-Length: 1", body=b"x"),
        b"x",
    ),
    "error": (answer(b"Content-Length: 2", status=b"429 Slow", body=b"no"), b"no"),
    "no_content": (answer(status=b"204 No Content"), b""),
}


def cuts_of(data: bytes) -> Iterator[list[bytes]]:
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]


@pytest.mark.parametrize(("data", "body"), WHOLE.values(), ids=WHOLE.keys())
def test_b32_b36_a_response_is_the_same_at_every_cut(data: bytes, body: bytes) -> None:
    for pieces in cuts_of(data):
        line = Line()
        heard = line.ask()
        line.feed(*pieces)
        assert (heard.ended, heard.body) == ("end", body), pieces
        assert heard.status == int(data.rpartition(b"HTTP/1.1 ")[2][:3])
        assert all(name == name.lower() for name, _ in heard.headers)
        assert line.connection.heard
        assert line.connection.reusable
        assert not line.wire.is_closing()
        again = line.ask()  # the parser of the next response remembers nothing of this one
        line.feed(*pieces)
        assert (again.ended, again.body, again.headers) == ("end", body, heard.headers)
        line.hang_up()
        assert heard.ended == again.ended == "end"
        assert (line.lost, line.connection.reusable) == (1, False)


@pytest.mark.parametrize(("data", "body"), WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("fault", [None, ConnectionResetError()], ids=["fin", "reset"])
def test_b18_b19_an_end_at_any_byte_is_broken_and_never_an_end(
    data: bytes, body: bytes, fault: Exception | None
) -> None:
    for at in range(len(data)):
        line = Line()
        heard = line.ask()
        line.feed(data[:at])
        assert heard.ended == ""
        line.hang_up(fault)
        assert heard.ended == "broken", data[:at]
        assert body.startswith(heard.body)
        assert line.connection.heard is (at > 0)
        assert not line.connection.reusable


@pytest.mark.parametrize(("data", "body"), WHOLE.values(), ids=WHOLE.keys())
def test_what_is_told_with_the_end_is_known_to_be_the_last(data: bytes, body: bytes) -> None:
    for pieces in cuts_of(data):
        line = Line()
        told: list[bool] = []

        class Asking(Heard):
            def on_body(self, data: bytes) -> None:
                super().on_body(data)
                told.append(line.connection.whole)  # noqa: B023 - of this round

        for _ in range(2):  # the next response is not whole because this one was
            heard = Asking()
            line.connection.send(HEAD, BODY, heard)
            for piece in pieces:
                before = len(told)
                line.feed(piece)
                assert told[before:] == [heard.ended == "end"] * (len(told) - before), pieces


EXTRA = [b"x", b"\x00", b"HTTP/1.1 ", answer(b"Content-Length: 4", body=b"evil"), b"0\r\n\r\n", b"\x16\x03\x01\x00"]


@pytest.mark.parametrize(("data", "body"), WHOLE.values(), ids=WHOLE.keys())
@pytest.mark.parametrize("extra", EXTRA, ids=repr)
def test_b39_bytes_behind_the_end_are_dropped_and_the_connection_with_them(
    data: bytes, body: bytes, extra: bytes
) -> None:
    for pieces in ([data + extra], [data, extra], [data[:-1], data[-1:] + extra], [*(data + extra).partition(extra)]):
        line = Line()
        heard = line.ask()
        line.feed(*pieces)
        assert (heard.ended, heard.body) == ("end", body)
        assert line.wire.is_closing()
        assert not line.connection.reusable
        line.hang_up()
        assert heard.ended == "end"


MALFORMED: dict[str, bytes] = {
    "not_http": b"SSH-2.0-OpenSSH\r\n",
    "two_lengths": answer(b"Content-Length: 3", b"Content-Length: 4", body=b"abc"),
    "length_word": answer(b"Content-Length: many", body=b"abc"),
    "length_signed": answer(b"Content-Length: +3", body=b"abc"),
    "length_negative": answer(b"Content-Length: -3", body=b"abc"),
    "length_huge": answer(b"Content-Length: 99999999999999999999999", body=b"abc"),
    "length_and_chunks": answer(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    "nul": answer(b"X-A: b\x00c", b"Content-Length: 0"),
    "space_before_colon": answer(b"Content-Length : 3", body=b"abc"),
    "cr_in_reason": answer(b"Content-Length: 0", status=b"200 O\rK: x"),
    "chunk_size": answer(b"Transfer-Encoding: chunked", body=b"zz\r\nabc"),
    "chunk_end": answer(b"Transfer-Encoding: chunked", body=b"3\r\nabcde\r\n"),
    "chunk_huge": answer(b"Transfer-Encoding: chunked", body=b"fffffffffffffffff\r\nabc"),
    "switching": answer(b"Upgrade: h2c", b"Connection: Upgrade", status=b"101 Switching"),
    "switching_bare": answer(status=b"101 Switching"),
    "interims": answer(status=b"100 Continue") * (INTERIM_MAX + 1) + answer(b"Content-Length: 0"),
    "headers": answer(*[b"a: b"] * HEADERS_MAX, b"Content-Length: 3", body=b"abc"),
}


@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED.keys())
def test_b38_what_is_not_well_formed_is_broken_once_and_dropped(data: bytes) -> None:
    step = 1 if len(data) < 2000 else 1000
    for pieces in (
        [data],
        [data[i : i + step] for i in range(0, len(data), step)],
        [data, answer(b"Content-Length: 0")],
    ):
        line = Line()
        heard = line.ask()
        line.feed(*pieces)
        assert heard.ended == "broken", pieces
        assert heard.body in (b"", b"abc")
        assert line.wire.aborted
        assert not line.connection.reusable
        line.hang_up(ConnectionResetError())
        assert heard.ended == "broken"


def test_b38_nothing_behind_a_broken_response_makes_the_connection_fit_again() -> None:
    line = Line()
    heard = line.ask()
    line.feed(answer(status=b"100 Continue") * (INTERIM_MAX + 1) + answer(b"Content-Length: 4", body=b"evil"))
    assert (heard.ended, heard.body, heard.status) == ("broken", b"", 0)
    assert not line.connection.reusable


def test_b38_a_length_behind_too_many_headers_is_never_forgotten() -> None:
    """If it were, the end of the connection would pass for the end of the body."""
    line = Line()
    heard = line.ask()
    line.feed(answer(*[b"a: b"] * 300, b"Content-Length: 100", body=b"half of it"))
    line.hang_up()
    assert heard.ended == "broken"


def test_a_head_that_does_not_end_is_dropped_at_its_limit() -> None:
    line = Line()
    heard = line.ask()
    line.feed(b"HTTP/1.1 200 OK\r\n")
    fed = 0
    while not heard.ended:
        line.feed(b"x-a: " + b"b" * 993 + b"\r\n")
        fed += 1000
        assert fed <= FRAMING_BYTES_MAX + 1000
    assert heard.ended == "broken"
    assert line.wire.aborted


def test_a_long_body_in_the_piece_with_the_head_is_no_long_head() -> None:
    line = Line()
    heard = line.ask()
    size = 2 * FRAMING_BYTES_MAX
    line.feed(answer(b"Content-Length: %d" % size, body=b"x" * size))
    assert (heard.ended, len(heard.body)) == ("end", size)


@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_b45_a_body_without_length_ends_with_a_clean_close_only(version: bytes) -> None:
    for pieces in cuts_of(answer(b"Content-Type: text/plain", body=b"some", version=version)):
        for fault, ended in ((None, "end"), (ConnectionResetError(), "broken")):
            line = Line()
            heard = line.ask()
            line.feed(*pieces)
            assert heard.ended == ""
            line.hang_up(fault)
            assert (heard.ended, heard.body) == (ended, b"some")
            assert not line.connection.reusable


def test_b45_a_close_before_the_head_is_complete_is_no_end() -> None:
    line = Line()
    heard = line.ask()
    line.feed(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
    line.hang_up()
    assert heard.ended == "broken"


@pytest.mark.parametrize(("before", "_"), WHOLE.values(), ids=WHOLE.keys())
def test_what_a_response_is_does_not_hang_on_the_one_before(before: bytes, _: bytes) -> None:
    for data, body in WHOLE.values():
        for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
            line, fresh = Line(), Line()
            line.ask()
            line.feed(before)
            heard, alone = line.ask(), fresh.ask()
            line.feed(*pieces)
            fresh.feed(*pieces)
            assert (heard.ended, heard.status, heard.body) == ("end", alone.status, body)
            assert heard.headers == alone.headers
            line.ask()
            line.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nx")
            assert line.wire.aborted


KEEPING = [
    (answer(b"Content-Length: 0"), True),
    (answer(b"Content-Length: 0", b"Connection: close"), False),
    (answer(b"Content-Length: 0", b"Connection: Close, X"), False),
    (answer(b"Content-Length: 0", version=b"1.0"), False),
    (answer(b"Content-Length: 0", b"Connection: keep-alive", version=b"1.0"), True),
    (answer(b"Transfer-Encoding: chunked", b"Connection: close", body=b"0\r\n\r\n"), False),
]


@pytest.mark.parametrize(("data", "kept"), KEEPING)
def test_a_connection_is_kept_if_both_sides_keep_it(data: bytes, kept: bool) -> None:
    line = Line()
    heard = line.ask()
    assert not line.connection.reusable
    line.feed(data)
    assert heard.ended == "end"
    assert line.connection.reusable is kept
    assert line.wire.closed is not kept


def test_bytes_that_nobody_asked_for_end_an_idle_connection() -> None:
    line = Line()
    line.feed(answer(b"Content-Length: 0", status=b"408 Idle"))
    assert line.wire.aborted
    line.feed(b"more")
    line.hang_up()
    assert line.lost == 1


@pytest.mark.parametrize("lost", [False, True], ids=["closing", "lost"])
def test_a_request_on_a_connection_that_closed_is_broken_at_once(lost: bool) -> None:
    line = Line()
    line.wire.close()
    if lost:
        line.hang_up()
    heard = line.ask()
    assert heard.ended == "broken"
    assert not line.connection.heard
    assert line.wire.sent == []


@pytest.mark.parametrize("size", [2, 65_535, 65_536, 1_000_000])
def test_a_request_is_written_whole(size: int) -> None:
    line = Line()
    line.ask(b"x" * size)
    assert b"".join(line.wire.sent) == HEAD + b"x" * size


def test_nothing_is_heard_after_an_abort() -> None:
    data = answer(b"Content-Length: 5", body=b"hello")
    for at in range(len(data)):
        line = Line()
        heard = line.ask()
        line.feed(data[:at])
        before = (heard.status, heard.body)
        line.connection.abort()
        line.connection.data_received(data[at:])  # what the loop had already read
        line.hang_up(ConnectionAbortedError())
        assert (heard.status, heard.body, heard.ends) == (*before, [])
        assert not line.connection.reusable
        assert line.lost == 1


def test_nothing_is_heard_after_an_abort_out_of_a_callback() -> None:
    line = Line()

    class Leaving(Heard):
        def on_body(self, data: bytes) -> None:
            super().on_body(data)
            line.connection.abort()

    heard = Leaving()
    line.connection.send(HEAD, BODY, heard)
    line.feed(answer(b"Transfer-Encoding: chunked", body=CHUNKS))
    line.hang_up()
    assert (heard.body, heard.ends) == (TEXT, [])  # one read is one piece
    assert not line.connection.reusable


def test_c6_pause_and_resume_reach_the_wire_while_it_is_open() -> None:
    line = Line()
    line.ask()
    reading = []
    for step in (line.connection.pause, line.connection.resume, line.connection.pause, line.wire.close):
        step()
        reading.append(line.wire.reading)
    line.connection.resume()
    assert [*reading, line.wire.reading] == [False, True, False, False, False]
    line.hang_up()
    for step in (line.connection.pause, line.connection.resume, line.connection.abort):
        step()


@given(
    st.lists(st.sampled_from([*WHOLE.values(), *((data, b"") for data in MALFORMED.values())]), max_size=2),
    st.binary(max_size=30),
    st.lists(st.integers(0, 3000), max_size=3),
    st.booleans(),
)
def test_any_bytes_at_any_cuts_end_exactly_once(
    answers: list[tuple[bytes, bytes]], garbage: bytes, cuts: list[int], clean: bool
) -> None:
    data = b"".join(found[0] for found in answers)[:3000] + garbage
    edges = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    line = Line()
    heard = line.ask()
    line.feed(*(data[start:end] for start, end in pairwise(edges)))
    assert heard.ended in ("", "end", "broken")
    if heard.ended == "broken" or line.wire.is_closing():
        assert not line.connection.reusable
    line.hang_up(None if clean else ConnectionResetError())
    assert heard.ended in ("end", "broken")
    assert line.lost == 1


def test_b12_a_connection_whose_request_is_not_written_out_is_not_used_again() -> None:
    line = Line()
    heard = line.ask()
    line.wire.unsent = 5
    line.feed(answer(b"Content-Length: 2", body=b"hi"))
    assert heard.ended == "end"
    assert not line.connection.reusable
    assert line.wire.closed


PIECES = [
    b"5\r\nhello\r\n", b"05\r\nhello\r\n", b"A\r\n0123456789\r\n", b"a\r\n0123456789\r\n",
    b"10\r\n0123456789abcdef\r\n", b"1;a=b\r\nx\r\n", b"2\r\n\r\n\r\n", b"8\r\n1\r\nx\r\n0\r\n",
    b"0\r\n\r\n", b"0\r\nX: y\r\n\r\n", b"1\r\nxy\r\n", b"6\r\nhello\r\n", b"1", b"5\r\n", b"hello", b"\r\n", b"\r",
    b"\n", b"+5\r\nhello\r\n", b" 5\r\nhello\r\n", b"-1\r\nx\r\n",
]  # fmt: skip


@example(chunks=[b"1\r\nx\r\n1", b"5\r\nhello\r\n"], joined=[False] * 8)  # the first ends within a chunk
@example(chunks=[b"1\r\nx\r\n", b"5\r\nhel", b"2\r\n\r\n\r\n"], joined=[False] * 8)
@given(chunks=st.lists(st.sampled_from(PIECES), max_size=8), joined=st.lists(st.booleans(), min_size=8, max_size=8))
def test_a_read_that_is_one_chunk_comes_to_what_the_parser_makes_of_it(chunks: list[bytes], joined: list[bool]) -> None:
    pieces = [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"]
    for chunk, join in zip(chunks, joined, strict=False):
        if join:
            pieces[-1] += chunk
        else:
            pieces.append(chunk)
    line, parsed = Line(), Line()
    heard, right = line.ask(), parsed.ask()
    for piece in pieces:
        line.feed(piece)
        parsed.connection._between = False  # it is not known, so that the parser is asked
        parsed.feed(piece)
        assert (heard.body, heard.ended) == (right.body, right.ended)
        assert line.wire.aborted == parsed.wire.aborted
        assert line.connection.reusable == parsed.connection.reusable
        assert line.connection._framing_bytes == parsed.connection._framing_bytes


@pytest.mark.parametrize("size", [1, 2, 15, 16, 17, 255, 256, 257, 4095, 4096, 65535, 65536, 262_144])
def test_the_first_line_of_a_chunk_is_known_by_its_length(size: int) -> None:
    head = b"%x\r\n" % size
    assert chunk_head(len(head) + size + 2) == head
    assert chunk_head(5) == b""  # of the last chunk
    assert chunk_head(21) == b""  # of none


@pytest.mark.parametrize("piece", PIECES)
def test_any_piece_behind_a_chunk_comes_to_what_the_parser_makes_of_it(piece: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n"
    apart, together = Line(), Line()
    heard, right = apart.ask(), together.ask()
    apart.feed(head, piece)
    together.feed(head + piece)
    assert (heard.body, heard.ended) == (right.body, right.ended)
