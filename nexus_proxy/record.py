"""What is written down about a request when it is over: its metrics, and its one line in the log.

Strategy: never a key, never a prompt, never a text that a client chose, except the model's id where it is one of ours.
"""

import asyncio

from aiohttp import web

from nexus_proxy.appkeys import CALL, COMPLETIONS, DIRECTORY, KEY, LOGGER, METRICS, MODEL, REQUEST_ID, STARTED
from nexus_proxy.core.money import format_nano
from nexus_proxy.core.settlement import UsageSource
from nexus_proxy.ledger.protocol import AlreadySettled, Settled
from nexus_proxy.ledger.reservation import Reservation
from nexus_proxy.upstream.exchange import Exchange


def record_refused(request: web.Request, status: int, code: str | None) -> None:
    """Write down a request that had no exchange. `code` is None where nothing was wrong."""
    model = request.get(MODEL)
    model_id = provider = None
    if model is not None:  # without a model there is no call either, and to look for what is not there is dear
        call = request.get(CALL)
        if call is not None and call.taken:
            return  # its exchange writes the line
        model_id, provider = model.id, model.provider
    app = request.app
    duration_s = asyncio.get_running_loop().time() - request[STARTED]
    key = request.get(KEY)
    app[METRICS].request(model=model_id, provider=provider, status=status, code=code, duration_s=duration_s)
    app[LOGGER].info(
        "request",
        request_id=request[REQUEST_ID],
        method=request.method,
        route=request.match_info.route.name,
        account=key.account.name if key is not None else None,
        key_hint=key.hint if key is not None else None,
        model=model_id,
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
    app, call, key = request.app, request[CALL], request[KEY]
    started, now = request[STARTED], asyncio.get_running_loop().time()
    reservation, error, first_byte = call.reservation, exchange.error, exchange.first_byte
    hold, verdict, settled, late = reservation.hold, reservation.verdict, reservation.settled, reservation.late
    usage = verdict.usage if verdict is not None else None
    model, provider, status = hold.model, hold.provider, exchange.status
    code = error.code if error is not None else None
    duration_s = now - started
    first_byte_s = None if first_byte is None else first_byte - started
    metrics = app[METRICS]
    metrics.request(model=model, provider=provider, status=status, code=code, duration_s=duration_s)
    metrics.exchanged(
        model=model,
        provider=provider,
        first_byte_s=first_byte_s,
        late=late,
        upstream_code=code if code is not None and code.startswith("upstream_") else None,
    )
    app[LOGGER].info(
        "request",
        request_id=hold.request_id,
        method=request.method,
        route=COMPLETIONS,  # no other has exchanges
        account=key.account.name,
        key_hint=key.hint,
        model=model,
        provider=provider,
        streamed=hold.streamed,
        status=status,
        code=code,
        end_state=verdict.end_state if verdict is not None else None,
        usage_source=verdict.usage_source if verdict is not None else None,
        prompt_tokens=usage.prompt if usage is not None else None,
        cached_tokens=usage.cached if usage is not None else None,
        completion_tokens=usage.completion if usage is not None else None,
        charge=format_nano(settled.charged_nano) if settled is not None else None,
        late=late,
        first_byte_ms=None if first_byte_s is None else int(first_byte_s * 1000),
        duration_ms=int(duration_s * 1000),
    )
    if code in ("upstream_auth", "upstream_no_funds"):
        app[LOGGER].error("provider_account", provider=provider, code=code)
