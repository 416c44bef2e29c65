"""The call to the provider, and its answer on the way to the client.

Strategy: the exchange goes its own way; this handler only waits for its opening and lends it the client's
socket. The client's head goes out when the first bytes of the answer are there; from then on the exchange writes.
"""

import asyncio
import functools
from typing import ClassVar

from nexus_proxy.core.money.amounts import format_nano
from nexus_proxy.request.context import Visit
from nexus_proxy.request.record import record_exchange
from nexus_proxy.upstream.exchange import Exchange, Opening
from nexus_proxy.web.incoming import Arrival
from nexus_proxy.web.response import Answer, Reply, response_head


async def forward(visit: Visit) -> Reply:
    """Start the exchange and relay its answer. Raises what the exchange's opening ended with."""
    call, parts = visit.call, visit.parts
    assert call is not None
    outgoing, visit.outgoing = visit.outgoing, None  # it is the exchange's now, to let go of when it was heard
    assert outgoing is not None
    server = parts.config.server
    exchange = Exchange(
        call.upstream,
        call.model,
        outgoing,
        call.reservation,
        timeouts=server.timeouts,
        first_bytes=parts.first_bytes,
        limits=server.limits,
        drains=parts.drains,
    )
    del outgoing
    connection = visit.arrival.connection
    connection.watcher = exchange
    if connection.transport is None:
        exchange.client_left()  # it went while the hold was written: nothing goes upstream
    call.taken = True
    parts.supervisor.start(exchange, functools.partial(_over, visit))
    over = False
    try:
        opening = await exchange.opening
        if opening.whole is not None:
            over = True  # an exchange opens with a whole answer when it is settled, and ends with that
            return _whole(visit, opening, opening.whole)
        relay = _Relay(visit, opening)
        relay.begin(visit, exchange)
        await relay.over
        return relay
    finally:
        connection.watcher = None
        if not over:
            exchange.client_left()  # nothing, if the answer is out
        del exchange  # the error that it raised here holds this frame, and it holds the error


def _over(visit: Visit, exchange: Exchange) -> None:
    assert visit.call is not None
    visit.call.upstream.leave()
    record_exchange(visit, exchange)


def _whole(visit: Visit, opening: Opening, body: bytes) -> Answer:
    assert visit.call is not None
    headers = visit.headers + _content_headers(opening)
    if opening.verdict is not None:
        settled = visit.call.reservation.settled
        charged_nano = opening.verdict.charge_nano if settled is None else settled.charged_nano
        headers += f"x-nexus-charge: {format_nano(charged_nano)}\r\nx-nexus-currency: {visit.parts.config.currency}\r\n"
    return Answer(200, headers, body)


def _content_headers(opening: Opening) -> str:
    headers = f"Content-Type: {opening.content_type}\r\n"
    if opening.content_encoding is not None:
        headers += f"Content-Encoding: {opening.content_encoding}\r\n"
    return headers


class _Relay:
    """An answer that the exchange writes, straight to the transport. `over` ends when no more will come."""

    __slots__ = ("_connection", "_framed", "_head", "_transport", "close", "over")

    status: ClassVar[int] = 200

    def __init__(self, visit: Visit, opening: Opening) -> None:
        arrival, headers = visit.arrival, visit.headers + _content_headers(opening)
        if opening.content_type.startswith("text/event-stream"):
            headers += "Cache-Control: no-cache\r\n"
            headers += "X-Accel-Buffering: no\r\n"  # a proxy in front must not collect the events
        self._framed = not arrival.http10  # HTTP/1.0 has no chunks: the body ends with the connection
        self.close = not (self._framed and arrival.keep_alive)
        self._head = response_head(
            self.status,
            headers,
            "Transfer-Encoding: chunked\r\n" if self._framed else "",
            http10=arrival.http10,
            keep_alive=not self.close,
        )
        self._connection = arrival.connection
        self._transport = arrival.connection.transport  # looked up once, not for each event
        self.over: asyncio.Future[None] = visit.parts.loop.create_future()

    def begin(self, visit: Visit, exchange: Exchange) -> None:
        """Send the head and let the exchange write."""
        if self._transport is None:
            self._finish()
            return
        visit.answering = True
        self._transport.write(self._head)
        self._head = b""  # it is out, and the stream may be open for long
        visit.headers = ""
        exchange.attach(self)

    def write_to(self, arrival: Arrival) -> None:
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
