"""What is taken over from a provider's response head, and the one event that we write ourselves.

Strategy: an allow-list, of values too. The content type, a coding that came unasked, and how long to wait; nothing else
of a provider's headers reaches a client, and of these only what is known: a provider could have put our credential
anywhere.
"""

import re
import time
from email.utils import parsedate_to_datetime
from functools import lru_cache

import orjson

from nexus_proxy.errors import NexusError
from nexus_proxy.upstream.connection import Headers

RETRY_AFTER_MAX_S = 24 * 3600
_TYPES = frozenset(
    {"application/json", "application/x-ndjson", "application/xml", "text/event-stream", "text/html", "text/plain"}
)
_CHARSETS = frozenset({"utf-8", "gbk", "gb2312", "gb18030", "us-ascii", "iso-8859-1"})
_CODINGS = frozenset({"gzip", "x-gzip", "deflate", "br", "zstd", "compress"})
_CODINGS_MAX = 8
OTHER_TYPE = "application/octet-stream"
OTHER_CODING = "unknown"
_MEDIA_TYPE = re.compile(r"[\w.+-]+/[\w.+-]+", re.ASCII)
_CHARSET = re.compile(r";\s*charset=(?:\"([\w-]+)\"|([\w-]+))\s*(?=;|\Z)", re.ASCII)


def content_type_of(headers: Headers) -> str:
    """Return the content type, and its charset, if they are known, else `application/octet-stream`."""
    for name, value in headers:
        if name == b"content-type":
            return _content_type(value)
    return OTHER_TYPE


@lru_cache(64)  # a provider sends the same one or two for ever; the cache is bounded, and so is a header
def _content_type(value: bytes) -> str:
    text = value.decode("latin-1").strip().lower()
    match = _MEDIA_TYPE.match(text)
    if match is None:
        return OTHER_TYPE
    kind = "application/json" if match[0].endswith(("/json", "+json")) else match[0]
    if kind not in _TYPES:
        return OTHER_TYPE
    found = _CHARSET.search(text, match.end())
    charset = (found[1] or found[2]) if found else ""
    return f"{kind}; charset={charset}" if charset in _CHARSETS else kind


def is_encoded(headers: Headers) -> str | None:
    """Return the content codings that the provider applied though none was accepted, or None."""
    values = [value for name, value in headers if name == b"content-encoding"]
    if not values:
        return None
    said = b",".join(values)
    codings = [coding for part in said.decode("latin-1").lower().split(",") if (coding := part.strip())]
    applied = [coding for coding in codings if coding != "identity"]
    if not applied:
        return None
    known = len(applied) <= _CODINGS_MAX and _CODINGS.issuperset(applied)
    return ", ".join(applied) if known else OTHER_CODING


def retry_after_ns(headers: Headers) -> int | None:
    """Return how long the provider asks to wait, from seconds or an HTTP date; None if it does not say."""
    for name, value in headers:
        if name != b"retry-after":
            continue
        text = value.decode("latin-1").strip()
        try:
            seconds = float(text)
        except ValueError:
            try:
                seconds = parsedate_to_datetime(text).timestamp() - time.time()
            except (ValueError, TypeError, OverflowError):
                return None
        if not 0 <= seconds <= RETRY_AFTER_MAX_S:  # also false for nan
            return None
        return int(seconds * 1e9)
    return None


def error_document(error: NexusError) -> bytes:
    """Return what tells a client why its answer, whose head is out, does not come."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    return orjson.dumps({"error": body})


def error_event(error: NexusError) -> bytes:
    """Return the one event that tells a client of a stream that it was cut, and why."""
    return b"data: " + error_document(error) + b"\n\n"
