"""Accounts and keys in memory: who is asking, in one look-up.

Strategy: a dict from the key's hash to the live record. It is the truth for who may ask, and never for money: what an
account can pay is decided by the ledger's conditional update alone.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from nexus_proxy.ledger.protocol import AccountRow, KeyRow


@dataclass(slots=True)
class Account:
    """An account as of its last change. `plan` None: the ladder decides, by what was paid in and spent."""

    account_id: int
    name: str
    plan: str | None
    suspended: bool
    paid_nano: int
    spent_nano: int


@dataclass(slots=True)
class Key:
    """A key of a live account. `models` None allows all."""

    key_id: int
    account: Account
    name: str
    hint: str
    models: frozenset[str] | None
    rpm: int | None
    expires_ms: int | None
    revoked: bool


class Directory:
    """Every account and every key. Changed in place, so that whoever has a record sees the change."""

    def __init__(self, accounts: Iterable[AccountRow] = (), keys: Iterable[KeyRow] = ()) -> None:
        self._accounts: dict[int, Account] = {}
        self._keys: dict[bytes, Key] = {}
        for account in accounts:
            self.put_account(account)
        for key in keys:
            self.put_key(key)

    def find(self, key_hash: bytes) -> Key | None:
        """Return the key with this SHA-256, revoked or not."""
        return self._keys.get(key_hash)

    def account(self, account_id: int) -> Account | None:
        """Return the live account."""
        return self._accounts.get(account_id)

    def put_account(self, row: AccountRow) -> None:
        """Add an account, or bring it up to date."""
        account = self._accounts.get(row.account_id)
        if account is None:
            self._accounts[row.account_id] = Account(
                row.account_id, row.name, row.plan, row.suspended, row.paid_nano, row.spent_nano
            )
            return
        account.plan, account.suspended = row.plan, row.suspended
        account.paid_nano, account.spent_nano = row.paid_nano, row.spent_nano

    def put_key(self, row: KeyRow) -> None:
        """Add a key of a known account, or bring it up to date."""
        models = None if row.models is None else frozenset(row.models)
        key = self._keys.get(row.key_hash)
        if key is None:
            account = self._accounts[row.account_id]
            revoked = row.revoked_ms is not None
            self._keys[row.key_hash] = Key(
                row.key_id, account, row.name, row.hint, models, row.rpm, row.expires_ms, revoked
            )
            return
        key.name, key.models, key.rpm = row.name, models, row.rpm
        key.expires_ms, key.revoked = row.expires_ms, row.revoked_ms is not None

    def charged(self, account_id: int, nano: int) -> None:
        """Count what an account was charged, for its place on the ladder."""
        self._accounts[account_id].spent_nano += nano
