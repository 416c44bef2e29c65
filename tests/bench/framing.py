"""HTTP/1.1 messages with a Content-Length, cut out of bytes: all that a load's two ends need to speak.

Strategy: one search for the head's end and one for the length. What has no length has no body. A long message is not
looked at again before it can be whole.
"""

import re
from collections.abc import Iterator

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def cut(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return the head, the body and what follows; None while the first message is not whole."""
    end, rest = extent(data)
    return None if end < 0 or len(data) < rest else (data[:end], data[end + 4 : rest], data[rest:])


def extent(data: bytes) -> tuple[int, int]:
    """Return where the first message's head ends and where the message does; -1 while nobody can know."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return -1, -1
    found = _LENGTH.search(data, 0, end)
    return end, end + 4 + (int(found[1]) if found is not None else 0)


class Messages:
    """Bytes in pieces, as they come; whole messages, as they are complete."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._missing = 0  # bytes without which nothing can be whole

    def feed(self, data: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Take a piece; yield the head and the body of every message that it completes."""
        self._pieces.append(data)
        self._missing -= len(data)
        if self._missing > 0:
            return
        whole = data if len(self._pieces) == 1 else b"".join(self._pieces)
        while (message := cut(whole)) is not None:
            yield message[:2]
            whole = message[2]
        self._pieces = [whole] if whole else []
        self._missing = max(extent(whole)[1] - len(whole), 0) if whole else 0

    @property
    def between(self) -> bool:
        """Whether no byte of a further message is here."""
        return not self._pieces
