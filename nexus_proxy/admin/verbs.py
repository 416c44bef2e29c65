"""Administration: every verb that changes or reads the ledger for an admin.

Strategy: one method per verb, plain JSON values in and out, amounts as exact decimal strings. The same object serves
the Unix socket of a running server and a command line that opened the ledger itself. What was changed is in the
directory before the verb answers, so that it holds from the very next request on.
"""

import secrets
from collections.abc import Awaitable, Callable
from typing import Any, Final, Protocol, TypeVar

from nexus_proxy.admin.values import check_account, check_text, read_amount, read_instant_ms, shown_account, shown_key
from nexus_proxy.config import Config
from nexus_proxy.core.money.amounts import format_nano
from nexus_proxy.core.request import apikey
from nexus_proxy.errors import Refused
from nexus_proxy.ledger.protocol import (
    AccountRow,
    CreateAccount,
    CreateKey,
    Denied,
    KeyRow,
    Operation,
    Outcome,
    Reader,
    RevokeKey,
    SetAccount,
    ToppedUp,
    TopUp,
    UsageBy,
)

RPM_MAX: Final = 1_000_000

_ROW = TypeVar("_ROW", AccountRow, KeyRow, ToppedUp)


class Ledger(Protocol):
    """The ledger's writer, as far as an admin needs it."""

    async def run(self, op: Operation) -> Outcome: ...


class Directory(Protocol):
    """What requests look accounts and keys up in."""

    def put_account(self, row: AccountRow) -> None: ...

    def put_key(self, row: KeyRow) -> None: ...


