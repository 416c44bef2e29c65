"""What a scripted provider can do on a connection, one step at a time.

Strategy: a script is a sequence of frozen steps, played in order after a request was read whole. A step that carries
`usage` tells the truth log what the provider has reported once these bytes are out. Whoever runs out of steps without
Close, Reset or Stall keeps the connection for the next request.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson


@dataclass(frozen=True, slots=True)
class Send:
    """Raw bytes on the connection."""

    data: bytes
    usage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Chunk:
    """Bytes in a chunk of their own, written by a send of their own. No bytes: the last chunk."""

    data: bytes
    usage: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait for the test; `reached` tells the test that we are here."""

    until: asyncio.Event
    reached: asyncio.Event | None = None


@dataclass(frozen=True, slots=True)
class Delay:
    """Wait a while. For load, not for waiting for something to happen."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Close:
    """An orderly end: FIN."""


@dataclass(frozen=True, slots=True)
class Reset:
    """A rude end: RST."""


@dataclass(frozen=True, slots=True)
class Stall:
    """Say nothing more until the other side goes."""


Step = Send | Chunk | Pause | Delay | Close | Reset | Stall


@dataclass(slots=True)
class Received:
    """One request, as the provider saw it, and what it did about it: a line of the truth log."""

    seq: int
    connection: int
    method: str
    path: str
    headers: list[tuple[str, str]]  # names in lower case, in order
    body: bytes
    at: float  # Unix time at which the whole request had arrived
    usage: dict[str, Any] | None = None  # the last usage that was sent
    sent: bytearray = field(default_factory=bytearray)  # payload after the response's head, framing removed
    ended: str = ""  # played, closed, reset, peer_gone; empty while it is going on

    @property
    def json(self) -> dict[str, Any]:
        """The body, or an empty object if it is none."""
        try:
            value = orjson.loads(self.body)
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}

    @property
    def tag(self) -> str:
        """What the test put in `user`, to find this request again."""
        return str(self.json.get("user", ""))

    def header(self, name: str) -> str | None:
        """Return the first header of that name."""
        return next((value for key, value in self.headers if key == name), None)


Script = Sequence[Step]
Planner = Callable[[Received], Script]


def head(status: int = 200, *headers: str, reason: str = "X", version: str = "1.1") -> Send:
    """Return a response head as it stands, with exactly these header lines."""
    lines = [f"HTTP/{version} {status} {reason}", *headers, "", ""]
    return Send("\r\n".join(lines).encode("latin-1"))


def sse_head(*more: str) -> Send:
    """Return the head of a chunked event stream."""
    return head(200, "Content-Type: text/event-stream; charset=utf-8", "Transfer-Encoding: chunked", *more)


LAST_CHUNK = Chunk(b"")


def whole(
    status: int,
    body: bytes,
    *headers: str,
    content_type: str = "application/json",
    usage: dict[str, Any] | None = None,
) -> list[Step]:
    """Return a complete answer with a Content-Length; `usage` is what its body reports."""
    lines = (f"Content-Type: {content_type}", f"Content-Length: {len(body)}", *headers)
    return [head(status, *lines), Send(body, usage)]


def error(status: int, *headers: str, **members: Any) -> list[Step]:
    """Return an error in OpenAI's shape."""
    return whole(status, orjson.dumps({"error": members}), *headers)
