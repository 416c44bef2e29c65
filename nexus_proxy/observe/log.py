"""Logs: one JSON line for each event.

Strategy: a line is rendered once, where the event happens, and written elsewhere: see `log_writer`. What looks like a
credential is blacked out in the finished line, as the last of several defences. The standard library's loggers end here
too. `info` is what requests call: it takes the same steps as structlog's own, without copying the fields for each.
"""

import logging
import re
import sys
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, WrappedLogger

from nexus_proxy.observe.log_writer import LINES_MAX, ExchangeLog, LineWriter, Redactor, dump, nowhere

_FRAMES_MAX = 30
_VALUE = re.compile(r"[\n<({\['\"=\d]")  # where a value may begin in a message that was filled in


class Logger:
    """The log of one process, from `configure` to `close`. An event's name is a constant; what varies is a field.

    `bound` takes any event, `exchanges` the one line that each exchange has.
    """

    def __init__(self, bound: FilteringBoundLogger, exchanges: ExchangeLog, writer: LineWriter) -> None:
        self._writer = writer
        self._handler = _ForeignHandler(bound)
        self.bound = bound
        self.exchanges = exchanges
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
    redactor = Redactor(secrets)
    logger = structlog.wrap_logger(
        _LineLogger(writer.put),
        processors=[structlog.processors.add_log_level, _Renderer(redactor)],
        wrapper_class=_wrapper(level),
        context_class=dict,
    )
    exchanges = ExchangeLog(writer.put if level <= logging.INFO else nowhere, redactor)
    return Logger(cast(FilteringBoundLogger, logger.bind()), exchanges, writer)


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

    def __init__(self, redactor: Redactor) -> None:
        self._redactor = redactor

    def __call__(self, _logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
        event["timestamp"] = datetime.now(UTC)  # orjson writes it, at less than it takes to format it here
        if "exc_info" in event:
            _describe_exception(event)
        return self._redactor.clean(dump(cast(dict[str, Any], event))) + b"\n"


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
