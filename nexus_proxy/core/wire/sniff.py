"""The tap of an answer whose first bytes have not come yet.

Strategy: providers and what stands before them name the wrong media type, or none, and clients read the answer all
the same. A body that begins with a field of an event stream is one, whatever its type; one that begins with a brace
is a document; with anything else the type is believed. White space goes out as it comes and decides nothing. From
the bytes that decide on, everything is the right tap's.
"""

from typing import Any, Final

from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.core.wire.document import JsonTap
from nexus_proxy.core.wire.sse import BOM
from nexus_proxy.core.wire.stream import SseTap
from nexus_proxy.core.wire.usage import Usage

_SPACE: Final = b" \t\r\n"
_FIELDS: Final = (b"data:", b"event:", b"id:", b"retry:", b":")


class SniffTap:
    """Reads what comes. See `tap.Tap` for what its members promise."""

    def __init__(self, dialect: Dialect, *, drop_usage_event: bool, streams: bool) -> None:
        self._dialect = dialect
        self._drop = drop_usage_event
        self._sniffing = True
        self._held = b""  # what has not decided yet: the head of a field, and the white space before it in its piece
        self._line = True  # the next byte begins a line
        self._tap: JsonTap | SseTap = self._make(streams)

    # --- what the exchange asks -----------------------------------------------------------------------------------

    @property
    def streams(self) -> bool:
        """It is an event stream."""
        return self._tap.streams

    @property
    def refusal(self) -> dict[str, Any] | None:
        """The first thing that came is an error; at most keep-alive has been released."""
        return self._tap.refusal

    @property
    def error(self) -> dict[str, Any] | None:
        """The last error object seen."""
        return self._tap.error

    @property
    def usage(self) -> Usage | None:
        """The last real usage seen."""
        return self._tap.usage

    @property
    def output_bytes(self) -> int:
        """Bytes of content, reasoning and tool calls seen."""
        return self._tap.output_bytes

    @property
    def unread(self) -> int:
        """Bytes of what looks like a completion and could not be read."""
        return self._tap.unread

    @property
    def began(self) -> bool:
        """Part of a completion was seen."""
        return self._tap.began

    @property
    def thought(self) -> bool:
        """Reasoning was seen."""
        return self._tap.thought

    @property
    def done(self) -> bool:
        """`[DONE]` was seen."""
        return self._tap.done

    @property
    def complete(self) -> bool:
        """`[DONE]` came, or every choice has a finish reason and the body ended as its framing says."""
        return self._tap.complete

    @property
    def broken(self) -> bool:
        """The body ended, and is not whole."""
        return self._tap.broken

    @property
    def at_boundary(self) -> bool:
        """The client has whole events only."""
        return self._tap.at_boundary

    @property
    def kept(self) -> int:
        """Bytes that are kept back now."""
        return len(self._held) + self._tap.kept

    @property
    def settled(self) -> "SniffTap | JsonTap | SseTap":
        """The right tap, as soon as the first bytes have decided: whoever goes on with that one saves a step each."""
        return self if self._sniffing or self._held else self._tap

    # --- bytes ----------------------------------------------------------------------------------------------------

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the body as they come; return what the client may have now."""
        if not self._sniffing:
            return self._tap.feed(data)
        data = self._held + data
        text = data.lstrip(_SPACE)
        if not text:
            if data:
                self._line = data.endswith((b"\n", b"\r"))
            return data
        streams = self._sniff(data[: len(data) - len(text)], text)
        if streams is None:
            self._held = data
            return b""
        self._decide(streams)
        return self._tap.feed(data)

    def end(self) -> None:
        """The body ended as its framing says. Afterwards `complete` is final."""
        self._believe()
        self._tap.end()

    def partial(self) -> bytes:
        """Return, and forget, what is kept back of an unfinished event or document: never a terminal byte."""
        self._believe()
        return self._take_held() + self._tap.partial()

    def release(self) -> bytes:
        """Return everything that is kept back, for the client; from now on `feed` keeps nothing back."""
        self._believe()
        return self._take_held() + self._tap.release()

    # --- the first bytes ------------------------------------------------------------------------------------------

    def _sniff(self, space: bytes, text: bytes) -> bool | None:
        """Tell whether it is a stream; None if what came is too little to tell."""
        bare = text.removeprefix(BOM)
        if bare.startswith(b"{"):
            return False
        if not (space.endswith((b"\n", b"\r")) if space else self._line):
            return self._tap.streams  # within a line no field begins
        if bare.startswith(_FIELDS):
            return True
        if BOM.startswith(text) or any(field.startswith(bare) for field in _FIELDS):
            return None
        return self._tap.streams

    def _believe(self) -> None:
        """No more bytes come to decide by: the media type does. Of what was held, what may go is held on."""
        if self._sniffing:
            held = self._held
            self._decide(self._tap.streams)
            self._held = self._tap.feed(held)

    def _take_held(self) -> bytes:
        held, self._held = self._held, b""
        return held

    def _decide(self, streams: bool) -> None:
        self._sniffing, self._held = False, b""
        if streams is not self._tap.streams:
            self._tap = self._make(streams)
        if isinstance(self._tap, SseTap) and not self._line:
            self._tap.follow(b" ")  # which blanks they were changes nothing: no field begins with any

    def _make(self, streams: bool) -> JsonTap | SseTap:
        if streams:
            return SseTap(self._dialect, drop_usage_event=self._drop)
        return JsonTap(self._dialect)
