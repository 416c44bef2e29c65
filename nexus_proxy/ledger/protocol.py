"""What a ledger does, whichever database is behind it.

Strategy: everything that changes money is an operation, a frozen record; a store applies a batch of them in one
durable transaction and returns one outcome each. An outcome is a type, not a bool. No database type is in here. What
every request needs is a plain class, which costs a tenth of any other record where it is compiled.
Amounts are nano-units of the deployment's currency, times are milliseconds since 1970-01-01 UTC.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, NamedTuple, Protocol

from nexus_proxy.core.money.plans import Plan
from nexus_proxy.core.money.prices import PriceVersion
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage

# --- operations of a request --------------------------------------------------------------------------------------


class Hold:
    """Set money aside for one request, and open its row."""

    def __init__(
        self,
        request_id: str,
        account_id: int,
        key_id: int,
        model: str,
        provider: str,
        upstream_model: str,
        streamed: bool,
        price_id: str,
        hold_nano: int,
        input_bound: int,  # tokens
        output_bound: int,  # tokens, over all choices
        opened_ms: int,
    ) -> None:
        self.request_id: Final = request_id
        self.account_id: Final = account_id
        self.key_id: Final = key_id
        self.model: Final = model
        self.provider: Final = provider
        self.upstream_model: Final = upstream_model
        self.streamed: Final = streamed
        self.price_id: Final = price_id
        self.hold_nano: Final = hold_nano
        self.input_bound: Final = input_bound
        self.output_bound: Final = output_bound
        self.opened_ms: Final = opened_ms


class Progress(NamedTuple):
    """What an open request would be charged if this process died now."""

    request_id: str
    usage: Usage


class Settle:
    """End a hold: post the charge (0 with source `none` is a void) and close the row."""

    def __init__(
        self,
        request_id: str,
        end_state: EndState,
        usage_source: UsageSource,
        usage: Usage | None,
        charge_nano: int,  # exact; may exceed the hold
        cost_nano: int,  # of the price's cost currency
        status: int,  # the HTTP status that the client got, 499 if it had left
        closed_ms: int,
        first_byte_ms: int | None = None,
        duration_ms: int | None = None,
        flags: str = "",  # words separated by a space, such as `unknown_upstream_cost`, `usage_flagged`
        estimator: int | None = None,  # version, where the source is an estimate
    ) -> None:
        self.request_id: Final = request_id
        self.end_state: Final = end_state
        self.usage_source: Final = usage_source
        self.usage: Final = usage
        self.charge_nano: Final = charge_nano
        self.cost_nano: Final = cost_nano
        self.status: Final = status
        self.closed_ms: Final = closed_ms
        self.first_byte_ms: Final = first_byte_ms
        self.duration_ms: Final = duration_ms
        self.flags: Final = flags
        self.estimator: Final = estimator


# --- operations of admins -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateAccount:
    """Open an account. `plan` None lets the ladder decide."""

    name: str
    at_ms: int
    plan: str | None = None
    overdraft_nano: int = 0


@dataclass(frozen=True, slots=True)
class SetAccount:
    """Change what is given; None leaves as it is. `plan` "" goes back to the ladder."""

    name: str
    at_ms: int
    plan: str | None = None
    overdraft_nano: int | None = None
    suspended: bool | None = None


@dataclass(frozen=True, slots=True)
class CreateKey:
    """Add a key to an account. Only the hash is stored."""

    account: str
    key_hash: bytes  # SHA-256
    hint: str  # the key's last four characters
    at_ms: int
    name: str = ""
    models: tuple[str, ...] | None = None  # None allows all
    rpm: int | None = None
    expires_ms: int | None = None


@dataclass(frozen=True, slots=True)
class RevokeKey:
    """End a key, by its id. Revoking twice is no error."""

    key_id: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class TopUp:
    """Pay in. The same `external_id` is applied once; with another account or amount it is refused."""

    account: str
    amount_nano: int
    at_ms: int
    external_id: str | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class DeclarePrices:
    """Record price versions that may be used from now on; known ids are left as they are."""

    prices: tuple[PriceVersion, ...]
    at_ms: int


@dataclass(frozen=True, slots=True)
class DeclareCurrency:
    """Say in which currency the ledger counts. Denied once money of another has been paid in."""

    currency: str


@dataclass(frozen=True, slots=True)
class DeclarePlans:
    """Replace the plans that the views show."""

    plans: tuple[Plan, ...]


AdminOperation = (
    CreateAccount | SetAccount | CreateKey | RevokeKey | TopUp | DeclareCurrency | DeclarePrices | DeclarePlans
)
Operation = Hold | Progress | Settle | AdminOperation

# --- outcomes -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Held:
    """The hold is durable."""


@dataclass(frozen=True, slots=True)
class Short:
    """The account cannot carry the hold. `balance_nano` includes the overdraft, `available_nano` is it less holds."""

    required_nano: int
    balance_nano: int
    available_nano: int


@dataclass(frozen=True, slots=True)
class Suspended:
    """The account is suspended."""


class Settled:
    """The hold ended now. `charged_nano` is what the account paid, `overrun_nano` what it could not."""

    def __init__(self, account_id: int, charged_nano: int, overrun_nano: int) -> None:
        self.account_id: Final = account_id
        self.charged_nano: Final = charged_nano
        self.overrun_nano: Final = overrun_nano

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settled) and self._values() == other._values()

    def __repr__(self) -> str:
        return f"Settled{self._values()}"

    def _values(self) -> tuple[int, int, int]:
        return self.account_id, self.charged_nano, self.overrun_nano


@dataclass(frozen=True, slots=True)
class AlreadySettled:
    """The hold had ended before, or never was; nothing was changed."""


@dataclass(frozen=True, slots=True)
class Done:
    """Nothing to report."""


@dataclass(frozen=True, slots=True)
class Denied:
    """An admin's operation that cannot be done."""

    reason: str


