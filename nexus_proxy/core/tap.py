"""The reader that watches the response bytes on their way to the client and remembers what is charged for.

Strategy: bytes in, bytes out. `feed` returns what may go to the client now: everything, to the byte, except the
terminal bytes (from the first byte of the line `data: [DONE]` on), which wait for the settlement, and the one event
that our own `include_usage` caused. What is kept back is bounded; what is too long to parse passes unparsed.
"""

from typing import Any, Protocol

from nexus_proxy.core.dialect import Dialect
from nexus_proxy.core.usage import Usage

EVENT_BYTES_MAX = 1 << 20  # a longer event passes unparsed
ANSWER_BYTES_MAX = 1 << 20  # a longer unstreamed answer is no longer buffered whole


class Tap(Protocol):
    """What every tap remembers. `SseTap` reads a stream of events, `JsonTap` one document."""

    refusal: dict[str, Any] | None  # the first thing that came is an error, and no byte has been released before it
    usage: Usage | None  # the last real usage seen
    output_bytes: int  # bytes of content, reasoning and tool arguments seen
    began: bool  # part of a completion was seen
    done: bool  # `[DONE]` was seen

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the body as they come; return what the client may have now."""

    def end(self) -> None:
        """The body ended as its framing says. Afterwards `complete` is final."""

    def release(self) -> bytes:
        """Return everything that is kept back, for the client; from now on `feed` keeps nothing back."""

    @property
    def complete(self) -> bool:
        """`[DONE]` came, or every choice has a finish reason and the body ended as its framing says."""

    @property
    def at_boundary(self) -> bool:
        """The client has whole events only, so that one of ours can follow."""


def make_tap(content_type: str, dialect: Dialect, *, drop_usage_event: bool) -> Tap:
    """Return the tap for a response: events for `text/event-stream`, else one document."""
    raise NotImplementedError
