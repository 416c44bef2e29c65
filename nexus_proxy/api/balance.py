"""`GET /v1/balance`: what the account has, exactly."""

import datetime

import orjson

from nexus_proxy.core.money.amounts import format_nano
from nexus_proxy.errors import LedgerError, LedgerUnavailable
from nexus_proxy.request.context import RequestContext
from nexus_proxy.web.response import Response, json_response


async def balance(context: RequestContext) -> Response:
    """Return the balance, what was spent in all, what open requests hold, and when the last entry was."""
    try:
        row = await context.services.reader.account(context.caller.account.account_id)
    except LedgerError:
        raise LedgerUnavailable("The ledger cannot be read at the moment.", retry_after_ns=1_000_000_000) from None
    assert row is not None, "an account is never removed"
    changed_ms = row.last_entry_ms if row.last_entry_ms is not None else row.created_ms
    changed = datetime.datetime.fromtimestamp(changed_ms // 1000, datetime.UTC)
    return json_response(
        context.headers,
        {
            "balance": _number(row.balance_nano),
            "currency": context.setup.config.currency,
            "total_spent": _number(row.spent_nano),
            "last_updated": changed.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "held": _number(row.held_nano),
        },
    )


def _number(nano: int) -> orjson.Fragment:
    """Write an amount as a JSON number with all its decimals, which a float would not keep."""
    return orjson.Fragment(format_nano(nano))
