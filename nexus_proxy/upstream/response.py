"""What is taken over from a provider's response head, and the one event that we write ourselves.

Strategy: an allow-list. The content type, a coding that came unasked, and how long to wait; nothing else of a
provider's headers reaches a client.
"""

import re
import time
from email.utils import parsedate_to_datetime

import orjson

from nexus_proxy.errors import NexusError
from nexus_proxy.upstream.connection import Headers

RETRY_AFTER_MAX_S = 24 * 3600
_CONTENT_TYPE = re.compile(rb"[\w.+-]+/[\w.+-]+(?:\s*;\s*[\w.-]+=(?:[\w.:+-]+|\"[\w.:+ -]*\"))*", re.ASCII)


def content_type_of(headers: Headers) -> str:
    """Return the content type if it is well-formed, else `application/octet-stream`."""
    for name, value in headers:
        if name == b"content-type":
            match = _CONTENT_TYPE.match(value.strip())
            return match[0].decode("ascii") if match else "application/octet-stream"
    return "application/octet-stream"


def is_encoded(headers: Headers) -> str | None:
    """Return the content coding that the provider applied though none was accepted, or None."""
    for name, value in headers:
        if name == b"content-encoding":
            coding = value.strip().lower()
            if coding and coding != b"identity" and re.fullmatch(rb"[a-z0-9, -]{1,40}", coding):
                return coding.decode("ascii")
    return None


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
