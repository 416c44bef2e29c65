"""The lines of the log, as bytes: how they are written, what is blacked out in them, and the one of an exchange.

Strategy: a line is written by a thread of its own, so a blocked pipe or a full disk never stops a request: what does
not fit into the queue is dropped and counted. Every event is rendered by `log`, but for the one that every request
has: here its fields have their positions and types, so it is put together straight, and comes out as `log` would write
it. What others chose of it (names, hints, ids of models) is the same for many requests: it is escaped and looked
through for credentials once, and kept. The rest are numbers and words of our own, which hold none.
"""

import functools
import json
import os
import queue
import re
import threading
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from nexus_proxy.observe.record import Record

LINES_MAX: Final = 10_000
LINE_BYTES_MAX: Final = 64 * 1024
PARTIES_MAX: Final = 4_096  # that are kept; a few hundred bytes each
_EVENT_CHARS_MAX: Final = 1_000
_GATHER_S: Final = 0.02  # lines are written together: to wake the thread for each costs more than to render it
_LINES_AT_ONCE: Final = 100
_MICROS_PER_S: Final = 1_000_000

# Whatever is a credential holds one of these, in small letters.
_MARKS: Final = (b"sk-", b"bearer")
# Our own keys anywhere; others where a word begins, which after an escaped line end is not where a letter ends.
# Trap: where a choice does not begin with a plain letter, `re` tries it everywhere, which takes longer than all else of
# a line, for every line in which there is, say, a `desk-`. So the word's beginning is looked for behind the `sk-`.
_CREDENTIALS: Final = (
    rb"sk-(?:ai-nexus-\w*|(?:(?<!\wsk-)|(?<=\\[bfnrt]sk-)|(?<=\\u[0-9a-f]{4}sk-))[\w-]{8,})",
    rb"b(?i:earer)(?:\s|\\[bfnrt]|\\u[0-9a-f]{4})+[^\s\"\\]+",
    rb"B(?i:earer)(?:\s|\\[bfnrt]|\\u[0-9a-f]{4})+[^\s\"\\]+",
)


class LineWriter:
    """Writes lines to a file descriptor from a thread. `put` never blocks and never raises."""

    def __init__(self, fd: int, lines_max: int = LINES_MAX) -> None:
        self.on_dropped: Callable[[int], None] = _nobody
        self._fd = fd
        self._lines_max = lines_max
        self._queue: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._closing = threading.Event()
        # A daemon on a bare descriptor: a pipe that nobody reads must not keep the process from ending.
        self._worker = threading.Thread(target=self._run, name="logs", daemon=True)
        self._worker.start()

    def put(self, line: bytes) -> None:
        """Queue a line, or drop it."""
        if self._queue.qsize() >= self._lines_max:
            self.on_dropped(1)
        else:
            self._queue.put(line)

    def close(self, timeout_s: float) -> bool:
        """Write what is queued; tell whether that was done in time."""
        self._closing.set()
        self._queue.put(None)
        self._worker.join(timeout_s)
        return not self._worker.is_alive()

    def _run(self) -> None:
        ended = False
        while not ended:
            got = [self._queue.get()]
            self._closing.wait(_GATHER_S)
            while not self._queue.empty():
                got.append(self._queue.get())
            ended = None in got
            self._write([line for line in got if line is not None])

    def _write(self, lines: list[bytes]) -> None:
        for at in range(0, len(lines), _LINES_AT_ONCE):
            some = lines[at : at + _LINES_AT_ONCE]
            try:
                rest = memoryview(b"".join(some))
                while rest:
                    written = os.write(self._fd, rest)  # named: compiled, a slice's bound may be worked out twice
                    rest = rest[written:]
            except OSError:  # nobody reads, or the disk is full: the next lines may go
                self.on_dropped(len(some))


def _nobody(_lines: int) -> None:
    pass


def nowhere(_line: bytes) -> None:
    """Take a line, where nothing is logged."""


