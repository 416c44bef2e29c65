"""One HTTP/1.1 connection to a provider, straight on llhttp.

Strategy: the parser's callbacks go on to a sink without a task or a queue between, so a relayed event costs one
callback. A read that is one whole chunk, as an event mostly is, does not even need the parser: it stands between two
chunks before it and behind it. The response is believed only as far as its framing is clean: whatever llhttp refuses,
a head that is too long and an end that comes early are all `on_broken`; bytes after the end are dropped and the
connection with them. It has none of what makes a general client wrong for streams: no total timeout of five minutes, no
limit of a hundred connections, no redirect followed with the credential, nothing decompressed.
"""

import asyncio
import functools
from collections.abc import Callable
from typing import Protocol, cast

import httptools

FRAMING_BYTES_MAX = 64 * 1024  # of a response, body apart: its heads, its trailer, chunk extensions
CHUNK_FRAMING_BYTES = 20  # that a chunk may have for itself
HEADERS_MAX = 256
INTERIM_MAX = 8  # 1xx responses before the final one

_CRLF = b"\r\n"

Headers = list[tuple[bytes, bytes]]


@functools.lru_cache(maxsize=4096)
def chunk_head(size: int) -> bytes:
    """Return the first line of a chunk that has so many bytes in all, as everybody writes it.

    Nothing if there is no such chunk; the last one, which is empty, is none: its end is the parser's.
    """
    for digits in range(1, 9):
        head = b"%x\r\n" % max(size - digits - 4, 0)
        if len(head) == digits + 2 and not head.startswith(b"0"):
            return head
    return b""


class Sink(Protocol):
    """What a response is told to. Exactly one of `on_end` and `on_broken` comes, last, and none of them may raise."""

    def on_head(self, status: int, headers: Headers) -> None:
        """The final response's head; names are lower-case."""

    def on_body(self, data: bytes) -> None:
        """Bytes of the body, transfer coding removed."""

    def on_end(self) -> None:
        """The body ended as its framing says."""

    def on_broken(self, reason: str) -> None:
        """The connection or its framing failed before the end."""


