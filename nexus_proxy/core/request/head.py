"""Take apart a request that came whole: head and body, and nothing behind them.

Strategy: this is no parser of HTTP but of the one form that nearly every request has, and it takes nothing that could
be read in two ways. Whatever is not exactly so (a second header of a name, another framing than a length, an end of
line of its own, a byte beyond ASCII) is None here, and the general parser's to judge.

On one connection each head is, to the byte, the one before it, except for the digits of its length. So the last one is
kept, cut in two where these digits were: one that has the same two parts is not taken apart again, nor is its key
hashed again.
"""

import re
from typing import Final

from nexus_proxy.core.request.apikey import hash_bearer

HEAD_BYTES_MAX: Final = 8190  # of all lines together; the general parser takes so much of each
KEPT_BYTES_MAX: Final = 2048  # of a head that is kept: with nine digits, too, it is one that is taken
HEADERS_MAX: Final = 128

# RFC 9110, 5.1 and 5.5: a token, and visible characters with blanks between. No line may go on in the next.
_LINES: Final = re.compile(r"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~]*\r\n){1," + str(HEADERS_MAX) + "}")
_BLANKS: Final = " \t"
_KEEP_ALIVE: Final = "keep-alive"
_DIGITS_MAX: Final = 9
_LENGTH: Final = re.compile(r"[0-9]{1,9}")
_LENGTH_LINE: Final = b"\r\ncontent-length:"
_END: Final = b"\r\n\r\n"
# Each of these asks for more than to read a body of so many bytes and to answer it.
_OTHERS: Final = frozenset(
    {"transfer-encoding", "content-encoding", "expect", "upgrade", "te", "trailer", "http2-settings"}
    | {"proxy-connection", "sec-websocket-key1"}
)


class Head:
    """What is asked of a head: its Content-Type, and under which hash its key is looked up, if it has a sound one."""

    __slots__ = ("content_type", "key_hash")

    def __init__(self, headers: dict[str, str]) -> None:
        authorization = headers.get("authorization")
        self.content_type = headers.get("content-type", "").strip(_BLANKS)
        self.key_hash = None if authorization is None else hash_bearer(authorization.strip(_BLANKS))


class WholeRequest:
    """A request, head and body."""

    __slots__ = ("body", "head")

    def __init__(self, head: Head, body: bytes) -> None:
        self.head = head
        self.body = body


class WholeReader:
    """Takes apart what comes on one connection and has this first line."""

    __slots__ = ("_after", "_before", "_head", "_line")

    def __init__(self, line: bytes) -> None:
        self._line = line
        self._head: Head | None = None  # the last one that is kept
        self._before = b""  # its bytes, up to the digits of its length
        self._after = b""  # and behind them

    def read(self, data: bytes) -> WholeRequest | int | None:
        """Return the one request that these bytes are; None if they are anything else.

        An int is how many bytes of its body are still to come.
        """
        before, after, at = self._before, self._after, len(self._before)
        if self._head is not None and data.startswith(before):
            end = data.find(after, at, at + _DIGITS_MAX + len(after))
            if end > at and data[at:end].isdigit():
                return _with_body(self._head, int(data[at:end]), data, end + len(after))
        return self._read_anew(data)

    def _read_anew(self, data: bytes) -> WholeRequest | int | None:
        end = data.find(_END, 0, HEAD_BYTES_MAX)
        if end < 0 or not data.startswith(self._line):
            return None
        headers = read_headers(data[len(self._line) : end + 2])
        if headers is None:
            return None
        head, length, start = Head(headers), headers["content-length"].strip(_BLANKS), end + len(_END)
        if start <= KEPT_BYTES_MAX:
            self._keep(head, data[:start], length)
        return _with_body(head, int(length), data, start)

    def _keep(self, head: Head, data: bytes, length: str) -> None:
        at = data.index(length.encode(), data.lower().index(_LENGTH_LINE) + len(_LENGTH_LINE))
        self._head, self._before, self._after = head, data[:at], data[at + len(length) :]


def _with_body(head: Head, length: int, data: bytes, start: int) -> WholeRequest | int | None:
    missing = length - (len(data) - start)
    if missing:
        return missing if missing > 0 else None
    return WholeRequest(head, data[start:])


def read_headers(data: bytes) -> dict[str, str] | None:
    """Return the headers of a head without its first line and its last; None if it is not of the one form.

    The names are in small letters, and the values have the blanks around them.
    """
    try:
        text = data.decode("ascii")
    except UnicodeDecodeError:
        return None
    if _LINES.fullmatch(text) is None:
        return None
    lines = text.split("\r\n")
    lines.pop()  # what follows the last line's end
    headers: dict[str, str] = {}
    for each in lines:
        name, _, value = each.partition(":")
        headers[name.lower()] = value
    length = headers.get("content-length", "").strip(_BLANKS)
    if len(headers) != len(lines) or "host" not in headers or _LENGTH.fullmatch(length) is None:
        return None
    if headers.get("connection", _KEEP_ALIVE).strip(_BLANKS).lower() != _KEEP_ALIVE or not _OTHERS.isdisjoint(headers):
        return None
    return headers
