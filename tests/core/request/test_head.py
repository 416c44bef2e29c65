"""The one form of request that is taken apart here: never otherwise than the general parser would.

Strategy: whatever is taken is read by aiohttp's parser too and must be the same request; what must not be taken is a
table, and every accepted request is tried at every cut and with bytes behind it.
"""

import asyncio
from typing import Any

import pytest
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.request.apikey import hash_key, mint
from nexus_proxy.core.request.head import HEAD_BYTES_MAX, KEPT_BYTES_MAX, WholeReader, WholeRequest, read_headers

LINE = b"POST /v1/chat/completions HTTP/1.1\r\n"
PLAIN = [b"Host: door", b"Content-Type: application/json", b"Authorization: Bearer k", b"Content-Length: 3"]


def request(*lines: bytes, body: bytes = b"{ }", line: bytes = LINE) -> bytes:
    return line + b"".join(each + b"\r\n" for each in lines) + b"\r\n" + body


class Protocol:
    """What the parser needs of its protocol."""

    _reading_paused = False

    def pause_reading(self) -> None: ...
    def resume_reading(self, resume_parser: bool = True) -> None: ...


def generally(data: bytes) -> tuple[str, str, dict[str, str], bytes] | None:
    """Return method, path, headers and body as aiohttp reads them; None if that is not one whole request."""
    loop = asyncio.new_event_loop()
    try:
        protocol: Any = Protocol()
        parser = HttpRequestParser(
            protocol, loop, 2**16, max_line_size=8190, max_field_size=8190, auto_decompress=False
        )
        try:
            messages, _, tail = parser.feed_data(data)
        except HttpProcessingError:
            return None
        if len(messages) != 1 or tail:
            return None
        message, payload = messages[0]
        if not payload.is_eof() or message.should_close:
            return None
        headers = {name.lower(): value for name, value in message.headers.items()}
        assert len(headers) == len(message.headers)
        return message.method, message.path, headers, payload.read_nowait()
    finally:
        loop.close()


def read_whole(data: bytes) -> WholeRequest | int | None:
    """Read it as the first on its connection."""
    return WholeReader(LINE).read(data)


def check(data: bytes) -> bool:
    """Tell whether it is taken; then it is what the general parser reads."""
    found = read_whole(data)
    if not isinstance(found, WholeRequest):
        return False
    headers = read_headers(data[len(LINE) : data.index(b"\r\n\r\n") + 2])
    assert headers is not None
    stripped = {name: value.strip(" \t") for name, value in headers.items()}
    assert generally(data) == ("POST", "/v1/chat/completions", stripped, found.body)
    assert found.head.content_type == stripped.get("content-type", "")
    return True


@pytest.mark.parametrize(
    "lines",
    [
        PLAIN,
        [b"content-length:3", b"host:"],
        [b"Content-Length: \t 3 \t", b"HOST: d", b"X:"],
        [b"Content-Length: 3", b"Connection: Keep-Alive", b"X-Any: a: b, c", b"Host: d"],
        [b"Content-Length: 003", b"!#$%&'*+-.^_`|~x: y", b"Host: d"],
    ],
)
def test_what_nearly_everybody_sends_is_taken(lines: list[bytes]) -> None:
    data = request(*lines)
    assert check(data)
    head = data.index(b"\r\n\r\n") + 4
    for cut in range(len(data)):
        assert read_whole(data[:cut]) == (len(data) - cut if cut >= head else None)
    for behind in (b"\r\n", b"x", data):
        assert read_whole(data + behind) is None


@pytest.mark.parametrize(
    "data",
    [
        request(*PLAIN, line=LINE.replace(b"1.1", b"1.0")),
        request(*PLAIN, line=LINE.replace(b"POST", b"post")),
        request(*PLAIN, line=b"\r\n" + LINE),
        request(*PLAIN[1:]),
        request(*PLAIN[:-1]),
        request(*PLAIN, PLAIN[-1]),
        request(*PLAIN, b"content-length: 3"),
        request(*PLAIN, b"authorization: Bearer other"),
        request(*PLAIN, b"Transfer-Encoding: chunked"),
        request(*PLAIN, b"Transfer-Encoding : chunked"),
        request(*PLAIN, b"Content-Encoding: identity"),
        request(*PLAIN, b"Expect: 100-continue"),
        request(*PLAIN, b"Upgrade: h2c"),
        request(*PLAIN, b"TE: trailers"),
        request(*PLAIN, b"Connection: close"),
        request(*PLAIN, b"Proxy-Connection: close"),
        request(*PLAIN, b"Sec-WebSocket-Key1: x"),
        request(*PLAIN, b"Connection: keep-alive, upgrade"),
        request(*PLAIN[:-1], b"Content-Length: +3"),
        request(*PLAIN[:-1], b"Content-Length: 3, 3"),
        request(*PLAIN[:-1], b"Content-Length: 0x3"),
        request(*PLAIN[:-1], b"Content-Length: -1"),
        request(*PLAIN[:-1], b"Content-Length: " + "٣".encode()),
        request(*PLAIN, b" folded"),
        request(*PLAIN, b"X: a\r\n folded"),
        request(*PLAIN, b"X: a\nY: b"),
        request(*PLAIN, b"X: a\rY: b"),
        request(*PLAIN, b"X: a\x00"),
        request(*PLAIN, b"X: \xff"),
        request(*PLAIN, b": nameless"),
        request(*PLAIN, b"no colon"),
        request(*PLAIN, b"X" * HEAD_BYTES_MAX + b": y"),
        request(*PLAIN, *(b"X-%d: y" % number for number in range(128))),
    ],
)
def test_whatever_is_otherwise_is_the_general_parsers(data: bytes) -> None:
    assert read_whole(data) is None


