"""Logs: one JSON line for each event.

Strategy: a line is rendered once, where the event happens, and written by a thread of its own, so a blocked pipe or a
full disk never stops a request: what does not fit into the queue is dropped and counted. What looks like a credential
is blacked out in the finished line, as the last of several defences. The standard library's loggers end here too.
`info` is what every request calls: it takes the same steps as structlog's own, without copying the fields for each.
"""

import json
import logging
import os
import queue
import re
import sys
import threading
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, cast

import orjson
import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

LINES_MAX = 10_000
LINE_BYTES_MAX = 64 * 1024
_EVENT_CHARS_MAX = 1_000
_FRAMES_MAX = 30
_GATHER_S = 0.02  # lines are written together: to wake the thread for each costs more than to render it
_LINES_AT_ONCE = 100
_VALUE = re.compile(r"[\n<({\['\"=\d]")  # where a value may begin in a message that was filled in

# Whatever is a credential holds one of these, in small letters.
_MARKS = (b"sk-", b"bearer")
# Our own keys anywhere; others where a word begins, which after an escaped line end is not where a letter ends.
# Trap: where a choice does not begin with a plain letter, `re` tries it everywhere, which takes longer than all else of
# a line, for every line in which there is, say, a `desk-`. So the word's beginning is looked for behind the `sk-`.
_CREDENTIALS = (
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
                    rest = rest[os.write(self._fd, rest) :]
            except OSError:  # nobody reads, or the disk is full: the next lines may go
                self.on_dropped(len(some))


class Logger:
    """The log of one process, from `configure` to `close`. An event's name is a constant; what varies is a field."""

    def __init__(self, bound: FilteringBoundLogger, writer: LineWriter) -> None:
        self._writer = writer
        self._handler = _ForeignHandler(bound)
        self.bound = bound
        logging.getLogger().addHandler(self._handler)

    @property
    def on_dropped(self) -> Callable[[int], None]:
        """Who is told of lines that were lost, from any thread."""
        return self._writer.on_dropped

    @on_dropped.setter
    def on_dropped(self, told: Callable[[int], None]) -> None:
        self._writer.on_dropped = told

    def close(self, timeout_s: float = 2.0) -> bool:
        """Write what is queued; tell whether that was done in time."""
        logging.getLogger().removeHandler(self._handler)
        return self._writer.close(timeout_s)


def configure(fd: int, *, level: int = logging.INFO, secrets: Iterable[str] = (), lines_max: int = LINES_MAX) -> Logger:
    """Begin to log to a file descriptor. `secrets` are blacked out wherever they stand."""
    writer = LineWriter(fd, lines_max)
    logger = structlog.wrap_logger(
        _LineLogger(writer.put),
        processors=[structlog.processors.add_log_level, _Renderer(secrets)],
        wrapper_class=_wrapper(level),
        context_class=dict,
    )
    return Logger(cast(FilteringBoundLogger, logger.bind()), writer)


def _wrapper(level: int) -> type[FilteringBoundLogger]:
    whole = structlog.make_filtering_bound_logger(level)
    return type("BoundLogger", (whole,), {"info": _info}) if level <= logging.INFO else whole


def _info(self: Any, event: str, /, *args: Any, **fields: Any) -> None:
    # What structlog does for any level, without its steps: `fields` is ours already, copied once, by the call itself;
    # the level is known here; the last processor, which renders, is the only other one. The first two parameters are
    # known by their places alone, so that no field's name is compared with theirs.
    line: Any = self._context | fields if self._context else fields
    line["event"] = event % args if args else event
    line["level"] = "info"
    self._logger.info(self._processors[-1](self._logger, "info", line))


class _LineLogger:
    """What structlog calls with a finished line, by the level's name."""

    def __init__(self, put: Callable[[bytes], None]) -> None:
        self.debug = self.info = self.warning = self.error = self.critical = self.exception = self.msg = put


class _Renderer:
    """Makes one line of one event, and says when it was."""

    def __init__(self, secrets: Iterable[str]) -> None:
        known = [secret.encode() for secret in secrets if secret]
        lowered = [secret.lower() for secret in known]
        self._marks = (*_MARKS, *(secret for secret in lowered if not any(mark in secret for mark in _MARKS)))
        self._credential = re.compile(b"|".join([*map(re.escape, known), *_CREDENTIALS]))

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
        event["timestamp"] = datetime.now(UTC)  # orjson writes it, at less than it takes to format it here
        if "exc_info" in event:
            _describe_exception(event)
        line = _dump(event)
        if len(line) > LINE_BYTES_MAX:
            kept = {name: event.get(name) for name in ("timestamp", "level", "request_id")}
            line = _dump(kept | {"event": str(event.get("event"))[:_EVENT_CHARS_MAX], "cut_bytes": len(line)})
        lowered = line.lower()
        for mark in self._marks:
            if mark in lowered:  # the expression is the dear part of a line
                return self._credential.sub(b"[redacted]", line) + b"\n"
        return line + b"\n"


def _nobody(_lines: int) -> None:
    pass


def _text(value: Any) -> str:
    if isinstance(value, datetime):
        return value.isoformat().replace("+00:00", "Z")
    return type(value).__name__ if isinstance(value, BaseException) else repr(value)


def _dump(event: EventDict) -> bytes:
    try:
        return orjson.dumps(event, default=_text, option=orjson.OPT_UTC_Z)
    except orjson.JSONEncodeError:  # a lone surrogate, an integer above 64 bits, a key that is no text
        return json.dumps(event, default=_text, skipkeys=True).encode()


def _describe_exception(event: EventDict) -> None:
    """Replace `exc_info` by the exception's type and where it came from: its text may quote what a client sent."""
    given = event.pop("exc_info")
    if given:
        error = given if isinstance(given, BaseException) else _current(given)
        if error is not None:
            event["error"] = type(error).__name__
            event["frames"] = _frames(error.__traceback__)


def _current(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, tuple):
        return cast(BaseException | None, exc_info[1])
    return sys.exc_info()[1]


def _frames(trace: TracebackType | None) -> list[str]:
    """Return where each call stood: no source text, no values."""
    return [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in traceback.extract_tb(trace)[-_FRAMES_MAX:]]


class _ForeignHandler(logging.Handler):
    """Takes what libraries log. What they put into a message may be what a client sent, its key included, so only the
    template is kept, and where it stands; and of an exception its type and its frames."""

    def __init__(self, logger: FilteringBoundLogger) -> None:
        super().__init__()
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        details: dict[str, Any] = {"logger": record.name, "where": f"{record.pathname}:{record.lineno}"}
        if record.exc_info and record.exc_info[1] is not None:
            details["error"] = type(record.exc_info[1]).__name__
            details["frames"] = _frames(record.exc_info[2])
        template = record.msg if isinstance(record.msg, str) else type(record.msg).__name__
        if not record.args:  # it may have been filled in before, as asyncio does it: keep the words before any value
            template = _VALUE.split(template, maxsplit=1)[0].strip()
        self._logger.log(record.levelno, template, **details)
