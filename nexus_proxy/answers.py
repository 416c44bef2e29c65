"""What a client is answered in one piece: a whole answer, and the one shape of everything that went wrong."""

import os
from collections.abc import Mapping

import orjson
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.helpers import rfc822_formatted_time
from aiohttp.http import HttpVersion10

from nexus_proxy.clock import now_ms
from nexus_proxy.core.money import ceil_div
from nexus_proxy.errors import MethodNotAllowed, NexusError

_RANDOM_BYTES = 10
# Drawn for many ids at once: each draw is a call into the kernel that lets another thread of this process run first.
_random: list[str] = []

JOINED_BYTES_MAX = 64 * 1024  # what costs less to copy than to send apart


def new_request_id() -> str:
    """Return an id that nobody can guess and that sorts by time: milliseconds, then 80 random bits."""
    if not _random:
        _random.extend(os.urandom(_RANDOM_BYTES * 256).hex(" ", _RANDOM_BYTES).split())
    return f"req_{now_ms():012x}{_random.pop()}"


def first_headers(request_id: str) -> dict[str, str]:
    """Return what every response has. Without `server` aiohttp would name itself, Python, and both versions."""
    return {"x-request-id": request_id, "server": "nexus-proxy"}


class WholeResponse(web.StreamResponse):
    """A 200 whose head and body are written at once. `headers` is all of the head but its framing.

    The framework's own response sends the same bytes, through four coroutines and two buffers.
    """

    def __init__(self, headers: Mapping[str, str], body: bytes) -> None:
        super().__init__()
        self._head = headers
        self._whole = body

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter:
        """Write everything, and wait while the client has too much to read."""
        transport, writer, body = request.transport, request.writer, self._whole
        if transport is None:
            raise ConnectionResetError("the client left")
        keep_alive = self._keep_alive = request.keep_alive
        if request.version == HttpVersion10:
            start, connection = "HTTP/1.0 200 OK", "Connection: keep-alive\r\n" if keep_alive else ""
        else:
            start, connection = "HTTP/1.1 200 OK", "" if keep_alive else "Connection: close\r\n"
        lines = "\r\n".join(map(": ".join, self._head.items()))
        head = (
            f"{start}\r\n{lines}\r\n{connection}Content-Length: {len(body)}\r\nDate: {rfc822_formatted_time()}\r\n\r\n"
        ).encode("latin-1")
        if len(body) < JOINED_BYTES_MAX:
            transport.write(head + body)
        else:
            transport.writelines((head, body))
        await writer.drain()
        return writer

    async def write_eof(self, data: bytes = b"") -> None:
        """Do nothing: it is written."""


def error_response(error: NexusError, headers: dict[str, str]) -> web.Response:
    """Return the response for an error. `headers` are added; they hold `x-request-id`."""
    body = {"message": error.message, "type": error.type, "param": error.param, "code": error.code}
    response = web.Response(
        body=orjson.dumps({"error": body}), status=error.status, content_type="application/json", headers=headers
    )
    if not error.retry:
        response.headers["x-should-retry"] = "false"
    if error.retry_after_ns is not None:
        response.headers["retry-after"] = str(ceil_div(error.retry_after_ns, 1_000_000_000))
        response.headers["retry-after-ms"] = str(ceil_div(error.retry_after_ns, 1_000_000))
    if isinstance(error, MethodNotAllowed) and error.allow:
        response.headers["allow"] = error.allow
    if error.status == 401:
        response.headers["www-authenticate"] = "Bearer"
    if error.close:
        response.force_close()
    return response
