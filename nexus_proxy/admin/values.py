"""What an admin may say and is shown, as plain JSON values.

Strategy: checks raise Refused with the argument's name and what was expected; rows of the ledger become dicts with
exact decimal strings and ISO 8601 times in UTC.
"""

import re
from datetime import UTC, datetime
from typing import Any, Final

from nexus_proxy.config import Config
from nexus_proxy.core.money.amounts import format_nano, parse_nano
from nexus_proxy.core.money.plans import plan_of
from nexus_proxy.errors import Refused
from nexus_proxy.ledger.protocol import AccountRow, KeyRow
from nexus_proxy.ledger.sqlite.schema import INTERNAL

_HUGE: Final = re.compile(r"\d{10,}(\.\d{1,9})?", re.ASCII)  # that parse_nano refuses
_NAME: Final = re.compile(r"[A-Za-z0-9._@-]{1,64}", re.ASCII)


def check_account(name: str) -> None:
    """Refuse what is no name, and the ledger's own accounts."""
    if _NAME.fullmatch(name) is None:
        raise Refused(f"account: expected 1 to 64 of A-Z a-z 0-9 . _ @ -, not {name!r}")
    if name.lower() in INTERNAL.values():
        raise Refused(f"account: {name!r} is the ledger's own")


def check_text(what: str, text: str, length_max: int) -> None:
    """Refuse what is too long, or has characters that no line of text has."""
    if len(text) > length_max or not text.isprintable():
        raise Refused(f"{what}: expected at most {length_max} printable characters")


def amount_nano(text: str, *, least: int) -> int:
    """Return an amount in nano-units; `least` is 0 or 1 of them. ValueError."""
    try:
        nano = parse_nano(text)
    except ValueError:
        if _HUGE.fullmatch(text) is None:
            raise
        raise ValueError("too large: expected less than 4 billion") from None
    if nano < least:
        raise ValueError(f"expected {'more than 0' if least else '0 or more'}, not {text}")
    return nano


def read_amount(what: str, text: str, *, least: int) -> int:
    """Return an amount in nano-units; `least` is 0 or 1 of them. Refused."""
    try:
        return amount_nano(text, least=least)
    except ValueError as error:
        raise Refused(f"{what}: {error}") from None


def read_instant_ms(what: str, text: str) -> int:
    """Return an ISO 8601 time as milliseconds since 1970; UTC unless it says otherwise."""
    try:
        instant = datetime.fromisoformat(text)
        if instant.tzinfo is None:
            instant = instant.replace(tzinfo=UTC)
        return int(instant.timestamp() * 1000)
    except (ValueError, OverflowError):
        raise Refused(f"{what}: expected an ISO 8601 time, not {text!r}") from None


def shown_account(row: AccountRow, config: Config) -> dict[str, Any]:
    """Write an account with the plan that is in force. `available` counts the overdraft in, as the views do."""
    plan = plan_of(config.plans, row.plan, row.paid_nano, row.spent_nano)
    last_ms = row.created_ms if row.last_entry_ms is None else row.last_entry_ms
    return {
        "id": row.account_id,
        "account": row.name,
        "plan": plan.name,
        "plan_assigned": row.plan,
        "rpm": plan.rpm,
        "suspended": row.suspended,
        "currency": config.currency,
        "balance": format_nano(row.balance_nano),
        "held": format_nano(row.held_nano),
        "available": format_nano(row.balance_nano - row.held_nano + row.overdraft_nano),
        "overdraft": format_nano(row.overdraft_nano),
        "total_paid": format_nano(row.paid_nano),
        "total_spent": format_nano(row.spent_nano),
        "created_at": _iso(row.created_ms),
        "last_updated": _iso(last_ms),
    }


def shown_key(row: KeyRow) -> dict[str, Any]:
    """Write a key, without the key."""
    return {
        "id": row.key_id,
        "account": row.account,
        "name": row.name,
        "hint": row.hint,
        "models": None if row.models is None else list(row.models),
        "rpm": row.rpm,
        "created_at": _iso(row.created_ms),
        "expires_at": None if row.expires_ms is None else _iso(row.expires_ms),
        "revoked_at": None if row.revoked_ms is None else _iso(row.revoked_ms),
    }


def _iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