NAMES = st.sampled_from(
    [b"Content-Length", b"content-length", b"Connection", b"Transfer-Encoding", b"Host", b"X", b"X ", b""]
)
VALUES = st.one_of(
    st.sampled_from([b"3", b" 3", b"3 ", b"03", b"3,3", b"chunked", b"keep-alive", b"close", b"", b"\t"]),
    st.binary(max_size=6),
)
ENDS = st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r", b"\r\n ", b"\r\n\r\n"])


@given(st.lists(st.tuples(NAMES, VALUES, ENDS), max_size=5), st.binary(max_size=5))
def test_nothing_is_taken_that_is_read_otherwise_elsewhere(
    lines: list[tuple[bytes, bytes, bytes]], body: bytes
) -> None:
    # With the host that each needs.
    check(LINE + b"Host: d\r\n" + b"".join(name + b":" + value + end for name, value, end in lines) + b"\r\n" + body)


@given(st.lists(st.sampled_from(PLAIN), unique=True), st.binary(max_size=4), st.integers(0, 200), st.binary(max_size=2))
def test_nor_of_a_good_request_with_something_in_its_midst(
    lines: list[bytes], body: bytes, at: int, odd: bytes
) -> None:
    data = request(*lines, body=body)
    at = min(at, len(data))
    check(data[:at] + odd + data[at:])


# --- the next request on a connection -----------------------------------------------------------------------------


def outcome(reader: WholeReader, data: bytes) -> object:
    """Return all that was made of it, as values."""
    found = reader.read(data)
    if isinstance(found, WholeRequest):
        return found.head.content_type, found.head.key_hash, found.body
    return found


def check_one_after_another(requests: list[bytes]) -> None:
    """Each is read behind the ones before as it would be read alone."""
    reader = WholeReader(LINE)
    for data in requests:
        assert outcome(reader, data) == outcome(WholeReader(LINE), data)


KEYS = [mint(bytes([number]) * 32).encode() for number in range(2)]
SENT = request(PLAIN[0], b"Authorization: Bearer " + KEYS[0], b"Content-Type: a/b", b"content-length:  3 ", b"X: 3")
LENGTHS = st.one_of(
    st.integers(0, 12).map(b"%d".__mod__),
    st.sampled_from([b"", b"03", b"000000003", b"0000000003", b"+3", b"3 3", b"3\r\n", b" 3", b"3,3", "٣".encode()]),
)


@given(
    st.lists(
        st.one_of(
            st.tuples(LENGTHS, st.binary(max_size=12)).map(
                lambda each: SENT[:-3].replace(b"  3 ", b"  %b " % each[0]) + each[1]
            ),
            st.tuples(st.integers(0, len(SENT)), st.integers(0, 3), st.binary(max_size=3)).map(
                lambda each: SENT[: each[0]] + each[2] + SENT[each[0] + each[1] :]
            ),
            st.sampled_from([SENT, SENT.replace(KEYS[0], KEYS[1]), SENT.replace(b"a/b", b"c/d"), request(*PLAIN)]),
        ),
        max_size=8,
    )
)
def test_a_request_behind_another_is_read_as_if_it_came_alone(requests: list[bytes]) -> None:
    check_one_after_another([SENT, *requests])


@pytest.mark.parametrize("length", [b"3", b"03", b"000000003"])
@pytest.mark.parametrize("largest", [KEPT_BYTES_MAX, HEAD_BYTES_MAX])
def test_at_every_bound_too(length: bytes, largest: int) -> None:
    def padded(size: int, length: bytes) -> bytes:
        head = request(*PLAIN[:-1], b"Content-Length: " + length, b"X: ", body=b"")
        return head[:-4] + b"x" * (size - len(head)) + head[-4:] + b"{ }"

    for size in range(largest - 9, largest + 10):
        first = padded(size, b"3")
        second = first.replace(b"Content-Length: 3", b"Content-Length: " + length)
        check_one_after_another([first, second, first[:-1], second[:-1]])


def test_the_last_head_is_taken_over_when_only_the_length_differs() -> None:
    reader = WholeReader(LINE)
    first, second = reader.read(SENT), reader.read(SENT.replace(b"  3 ", b"  12 ") + b" " * 9)
    assert isinstance(first, WholeRequest)
    assert isinstance(second, WholeRequest)
    assert first.head is second.head
    assert first.head.key_hash == hash_key(KEYS[0].decode())
    in_two = reader.read(request(*PLAIN)[:-3]), reader.read(request(*PLAIN)), reader.read(request(*PLAIN))
    assert in_two[0] == 3
    assert isinstance(in_two[1], WholeRequest)
    assert isinstance(in_two[2], WholeRequest)
    assert in_two[1].head is in_two[2].head is not first.head


def test_a_head_is_kept_only_while_it_is_short() -> None:
    reader = WholeReader(LINE)
    long = request(*PLAIN, b"X: " + b"x" * KEPT_BYTES_MAX)
    found = [reader.read(long), reader.read(long)]
    assert all(isinstance(each, WholeRequest) for each in found)
    assert len({id(each.head) for each in found if isinstance(each, WholeRequest)}) == 2
