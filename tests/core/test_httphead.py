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

from nexus_proxy.core.httphead import HEAD_BYTES_MAX, WholeRequest, read_whole

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


def check(data: bytes) -> bool:
    """Tell whether it is taken; then it is what the general parser reads."""
    found = read_whole(data, LINE)
    if not isinstance(found, WholeRequest):
        return False
    headers = {name: value.strip(" \t") for name, value in found.headers.items()}
    assert generally(data) == ("POST", "/v1/chat/completions", headers, found.body)
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
        assert read_whole(data[:cut], LINE) == (len(data) - cut if cut >= head else None)
    for behind in (b"\r\n", b"x", data):
        assert read_whole(data + behind, LINE) is None


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
    assert read_whole(data, LINE) is None


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
