"""The door's socket: aiohttp's server protocol with its traps taken out.

Strategy: a subclass that overrides what is unsafe by default. Parser errors are JSON and never repeat what was sent
(a raw header holds the key); a head that does not come is timed out; whoever conducts a request is told by the
transport itself that the client left or cannot keep up, since a handler that is not writing learns neither.
"""

import asyncio
from collections.abc import Awaitable, Mapping
from typing import Any, Protocol, cast

from aiohttp import web
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestHandler
from aiohttp.web_urldispatcher import AbstractRoute, UrlMappingMatchInfo

from nexus_proxy.answers import error_response, first_headers, new_request_id
from nexus_proxy.config import Limits, Timeouts
from nexus_proxy.errors import ConnectionFault, HeadersTooLarge, InvalidHttp, NexusError, RequestTimeout, ShuttingDown

WRITE_BUFFER_HIGH = 64 * 1024  # bytes waiting for one client, past which its provider is no longer read
LINGER_S = 1.0  # how long a refused body is still read, so that the refusal is not lost to a reset


class Watcher(Protocol):
    """Who is told what becomes of the client of the request in hand."""

    def client_left(self) -> None:
        """The connection is lost."""

    def pause(self) -> None:
        """The client's buffer is full."""

    def resume(self) -> None:
        """The client's buffer has room."""


class DoorProtocol(RequestHandler):
    """One client connection. `watcher` is set by the handler of the request in hand, and taken off by it."""

    __slots__ = ("_head_s", "_head_timer", "_silent", "_stalled_s", "_stalled_timer", "watcher")

    def __init__(self, manager: web.Server, *, head_s: float, stalled_s: float, **options: Any) -> None:
        super().__init__(manager, **options)
        self._head_s = head_s
        self._stalled_s = stalled_s
        self._stalled_timer: asyncio.TimerHandle | None = None
        self._head_timer: asyncio.TimerHandle | None = None
        self._silent = True
        self.watcher: Watcher | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        cast(asyncio.Transport, transport).set_write_buffer_limits(high=WRITE_BUFFER_HIGH)
        # Trap: aiohttp waits for a first head as long as for a next one, and for the rest of a head without end.
        self._head_timer = self._loop.call_later(self._head_s, self._head_is_late)

    def data_received(self, data: bytes) -> None:
        self._silent = False
        super().data_received(data)
        if self._messages or self._request_in_progress:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None
        elif self._head_timer is None:
            self._head_timer = self._loop.call_later(self._head_s, self._head_is_late)

    def close(self) -> None:
        super().close()
        # Trap: the original takes nothing more on an idle connection, and leaves it open.
        if not self._request_in_progress and not self._messages:
            self.force_close()
        elif (request := self._current_request) is not None and not request.content.is_eof():
            # Trap: from now on it drops what comes, so that who waits for the rest of a body waits for ever.
            request.content.set_exception(ShuttingDown("This gateway is shutting down.", retry_after_ns=1_000_000_000))

    def _head_is_late(self) -> None:
        self._head_timer = None
        if self._messages or self._request_in_progress or self.transport is None:
            return
        if not self._silent:
            error = RequestTimeout("The request's headers did not arrive in time.")
            self.transport.write(_raw_response(error))
        self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._head_timer, self._stalled_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._stalled_timer = None
        super().connection_lost(exc)
        # Trap: a handler that waits for the provider is not told that its client has gone.
        if self.watcher is not None:
            self.watcher.client_left()

    def force_close(self) -> None:
        transport = self.transport
        super().force_close()
        # Trap: a closed transport still waits for its peer to read what is left, for ever.
        if transport is not None and (unread := transport.get_write_buffer_size()):
            self._loop.call_later(self._stalled_s, self._abort_if_stalled, transport, unread)

    def pause_writing(self) -> None:
        super().pause_writing()
        # Trap: nothing in aiohttp ends a connection whose client has stopped reading.
        if (transport := self.transport) is not None:
            unread = transport.get_write_buffer_size()
            self._stalled_timer = self._loop.call_later(self._stalled_s, self._abort_if_stalled, transport, unread)
        if self.watcher is not None:
            self.watcher.pause()

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stalled_timer is not None:
            self._stalled_timer.cancel()
            self._stalled_timer = None
        if self.watcher is not None:
            self.watcher.resume()

    def _abort_if_stalled(self, transport: asyncio.Transport, unread: int) -> None:
        """Give up on a client that has read nothing since; one that is slow gets the same time again."""
        left = transport.get_write_buffer_size()
        if left and left >= unread:
            transport.abort()
        elif left:
            self._stalled_timer = self._loop.call_later(self._stalled_s, self._abort_if_stalled, transport, left)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Answer what the parser refused. Trap: the original writes the raw line into text/plain, and into the log."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer has begun; a second one cannot be written into it")
        return error_response(_head_fault(status, exc), first_headers(new_request_id()))

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Say that something failed, without the request's bytes."""
        fault = kw.get("exc_info")
        self.logger.error("connection fault: %s", type(fault).__name__ if fault is not None else "unknown")


