"""A request as it came: what the chain asks of it, whoever read it.

Strategy: nearly every request is one head and one body in one read, taken apart by `core.request.head`; all others are
read by aiohttp. The chain knows one protocol for both, and aiohttp's traps are kept in here.
"""

import asyncio
from typing import ClassVar, Final, Protocol, cast

from aiohttp import ClientPayloadError, hdrs, web
from aiohttp.http import HttpVersion10, HttpVersion11
from aiohttp.web_protocol import RequestPayloadError

from nexus_proxy.core.request.apikey import hash_bearer
from nexus_proxy.core.request.head import WholeRequest
from nexus_proxy.errors import ClientGone, InvalidHttp, RequestTimeout, RequestTooLarge, UnsupportedMediaType

_JSON: Final = "application/json"


class Watcher(Protocol):
    """Who is told what becomes of the client of the request in hand."""

    def client_left(self) -> None:
        """The connection is lost."""

    def pause(self) -> None:
        """The client's buffer is full."""

    def resume(self) -> None:
        """The client's buffer has room."""


class Connection(Protocol):
    """The client's connection. `watcher` is set by whoever conducts the request in hand, and taken off by it."""

    transport: asyncio.Transport | None
    watcher: Watcher | None

    def force_close(self) -> None:
        """Send what is written, and close."""


class IncomingRequest(Protocol):
    """One request."""

    @property
    def method(self) -> str: ...

    @property
    def spoken(self) -> bool:
        """It is in a version of HTTP that is spoken here."""

    @property
    def http10(self) -> bool:
        """It knows no chunks."""

    @property
    def keep_alive(self) -> bool:
        """The client wants to send more on this connection."""

    @property
    def connection(self) -> Connection: ...

    @property
    def key_hash(self) -> bytes | None:
        """The hash of its one key, if that is well formed."""

    def check_head(self, most: int) -> int:
        """Return how many bytes the body can have. RequestTooLarge, UnsupportedMediaType, InvalidHttp: before a byte of
        it is read."""

    async def take_body(self, most: int, timeout_s: float) -> bytes:
        """Return the body, once. RequestTooLarge at the limit, RequestTimeout, ClientGone, InvalidHttp."""


class WholeIncomingRequest:
    """A request that came whole: of HTTP/1.1, on a connection that is kept."""

    __slots__ = ("_body", "_content_type", "connection", "key_hash")

    method: ClassVar[str] = "POST"
    spoken: ClassVar[bool] = True
    http10: ClassVar[bool] = False
    keep_alive: ClassVar[bool] = True

    def __init__(self, request: WholeRequest, connection: Connection) -> None:
        self._body = request.body
        self._content_type = request.head.content_type
        self.key_hash = request.head.key_hash
        self.connection = connection

    def check_head(self, most: int) -> int:
        size = len(self._body)
        if size > most:
            raise _too_large(most)
        _check_type(self._content_type)
        return size

    async def take_body(self, most: int, timeout_s: float) -> bytes:
        body, self._body = self._body, b""  # an answer may be long, and nobody asks for it again
        return body


class FramedIncomingRequest:
    """A request that aiohttp reads: of any method, in pieces, with whatever framing HTTP allows."""

    __slots__ = ("_request",)

    def __init__(self, request: web.Request) -> None:
        self._request = request

    @property
    def method(self) -> str:
        return self._request.method

    @property
    def spoken(self) -> bool:
        # Trap: aiohttp takes any version, and answers in it.
        return self._request.version in (HttpVersion11, HttpVersion10)

    @property
    def http10(self) -> bool:
        return self._request.version == HttpVersion10

    @property
    def keep_alive(self) -> bool:
        return self._request.keep_alive

    @property
    def connection(self) -> Connection:
        return cast(Connection, self._request.protocol)

    @property
    def key_hash(self) -> bytes | None:
        values = self._request.headers.getall(hdrs.AUTHORIZATION, ())
        return hash_bearer(values[0]) if len(values) == 1 else None

    def check_head(self, most: int) -> int:
        length = self._request.content_length
        if length is not None and length > most:
            raise _too_large(most)
        headers = self._request.headers
        transfer = headers.get(hdrs.TRANSFER_ENCODING)
        if transfer is not None and transfer.strip().lower() != "chunked":
            raise InvalidHttp("The only transfer coding is 'chunked'.")
        # Trap: `content_type` is the parser of e-mail headers, which a long value keeps busy for half a second.
        _check_type(headers.get(hdrs.CONTENT_TYPE, ""))
        # Trap: with its own decompression aiohttp answers a bad coding with 500, and unpacks a good one without limit.
        for coding in headers.getall(hdrs.CONTENT_ENCODING, ()):
            if coding.strip().lower() != "identity":
                raise UnsupportedMediaType("An encoded body is not accepted.")
        return most if length is None else length

    async def take_body(self, most: int, timeout_s: float) -> bytes:
        request = self._request
        # Trap: aiohttp says `100 Continue` before anybody has seen the request; here the key and the size are known.
        expected = request.headers.get(hdrs.EXPECT)
        if expected is not None and expected.lower() == "100-continue" and request.version >= HttpVersion11:
            self._continue()
        pieces, size = [], 0
        try:
            async with asyncio.timeout(timeout_s):
                while piece := await request.content.readany():
                    size += len(piece)
                    if size > most:
                        raise _too_large(most)
                    pieces.append(piece)
            return b"".join(pieces)
        except TimeoutError:
            raise RequestTimeout("The request's body did not arrive in time.") from None
        except (RequestPayloadError, ClientPayloadError, ConnectionError) as error:
            if request.transport is None:
                raise ClientGone("The client left before its request was complete.") from None
            raise InvalidHttp("The request's body is not framed as HTTP/1.1 asks.") from error

    def _continue(self) -> None:
        if self._request.transport is not None:
            self._request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")


def _check_type(content_type: str) -> None:
    kind = content_type.strip(" \t")
    if kind != _JSON and kind.partition(";")[0].strip().lower() != _JSON:
        raise UnsupportedMediaType("Send the body as 'Content-Type: application/json'.")


def _too_large(most: int) -> RequestTooLarge:
    return RequestTooLarge(f"The body is larger than {most} bytes.")
