"""May they, now.

Strategy: the account's plan and the key's own limit are asked together. Only completions count; every other answer to
a known key tells where the limit stands.
"""

import time

from nexus_proxy.core.money.amounts import ceil_div
from nexus_proxy.core.money.plans import plan_of
from nexus_proxy.errors import SUSPENDED, AccountSuspended, RateLimited
from nexus_proxy.limiter.protocol import Limit, Refused, Standing
from nexus_proxy.request.context import COMPLETIONS, Handler, RequestContext
from nexus_proxy.web.response import Reply


async def ratelimit(context: RequestContext, handler: Handler) -> Reply:
    """Count the request against its limits, or refuse it. AccountSuspended, RateLimited."""
    key = context.key
    if key is None:
        return await handler(context)
    services, account = context.services, key.account
    plan = plan_of(context.setup.config.plans, account.plan, account.paid_nano, account.spent_nano)
    limits = [Limit(f"account:{account.account_id}", plan.rpm)]
    if key.rpm is not None:
        limits.append(Limit(f"key:{key.key_id}", key.rpm))
    limiter, now_ns = services.limiter, time.monotonic_ns()
    if account.suspended or context.route != COMPLETIONS:
        context.headers += _headers(await limiter.look(limits, now_ns))
        if account.suspended:
            raise AccountSuspended(SUSPENDED)
        return await handler(context)
    verdict = await limiter.admit(limits, now_ns)
    context.headers += _headers(verdict.standing)
    if isinstance(verdict, Refused):
        services.metrics.rate_limited()
        raise RateLimited(
            f"Rate limit of {verdict.standing.limit} requests per minute reached.",
            retry_after_ns=verdict.retry_after_ns,
        )
    return await handler(context)


def _headers(standing: Standing) -> str:
    return (
        f"x-ratelimit-limit-requests: {standing.limit}\r\n"
        f"x-ratelimit-remaining-requests: {standing.remaining}\r\n"
        f"x-ratelimit-reset-requests: {format_duration(standing.reset_ns)}\r\n"
    )


def format_duration(ns: int) -> str:
    """Write a duration as OpenAI does: `0s`, `350ms`, `6s`, `1m0s`. Rounded up to a millisecond, or second from 1 s."""
    if 0 < ns <= 999_000_000:
        return f"{ceil_div(ns, 1_000_000)}ms"
    seconds = ceil_div(ns, 1_000_000_000)
    return f"{seconds // 60}m{seconds % 60}s" if seconds >= 60 else f"{seconds}s"
