"""What admins change: accounts, keys, top-ups; and what the configuration declares: prices and plans.

Strategy: check first, then write, so that an operation which is denied has changed nothing and the rest of its
transaction stands.
"""

import sqlite3
from typing import Final

import orjson

from nexus_proxy.ledger.protocol import (
    AccountRow,
    CreateAccount,
    CreateKey,
    DeclareCurrency,
    DeclarePlans,
    DeclarePrices,
    Denied,
    Done,
    KeyRow,
    RevokeKey,
    SetAccount,
    ToppedUp,
    TopUp,
)
from nexus_proxy.ledger.sqlite import prices, rows
from nexus_proxy.ledger.sqlite.posting import Posting
from nexus_proxy.ledger.sqlite.schema import FUNDING

TOTAL_NANO_MAX: Final = 2**61  # of everything ever paid in, and of one overdraft
INT64_MAX: Final = 2**63 - 1
TEXT_MAX: Final = 200  # characters


class Administration:
    """The admin operations of one open transaction."""

    def __init__(self, connection: sqlite3.Connection, posting: Posting) -> None:
        self._execute = connection.execute
        self._posting = posting

    def create_account(self, op: CreateAccount) -> AccountRow | Denied:
        """Open an account."""
        if not op.name or op.name != op.name.strip():
            return Denied("an account needs a name, without blanks around it")
        fault = _unfit(op.name) or self._unknown_plan(op.plan) or _unfit_overdraft(op.overdraft_nano)
        if fault:
            return Denied(fault)
        if self._execute("SELECT 1 FROM accounts WHERE name = ?", (op.name,)).fetchone():
            return Denied(f"the account {op.name!r} exists already")
        self._execute(
            "INSERT INTO accounts (name, plan, overdraft_nano, created_ms) VALUES (?, ?, ?, ?)",
            (op.name, op.plan or None, op.overdraft_nano, op.at_ms),
        )
        account = self._account(op.name)
        assert account is not None
        return account

    def set_account(self, op: SetAccount) -> AccountRow | Denied:
        """Change an account."""
        account = self._account(op.name)
        if account is None:
            return _no_account(op.name)
        overdraft_nano = account.overdraft_nano if op.overdraft_nano is None else op.overdraft_nano
        fault = self._unknown_plan(op.plan) or _unfit_overdraft(overdraft_nano)
        if fault:
            return Denied(fault)
        if account.balance_nano - account.held_nano < -overdraft_nano:
            return Denied(f"the account {op.name!r} already uses more than that overdraft")
        plan = account.plan if op.plan is None else op.plan or None
        suspended = account.suspended if op.suspended is None else op.suspended
        self._execute(
            "UPDATE accounts SET plan = ?, overdraft_nano = ?, suspended = ? WHERE account_id = ?",
            (plan, overdraft_nano, suspended, account.account_id),
        )
        changed = self._account(op.name)
        assert changed is not None
        return changed

    def create_key(self, op: CreateKey) -> KeyRow | Denied:
        """Add a key."""
        account = self._account(op.account)
        if account is None:
            return _no_account(op.account)
        fault = _unfit(op.name) or next((f for f in map(_unfit, op.models or ()) if f), None)
        if fault:
            return Denied(fault)
        if op.rpm is not None and not 0 < op.rpm < 2**31:
            return Denied("a key's rpm must be at least 1")
        if op.expires_ms is not None and not 0 <= op.expires_ms < INT64_MAX:
            return Denied("a key's expiry is out of range")
        if self._execute("SELECT 1 FROM keys WHERE key_hash = ?", (op.key_hash,)).fetchone():
            return Denied("this key exists already")
        models = None if op.models is None else orjson.dumps(op.models).decode()
        cursor = self._execute(
            "INSERT INTO keys (account_id, name, key_hash, hint, models, rpm, created_ms, expires_ms) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            (account.account_id, op.name, op.key_hash, op.hint, models, op.rpm, op.at_ms, op.expires_ms),
        )
        return self._key(cursor.lastrowid)

    def revoke_key(self, op: RevokeKey) -> KeyRow | Denied:
        """End a key. The first revocation's time stays."""
        if not 0 <= op.key_id < INT64_MAX:
            return Denied(f"there is no key with the id {op.key_id}")
        cursor = self._execute(
            "UPDATE keys SET revoked_ms = coalesce(revoked_ms, ?) WHERE key_id = ?", (op.at_ms, op.key_id)
        )
        return self._key(op.key_id) if cursor.rowcount else Denied(f"there is no key with the id {op.key_id}")

    def top_up(self, op: TopUp) -> ToppedUp | Denied:
        """Move money from `funding` to the account; once for one external id."""
        account = self._account(op.account)
        if account is None:
            return _no_account(op.account)
        fault = _unfit(op.note, 2000) or _unfit(op.external_id or "")
        if fault:
            return Denied(fault)
        if op.external_id == "":
            return Denied("an external id cannot be empty")
        if op.external_id is not None:
            known = self._execute(
                "SELECT entry_id, payee_id, amount_nano FROM entries WHERE external_id = ?", (op.external_id,)
            ).fetchone()
            if known is not None:
                if known[1:] != (account.account_id, op.amount_nano):
                    return Denied(f"the external id {op.external_id!r} was used for another account or amount")
                return ToppedUp(known[0], False, account)
        if op.amount_nano <= 0:
            return Denied("a top-up must be more than nothing")
        paid_nano = -self._execute("SELECT balance_nano FROM accounts WHERE account_id = ?", (FUNDING,)).fetchone()[0]
        if paid_nano + op.amount_nano > TOTAL_NANO_MAX:
            return Denied("the amount is too large for this ledger")
        entry_id = self._posting.enter(
            op.at_ms, "topup", FUNDING, account.account_id, op.amount_nano, external_id=op.external_id, note=op.note
        )
        self._execute(
            "UPDATE accounts SET balance_nano = balance_nano + ?1, paid_nano = paid_nano + ?1, last_entry_ms = ?2 "
            "WHERE account_id = ?3",
            (op.amount_nano, op.at_ms, account.account_id),
        )
        changed = self._account(op.account)
        assert changed is not None
        return ToppedUp(entry_id, True, changed)

    def declare_prices(self, op: DeclarePrices) -> Done | Denied:
        """Record what is new. A known id with other rates is denied: a price version is never edited."""
        fresh: dict[str, tuple[str, ...]] = {}
        for version in op.prices:
            row = prices.to_row(version)
            known = fresh.get(row[0]) or self._execute(f"{prices.SELECT} WHERE price_id = ?", (row[0],)).fetchone()
            if known is None:
                fresh[row[0]] = row
            elif known[1:6] != row[1:6]:
                return Denied(f"the price {row[0]!r} is recorded with other rates; new rates need a new id")
        for row in fresh.values():
            self._execute("INSERT INTO price_versions VALUES (?, ?, ?, ?, ?, ?, ?, ?)", (*row, op.at_ms))
        return Done()

    def declare_currency(self, op: DeclareCurrency) -> Done | Denied:
        """Record the currency; amounts carry none of their own, so it cannot change under them."""
        known = self._execute("SELECT currency FROM deployment").fetchone()
        if known is None:
            self._execute("INSERT INTO deployment VALUES (1, ?)", (op.currency,))
        elif known[0] != op.currency:
            if self._execute("SELECT 1 FROM entries LIMIT 1").fetchone():
                return Denied(f"the ledger counts in {known[0]}, the configuration says {op.currency}")
            self._execute("UPDATE deployment SET currency = ?", (op.currency,))
        return Done()

    def declare_plans(self, op: DeclarePlans) -> Done:
        """Replace the plans."""
        self._execute("DELETE FROM plans")
        for position, plan in enumerate(op.plans):
            self._execute(
                "INSERT INTO plans VALUES (?, ?, ?, ?, ?, ?)",
                (plan.name, position, plan.rpm, plan.rung, plan.min_paid_nano, plan.min_spent_nano),
            )
        return Done()

    def _account(self, name: str) -> AccountRow | None:
        row = None if _unfit(name) else self._execute(f"{rows.ACCOUNTS} AND name = ?", (name,)).fetchone()
        return None if row is None else rows.account_row(row)

    def _key(self, key_id: int | None) -> KeyRow:
        return rows.key_row(self._execute(f"{rows.KEYS} WHERE key_id = ?", (key_id,)).fetchone())

    def _unknown_plan(self, name: str | None) -> str | None:
        if not name or _unfit(name):
            return _unfit(name or "")
        known = [plan for (plan,) in self._execute("SELECT name FROM plans ORDER BY position")]
        return f"there is no plan {name!r}; there are {', '.join(known)}" if known and name not in known else None


def _no_account(name: str) -> Denied:
    return Denied(f"there is no account {name!r}")


def _unfit_overdraft(overdraft_nano: int) -> str | None:
    return None if 0 <= overdraft_nano <= TOTAL_NANO_MAX else "an overdraft must be 0 or more, and not absurd"


def _unfit(text: str, characters_max: int = TEXT_MAX) -> str | None:
    """Tell why a text cannot be kept: too long, or not printable (which covers NUL and lone surrogates)."""
    if len(text) > characters_max:
        return f"a text of {len(text)} characters is longer than {characters_max}"
    return None if text.isprintable() else f"{text!r} has characters that cannot be printed"
