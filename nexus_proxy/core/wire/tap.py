"""The reader that watches the response bytes on their way to the client and remembers what is charged for.

Strategy: bytes in, bytes out. `feed` returns what may go to the client now: everything, to the byte, except the
terminal bytes (from the first byte of the line `data: [DONE]` on), which wait for the settlement, and the one event
that our own `include_usage` caused. What is kept back is bounded; what is too long to parse passes unparsed.
Which tap reads a response is decided by its first bytes and its content type, not by what was asked for.
"""

from typing import Any, Protocol

from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.core.wire.document import ANSWER_BYTES_MAX, JsonTap
from nexus_proxy.core.wire.sniff import SniffTap
from nexus_proxy.core.wire.stream import EVENT_BYTES_MAX, SseTap
from nexus_proxy.core.wire.usage import Usage

__all__ = ["ANSWER_BYTES_MAX", "EVENT_BYTES_MAX", "JsonTap", "SniffTap", "SseTap", "Tap", "make_tap"]


class Tap(Protocol):
    """What every tap remembers. `SseTap` reads a stream of events, `JsonTap` one document."""

    @property
    def refusal(self) -> dict[str, Any] | None:
        """The first thing that came is an error. At most keep-alive, and events that say as little, were released
        before it; nothing will be."""

    @property
    def error(self) -> dict[str, Any] | None:
        """The last error object seen; one that is no refusal was relayed."""

    @property
    def usage(self) -> Usage | None:
        """The last real usage seen. If reasoning was seen and none is counted, one token of it is, flagged."""

    @property
    def output_bytes(self) -> int:
        """Bytes of content, reasoning and tool calls seen; of what was too long to parse, all bytes."""

    @property
    def unread(self) -> int:
        """Bytes of events, or of a document, that look like a completion and could not be read: they do not parse, or
        their choices are not where, or what, they are. Choices that are empty or null are no completion."""

    @property
    def began(self) -> bool:
        """Part of a completion was seen."""

    @property
    def done(self) -> bool:
        """`[DONE]` was seen."""

    @property
    def complete(self) -> bool:
        """`[DONE]` came, or every choice has a finish reason and the body ended as its framing says."""

    @property
    def broken(self) -> bool:
        """The body ended, and is not whole: a stream that is not finished, a document that no parser takes although
        a completion began in it. The client must see that; the framing alone does not show it."""

    @property
    def streams(self) -> bool:
        """It is an event stream: an event of ours can follow, at a boundary."""

    @property
    def thought(self) -> bool:
        """Reasoning was seen."""

    @property
    def at_boundary(self) -> bool:
        """The client has whole events only, so that one of ours can follow."""

    @property
    def kept(self) -> int:
        """Bytes that are kept back now."""

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the body as they come; return what the client may have now."""

    def end(self) -> None:
        """The body ended as its framing says. Afterwards `complete` is final."""

    def partial(self) -> bytes:
        """Return, and forget, what is kept back of an unfinished event or document: never a terminal byte.

        For an answer that was cut: it may follow what the client has. Nothing is to be fed afterwards.
        """

    def release(self) -> bytes:
        """Return everything that is kept back, for the client; from now on `feed` keeps nothing back."""


def make_tap(content_type: str, dialect: Dialect, *, drop_usage_event: bool) -> Tap:
    """Return the tap for a response: `content_type` says what it is, unless its first bytes say otherwise."""
    streams = content_type.partition(";")[0].strip().lower() == "text/event-stream"
    return SniffTap(dialect, drop_usage_event=drop_usage_event, streams=streams)
