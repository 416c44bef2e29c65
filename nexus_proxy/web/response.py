"""What a client is answered: the head of every answer, a whole answer, and the one shape of everything that went wrong.

Strategy: an answer writes itself, head and body at once, straight to the connection's transport. The framework's own
response sends the same bytes, through four coroutines and two buffers; to it `AlreadySentResponse` stands for what is
written already. Headers are text from the first, each with its end of line: nobody looks one up again.
"""

import os
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, Final, Protocol

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter

from nexus_proxy.core.money.amounts import ceil_div
from nexus_proxy.errors import MethodNotAllowed, NexusError
from nexus_proxy.runtime.clock import now_ms
from nexus_proxy.web.incoming import IncomingRequest

JOINED_BYTES_MAX: Final = 64 * 1024  # what costs less to copy than to send apart
_RANDOM_BYTES: Final = 10
# Drawn for many ids at once: each draw is a call into the kernel that lets another thread of this process run first.
_random: list[str] = []
_JSON: Final = "Content-Type: application/json\r\n"
_STATUS_LINES: Final = {status.value: f"{status.value} {status.phrase}\r\n" for status in HTTPStatus}
_STATUS_LINES[499] = "499 \r\n"  # the client has gone, mostly: nobody's standard


def new_request_id() -> str:
    """Return an id that nobody can guess and that sorts by time: milliseconds, then 80 random bits."""
    if not _random:
        _random.extend(os.urandom(_RANDOM_BYTES * 256).hex(" ", _RANDOM_BYTES).split())
    return f"req_{now_ms().to_bytes(6, 'big').hex()}{_random.pop()}"


def first_headers(request_id: str) -> str:
    """Return what every response has."""
    return f"x-request-id: {request_id}\r\nserver: nexus-proxy\r\n"


class _Date:
    """The time of day as a header, written anew when the second has changed."""

    def __init__(self) -> None:
        self._second = -1
        self._header = ""

    def header(self) -> str:
        second = now_ms() // 1000
        if second != self._second:
            self._second = second
            self._header = f"Date: {formatdate(second, usegmt=True)}\r\n"
        return self._header


_date: Final = _Date()


def response_head(status: int, headers: str, framing: str, *, http10: bool = False, keep_alive: bool = True) -> bytes:
    """Return a response's head. `framing` is the header that tells where the body ends, if one does."""
    if http10:
        version, connection = "HTTP/1.0 ", "Connection: keep-alive\r\n" if keep_alive else ""
    else:
        version, connection = "HTTP/1.1 ", "" if keep_alive else "Connection: close\r\n"
    return f"{version}{_STATUS_LINES[status]}{connection}{framing}{_date.header()}{headers}\r\n".encode("latin-1")


class Reply(Protocol):
    """The answer to a request. `close`: the connection ends with it."""

    @property
    def status(self) -> int: ...

    @property
    def close(self) -> bool: ...

    def write_to(self, incoming: IncomingRequest) -> None:
        """Send what of it is not sent yet. ConnectionError if nobody is there."""


class Response:
    """A whole answer. `headers` are all but the framing and the date."""

    __slots__ = ("body", "close", "headers", "status")

    def __init__(self, status: int, headers: str, body: bytes, *, close: bool = False) -> None:
        self.status = status
        self.headers = headers
        self.body = body
        self.close = close

    def render_head(self, *, http10: bool = False, keep_alive: bool = True) -> bytes:
        """Return its head. The connection is kept only if the answer allows it too."""
        framing = f"Content-Length: {len(self.body)}\r\n"
        return response_head(
            self.status, self.headers, framing, http10=http10, keep_alive=keep_alive and not self.close
        )

    def write_to(self, incoming: IncomingRequest) -> None:
        transport, body = incoming.connection.transport, self.body
        if transport is None:
            raise ConnectionResetError("the client left")
        head = self.render_head(http10=incoming.http10, keep_alive=incoming.keep_alive)
        if incoming.method == "HEAD":
            transport.write(head)
        elif len(body) < JOINED_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.writelines((head, body))


class AlreadySentResponse(web.StreamResponse):
    """A reply as aiohttp knows responses: it is sent when that asks to prepare it."""

    def __init__(self, reply: Reply, incoming: IncomingRequest) -> None:
        super().__init__(status=reply.status)
        self._reply = reply
        self._incoming = incoming
        self._keep_alive = incoming.keep_alive and not reply.close

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write what is not written, and wait while the client has too much to read."""
        self._reply.write_to(self._incoming)
        await request.writer.drain()
        return request.writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: it is written."""


def json_response(headers: str, value: Any) -> Response:
    """Return a 200 with that value. `headers` are added."""
    return Response(200, headers + _JSON, orjson.dumps(value))


def error_response(error: NexusError, headers: str) -> Response:
    """Return the answer for an error. `headers` are added; they hold `x-request-id`."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    headers += _JSON
    if not error.retry:
        headers += "x-should-retry: false\r\n"
    if error.retry_after_ns is not None:
        headers += f"retry-after: {ceil_div(error.retry_after_ns, 1_000_000_000)}\r\n"
        headers += f"retry-after-ms: {ceil_div(error.retry_after_ns, 1_000_000)}\r\n"
    if isinstance(error, MethodNotAllowed) and error.allow:
        headers += f"allow: {error.allow}\r\n"
    if error.status == 401:
        headers += "www-authenticate: Bearer\r\n"
    return Response(error.status, headers, orjson.dumps({"error": body}), close=error.close)
