"""What is written down about a request when it is over: its metrics, and its one line in the log.

Strategy: never a key, never a prompt, never a text that a client chose, except the model's id where it is one of ours.
"""

import asyncio

from aiohttp import web

from nexus_proxy.appkeys import CALL, DIRECTORY, KEY, LOGGER, METRICS, MODEL, REQUEST_ID, STARTED
from nexus_proxy.core.money import format_nano
from nexus_proxy.core.settlement import UsageSource
from nexus_proxy.upstream.exchange import Exchange


def record_refused(request: web.Request, status: int, code: str | None) -> None:
    """Write down a request that had no exchange. `code` is None where nothing was wrong."""
    if CALL in request and request[CALL].taken:
        return  # its exchange writes the line
    duration_s = asyncio.get_running_loop().time() - request[STARTED]
    model = request.get(MODEL)
    key = request.get(KEY)
    request.app[METRICS].request(
        model=model.id if model is not None else None,
        provider=model.provider if model is not None else None,
        status=status,
        code=code,
        duration_s=duration_s,
    )
    request.app[LOGGER].info(
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


def record_exchange(request: web.Request, exchange: Exchange) -> None:
    """Write down a request whose exchange is over."""
    call = request[CALL]
    reservation, model = call.reservation, call.model
    verdict, settled = reservation.verdict, reservation.settled
    assert verdict is not None
    started, now = request[STARTED], asyncio.get_running_loop().time()
    first_byte_s = None if exchange.first_byte is None else exchange.first_byte - started
    key = request[KEY]
    error = exchange.error
    code = error.code if error is not None else None
    usage = verdict.usage
    metrics = request.app[METRICS]
    metrics.request(
        model=model.id, provider=model.provider, status=exchange.status, code=code, duration_s=now - started
    )
    metrics.settled(
        model=model.id,
        provider=model.provider,
        verdict=verdict,
        first_byte_s=first_byte_s,
        cost_currency=reservation.price.cost_currency,
        overrun=settled is not None and settled.overrun_nano > 0,
        late=reservation.late,
        upstream_code=code if code is not None and code.startswith("upstream_") else None,
    )
    request.app[LOGGER].info(
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
        end_state=verdict.end_state,
        usage_source=verdict.usage_source,
        prompt_tokens=usage.prompt if usage is not None else None,
        cached_tokens=usage.cached if usage is not None else None,
        completion_tokens=usage.completion if usage is not None else None,
        charge=format_nano(verdict.charge_nano),
        late=reservation.late,
        first_byte_ms=None if first_byte_s is None else int(first_byte_s * 1000),
        duration_ms=int((now - started) * 1000),
    )
    if settled is not None:
        request.app[DIRECTORY].charged(settled.account_id, settled.charged_nano)
        if settled.overrun_nano:
            request.app[LOGGER].error(
                "overrun", request_id=request[REQUEST_ID], amount=format_nano(settled.overrun_nano)
            )
    if code in ("upstream_auth", "upstream_no_funds"):
        request.app[LOGGER].error("provider_account", provider=model.provider, code=code)
    if verdict.usage_source is UsageSource.ESTIMATED:
        request.app[LOGGER].warning("usage_missing", request_id=request[REQUEST_ID], provider=model.provider)
