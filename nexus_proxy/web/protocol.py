"""The door's socket: aiohttp's server protocol with its traps taken out, and a short way for what comes whole.

Strategy: a subclass that overrides what is unsafe by default. Parser errors are JSON and never repeat what was sent
(a raw header holds the key); a head that does not come is timed out; whoever conducts a request is told by the
transport itself that the client left or cannot keep up, since a handler that is not writing learns neither.

A request in one read, or two, that has the one form which `core.request.head` takes, is served without aiohttp's
reader, request and tasks, which cost more than all else that a server does. Everything else is aiohttp's. The short way
is open only while aiohttp's parser has nothing in hand, and while it is taken nothing goes past it, so that no byte is
ever read in two ways.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple, cast

from aiohttp import hdrs, web
from aiohttp.http import RawRequestMessage
from aiohttp.http_exceptions import BadHttpMessage, LineTooLong
from aiohttp.web_protocol import RequestHandler

from nexus_proxy.config import Limits, Timeouts
from nexus_proxy.core.request.head import HEAD_BYTES_MAX, HEADERS_MAX, WholeReader, WholeRequest
from nexus_proxy.errors import ConnectionFault, HeadersTooLarge, InvalidHttp, NexusError, RequestTimeout, ShuttingDown
from nexus_proxy.web.incoming import FramedIncomingRequest, IncomingRequest, Watcher, WholeIncomingRequest
from nexus_proxy.web.response import AlreadySentResponse, Reply, error_response, first_headers, new_request_id

WRITE_BUFFER_HIGH: Final = 64 * 1024  # bytes waiting for one client, past which its provider is no longer read
EARLY_BYTES_MAX: Final = 64 * 1024  # of a next request before the one in hand is answered, past which nothing is read
WHOLE_BYTES_MAX: Final = 64 * 1024  # of a request that may come in two reads, head and body, and still be whole
REST_S: Final = 0.05  # how long its second read is waited for
_SERVING: Final = "serving"  # the name of the task of a request that came whole
LINGER_S: Final = 1.0  # how long a refused body is still read, so that the refusal is not lost to a reset


class FastPath(NamedTuple):
    """Who answers. `serve` gets the requests with exactly this first line that came whole, `serve_framed` the rest."""

    line: bytes
    serve: Callable[[IncomingRequest], Awaitable[Reply]]
    serve_framed: Callable[[web.Request, IncomingRequest], Awaitable[Reply]]


class ListenerProtocol(RequestHandler):
    """One client connection. `watcher` is set by the handler of the request in hand, and taken off by it."""

    __slots__ = (
        "_begun",
        "_begun_timer",
        "_early",
        "_ends",
        "_fast_path",
        "_head_s",
        "_head_timer",
        "_in_hand",
        "_owed",
        "_reader",
        "_serving",
        "_silent",
        "_stalled_s",
        "_stalled_timer",
        "watcher",
    )

    def __init__(
        self, manager: web.Server, *, head_s: float, stalled_s: float, fast_path: FastPath | None = None, **options: Any
    ) -> None:
        super().__init__(manager, **options)
        self._fast_path = fast_path
        self._reader = WholeReader(fast_path.line) if fast_path is not None else None
        self._serving: asyncio.Task[None] | None = None  # a request that came whole
        self._early = b""  # what came behind it
        self._begun = b""  # one of which a part has come
        self._begun_timer: asyncio.TimerHandle | None = None
        self._in_hand = 0  # requests that aiohttp has read and not answered
        self._ends = False  # the last of them was the connection's last
        self._owed: int | None = 0  # bytes of a request that aiohttp's parser still expects; None: unknown
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
        if self._serving is not None:
            self._keep_early(data)
        elif self._begun:
            self._go_on(data)
        elif (request := self._take_apart(data)) is None:
            self._read(data)
        elif isinstance(request, WholeRequest):
            self._begin(request)
        else:
            self._begun = data
            self._begun_timer = self._loop.call_later(REST_S, self._rest_is_late)

    def _take_apart(self, data: bytes) -> WholeRequest | int | None:
        """Return what the reader makes of it, if it is for the fast path; None if it is for aiohttp."""
        reader = self._reader
        if reader is None or self._owed != 0 or self._in_hand or self._ends or self._close or self._force_close:
            return None
        request = reader.read(data)
        return None if isinstance(request, int) and len(data) + request > WHOLE_BYTES_MAX else request

    def _go_on(self, data: bytes) -> None:
        """Take the second read of a request; if that is not all of it, aiohttp gets both as they came."""
        request = self._take_apart(self._begun + data)
        if isinstance(request, WholeRequest):
            self._take_begun()
            self._begin(request)
        else:
            self._read(self._take_begun())
            self._read(data)

    def _rest_is_late(self) -> None:
        """What is wrong with its head can be said before its body is here."""
        self._read(self._take_begun())

    def _take_begun(self) -> bytes:
        begun, self._begun = self._begun, b""
        if self._begun_timer is not None:
            self._begun_timer.cancel()
            self._begun_timer = None
        return begun

    def _read(self, data: bytes) -> None:
        """Let aiohttp read it."""
        before = self._request_count
        super().data_received(data)
        self._in_hand += self._request_count - before
        if self._owed:
            self._owed = self._owed - len(data) if len(data) <= self._owed else None
        elif self._owed == 0 and data:
            self._owed = self._behind(data) if self._request_count == before + 1 else None
        if self._messages or self._request_in_progress:
            self._stop_head_timer()
        elif data and not self._owed and self._head_timer is None:
            self._head_timer = self._loop.call_later(self._head_s, self._head_is_late)

    def _behind(self, data: bytes) -> int | None:
        """Return how many bytes of the one request that begins here are still to come. None: it does not say."""
        message = self._messages[-1][0]
        if not isinstance(message, RawRequestMessage) or message.chunked or message.upgrade:
            return None
        if not data[:1].isalpha():
            return None  # blank lines, which the parser skips: the first one is not the end of the head
        size = data.find(b"\r\n\r\n") + 4 + int(message.headers.get(hdrs.CONTENT_LENGTH, "0"))
        return size - len(data) if size >= len(data) else None

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        """Send it; aiohttp is still busy with the request for some turns of the loop, but with nothing that matters."""
        finished = await super().finish_response(request, resp, start_time)
        self._in_hand -= 1
        self._ends = not resp.keep_alive
        return finished

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    # --- a request that came whole ----------------------------------------------------------------------------

    def _begin(self, request: WholeRequest) -> None:
        assert self._fast_path is not None
        if self._head_timer is not None:
            self._stop_head_timer()
        self._request_in_progress = True
        serving = self._serve(self._fast_path, WholeIncomingRequest(request, self))
        # Not by way of the loop, and with a name, so that none is made up: the rest of it costs enough.
        self._serving = asyncio.Task(serving, loop=self._loop, name=_SERVING)

    async def _serve(self, fast_path: FastPath, incoming: WholeIncomingRequest) -> None:
        close = True
        try:
            reply = await fast_path.serve(incoming)
            reply.write_to(incoming)
            if self._paused:
                await self._drain_helper()
            close = reply.close
        except ConnectionError:
            pass  # the client has left
        except Exception as fault:  # noqa: BLE001 - the owner of this task
            self.log_exception(exc_info=fault)
        finally:
            self._serving = None
            self._request_in_progress = False
            if self._handler_waiter is not None:
                self._handler_waiter.set_result(None)
            if close or self._close or self._force_close:
                self.force_close()
            else:
                self._wait_for_next()

    def _wait_for_next(self) -> None:
        self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        if self._keepalive_handle is None:
            self._keepalive_handle = self._loop.call_at(self._next_keepalive_close_time, self._process_keepalive)
        if self._early:
            early, self._early = self._early, b""
            if len(early) > EARLY_BYTES_MAX:
                self._resume_reading_for_buffer()
            self.data_received(early)

    def _keep_early(self, data: bytes) -> None:
        self._early += data
        if len(self._early) > EARLY_BYTES_MAX:
            self._pause_reading_for_buffer()

    def _process_keepalive(self) -> None:
        if self._serving is not None or self._begun:  # aiohttp takes it for idle
            self._next_keepalive_close_time = self._loop.time() + self._keepalive_timeout
        super()._process_keepalive()

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """End the connection, its request within the timeout."""
        await super().shutdown(timeout)
        if self._serving is not None:
            self._serving.cancel()

    # --- its end ----------------------------------------------------------------------------------------------

    def close(self) -> None:
        if self._begun:
            self._rest_is_late()  # it is answered, if only with a refusal
        super().close()
        # Trap: the original takes nothing more on an idle connection, and leaves it open.
        if self._serving is None and not self._in_hand:
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
            answer = error_response(error, first_headers(new_request_id()))
            self.transport.write(answer.render_head() + answer.body)
        self.force_close()

    def connection_lost(self, exc: BaseException | None) -> None:
        for timer in (self._head_timer, self._stalled_timer, self._begun_timer):
            if timer is not None:
                timer.cancel()
        self._head_timer = self._stalled_timer = self._begun_timer = None
        self._reader = None  # who drains the provider may hold this for long, and that holds a key
        task, waiter = self._task_handler, self._waiter
        super().connection_lost(exc)
        # Trap: a request that came in the same turn has woken the task, which would not find what is gone, and fail.
        if task is not None and waiter is not None and not waiter.cancelled():
            task.cancel()
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
        if request.writer.output_size > 0 or isinstance(exc, ConnectionError):
            raise ConnectionError("an answer has begun, or nobody is there; nothing can be written")
        answer = error_response(_head_fault(status, exc), first_headers(new_request_id()))
        return AlreadySentResponse(answer, FramedIncomingRequest(cast(web.Request, request)))

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


class ListenerServer(web.Server):
    """aiohttp's connection factory, with our protocol. Unlike the original it has no fallback to other settings."""

    def __call__(self) -> RequestHandler:
        return ListenerProtocol(self, loop=self._loop, **self._kwargs)


