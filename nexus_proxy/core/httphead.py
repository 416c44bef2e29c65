"""Take apart a request that came whole: head and body, and nothing behind them.

Strategy: this is no parser of HTTP but of the one form that nearly every request has, and it takes nothing that could
be read in two ways. Whatever is not exactly so (a second header of a name, another framing than a length, an end of
line of its own, a byte beyond ASCII) is None here, and the general parser's to judge.
"""

import re
from typing import Final, NamedTuple

HEAD_BYTES_MAX: Final = 8190  # of all lines together; the general parser takes so much of each
HEADERS_MAX: Final = 128

# RFC 9110, 5.1 and 5.5: a token, and visible characters with blanks between. No line may go on in the next.
_LINES: Final = re.compile(r"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t -~]*\r\n){1," + str(HEADERS_MAX) + "}")
_BLANKS: Final = " \t"
_KEPT: Final = "keep-alive"
_LENGTH: Final = re.compile(r"[0-9]{1,9}")
# Each of these asks for more than to read a body of so many bytes and to answer it.
_OTHERS: Final = frozenset(
    {"transfer-encoding", "content-encoding", "expect", "upgrade", "te", "trailer", "http2-settings"}
    | {"proxy-connection", "sec-websocket-key1"}
)


class WholeRequest(NamedTuple):
    """The headers by their names in small letters, with the blanks around their values, and the body."""

    headers: dict[str, str]
    body: bytes


def read_whole(data: bytes, line: bytes) -> WholeRequest | int | None:
    """Return the one request that these bytes are, with this first line; None if they are anything else.

    An int is how many bytes of its body are still to come.
    """
    end = data.find(b"\r\n\r\n", 0, HEAD_BYTES_MAX)
    if end < 0 or not data.startswith(line):
        return None
    try:
        text = data[len(line) : end + 2].decode("ascii")
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
    if headers.get("connection", _KEPT).strip(_BLANKS).lower() != _KEPT or not _OTHERS.isdisjoint(headers):
        return None
    missing = int(length) - (len(data) - end - 4)
    if missing:
        return missing if missing > 0 else None
    return WholeRequest(headers, data[end + 4 :])
