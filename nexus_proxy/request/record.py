"""A request that is over, made into one record for whoever observes; and what the ledger made of its settlement."""

from nexus_proxy.core.money.amounts import format_nano
from nexus_proxy.core.money.settlement import UsageSource
from nexus_proxy.ledger.hold import OpenHold
from nexus_proxy.ledger.protocol import AlreadySettled, Settled
from nexus_proxy.observe.record import Record
from nexus_proxy.request.context import COMPLETIONS, RequestContext
from nexus_proxy.request.services import Services
from nexus_proxy.upstream.exchange import Exchange


def record_refused(context: RequestContext, status: int, code: str | None) -> None:
    """Write down a request that had no exchange. `code` is None where nothing was wrong."""
    model, key, services = context.model, context.key, context.services
    if context.call is not None and context.call.taken:
        return  # its exchange writes the line
    model_id, provider = (model.id, model.provider) if model is not None else (None, None)
    record = Record(
        context.request_id,
        context.incoming.method,
        context.route,
        key.account.name if key is not None else None,
        key.hint if key is not None else None,
        model_id,
        provider,
        status,
        code,
        services.loop.time() - context.started,
    )
    for observer in services.observers:
        observer.finished(record)


def record_settlement(services: Services, open_hold: OpenHold, outcome: Settled | AlreadySettled) -> None:
    """Write down what the ledger made of a settlement, when that is durable, however late."""
    hold, verdict = open_hold.hold, open_hold.verdict
    assert verdict is not None
    if not isinstance(outcome, Settled):
        services.logger.error("settled_twice", request_id=hold.request_id)  # the database refused; nothing moved
        return
    services.directory.charged(outcome.account_id, outcome.charged_nano)
    services.metrics.settled(
        model=hold.model,
        provider=hold.provider,
        verdict=verdict,
        charged_nano=outcome.charged_nano,
        overrun_nano=outcome.overrun_nano,
        cost_currency=open_hold.price.cost_currency,
    )
    if outcome.overrun_nano:
        services.logger.error("overrun", request_id=hold.request_id, missing=format_nano(outcome.overrun_nano))
    if verdict.usage_source is UsageSource.ESTIMATED:
        services.logger.warning("usage_missing", request_id=hold.request_id, provider=hold.provider)


def record_exchange(context: RequestContext, exchange: Exchange) -> None:
    """Write down a request whose exchange is over."""
    services, call, key = context.services, context.call, context.caller
    assert call is not None
    started, open_hold, error, first_byte = context.started, call.open_hold, exchange.error, exchange.first_byte
    hold, verdict, settled, late = open_hold.hold, open_hold.verdict, open_hold.settled, open_hold.late
    model, provider, status = hold.model, hold.provider, exchange.status
    code = error.code if error is not None else None
    record = Record(
        hold.request_id,
        context.incoming.method,
        COMPLETIONS,  # no other route has exchanges
        key.account.name,
        key.hint,
        model,
        provider,
        status,
        code,
        services.loop.time() - started,
        True,
        hold.streamed,
        verdict.end_state if verdict is not None else None,
        verdict.usage_source if verdict is not None else None,
        verdict.usage if verdict is not None else None,
        format_nano(settled.charged_nano) if settled is not None else None,
        late,
        None if first_byte is None else first_byte - started,
    )
    for observer in services.observers:
        observer.finished(record)
    if exchange.echoed:
        services.logger.error("credential_echoed", request_id=hold.request_id, provider=provider)
    if code in ("upstream_auth", "upstream_no_funds"):
        services.logger.error("provider_account", provider=provider, code=code)
