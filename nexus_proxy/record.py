"""What is written down about a request when it is over: its metrics, and its one line in the log.

Strategy: never a key, never a prompt, never a text that a client chose, except the model's id where it is one of ours.
"""

import asyncio

from aiohttp import web

from nexus_proxy.appkeys import CALL, DIRECTORY, KEY, LOGGER, METRICS, MODEL, REQUEST_ID, STARTED
from nexus_proxy.core.money import format_nano
from nexus_proxy.core.settlement import UsageSource
from nexus_proxy.ledger.protocol import AlreadySettled, Settled
from nexus_proxy.ledger.reservation import Reservation
from nexus_proxy.upstream.exchange import Exchange


def record_refused(request: web.Request, status: int, code: str | None) -> None:
    """Write down a request that had no exchange. `code` is None where nothing was wrong."""
    if CALL in request and request[CALL].taken:
        return  # its exchange writes the line
    app = request.app
    duration_s = asyncio.get_running_loop().time() - request[STARTED]
    model = request.get(MODEL)
    key = request.get(KEY)
    app[METRICS].request(
        model=model.id if model is not None else None,
        provider=model.provider if model is not None else None,
        status=status,
        code=code,
        duration_s=duration_s,
    )
    app[LOGGER].info(
        "request",
        request_id=request[REQUEST_ID],
        method=request.method,
        route=request.match_info.route.name,
        account=key.account.name if key is not None else None,
        key_hint=key.hint if key is not None else None,
        model=model.id if model is not None else None,
        status=status,
        code=code,
        duration_ms=int(duration_s * 1000),
    )


def record_settlement(app: web.Application, reservation: Reservation, outcome: Settled | AlreadySettled) -> None:
    """Write down what the ledger made of a settlement, when that is durable, however late."""
    hold, verdict = reservation.hold, reservation.verdict
    assert verdict is not None
    if not isinstance(outcome, Settled):
        app[LOGGER].error("settled_twice", request_id=hold.request_id)  # the database refused; nothing moved
        return
    app[DIRECTORY].charged(outcome.account_id, outcome.charged_nano)
    app[METRICS].settled(
        model=hold.model,
        provider=hold.provider,
        verdict=verdict,
        charged_nano=outcome.charged_nano,
        overrun_nano=outcome.overrun_nano,
        cost_currency=reservation.price.cost_currency,
    )
    if outcome.overrun_nano:
        app[LOGGER].error("overrun", request_id=hold.request_id, missing=format_nano(outcome.overrun_nano))
    if verdict.usage_source is UsageSource.ESTIMATED:
        app[LOGGER].warning("usage_missing", request_id=hold.request_id, provider=hold.provider)


def record_exchange(request: web.Request, exchange: Exchange) -> None:
    """Write down a request whose exchange is over."""
    app, call = request.app, request[CALL]
    reservation, model, key = call.reservation, call.model, request[KEY]
    verdict, settled = reservation.verdict, reservation.settled
    started, now = request[STARTED], asyncio.get_running_loop().time()
    first_byte_s = None if exchange.first_byte is None else exchange.first_byte - started
    code = exchange.error.code if exchange.error is not None else None
    metrics = app[METRICS]
    metrics.request(
        model=model.id, provider=model.provider, status=exchange.status, code=code, duration_s=now - started
    )
    metrics.exchanged(
        model=model.id,
        provider=model.provider,
        first_byte_s=first_byte_s,
        late=reservation.late,
        upstream_code=code if code is not None and code.startswith("upstream_") else None,
    )
    usage = verdict.usage if verdict is not None else None
    app[LOGGER].info(
        "request",
        request_id=request[REQUEST_ID],
        method=request.method,
        route=request.match_info.route.name,
        account=key.account.name,
        key_hint=key.hint,
        model=model.id,
        provider=model.provider,
        streamed=call.outgoing.stream,
        status=exchange.status,
        code=code,
        end_state=verdict.end_state if verdict is not None else None,
        usage_source=verdict.usage_source if verdict is not None else None,
        prompt_tokens=usage.prompt if usage is not None else None,
        cached_tokens=usage.cached if usage is not None else None,
        completion_tokens=usage.completion if usage is not None else None,
        charge=format_nano(settled.charged_nano) if settled is not None else None,
        late=reservation.late,
        first_byte_ms=None if first_byte_s is None else int(first_byte_s * 1000),
        duration_ms=int((now - started) * 1000),
    )
    if code in ("upstream_auth", "upstream_no_funds"):
        app[LOGGER].error("provider_account", provider=model.provider, code=code)
