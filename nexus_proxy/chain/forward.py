"""The call to the provider, and its answer on the way to the client.

Strategy: the exchange goes its own way; this handler only waits for its opening and lends it the client's
socket. The client's head goes out when the first bytes of the answer are there; from then on the exchange writes.
"""

import asyncio
import functools
from typing import ClassVar

from nexus_proxy.core.money.amounts import format_nano
from nexus_proxy.request.context import RequestContext
from nexus_proxy.request.record import record_exchange
from nexus_proxy.upstream.exchange import Exchange, ResponseStart
from nexus_proxy.web.incoming import IncomingRequest
from nexus_proxy.web.response import Reply, Response, response_head


async def forward(context: RequestContext) -> Reply:
    """Start the exchange and relay its answer. Raises what the exchange's opening ended with."""
    call, services = context.call, context.services
    assert call is not None
    outgoing, context.outgoing = context.outgoing, None  # it is the exchange's now, to let go of when it was heard
    assert outgoing is not None
    server = context.setup.config.server
    exchange = Exchange(
        call.upstream,
        call.model,
        outgoing,
        call.open_hold,
        timeouts=server.timeouts,
        first_bytes=context.setup.first_bytes,
        limits=server.limits,
        drains=services.drains,
    )
    del outgoing
    connection = context.incoming.connection
    connection.watcher = exchange
    if connection.transport is None:
        exchange.client_left()  # it went while the hold was written: nothing goes upstream
    call.taken = True
    services.supervisor.start(exchange, functools.partial(_over, context))
    over = False
    try:
        opening = await exchange.opening
        if opening.whole is not None:
            over = True  # an exchange opens with a whole answer when it is settled, and ends with that
            return _whole(context, opening, opening.whole)
        relay = _Relay(context, opening)
        relay.begin(context, exchange)
        await relay.over
        return relay
    finally:
        connection.watcher = None
        if not over:
            exchange.client_left()  # nothing, if the answer is out
        del exchange  # the error that it raised here holds this frame, and it holds the error


def _over(context: RequestContext, exchange: Exchange) -> None:
    assert context.call is not None
    context.call.upstream.leave()
    record_exchange(context, exchange)


def _whole(context: RequestContext, opening: ResponseStart, body: bytes) -> Response:
    assert context.call is not None
    headers = context.headers + _content_headers(opening)
    if opening.verdict is not None:
        settled = context.call.open_hold.settled
        charged_nano = opening.verdict.charge_nano if settled is None else settled.charged_nano
        currency = context.setup.config.currency
        headers += f"x-nexus-charge: {format_nano(charged_nano)}\r\nx-nexus-currency: {currency}\r\n"
    return Response(200, headers, body)


def _content_headers(opening: ResponseStart) -> str:
    headers = f"Content-Type: {opening.content_type}\r\n"
    if opening.content_encoding is not None:
        headers += f"Content-Encoding: {opening.content_encoding}\r\n"
    return headers


class _Relay:
    """An answer that the exchange writes, straight to the transport. `over` ends when no more will come."""

    __slots__ = ("_connection", "_framed", "_head", "_transport", "close", "over")

    status: ClassVar[int] = 200

    def __init__(self, context: RequestContext, opening: ResponseStart) -> None:
        incoming, headers = context.incoming, context.headers + _content_headers(opening)
        if opening.content_type.startswith("text/event-stream"):
            headers += "Cache-Control: no-cache\r\n"
            headers += "X-Accel-Buffering: no\r\n"  # a proxy in front must not collect the events
        self._framed = not incoming.http10  # HTTP/1.0 has no chunks: the body ends with the connection
        self.close = not (self._framed and incoming.keep_alive)
        self._head = response_head(
            self.status,
            headers,
            "Transfer-Encoding: chunked\r\n" if self._framed else "",
            http10=incoming.http10,
            keep_alive=not self.close,
        )
        self._connection = incoming.connection
        self._transport = incoming.connection.transport  # looked up once, not for each event
        self.over: asyncio.Future[None] = context.services.loop.create_future()

    def begin(self, context: RequestContext, exchange: Exchange) -> None:
        """Send the head and let the exchange write."""
        if self._transport is None:
            self._finish()
            return
        context.answering = True
        self._transport.write(self._head)
        self._head = b""  # it is out, and the stream may be open for long
        context.headers = ""
        exchange.attach(self)

    def write_to(self, incoming: IncomingRequest) -> None:
        """Do nothing: the exchange has written it."""

    # --- the exchange's client -------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data)

    def end(self) -> None:
        transport = self._transport
        if self._framed and transport is not None and not transport.is_closing():
            transport.write(b"0\r\n\r\n")
        self._finish()

    def cut(self) -> None:
        transport = self._transport
        if not self._framed and transport is not None:
            transport.abort()  # in HTTP/1.0 a body ends with its connection: only a reset tells that it was cut
        self._connection.force_close()  # what is written goes out; the last chunk never does
        self._finish()

    def _finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
