"""HTTP/1.1 messages with a Content-Length, cut out of bytes: all that a load's two ends need to speak.

Strategy: one search for the head's end and one for the length. What has no length has no body.
"""

import re

_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


def cut(data: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Return the head, the body and what follows; None while the first message is not whole."""
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    found = _LENGTH.search(data, 0, end)
    body = end + 4
    rest = body + (int(found[1]) if found is not None else 0)
    return None if len(data) < rest else (data[:end], data[body:rest], data[rest:])
