"""A client made of a socket, which knows exactly what came and how it ended.

Strategy: no HTTP library, so nothing is forgiven or hidden. A response is read piece by piece; it remembers its
payload, the raw bytes, whether the last chunk was seen, and whether the connection was then open, closed or reset.
"""

import asyncio
import contextlib
import socket
import struct
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Literal, Self

import orjson

Ending = Literal["open", "closed", "reset"]


def post(path: str, body: bytes | dict[str, Any], key: str | None, *headers: str, host: str = "door") -> bytes:
    """Return the bytes of a POST of JSON with a Content-Length."""
    data = body if isinstance(body, bytes) else orjson.dumps(body)
    lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json", f"Content-Length: {len(data)}"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1") + data


def get(path: str, key: str | None = None, *headers: str, method: str = "GET") -> bytes:
    """Return the bytes of a request without a body."""
    lines = [f"{method} {path} HTTP/1.1", "Host: door"]
    if key is not None:
        lines.append(f"Authorization: Bearer {key}")
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1")


@dataclass(slots=True)
class Response:
    """One response as it came, so far."""

    status: int
    reason: str
    headers: list[tuple[str, str]]  # names in lower case, in order
    body: bytearray = field(default_factory=bytearray)  # payload, framing removed
    pieces: list[bytes] = field(default_factory=list)  # the payload as it was chunked
    saw_last_chunk: bool = False
    complete: bool = False  # ended as its framing says
    ending: Ending = "open"  # what the connection was when reading stopped

    def header(self, name: str) -> str | None:
        """Return the first header of that name."""
        return next((value for key, value in self.headers if key == name), None)

    @property
    def json(self) -> Any:
        """The body, parsed."""
        return orjson.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        """The error object of the body, which must have our shape to the key."""
        assert (self.header("content-type") or "").startswith("application/json"), self
        body = self.json
        assert list(body) == ["error"], body
        assert set(body["error"]) == {"message", "type", "param", "code"}, body
        assert self.header("x-request-id"), self.headers
        return dict(body["error"])

    @property
    def code(self) -> str:
        """The code of the error."""
        return str(self.error["code"])

    @property
    def request_id(self) -> str:
        """The id under which the ledger has it."""
        value = self.header("x-request-id")
        assert value, self.headers
        return value


class Connection:
    """One connection to the door."""

    def __init__(self, host: str, port: int, *, receive_buffer: int | None = None) -> None:
        self._address = (host, port)
        self._receive_buffer = receive_buffer
        self._response: Response | None = None

    async def __aenter__(self) -> Self:
        sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if self._receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, self._receive_buffer)
        sock.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(sock, self._address)
        except BaseException:
            sock.close()
            raise
        limit = 1 << 22 if self._receive_buffer is None else self._receive_buffer
        self.reader, self.writer = await asyncio.open_connection(sock=sock, limit=limit)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, fault: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def send(self, data: bytes) -> None:
        """Send bytes as they are. The other side may hang up meanwhile: what it said before can still be read."""
        with contextlib.suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    def half_close(self) -> None:
        """Send FIN, keep reading."""
        self.writer.write_eof()

    def reset(self) -> None:
        """Leave with RST."""
        sock: socket.socket = self.writer.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    def pause_reading(self) -> None:
        """Take nothing more from the socket."""
        self.writer.transport.pause_reading()  # type: ignore[attr-defined]

    async def read_head(self, *, skip_informational: bool = True, timeout_s: float = 10) -> Response:
        """Read a response's head. ConnectionError if the connection ended instead."""
        async with asyncio.timeout(timeout_s):
            while True:
                try:
                    raw = await self.reader.readuntil(b"\r\n\r\n")
                except asyncio.IncompleteReadError as fault:
                    raise ConnectionError(f"closed after {fault.partial!r}") from None
                first, *lines = raw[:-4].decode("latin-1").split("\r\n")
                _, status, reason = (first + " ").split(" ", 2)
                headers = [(k.strip().lower(), v.strip()) for k, _, v in (line.partition(":") for line in lines)]
                if not (skip_informational and status.startswith("1")):
                    self._response = Response(int(status), reason.strip(), headers)
                    return self._response

    async def read_piece(self, timeout_s: float = 10) -> bytes:
        """Read the next piece of the payload; empty when it has ended, one way or the other."""
        response = self._response
        assert response is not None
        if response.complete or response.ending != "open":
            return b""
        try:
            async with asyncio.timeout(timeout_s):
                piece = await self._next_piece(response)
        except asyncio.IncompleteReadError as fault:
            piece = fault.partial
            response.ending = "closed"
        except ConnectionError:
            piece = b""
            response.ending = "reset"
        if piece:
            response.body += piece
            response.pieces.append(piece)
        return piece

    async def _next_piece(self, response: Response) -> bytes:
        if response.header("transfer-encoding") == "chunked":
            size = 0
            try:
                size = int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16)
                if size == 0:
                    await self.reader.readuntil(b"\r\n")
                    response.saw_last_chunk = response.complete = True
                    return b""
                return (await self.reader.readexactly(size + 2))[:-2]
            except asyncio.IncompleteReadError as fault:
                raise asyncio.IncompleteReadError(fault.partial[:size], size) from None  # payload only, no framing
        if (length := response.header("content-length")) is not None:
            missing = int(length) - len(response.body)
            piece = await self.reader.readexactly(missing) if missing else b""
            response.complete = True
            return piece
        piece = await self.reader.read(65536)
        if not piece:
            response.ending, response.complete = "closed", True
        return piece

    async def read_events(self, count: int, timeout_s: float = 10) -> bytes:
        """Read until so many whole events have come; return all that has."""
        response = self._response
        assert response is not None
        while response.body.count(b"\n\n") < count:
            if not await self.read_piece(timeout_s) and (response.complete or response.ending != "open"):
                raise AssertionError(f"ended after {bytes(response.body)!r}")
        return bytes(response.body)

    async def read_rest(self, timeout_s: float = 10) -> Response:
        """Read to the end of the response, whichever it is."""
        response = self._response
        assert response is not None
        async with asyncio.timeout(timeout_s):
            while await self.read_piece(timeout_s):
                pass
        return response

    async def read_response(self, timeout_s: float = 10) -> Response:
        """Read one whole response."""
        await self.read_head(timeout_s=timeout_s)
        return await self.read_rest(timeout_s)

    async def is_closed(self, timeout_s: float = 5) -> bool:
        """Wait for the other side to hang up; False if it says something instead."""
        try:
            async with asyncio.timeout(timeout_s):
                return await self.reader.read(1) == b""
        except ConnectionError:
            return True


async def ask(host: str, port: int, data: bytes, timeout_s: float = 10) -> Response:
    """Send bytes on a connection of their own and read one response."""
    async with Connection(host, port) as connection:
        await connection.send(data)
        return await connection.read_response(timeout_s)