class Redactor:
    """Blacks out what looks like a credential, and `secrets` wherever they stand."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = [secret.encode() for secret in secrets if secret]
        lowered = [secret.lower() for secret in known]
        self._marks = (*_MARKS, *(secret for secret in lowered if not any(mark in secret for mark in _MARKS)))
        self._credential = re.compile(b"|".join([*map(re.escape, known), *_CREDENTIALS]))

    def clean(self, line: bytes) -> bytes:
        """Return the line without credentials."""
        lowered = line.lower()
        for mark in self._marks:
            if mark in lowered:  # the expression is the dear part of a line
                return self._credential.sub(b"[redacted]", line)
        return line


def dump(event: dict[str, Any]) -> bytes:
    """Return an event as one line of JSON, of at most LINE_BYTES_MAX: what is longer is cut to what identifies it."""
    line = _dump(event)
    return line if len(line) <= LINE_BYTES_MAX else _cut(event, len(line))


def _cut(event: dict[str, Any], size: int) -> bytes:
    kept = {name: event.get(name) for name in ("timestamp", "level", "request_id")}
    return _dump(kept | {"event": str(event.get("event"))[:_EVENT_CHARS_MAX], "cut_bytes": size})


def _dump(event: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(event, default=_text, option=orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:  # a lone surrogate, an integer above 64 bits, a key that is no text
        return json.dumps(event, default=_text, skipkeys=True, separators=(",", ":")).encode()


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return type(value).__name__ if isinstance(value, BaseException) else repr(value)


class Stamp:
    """Writes instants as JSON has them in a log, in UTC and to the microsecond; the second is written once for all."""

    def __init__(self) -> None:
        self._second = 0
        self._text = ""

    def of(self, instant_ns: int) -> str:
        """Write an instant, given in nanoseconds since 1970."""
        instant_us = instant_ns // 1_000
        second, micros = instant_us // _MICROS_PER_S, instant_us % _MICROS_PER_S
        if second != self._second or not self._text:
            self._second = second
            self._text = datetime.fromtimestamp(second, UTC).isoformat()[:19]
        return f"{self._text}.{str(_MICROS_PER_S + micros)[1:]}Z" if micros else f"{self._text}Z"


_PARTIES: Final = ("method", "route", "account", "key_hint", "model", "provider")


class ExchangeLog:
    """Writes the line of each exchange that is over. `put` takes a finished line."""

    def __init__(self, put: Callable[[bytes], None], redactor: Redactor) -> None:
        self._put = put
        self._redactor = redactor
        self._stamp = Stamp()
        self._parties = functools.lru_cache(PARTIES_MAX)(self._write_parties)

    def write(self, record: Record) -> None:
        """Write one line, about now, of a request that had an exchange."""
        usage = record.usage
        if usage is None:
            counts = '"prompt_tokens":null,"cached_tokens":null,"completion_tokens":null'
        else:
            prompt, cached, completion = usage.prompt, usage.cached, usage.completion
            counts = f'"prompt_tokens":{prompt},"cached_tokens":{cached},"completion_tokens":{completion}'
        parties = self._parties(
            record.method, record.route, record.account, record.key_hint, record.model, record.provider
        )
        first_byte_ms = None if record.first_byte_s is None else int(record.first_byte_s * 1000)
        stamp = self._stamp.of(time.time_ns())
        line = (
            f'{{"request_id":"{record.request_id}",{parties},"streamed":{_truth(record.streamed)},"status":{record.status}'
            f',"code":{_word(record.code)},"end_state":{_word(record.end_state)},"usage_source":{_word(record.usage_source)},{counts}'
            f',"charge":{_word(record.charge)},"late":{_truth(record.late)},"first_byte_ms":{_number(first_byte_ms)}'
            f',"duration_ms":{int(record.duration_s * 1000)},"event":"request","level":"info","timestamp":"{stamp}"}}\n'
        ).encode()
        if len(line) > LINE_BYTES_MAX:  # as long as that is only what the operator named so
            event = {"timestamp": stamp, "level": "info", "request_id": record.request_id, "event": "request"}
            line = _cut(event, len(line) - 1) + b"\n"
        self._put(line)

    def _write_parties(self, *parties: str | None) -> str:
        fields = dict(zip(_PARTIES, parties, strict=True))
        return self._redactor.clean(_dump(fields))[1:-1].decode()


def _truth(value: bool) -> str:
    return "true" if value else "false"


def _word(text: str | None) -> str:
    return "null" if text is None else f'"{text}"'


def _number(value: int | None) -> str:
    return "null" if value is None else str(value)
