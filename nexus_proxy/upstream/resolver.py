"""Names to addresses, without letting one provider's dead name server hold up another's.

Strategy: each look-up runs in a daemon thread of its own, one at a time per resolver, and a resolver belongs to one
provider. So a hanging look-up costs one thread and makes only its own provider's requests wait. Answers are kept for
a short while, since getaddrinfo tells no time to live.
"""

import asyncio
import socket
import threading

ANSWER_KEPT_S = 30.0


class Resolver:
    """The addresses of one host."""

    def __init__(self, host: str, port: int) -> None:
        self._host = host
        self._port = port
        self._addresses: list[str] = []
        self._kept_until = 0.0
        self._pending: asyncio.Future[list[str]] | None = None

    async def addresses(self) -> list[str]:
        """Return the host's addresses, in the system's order. OSError if there are none."""
        loop = asyncio.get_running_loop()
        if loop.time() < self._kept_until:
            return self._addresses
        if self._pending is None:
            self._pending = loop.create_future()
            threading.Thread(target=self._look_up, args=(loop, self._pending), name="resolver", daemon=True).start()
        # Shielded: whoever gives up waiting must not cancel the look-up that others wait for.
        return await asyncio.shield(self._pending)

    def _look_up(self, loop: asyncio.AbstractEventLoop, pending: asyncio.Future[list[str]]) -> None:
        error: OSError | None = None
        found: list[str] = []
        try:
            # ADDRCONFIG: no IPv6 addresses on a machine without IPv6, which would only cost the connect deadline.
            rows = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
            found = list(dict.fromkeys(str(row[4][0]) for row in rows))
        except OSError as caught:
            error = caught
        except UnicodeError:
            error = OSError(f"not a host name: {self._host!r}")
        try:
            loop.call_soon_threadsafe(self._answer, loop, pending, found, error)
        except RuntimeError:
            return  # the loop closed meanwhile: nobody waits any more

    def _answer(
        self,
        loop: asyncio.AbstractEventLoop,
        pending: asyncio.Future[list[str]],
        found: list[str],
        error: OSError | None,
    ) -> None:
        self._pending = None
        if pending.done():
            return
        if error is not None:
            pending.set_exception(error)
            pending.exception()  # everybody may have given up; that is no news
            return
        self._addresses = found
        self._kept_until = loop.time() + ANSWER_KEPT_S
        pending.set_result(found)
