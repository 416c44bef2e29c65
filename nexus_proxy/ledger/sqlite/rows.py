"""Accounts and keys as they are read off the file, by the writer and by readers alike."""

from collections.abc import Sequence
from typing import Any, Final

import orjson

from nexus_proxy.ledger.protocol import AccountRow, KeyRow

ACCOUNTS: Final = """
SELECT account_id, name, plan, suspended, overdraft_nano, balance_nano, held_nano, paid_nano, spent_nano, created_ms,
    last_entry_ms
FROM accounts WHERE NOT internal
"""

KEYS: Final = """
SELECT k.key_id, k.account_id, a.name, k.name, k.key_hash, k.hint, k.models, k.rpm, k.created_ms, k.expires_ms,
    k.revoked_ms
FROM keys k JOIN accounts a USING (account_id)
"""


def account_row(row: Sequence[Any]) -> AccountRow:
    """Return one row of ACCOUNTS."""
    account_id, name, plan, suspended, *rest = row
    return AccountRow(account_id, name, plan, bool(suspended), *rest)


def key_row(row: Sequence[Any]) -> KeyRow:
    """Return one row of KEYS."""
    key_id, account_id, account, name, key_hash, hint, models, *rest = row
    allowed = None if models is None else tuple(orjson.loads(models))
    return KeyRow(key_id, account_id, account, name, key_hash, hint, allowed, *rest)
