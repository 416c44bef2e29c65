"""The call to the provider, and its answer on the way to the client.

Strategy: the exchange goes its own way; this handler only waits for its opening and lends it the client's
socket. The client's head goes out when the first bytes of the answer are there; from then on the exchange writes.
"""

import asyncio
import functools

from aiohttp import web
from aiohttp.http import HttpVersion11

from nexus_proxy.answers import WholeResponse
from nexus_proxy.appkeys import VISIT, Visit
from nexus_proxy.core.money import format_nano
from nexus_proxy.listener import DoorProtocol
from nexus_proxy.record import record_exchange
from nexus_proxy.upstream.exchange import Exchange, Opening


async def forward(request: web.Request) -> web.StreamResponse:
    """Start the exchange and relay its answer. Raises what the exchange's opening ended with."""
    visit = request[VISIT]
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
        limits=server.limits,
        drains=parts.drains,
    )
    del outgoing
    protocol = request.protocol
    assert isinstance(protocol, DoorProtocol)
    protocol.watcher = exchange
    if request.transport is None:
        exchange.client_left()  # it went while the hold was written: nothing goes upstream
    call.taken = True
    parts.supervisor.start(exchange, functools.partial(_over, request.method, visit))
    over = False
    try:
        opening = await exchange.opening
        if opening.whole is not None:
            over = True  # an exchange opens with a whole answer when it is settled, and ends with that
            return _whole(visit, opening)
        relay = _Relay(request, visit.headers, opening)
        await relay.prepare(request)
        relay.begin(exchange)
        await relay.over
        return relay
    finally:
        protocol.watcher = None
        if not over:
            exchange.client_left()  # nothing, if the answer is out
        del exchange  # the error that it raised here holds this frame, and it holds the error


def _over(method: str, visit: Visit, exchange: Exchange) -> None:
    assert visit.call is not None
    visit.call.upstream.leave()
    record_exchange(method, visit, exchange)


def _whole(visit: Visit, opening: Opening) -> web.StreamResponse:
    assert opening.whole is not None
    assert visit.call is not None
    headers = visit.headers
    headers["Content-Type"] = opening.content_type
    if opening.content_encoding is not None:
        headers["Content-Encoding"] = opening.content_encoding
    if opening.verdict is not None:
        settled = visit.call.reservation.settled
        charged_nano = opening.verdict.charge_nano if settled is None else settled.charged_nano
        headers["x-nexus-charge"] = format_nano(charged_nano)
        headers["x-nexus-currency"] = visit.parts.config.currency
    return WholeResponse(headers, opening.whole)


class _Relay(web.StreamResponse):
    """A response whose body the exchange writes, straight to the transport. `over` ends when no more will come."""

    def __init__(self, request: web.Request, headers: dict[str, str], opening: Opening) -> None:
        super().__init__(headers=headers | {"Content-Type": opening.content_type})
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request
        self._transport: asyncio.Transport | None = None  # looked up once, not for each event
        if opening.content_encoding is not None:
            self.headers["Content-Encoding"] = opening.content_encoding
        if opening.content_type.startswith("text/event-stream"):
            self.headers["Cache-Control"] = "no-cache"
            self.headers["X-Accel-Buffering"] = "no"  # a proxy in front must not collect the events
        self._framed = request.version >= HttpVersion11
        if self._framed:
            self.enable_chunked_encoding()
        else:
            self.force_close()  # HTTP/1.0 has no chunks: the body ends with the connection

    def begin(self, exchange: Exchange) -> None:
        """Send the head and let the exchange write."""
        self._request.writer.send_headers()
        self.headers.clear()  # they are out; the stream may be open for long
        self._transport = self._request.transport
        if self._transport is None:
            self.over.set_result(None)
        else:
            exchange.attach(self)

    # --- the exchange's client -------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        # Not the response's own `write`: that is a coroutine, and here no task wakes for an event.
        transport = self._transport
        if transport is not None and not transport.is_closing():
            transport.write(b"%x\r\n%b\r\n" % (len(data), data) if self._framed else data)

    def end(self) -> None:
        self._finish()

    def cut(self) -> None:
        transport = self._transport
        if not self._framed and transport is not None:
            transport.abort()  # in HTTP/1.0 a body ends with its connection: only a reset tells that it was cut
        self._request.protocol.force_close()  # what is written goes out; the last chunk never does
        self._finish()

    def _finish(self) -> None:
        if not self.over.done():
            self.over.set_result(None)
