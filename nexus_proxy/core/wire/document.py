"""The tap of an answer that is one JSON document.

Strategy: white space that comes before the document is keep-alive and goes out at once; the document is held until it
is whole, so that its charge can stand in the headers. One that grows beyond ANSWER_BYTES_MAX is streamed: everything
goes out as it comes but its last byte that is not white space, so that it is no document before `release`. A document
that was not held to its end is read by the scanner, and so is one that does not parse, and, beforehand, one that is
getting long.
"""

from typing import Any, Final

from nexus_proxy.core.wire.completion import CHOICES, Completion, is_error, is_unread, read_json
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.core.wire.jsonscan import Scanner
from nexus_proxy.core.wire.sse import BOM
from nexus_proxy.core.wire.usage import Usage, with_thinking

ANSWER_BYTES_MAX: Final = 1 << 20  # a longer unstreamed answer is no longer buffered whole
# from here on the scanner keeps up, so that the event loop never waits for a whole mebibyte
SCAN_BYTES_MIN: Final = 65_536
_SPACE: Final = b" \t\r\n"


class JsonTap:
    """Reads one document. See `tap.Tap` for what its members promise.

    `usage`, `output_bytes` and `began` of a document that has not ended are found by scanning it when they are asked
    for; that costs as much again as parsing it, so ask only where the answer is used.
    """

    streams = False
    done = False  # one document has no `[DONE]`

    def __init__(self, dialect: Dialect) -> None:
        self.refusal: dict[str, Any] | None = None
        self.error: dict[str, Any] | None = None
        self.streaming = False  # too long to be buffered
        self.complete = False
        self._dialect = dialect
        self._buffer: bytes | bytearray = b""  # what is kept back; as it came, if it came in one piece
        self._answer: Completion | None = None  # once parsed
        self._scans: Scanner | None = None  # made when it is needed
        self._scanned = 0  # bytes of the buffer that the scanner has had
        self._taken = 0  # bytes that have left the buffer
        self._named = False  # of a document that is streamed: choices are named in it
        self._edge = b""  # the last bytes that have left the buffer, as the name may be cut
        self._unread = False  # of one that was held to its end: it looks like a completion, and could not be read
        self._ended = False
        self._released = False

    # --- what the exchange asks -----------------------------------------------------------------------------------

    @property
    def usage(self) -> Usage | None:
        """The usage, if it is real."""
        if self._answer is not None:
            return self._answer.usage
        self._scan()
        answer = Completion(self._dialect)
        answer.read(self._scanner.place(read_json))
        usage = answer.usage
        return with_thinking(usage) if usage is not None and self._scanner.thought else usage

    @property
    def output_bytes(self) -> int:
        """Bytes of content, reasoning and tool arguments seen."""
        if self._answer is not None:
            return self._answer.output_bytes
        self._scan()
        return self._scanner.text_bytes

    @property
    def began(self) -> bool:
        """It is a completion, or the beginning of one."""
        if self._answer is not None:
            return self._answer.began
        return self.usage is not None or self._scanner.choices

    @property
    def unread(self) -> int:
        """Bytes of a document that looks like a completion and could not be read, if it ended or is streamed.

        Of one that is streamed it cannot be told that its choices are empty: then it is of these.
        """
        unread = self._unread or (self._named and not self.began)
        return self._taken + len(self._buffer) if unread else 0

    @property
    def thought(self) -> bool:
        """Reasoning was seen."""
        if self._answer is not None:
            return self._answer.thought
        self._scan()
        return self._scanner.thought

    @property
    def broken(self) -> bool:
        """The body ended, and is not one document, although a completion began in it."""
        if not self._ended or self._answer is not None or (self.streaming and self._scanner.closed):
            return False
        return self.began

    @property
    def at_boundary(self) -> bool:
        """An event of ours never belongs into a document."""
        return False

    @property
    def kept(self) -> int:
        """Bytes that are kept back now."""
        return len(self._buffer)

    # --- bytes ----------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the body as they come; return what the client may have now."""
        if self._released:
            return data
        if self._buffer:
            self._buffer = self._changeable()
            self._buffer += data
        elif self.streaming or data.strip(_SPACE):
            self._buffer = data
        else:
            return data
        if len(self._buffer) < SCAN_BYTES_MIN and not self.streaming:
            return b""
        self._scan()
        if len(self._buffer) <= ANSWER_BYTES_MAX and not self.streaming:
            return b""
        self.streaming = True
        self._named = self._named or CHOICES in self._buffer or CHOICES in self._edge + self._buffer[: len(CHOICES)]
        until = max(0, len(self._buffer.rstrip(_SPACE)) - 1, len(self._buffer) - ANSWER_BYTES_MAX)
        return self._take(until)

    def end(self) -> None:
        """The body ended as its framing says. Afterwards `complete` is final."""
        if self._ended or self._released:
            return
        self._ended = True
        if self.streaming:
            self.complete = self._scanner.closed and self._scanner.finished
            return
        body = self._buffer
        found = read_json(body[len(BOM) :] if body.startswith(BOM) else body)
        if not isinstance(found, dict):
            self._unread = is_unread(found, body) and not self.began
            return  # the scanner says what there is in it
        self._answer = answer = Completion(self._dialect)
        if is_error(found, self._dialect):
            self.error = self.refusal = found  # at most white space is out
            return
        answer.read(found)
        if not answer.began:
            self._unread = is_unread(found, body)
        self.complete = answer.finished

    def partial(self) -> bytes:
        """Return, and forget, what is kept back of a document that broke off; of a whole one all but its last byte."""
        if self.refusal is not None:
            return b""
        self._scan()
        size = len(self._buffer)
        return self._take(len(self._buffer.rstrip(_SPACE)) - 1 if self._scanner.closed else size)

    def release(self) -> bytes:
        """Return everything that is kept back, for the client; from now on `feed` keeps nothing back."""
        self._released = True
        return b"" if self.refusal is not None else self._take_all()

    def _take_all(self) -> bytes:
        taken, self._buffer = bytes(self._buffer), b""
        self._scanned = 0
        self._taken += len(taken)
        return taken

    def _take(self, size: int) -> bytes:
        if size == len(self._buffer):
            return self._take_all()
        self._scanned -= size
        self._taken += size
        self._buffer = self._changeable()
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        self._edge = (self._edge + taken[-len(CHOICES) :])[-len(CHOICES) :]
        return taken

    def _changeable(self) -> bytearray:
        return self._buffer if isinstance(self._buffer, bytearray) else bytearray(self._buffer)

    @property
    def _scanner(self) -> Scanner:
        if self._scans is None:
            self._scans = Scanner(at=self._dialect.usage.at, reasoning=self._dialect.reasoning_names)
        return self._scans

    def _scan(self) -> None:
        if self._scanned < len(self._buffer):
            self._scanner.feed(bytes(self._buffer[self._scanned :]))
            self._scanned = len(self._buffer)
