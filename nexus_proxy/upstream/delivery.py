"""The client's side of an exchange: what it is given, in its order, and how its answer ends.

Strategy: the client may not be there yet (its head is not out) or no longer, and only this knows. What is given before
it is there waits; nothing follows the farewell. The operator's credential never goes out: neither whole, nor in two
pieces, nor with its slashes escaped as JSON may have them.
"""

from collections.abc import Callable
from typing import Protocol

_LF = 10  # ends an event, and no credential has it


class Client(Protocol):
    """Who listens. None of these may raise or block."""

    def send(self, data: bytes) -> None:
        """Send bytes of the body now."""

    def end(self) -> None:
        """The answer is whole: end the body as its framing says."""

    def cut(self) -> None:
        """The answer is not whole: close the connection so that everybody can see it."""


class Delivery:
    """`secrets` never go out. `began`: bytes were released, so the client's answer is a 200. `gone`: the client has
    left. `echoed`: the provider sent our credential back; from then on nothing is given."""

    __slots__ = ("_client", "_farewell", "_held", "_last", "_pending", "_secrets", "began", "echoed", "gone")

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        self._secrets = secrets
        self._client: Client | None = None
        self._pending: list[bytes] = []  # released before the client's head was out
        self._held = b""  # the last bytes, which could be the beginning of our credential: they wait for what follows
        self._last = b""  # the last bytes that went out
        self._farewell: Callable[[Client], None] | None = None  # how the answer ends; nothing follows it
        self.began = self.gone = self.echoed = False

    def attach(self, client: Client) -> None:
        """The client's head is out: give it what waits, and what comes from now on."""
        if self.gone:
            return
        self._client = client
        if self._pending:
            waiting, self._pending = b"".join(self._pending), []  # in one piece: to send may call back in here
            client.send(waiting)
        if self._farewell is not None and self._client is not None:
            self._client = None  # all is said: its departure must not cut what was ended
            self._farewell(client)

    def leave(self) -> None:
        """The client has left."""
        self.gone = True
        client, self._client = self._client, None
        if client is not None:
            client.cut()
        self._pending.clear()

    def give(self, data: bytes, *, last: bool = False) -> None:
        """Give bytes to the client. What could be the beginning of our credential waits, unless these are the last."""
        if self._held:
            data, self._held = self._held + data, b""
        if not data or self.gone or self._farewell is not None or self.is_echo(data):
            return
        if not last and data[-1] != _LF and (size := self._beginning(data)):
            data, self._held = data[:-size], data[-size:]
            if not data:
                return
        self.add(data)

    def add(self, data: bytes) -> None:
        """Give bytes that need no look: they are our own, or were looked at."""
        if not self.gone and self._farewell is None:
            self.began = True
            self._last = data[-4:]
            if self._client is not None:
                self._client.send(data)
            else:
                self._pending.append(data)

    @property
    def at_boundary(self) -> bool:
        """The client has whole events only."""
        return not self._last or self._last.endswith((b"\n\n", b"\r\r", b"\r\n\r\n"))

    def is_echo(self, data: bytes) -> bool:
        """Tell whether our credential is in these bytes, or was in others."""
        if not self.echoed:
            for secret in self._secrets:
                if secret in data:
                    self.echoed = True
        return self.echoed

    def end(self) -> None:
        """The answer is whole."""
        self._say(_end)

    def cut(self) -> None:
        """The answer is not whole."""
        self._say(_cut)

    def _say(self, farewell: Callable[[Client], None]) -> None:
        """End the answer in this way; if its head is not out yet, as soon as it is. The first way counts."""
        if self._farewell is not None:
            return
        self.give(b"", last=True)
        self._farewell = farewell
        client, self._client = self._client, None
        if client is not None:
            farewell(client)

    def _beginning(self, data: bytes) -> int:
        return max((beginning_size(data, secret) for secret in self._secrets), default=0)


def _end(client: Client) -> None:
    client.end()


def _cut(client: Client) -> None:
    client.cut()


def secret_forms(secret: bytes) -> tuple[bytes, ...]:
    """Return the credential as it may stand in an answer."""
    if not secret:
        return ()
    escaped = secret.replace(b"/", b"\\/")
    return (secret,) if escaped == secret else (secret, escaped)


def beginning_size(data: bytes, secret: bytes) -> int:
    """Return how many of the last bytes could be the beginning of the secret, less than all of it."""
    at = max(0, len(data) - len(secret) + 1)
    while (at := data.find(secret[:1], at)) >= 0:
        if secret.startswith(data[at:]):
            return len(data) - at
        at += 1
    return 0