class ListenerRunner(web.AppRunner):
    """Runs an application behind ListenerProtocol, with every setting that aiohttp leaves open made on purpose.

    With a fast path the application is asked nothing: the path answers.
    """

    def __init__(
        self, app: web.Application, timeouts: Timeouts, limits: Limits, fast_path: FastPath | None = None
    ) -> None:
        super().__init__(
            app,
            access_log=None,  # trap: aiohttp logs every request line; the one line of ours says more, and no query
            auto_decompress=False,  # trap: an encoded body would be unpacked, to any size, before anybody looks at it
            keepalive_timeout=timeouts.client_idle_s,  # trap: an hour
            lingering_time=LINGER_S,
            max_line_size=HEAD_BYTES_MAX,
            max_field_size=HEAD_BYTES_MAX,
            max_headers=HEADERS_MAX,
            handler_cancellation=False,  # trap: a cancelled handler would be torn out of the ledger's awaits
            shutdown_timeout=5.0,
            head_s=timeouts.client_headers_s,
            stalled_s=timeouts.client_stalled_s,
            fast_path=fast_path,
        )
        self._fast_path = fast_path

    async def _make_server(self) -> web.Server:
        original = await super()._make_server()
        handler = original.request_handler if self._fast_path is None else cast(Any, _answering(self._fast_path))
        return ListenerServer(handler, request_factory=original.request_factory, **self._kwargs)


def _answering(fast_path: FastPath) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def answer(request: web.Request) -> web.StreamResponse:
        incoming = FramedIncomingRequest(request)
        return AlreadySentResponse(await fast_path.serve_framed(request, incoming), incoming)

    return answer
