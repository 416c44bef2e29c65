"""The connections to one provider.

Strategy: an idle connection is used again, the latest first; a new one is made within the connect deadline, name
look-up and TLS included, and only to an address that the configuration allows, checked on the address that is really
connected to. The number of exchanges at once is bounded; past it the answer is 503, not a queue.
"""

import asyncio
import functools
import ssl
from collections import deque
from urllib.parse import urlsplit

from nexus_proxy.config import Provider
from nexus_proxy.core.control.addresses import is_public
from nexus_proxy.core.control.slots import Slots
from nexus_proxy.errors import Overloaded, UpstreamTimeout, UpstreamUnreachable
from nexus_proxy.upstream.connection import Connection
from nexus_proxy.upstream.delivery import secret_forms
from nexus_proxy.upstream.resolver import Resolver

IDLE_S = 30.0  # shorter than any provider's own limit that is known, so that a reused connection is rarely a dead one


class Upstream:
    """One provider, ready to be called by the running loop.

    `secret_forms` is the credential in each way in which it may stand in an answer.
    """

    def __init__(self, provider: Provider, *, connect_s: float) -> None:
        self.provider = provider
        self.secret_forms = secret_forms(provider.api_key.encode())
        self._loop = asyncio.get_running_loop()
        self._slots = Slots(provider.in_flight_max)
        self._connect_s = connect_s
        parts = urlsplit(provider.base_url)
        assert parts.hostname is not None
        self._host = parts.hostname
        self._port = parts.port or (443 if parts.scheme == "https" else 80)
        self._tls = _tls_context(provider) if parts.scheme == "https" else None
        self._resolver = Resolver(self._host, self._port)
        self._idle: deque[Connection] = deque()
        self._all: set[Connection] = set()
        authorization = f"Authorization: Bearer {provider.api_key}\r\n" if provider.api_key else ""
        self._head = (
            f"POST {parts.path}/chat/completions HTTP/1.1\r\n"
            f"Host: {parts.netloc}\r\n"
            f"{authorization}"
            "Content-Type: application/json\r\n"
            # The tap reads the bytes as they are, and the client gets them so: no coding.
            "Accept-Encoding: identity\r\n"
            "User-Agent: nexus-proxy\r\n"
        ).encode("latin-1")

    def head(self, body: bytes, *, stream: bool) -> bytes:
        """Return a request's head. Nothing in it comes from the client."""
        accept = b"text/event-stream" if stream else b"application/json"
        return b"%bAccept: %b\r\nContent-Length: %d\r\n\r\n" % (self._head, accept, len(body))

    def enter(self) -> None:
        """Take a place for an exchange. Overloaded if all are taken; `leave` gives it back."""
        if not self._slots.enter():
            raise Overloaded(
                "Too many requests to this model's provider are open. Try again shortly.", retry_after_ns=1_000_000_000
            )

    def leave(self) -> None:
        """Give a place back."""
        self._slots.leave()

    def take_idle(self) -> Connection | None:
        """Return the connection that was used last, if one is open and fresh."""
        now = self._loop.time()
        while self._idle and now - self._idle[0].idle_since > IDLE_S:
            self._idle.popleft().abort()
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    def keep(self, connection: Connection) -> None:
        """Take a connection back after an exchange that ended cleanly."""
        if connection.reusable:
            connection.resume()  # its last client may have been slow to the end
            connection.idle_since = self._loop.time()
            self._idle.append(connection)

    async def connect(self) -> Connection:
        """Open a connection. UpstreamUnreachable, UpstreamTimeout; in both cases the provider received nothing."""
        try:
            async with asyncio.timeout(self._connect_s):
                return await self._connect()
        except TimeoutError:
            raise UpstreamTimeout("The model's provider did not accept a connection in time.") from None
        except (OSError, ssl.SSLError) as error:
            raise UpstreamUnreachable("The model's provider cannot be reached.") from error

    async def _connect(self) -> Connection:
        failure: OSError | None = None
        for address in await self._resolver.addresses():
            if not self._may_connect(address):
                failure = OSError(f"{self._host} resolves to {address}, which the configuration does not allow")
                continue
            try:
                _, connection = await self._loop.create_connection(
                    self._connection,
                    address,
                    self._port,
                    ssl=self._tls,
                    server_hostname=self._host if self._tls else None,
                )
            except OSError as error:
                failure = error
            else:
                return connection
        raise failure or OSError(f"{self._host} has no address")

    def _may_connect(self, address: str) -> bool:
        """Inner addresses only if they are allowed, public ones only with TLS: the credential is in the first bytes."""
        return self._tls is not None if _is_public(address) else self.provider.allow_private

    def _connection(self) -> Connection:
        connection = Connection(self._forget)
        self._all.add(connection)
        return connection

    def _forget(self, connection: Connection) -> None:
        self._all.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def close(self) -> None:
        """Drop every connection."""
        for connection in list(self._all):
            connection.abort()
        self._idle.clear()


_is_public = functools.lru_cache(maxsize=1024)(is_public)  # asked for each connection, of a handful of addresses


def _tls_context(provider: Provider) -> ssl.SSLContext:
    context = ssl.create_default_context()
    if provider.ca_file is not None:
        context.load_verify_locations(cafile=str(provider.ca_file))
    context.set_alpn_protocols(["http/1.1"])
    return context
