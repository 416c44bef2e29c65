"""Server-sent events, as bytes: lines out of pieces, and the one line that ends an answer.

Strategy: lines end with LF, CR or CRLF, in any mixture, and pieces are split anywhere, inside CRLF too. A line is
complete with its CR; should the next piece begin with the LF, this is handed over as `glue`, which belongs to the line
before. Lines keep their ends, so the pieces are always the concatenation of what came out. Sources: the HTML
standard's event stream format; what openai-python and openai-node accept.
"""

import re
from typing import Final

BOM: Final = b"\xef\xbb\xbf"
LF, CR, COLON = 0x0A, 0x0D, 0x3A

DONE: Final = re.compile(rb"data:[ \t]{0,64}\[DONE\]")  # at the start of a line; SDKs look no further than the bracket


def might_be_done(head: bytes | bytearray) -> bool:
    """Tell whether an incomplete line could still become the line that ends an answer."""
    if len(head) <= 5:
        return b"data:".startswith(head)
    value = head[5:].lstrip(b" \t")
    return head.startswith(b"data:") and b"[DONE]".startswith(value) and len(head) - len(value) <= 5 + 64


class LineSplitter:
    """Turns pieces of a byte stream into lines. The caller bounds `rest`: what it has no use for it forgets."""

    __slots__ = ("_after_cr", "glue", "rest")

    def __init__(self) -> None:
        self.rest = bytearray()  # the incomplete line
        self.glue = b""  # the LF that the last feed began with, if it belongs to the line before
        self._after_cr = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take a piece (not empty); return the lines that it completes, each with its end."""
        self.glue = b""
        if self._after_cr:
            self._after_cr = False
            if data[0] == LF:
                self.glue = b"\n"
                data = data[1:]
                if not data:
                    return []
        if self.rest:
            self.rest += data
            if b"\n" not in data and b"\r" not in data:
                return []
            data = bytes(self.rest)
            self.rest.clear()
        lines = data.splitlines(True)  # of bytes: LF, CR and CRLF only
        end = lines[-1][-1]
        if end == CR:
            self._after_cr = True
        elif end != LF:
            self.rest += lines.pop()
        return lines

    @property
    def at_start(self) -> bool:
        """The next byte begins a line."""
        return not (self.rest or self._after_cr)

    def forget(self) -> bytes:
        """Return the incomplete line and forget it; the next line that comes out is what followed."""
        rest = bytes(self.rest)
        self.rest.clear()
        return rest
