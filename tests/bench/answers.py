"""What the fast provider says, whoever asks: one completion, or a stream whose events say when they were sent.

Strategy: every byte is known beforehand but the stamps, so both ends agree on them without speaking: a client can tell
of each answer whether it is right to the byte. How a stream is to come is told in the prompt, which every gateway
passes on: its pace, and its number of events.
"""

import re
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

import orjson

from tests.rig.answers import Answer

Pace = Literal["burst", "paced", "gated"]

ANSWER: Final = Answer(words=40, prompt=25, completion=120, cached=10)
BODY: Final = ANSWER.document({"model": "real-openai"})
EVENTS_A_SECOND: Final = 50  # of a paced stream
GATED_AFTER: Final = 4  # events that a gated stream sends at once

STAMP_DIGITS: Final = 20
LAST_CHUNK: Final = b"0\r\n\r\n"
_NO_STAMP: Final = b"0" * STAMP_DIGITS
_SAID = Answer(words=1, prompt=25, completion=120, cached=10, text=f"{_NO_STAMP.decode()} ")
_ROLE, _CONTENT, *_END = (
    event.data for event in _SAID.events({"model": "real-openai", "stream_options": {"include_usage": True}})
)
_BEFORE, _AFTER = _CONTENT.split(_NO_STAMP)
STAMP: Final = re.compile(re.escape(_BEFORE) + rb"(\d{%d})" % STAMP_DIGITS + re.escape(_AFTER))

_LOOSE = re.compile(rb'"content": ?"(\d{%d}) ' % STAMP_DIGITS)
_ASKED = re.compile(rb'"content": ?"(burst|paced|gated):(\d+)"')


class Asked(NamedTuple):
    """How a stream is wanted: `burst` as fast as it goes, `paced` at 50 events a second, `gated` with its end held back
    until it is released."""

    pace: Pace
    events: int


def asked(body: bytes) -> Asked | None:
    """Return what a request's body says of it; None: no stream is wanted."""
    at = body.find(b'"content":')
    found = _ASKED.match(body, at) if at >= 0 else None
    return None if found is None else Asked(found[1].decode(), int(found[2]))  # type: ignore[arg-type]


def question(model: str, *, stream: Asked | None = None, prompt_bytes: int = 6) -> bytes:
    """Return a request's body, with a prompt of so many bytes."""
    prompt = ("Hello, world! " * (prompt_bytes // 14 + 1))[:prompt_bytes]
    if stream is not None:
        prompt = f"{stream.pace}:{stream.events}"
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": 512}
    if stream is not None:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return orjson.dumps(body)


def payload(events: int) -> bytes:
    """Return all bytes of a stream, its framing removed, with zeros for stamps."""
    return _ROLE + _CONTENT * events + b"".join(_END)


def unstamped(data: bytes) -> tuple[bytes, Sequence[tuple[int, int]]]:
    """Return a payload with zeros for stamps, and of each event where it ends and the time of its sending, in ns."""
    stamps = [(found.end(), int(found[1])) for found in STAMP.finditer(data)]
    return STAMP.sub(_BEFORE + _NO_STAMP + _AFTER, data), stamps


def loose_stamps(data: bytes) -> Sequence[tuple[int, int]]:
    """Return the same of a payload that somebody wrote anew, with its members in another order."""
    return [(found.end(), int(found[1])) for found in _LOOSE.finditer(data)]


# --- on the wire, from the provider -----------------------------------------------------------------------------------

WHOLE: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
_EVENT_HEAD: Final = b"%x\r\n" % len(_CONTENT) + _BEFORE
_EVENT_TAIL: Final = _AFTER + b"\r\n"
# What tells nginx not to buffer is how a provider tells it.
BEGIN: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\nX-Accel-Buffering: no\r\n\r\n"
    b"%x\r\n%b\r\n" % (len(_ROLE), _ROLE)
)
END: Final = b"".join(b"%x\r\n%b\r\n" % (len(event), event) for event in _END) + LAST_CHUNK


def event(now_ns: int) -> bytes:
    """Return one event in a chunk of its own."""
    return b"%b%020d%b" % (_EVENT_HEAD, now_ns, _EVENT_TAIL)