class Admin:
    """The verbs. Each raises Refused with the reason if it cannot be done; `directory` None: nobody serves requests."""

    def __init__(
        self, ledger: Ledger, reader: Reader, directory: Directory | None, config: Config, clock: Callable[[], int]
    ) -> None:
        self._ledger = ledger
        self._reader = reader
        self._directory = directory
        self._config = config
        self._clock = clock  # milliseconds since 1970

    def verbs(self) -> dict[str, Callable[..., Awaitable[Any]]]:
        """Return what can be asked for by name, and nothing else."""
        return {
            "account_create": self.account_create,
            "account_set": self.account_set,
            "account_list": self.account_list,
            "account_show": self.account_show,
            "key_create": self.key_create,
            "key_list": self.key_list,
            "key_revoke": self.key_revoke,
            "topup": self.topup,
            "usage": self.usage,
        }

    async def account_create(self, account: str, plan: str | None = None, overdraft: str = "0") -> dict[str, Any]:
        """Open an account. `plan` None leaves it to the ladder."""
        check_account(account)
        self._check_plan(plan or None)
        op = CreateAccount(account, self._clock(), plan or None, read_amount("overdraft", overdraft, least=0))
        return self._shown(await self._run(op, AccountRow))

    async def account_set(
        self, account: str, plan: str | None = None, overdraft: str | None = None, suspended: bool | None = None
    ) -> dict[str, Any]:
        """Change what is given. `plan` "" goes back to the ladder."""
        check_account(account)
        self._check_plan(plan or None)
        overdraft_nano = None if overdraft is None else read_amount("overdraft", overdraft, least=0)
        op = SetAccount(account, self._clock(), plan, overdraft_nano, suspended)
        return self._shown(await self._run(op, AccountRow))

    async def account_list(self) -> list[dict[str, Any]]:
        """Return every account, by name."""
        return [self._shown(row) for row in sorted(await self._reader.accounts(), key=lambda row: row.name)]

    async def account_show(self, account: str) -> dict[str, Any]:
        """Return one account and its keys."""
        row = await self._find(account)
        return {**self._shown(row), "keys": [shown_key(key) for key in await self._reader.keys(account)]}

    async def key_create(
        self,
        account: str,
        name: str = "",
        models: list[str] | None = None,
        rpm: int | None = None,
        expires: str | None = None,
    ) -> dict[str, Any]:
        """Mint a key. The answer is the only place where it is ever seen; the ledger gets its hash.

        `models` None allows all; `expires` is an ISO 8601 time, UTC unless it says otherwise.
        """
        check_account(account)
        check_text("name", name, 64)
        if models is not None and (not models or not all(models)):
            raise Refused("models: name at least one, or leave it out to allow all")
        for model in models or ():
            check_text("models", model, 256)
        if rpm is not None and not 1 <= rpm <= RPM_MAX:
            raise Refused(f"rpm: expected 1 to {RPM_MAX}, not {rpm}")
        now_ms = self._clock()
        expires_ms = None if expires is None else read_instant_ms("expires", expires)
        if expires_ms is not None and expires_ms <= now_ms:
            raise Refused(f"expires: {expires} is in the past")
        key = apikey.mint(secrets.token_bytes(32))
        allowed = None if models is None else tuple(dict.fromkeys(models))
        op = CreateKey(account, apikey.hash_key(key), apikey.hint(key), now_ms, name, allowed, rpm, expires_ms)
        row = await self._run(op, KeyRow)
        unserved = [model for model in allowed or () if model not in self._config.models]
        return {"key": key, **shown_key(row), "unserved_models": unserved}

    async def key_list(self, account: str | None = None) -> list[dict[str, Any]]:
        """Return the keys of one account, or of all."""
        if account is not None:
            await self._find(account)
        return [shown_key(row) for row in await self._reader.keys(account)]

    async def key_revoke(self, key_id: int) -> dict[str, Any]:
        """End a key. It is refused from the next request on; requests that already run are finished."""
        if not 0 < key_id < 2**63:
            raise Refused(f"no key {key_id}")
        return shown_key(await self._run(RevokeKey(key_id, self._clock()), KeyRow))

    async def topup(self, account: str, amount: str, external_id: str | None = None, note: str = "") -> dict[str, Any]:
        """Pay in. The same `external_id` is applied once; `applied` tells whether this was the time."""
        check_account(account)
        if external_id is not None:
            check_text("external_id", external_id, 200)
            if not external_id:
                raise Refused("external_id: is empty")
        check_text("note", note, 1000)
        op = TopUp(account, read_amount("amount", amount, least=1), self._clock(), external_id, note)
        done = await self._run(op, ToppedUp)
        return {
            "entry": done.entry_id,
            "applied": done.applied,
            "amount": format_nano(op.amount_nano),
            **self._shown(done.account),
        }

    async def usage(self, by: UsageBy = "day", since: str | None = None) -> list[dict[str, Any]]:
        """Return closed requests summed up by day, key, model or account. `since` is an ISO 8601 time."""
        lines = await self._reader.usage(by, None if since is None else read_instant_ms("since", since))
        return [
            {
                by: line.label,
                "requests": line.requests,
                "prompt_tokens": line.prompt_tokens,
                "cached_tokens": line.cached_tokens,
                "completion_tokens": line.completion_tokens,
                "reasoning_tokens": line.reasoning_tokens,
                "charge": format_nano(line.charge_nano),
                "currency": self._config.currency,
            }
            for line in lines
        ]

    # --- leaves ---------------------------------------------------------------------------------------------------

    async def _run(self, op: Operation, expected: type[_ROW]) -> _ROW:
        """Run one operation and let the directory know. No await stands between the outcome and the directory."""
        outcome = await self._ledger.run(op)
        if isinstance(outcome, Denied):
            raise Refused(outcome.reason)
        assert isinstance(outcome, expected), outcome
        if self._directory is not None:
            match outcome:
                case KeyRow():
                    self._directory.put_key(outcome)
                case AccountRow():
                    self._directory.put_account(outcome)
                case ToppedUp():
                    self._directory.put_account(outcome.account)
        return outcome

    def _shown(self, row: AccountRow) -> dict[str, Any]:
        return shown_account(row, self._config)

    async def _find(self, account: str) -> AccountRow:
        for row in await self._reader.accounts():
            if row.name == account:
                return row
        raise Refused(f"no account {account!r}")

    def _check_plan(self, plan: str | None) -> None:
        if plan is not None and plan not in self._config.plans:
            known = ", ".join(sorted(self._config.plans))
            raise Refused(f"no plan {plan!r} in the configuration; there is: {known}")
