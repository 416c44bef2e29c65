"""Is the request sound, what can it cost at most, and is that set aside durably.

Strategy: not one byte goes upstream before the hold is on the disk. What is held is lent to the next stage; if that
does not take it, for whatever reason, the hold is voided here.
"""

import asyncio
import time

from aiohttp import ClientPayloadError, hdrs, web
from aiohttp.typedefs import Handler
from aiohttp.web_protocol import RequestPayloadError

from nexus_proxy.appkeys import (
    BODIES,
    CALL,
    COMPLETIONS,
    CONFIG,
    KEY,
    LEDGER,
    MODEL,
    REQUEST_ID,
    STARTED,
    UPSTREAMS,
    Call,
)
from nexus_proxy.core.model import Model
from nexus_proxy.core.money import format_nano
from nexus_proxy.core.places import Places
from nexus_proxy.core.pricing import bound_nano
from nexus_proxy.core.requests import ChatRequest, Outgoing, parse_chat, prepare
from nexus_proxy.core.settlement import Ending, EndState
from nexus_proxy.errors import (
    AccountSuspended,
    BalanceHeld,
    ClientGone,
    InsufficientBalance,
    InvalidHttp,
    ModelNotFound,
    Overloaded,
    RequestTimeout,
    RequestTooLarge,
    UnsupportedMediaType,
)
from nexus_proxy.ledger.directory import Key
from nexus_proxy.ledger.protocol import Held, Hold, Short, Suspended
from nexus_proxy.ledger.reservation import Reservation

OFF_LOOP_BYTES = 256 * 1024  # a larger body is parsed in a thread


@web.middleware
async def metering(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Hold money durably, lend the exchange to the handler; the exchange settles, not this task."""
    if request.match_info.route.name != COMPLETIONS:
        return await handler(request)
    bodies, taken = request.app[BODIES], 0
    try:
        size = _check_head(request)
        taken = _take(bodies, size)
        raw = await _read_body(request, size)
        if len(raw) < OFF_LOOP_BYTES:
            model, outgoing = _understand(request, raw)
        else:
            model, outgoing = await asyncio.to_thread(_understand, request, raw)
        del raw
        request[MODEL] = model
        return await _hold_and_lend(request, handler, model, outgoing)
    finally:
        bodies.leave(taken)


def _check_head(request: web.Request) -> int:
    """Return how many bytes the body can have. RequestTooLarge, UnsupportedMediaType: before a byte of it is read."""
    most = request.app[CONFIG].server.limits.body_bytes
    length = request.content_length
    if length is not None and length > most:
        raise RequestTooLarge(f"The body is larger than {most} bytes.")
    if request.content_type != "application/json":
        raise UnsupportedMediaType("Send the body as 'Content-Type: application/json'.")
    # Trap: with its own decompression aiohttp answers a bad coding with 500, and a good one unpacks without a limit.
    if request.headers.get(hdrs.CONTENT_ENCODING, "identity").lower() != "identity":
        raise UnsupportedMediaType("An encoded body is not accepted.")
    return most if length is None else length


def _take(bodies: Places, size: int) -> int:
    if not bodies.enter(size):
        raise Overloaded("Too many large requests at once. Try again shortly.", retry_after_ns=1_000_000_000)
    return size


async def _read_body(request: web.Request, most: int) -> bytes:
    """Read the body. RequestTooLarge at the limit, RequestTimeout, ClientGone, InvalidHttp."""
    # Trap: aiohttp says `100 Continue` before any middleware has seen the request; here the key and the size are known.
    if request.headers.get(hdrs.EXPECT, "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    content = request.content
    try:
        if content.is_eof():
            return await content.read()
        pieces, size = [], 0
        async with asyncio.timeout(request.app[CONFIG].server.timeouts.client_body_s):
            while piece := await content.readany():
                size += len(piece)
                if size > most:
                    raise RequestTooLarge(f"The body is larger than {most} bytes.")
                pieces.append(piece)
        return b"".join(pieces)
    except TimeoutError:
        raise RequestTimeout("The request's body did not arrive in time.") from None
    except (RequestPayloadError, ClientPayloadError, ConnectionError) as error:
        if request.transport is None:
            raise ClientGone("The client left before its request was complete.") from None
        raise InvalidHttp("The request's body is not framed as HTTP/1.1 asks.") from error


def _understand(request: web.Request, raw: bytes) -> tuple[Model, Outgoing]:
    chat = parse_chat(raw)
    model = _find_model(request, chat)
    return model, prepare(chat, model)


def _find_model(request: web.Request, chat: ChatRequest) -> Model:
    key = request[KEY]
    model = request.app[CONFIG].models.get(chat.model)
    if model is None or (key.models is not None and chat.model not in key.models):
        raise ModelNotFound("No such model, or this key may not use it. GET /v1/models lists them.", param="model")
    return model


async def _hold_and_lend(
    request: web.Request, handler: Handler, model: Model, outgoing: Outgoing
) -> web.StreamResponse:
    upstream = request.app[UPSTREAMS][model.provider]
    upstream.enter()
    call: Call | None = None
    try:
        reservation = await _hold(request, model, outgoing)
        request[CALL] = call = Call(model, outgoing, upstream, reservation)
        return await handler(request)
    finally:
        if call is None:
            upstream.leave()
        elif not call.taken:
            upstream.leave()
            call.reservation.settle(_NOTHING_HAPPENED, status=499)


_NOTHING_HAPPENED = Ending(
    end_state=EndState.CLIENT_GONE, began=False, complete=False, usage=None, prompt_estimate=0, output_bytes=0
)


async def _hold(request: web.Request, model: Model, outgoing: Outgoing) -> Reservation:
    key: Key = request[KEY]
    opened_ms = time.time_ns() // 1_000_000
    price = model.tariff.price_at(opened_ms)
    hold = Hold(
        request_id=request[REQUEST_ID],
        account_id=key.account.account_id,
        key_id=key.key_id,
        model=model.id,
        provider=model.provider,
        upstream_model=model.upstream,
        streamed=outgoing.stream,
        price_id=price.price_id,
        hold_nano=bound_nano(price.tiers, outgoing.input_bound, outgoing.output_bound),
        input_bound=outgoing.input_bound,
        output_bound=outgoing.output_bound,
        opened_ms=opened_ms,
    )
    config = request.app[CONFIG]
    match await request.app[LEDGER].hold(hold):
        case Held():
            return Reservation(
                request.app[LEDGER],
                hold,
                price,
                opened=request[STARTED],
                commit_s=config.server.timeouts.commit_s,
            )
        case Short() as short:
            raise _short(short, config.currency)
        case Suspended():
            raise AccountSuspended("This account is suspended. Contact the operator.")


def _short(short: Short, currency: str) -> InsufficientBalance | BalanceHeld:
    required = f"{format_nano(short.required_nano)} {currency}"
    available = f"{format_nano(max(short.available_nano, 0))} {currency}"
    if short.balance_nano >= short.required_nano:
        return BalanceHeld(
            f"This request needs {required} set aside; {available} is available while other requests are open.",
            retry_after_ns=1_000_000_000,
        )
    return InsufficientBalance(
        f"This request needs {required} set aside; {available} is available. Top up the account."
    )