class Connection(asyncio.Protocol):
    """A connection that carries one exchange at a time.

    `reusable` is true between exchanges while both sides keep the connection; `heard` tells that a byte of the current
    response has come, `whole` that all of it has: what the sink is told of the body then, it is told with the end.
    """

    __slots__ = (
        "_between",
        "_body",
        "_framing_bytes",
        "_head_over",
        "_headers",
        "_interim",
        "_on_lost",
        "_parser",
        "_sink",
        "_to_eof",
        "_transport",
        "heard",
        "idle_since",
        "reusable",
        "whole",
    )

    def __init__(self, on_lost: "Callable[[Connection], None]") -> None:
        self._on_lost = on_lost
        self._transport: asyncio.Transport | None = None
        self._sink: Sink | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._headers: Headers = []
        self._body: list[bytes] = []  # of the read in hand
        self._between = False  # the parser has a chunk behind it, and nothing of the next one
        self._interim = 0
        self._head_over = False  # the final head is complete
        self._to_eof = False  # the body ends with the connection
        self._framing_bytes = 0
        self.heard = False
        self.reusable = False
        self.whole = False
        self.idle_since = 0.0

    # --- for the exchange -------------------------------------------------------------------------------------

    def send(self, head: bytes, body: bytes, sink: Sink) -> None:
        """Send one request; the response is told to `sink`. The connection must be idle and not lost."""
        assert self._sink is None
        self._sink = sink
        if self._parser is None:  # else it stands behind the last response, which it took for the end of a message
            self._parser = httptools.HttpResponseParser(self)
        self._headers = []
        self._body.clear()
        self._interim = 0
        self._between = self._head_over = self._to_eof = self.heard = self.whole = self.reusable = False
        self._framing_bytes = 0
        if self._transport is None or self._transport.is_closing():
            self._break("the connection was closed")
        elif len(body) < 65_536:
            self._transport.write(head + body)
        else:
            self._transport.writelines((head, body))

    def pause(self) -> None:
        """Stop reading: the client cannot keep up."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume(self) -> None:
        """Read on."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()

    def abort(self) -> None:
        """Drop the connection at once; the sink hears nothing more."""
        self._sink = None
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()

    # --- asyncio.Protocol -------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._between and self._sink is not None:
            head = chunk_head(len(data))
            if head and data.startswith(head) and data.endswith(_CRLF):
                if self._framing_bytes:
                    self._framing_bytes = max(self._framing_bytes + len(head) + 2 - CHUNK_FRAMING_BYTES, 0)
                self._sink.on_body(data[len(head) : -2])
                return
        if self._sink is None or self._parser is None:
            # Nothing was asked: a stray response or a notice before closing. Either way this line is not to be trusted.
            self.abort()
            return
        self.heard = True
        self._framing_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:  # not the provider's fault: a callback of ours raised
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a response could not be read", "exception": error.__context__ or error}
            )
            self._break("it could not be read")
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._break(f"not a well-formed HTTP response ({type(error).__name__})")
            return
        self._between = self._between and data.endswith(_CRLF)  # else the next one's first line has begun
        self._flush()
        self._framing_bytes = max(self._framing_bytes, 0)  # what small chunks did not use is no credit for later
        if self._sink is not None and self._framing_bytes > FRAMING_BYTES_MAX:
            self._break("the response's head, or its trailer, is too long")

    def eof_received(self) -> bool:
        return False  # close our side too; connection_lost follows

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self.reusable = False
        sink = self._sink
        if sink is not None:
            self._sink = None
            # A body without length and chunks ends with the connection; only a clean close counts as its end.
            if self._head_over and self._to_eof and exc is None:
                sink.on_end()
            else:
                sink.on_broken("the connection was reset" if exc else "the connection was closed before the end")
        self._on_lost(self)

    # --- llhttp -----------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        if self._sink is None:  # bytes behind the end: nobody asked for them
            self.reusable = False
            if self._transport is not None:
                self._transport.close()

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self._headers) == HEADERS_MAX:
            self._break("the response has too many headers")  # not dropped: the next one may say how long the body is
            return
        self._headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if status < 100:
            self._break("no such status")
            return
        if status < 200:
            return
        self._head_over = True
        if self._sink is None:
            return
        framed = False
        for name, value in self._headers:
            if name == b"content-length" or (name == b"transfer-encoding" and value.lower().endswith(b"chunked")):
                framed = True
        self._to_eof = not framed
        headers, self._headers = self._headers, []  # the answer may be long, and nobody asks for them again
        self._sink.on_head(status, headers)

    def on_chunk_header(self) -> None:
        self._between = False
        self._framing_bytes -= CHUNK_FRAMING_BYTES

    def on_chunk_complete(self) -> None:
        self._between = True

    def on_body(self, data: bytes) -> None:
        self._framing_bytes -= len(data)
        self._body.append(data)

    def _flush(self) -> None:
        """Hand on what one read brought, in one piece: a read can be thousands of chunks."""
        if self._body:
            data = self._body[0] if len(self._body) == 1 else b"".join(self._body)
            self._body.clear()
            if self._sink is not None:
                self._sink.on_body(data)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        self._between = False
        if not self._head_over:  # an interim response; the next one follows on the same parser
            self._interim += 1
            self._headers = []
            if self._interim > INTERIM_MAX or self._parser.get_status_code() == 101:
                self._break("interim responses without end")
            return
        self.whole = True
        self._flush()
        if self._sink is None:  # aborted, or bytes behind the end
            return
        # Trap: after an early answer the rest of the request may never be taken, and the next one would wait behind it.
        sent = self._transport is not None and self._transport.get_write_buffer_size() == 0
        self.reusable = sent and self._parser.should_keep_alive()
        self._sink.on_end()
        self._sink = None
        if not self.reusable and self._transport is not None:
            self._transport.close()

    def _break(self, reason: str) -> None:
        self._flush()  # what came before the fault is part of the answer
        sink, self._sink = self._sink, None
        self.reusable = False
        if self._transport is not None:
            self._transport.abort()
        if sink is not None:
            sink.on_broken(reason)