@dataclass(frozen=True, slots=True)
class AccountRow:
    """An account as it stands. `plan` None: the ladder decides."""

    account_id: int
    name: str
    plan: str | None
    suspended: bool
    overdraft_nano: int
    balance_nano: int
    held_nano: int
    paid_nano: int
    spent_nano: int
    created_ms: int
    last_entry_ms: int | None


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as it stands, without the key."""

    key_id: int
    account_id: int
    account: str
    name: str
    key_hash: bytes
    hint: str
    models: tuple[str, ...] | None
    rpm: int | None
    created_ms: int
    expires_ms: int | None
    revoked_ms: int | None


@dataclass(frozen=True, slots=True)
class ToppedUp:
    """The money is there. `applied` False: it already was, under the same external id."""

    entry_id: int
    applied: bool
    account: AccountRow


Outcome = Held | Short | Suspended | Settled | AlreadySettled | Done | Denied | AccountRow | KeyRow | ToppedUp
# Is told what became of a settlement; None: the next start does it.
Landed = Callable[[Settled | AlreadySettled | None], None]

# --- what is read -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RecentRequest:
    """A request that was opened within the last minute, to seed the limiter's windows."""

    account_id: int
    key_id: int
    opened_ms: int


@dataclass(frozen=True, slots=True)
class UsageLine:
    """One line of a usage report."""

    label: str
    requests: int
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    reasoning_tokens: int
    charge_nano: int


UsageBy = Literal["day", "key", "model", "account"]


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that `verify` found wrong, for a person."""

    check: str
    detail: str


class Store(Protocol):
    """One database. Called from one thread only; blocking."""

    def open(self) -> None:
        """Open or create, migrate, take the run id. LedgerError if that cannot be."""

    def recover(self, now_ms: int) -> int:
        """End every hold that an earlier run left open: by its spooled settlement, else post its progress, else void.

        Return how many were posted by progress or voided.
        """

    def apply(self, batch: Sequence[Operation]) -> list[Outcome]:
        """Apply in order, in one durable transaction, and return one outcome each. All or nothing on an exception.

        An empty batch proves that the store can commit.

        StoreBusy: nothing happened, another try may succeed. StoreBroken: the database can no longer be trusted.
        """

    def tidy(self, *, busy: bool) -> None:
        """Do what can wait until outcomes were handed back; `busy`, as more wait: only what must be done.

        Called after every batch. Never raises for the world's faults: what could not be done is tried again.
        """

    def spool(self, settlements: Sequence[Settle]) -> None:
        """Put settlements that cannot be committed where the next `recover` finds them. OSError if even that fails."""

    def close(self) -> None:
        """Release everything."""


class StoreBusy(Exception):
    """The store cannot commit now (locked, disk full); nothing was changed."""


class StoreBroken(Exception):
    """The store failed in a way after which nothing it says can be relied on; the process must end."""


class Reader(Protocol):
    """Reads beside the writer. Sees everything that was committed before the call."""

    async def account(self, account_id: int) -> AccountRow | None: ...

    async def accounts(self) -> list[AccountRow]: ...

    async def keys(self, account: str | None = None) -> list[KeyRow]: ...

    async def request(self, request_id: str) -> dict[str, Any] | None:
        """Return the row of the view `usage`, by column name."""

    async def recent(self, since_ms: int) -> list[RecentRequest]:
        """Requests opened at or after `since_ms`, oldest first."""

    async def usage(self, by: UsageBy, since_ms: int | None) -> list[UsageLine]:
        """Closed requests summed up; days and ids in ascending order."""

    async def ping(self) -> None:
        """Raise if the ledger cannot be read."""

    async def close(self) -> None: ...
