"""Is the request sound, what can it cost at most, and is that set aside durably.

Strategy: not one byte goes upstream before the hold is on the disk. What is held is lent to the next stage; if that
does not take it, for whatever reason, the hold is voided here.
"""

import asyncio
import functools

from nexus_proxy.config import Config
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.amounts import format_nano
from nexus_proxy.core.money.prices import Price, bound_nano
from nexus_proxy.core.money.settlement import Ending, EndState
from nexus_proxy.core.request.chat import Outgoing, parse_chat, prepare
from nexus_proxy.errors import (
    SUSPENDED,
    AccountSuspended,
    BalanceHeld,
    ClientGone,
    InsufficientBalance,
    NexusError,
    Overloaded,
    ShuttingDown,
)
from nexus_proxy.ledger.directory import Key
from nexus_proxy.ledger.hold import OpenHold
from nexus_proxy.ledger.protocol import Held, Hold, Short, Suspended
from nexus_proxy.request.context import COMPLETIONS, Call, Handler, RequestContext
from nexus_proxy.request.record import record_settlement
from nexus_proxy.runtime.clock import now_ms
from nexus_proxy.web.response import Reply

OFF_LOOP_BYTES = 256 * 1024  # a larger body is read in a thread, so that what is Python of it does not hold the loop


async def metering(context: RequestContext, handler: Handler) -> Reply:
    """Hold money durably, lend the exchange to the handler; the exchange settles, not this task."""
    if context.route != COMPLETIONS:
        return await handler(context)
    services = context.services
    server, bodies = context.setup.config.server, services.bodies
    size = context.incoming.check_head(server.limits.body_bytes)
    if not bodies.enter(size):
        raise Overloaded("Too many large requests at once. Try again shortly.", retry_after_ns=1_000_000_000)
    try:
        raw = await context.incoming.take_body(size, server.timeouts.client_body_s)
        if len(raw) < size:  # a chunked body was taken for the largest that it could be
            bodies.leave(size - len(raw))
            size = len(raw)
        if services.readiness.shutting_down:
            raise _shutting_down()
        if len(raw) < OFF_LOOP_BYTES:
            context.model, context.outgoing = _understand(context.setup.config, context.caller, raw)
        else:
            async with services.large_body:
                _check_worth_reading(context)
                context.model, context.outgoing = await asyncio.to_thread(
                    _understand, context.setup.config, context.caller, raw
                )
        del raw
        return await _hold_and_lend(context, handler)
    finally:
        bodies.leave(size)


def _check_worth_reading(context: RequestContext) -> None:
    """ShuttingDown, ClientGone: what is read for nothing keeps those behind it waiting."""
    if context.services.readiness.shutting_down:
        raise _shutting_down()
    if context.incoming.connection.transport is None:
        raise ClientGone("The client left before its request was read.")


def _shutting_down() -> ShuttingDown:
    return ShuttingDown("This gateway is shutting down.", retry_after_ns=1_000_000_000)


def _understand(config: Config, key: Key, raw: bytes) -> tuple[Model, Outgoing]:
    chat = parse_chat(raw)
    model = config.find_model(key.models, chat.model)
    return model, prepare(chat, model)


async def _hold_and_lend(context: RequestContext, handler: Handler) -> Reply:
    model = context.model
    assert model is not None
    services = context.services
    upstream = context.setup.upstreams[model.provider]
    upstream.enter()
    call: Call | None = None
    try:
        opened_ms = now_ms()
        price = model.tariff.price_at(opened_ms)
        hold = _hold(context, model, price, opened_ms)
        outcome = await services.ledger.hold(hold)
        if not isinstance(outcome, Held):
            raise _denied(outcome, context.setup.config.currency)
        open_hold = OpenHold(
            services.ledger,
            hold,
            price,
            loop=services.loop,
            opened=context.started,
            commits=context.setup.commits,
            on_settled=functools.partial(record_settlement, services),
        )
        context.call = call = Call(model, upstream, open_hold)
        if services.readiness.shutting_down:
            raise _shutting_down()  # the shutdown may have begun while the hold was committed
        return await handler(context)
    finally:
        if call is None:
            upstream.leave()
        elif not call.taken:
            upstream.leave()
            ending = services.readiness.shutting_down
            call.open_hold.settle(_NOTHING_HAPPENED, status=ShuttingDown.status if ending else ClientGone.status)


_NOTHING_HAPPENED = Ending(
    end_state=EndState.CLIENT_GONE, began=False, complete=False, usage=None, prompt_estimate=0, output_bytes=0
)


def _hold(context: RequestContext, model: Model, price: Price, opened_ms: int) -> Hold:
    key, outgoing = context.caller, context.outgoing
    assert outgoing is not None
    input_bound, output_bound = outgoing.input_bound, outgoing.output_bound
    return Hold(  # by position: keywords double the cost of a record that every request makes
        context.request_id,
        key.account.account_id,
        key.key_id,
        model.id,
        model.provider,
        model.upstream,
        outgoing.stream,
        price.price_id,
        bound_nano(price.tiers, input_bound, output_bound),
        input_bound,
        output_bound,
        opened_ms,
    )


def _denied(outcome: Short | Suspended, currency: str) -> NexusError:
    return AccountSuspended(SUSPENDED) if isinstance(outcome, Suspended) else _short(outcome, currency)


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