def _head_fault(status: int, exc: BaseException | None) -> NexusError:
    if status != 400:
        return ConnectionFault("Internal error.")
    # That there are too many headers has no exception of its own.
    if isinstance(exc, LineTooLong) or (isinstance(exc, BadHttpMessage) and "Too many" in str(exc.message)):
        return HeadersTooLarge("A header line is too long, or there are too many.")
    return InvalidHttp("This is not an acceptable HTTP/1.1 request.")


def _raw_response(error: NexusError) -> bytes:
    response = error_response(error, first_headers(new_request_id()))
    body = response.body
    assert isinstance(body, bytes)
    head = f"HTTP/1.1 {error.status} {response.reason}\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in response.headers.items() if name != "Content-Length")
    return f"{head}Content-Length: {len(body)}\r\nConnection: close\r\n\r\n".encode("latin-1") + body


class DoorServer(web.Server):
    """aiohttp's connection factory, with our protocol. Unlike the original it has no fallback to other settings."""

    def __call__(self) -> RequestHandler:
        return DoorProtocol(self, loop=self._loop, **self._kwargs)


Target = tuple[str, str]  # a method, and a request target as it was sent


def direct(app: web.Application, route: AbstractRoute, handler: Handler) -> Handler:
    """Return the handler for requests that are known to be for a route of the application: its router is not asked."""
    match = UrlMappingMatchInfo({}, route)
    match.add_app(app)
    match.freeze()

    def handle(request: web.Request) -> Awaitable[web.StreamResponse]:
        request._match_info = match  # no request changes it
        return handler(request)

    return handle


class DoorRunner(web.AppRunner):
    """Runs an application behind DoorProtocol, with every setting that aiohttp leaves open made on purpose.

    `shortcuts` are handlers for exact targets; they make the application's middlewares their own business.
    """

    def __init__(
        self,
        app: web.Application,
        timeouts: Timeouts,
        limits: Limits,
        shortcuts: "Mapping[Target, Handler] | None" = None,
    ) -> None:
        super().__init__(
            app,
            access_log=None,  # trap: aiohttp logs every request line; the one line of ours says more, and no query
            auto_decompress=False,  # trap: an encoded body would be unpacked, to any size, before anybody looks at it
            keepalive_timeout=timeouts.client_idle_s,  # trap: an hour
            lingering_time=LINGER_S,
            max_line_size=8190,
            max_field_size=8190,
            max_headers=128,
            handler_cancellation=False,  # trap: a cancelled handler would be torn out of the ledger's awaits
            shutdown_timeout=5.0,
            head_s=timeouts.client_headers_s,
            stalled_s=timeouts.client_stalled_s,
        )
        self._shortcuts = shortcuts or {}

    async def _make_server(self) -> web.Server:
        original = await super()._make_server()
        routed, shortcuts = original.request_handler, self._shortcuts

        def handle(request: web.Request) -> Awaitable[web.StreamResponse]:
            # Trap: for each request the application asks its router and wraps the handler into the middlewares anew.
            return shortcuts.get((request.method, request._message.path), routed)(request)

        return DoorServer(cast(Any, handle), request_factory=original.request_factory, **self._kwargs)
