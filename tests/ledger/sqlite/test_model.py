"""Whatever the order of operations, the ledger agrees with forty lines of arithmetic, and proves itself."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from nexus_proxy.core.money.prices import amount_nano
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.ledger.protocol import (
    AlreadySettled,
    Denied,
    Held,
    Operation,
    Progress,
    SetAccount,
    Settled,
    Short,
    Suspended,
    ToppedUp,
    TopUp,
)
from nexus_proxy.ledger.sqlite.verify import verify
from tests.ledger.ledgerbook import DEAR, T0, Book, hold, settle, void

AMOUNTS = st.integers(0, 3_000_000)
PAID = 3_000_000  # before anything else: what is charged in one batch and again in the next is rare without
USAGES = st.tuples(st.integers(0, 1200), st.integers(0, 200)).map(lambda counts: Usage(*counts))


@dataclass
class Balance:
    """What an account should have."""

    balance: int = 0
    held: int = 0
    overdraft: int = 0
    suspended: bool = False

    @property
    def available(self) -> int:
        return self.balance + self.overdraft - self.held


class LedgerMachine(RuleBasedStateMachine):
    """Two accounts, one file, and a process that dies now and then."""

    @initialize()
    def begin(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.path = Path(self.directory.name) / "nexus.db"
        self.book = Book(self.path)
        self.ids = [self.book.customer(name, PAID) for name in ("a", "b")]
        self.accounts = [Balance(PAID), Balance(PAID)]
        self.open: dict[str, tuple[int, int, Usage | None]] = {}  # request: account, hold, progress
        self.closed: list[str] = []
        self.paid: dict[str, tuple[int, int]] = {}
        self.revenue = self.overrun = self.number = 0

    def apply(self, op: Operation) -> object:
        return self.book.run(op)[0]

    @rule(who=st.integers(0, 1), amount=AMOUNTS)
    def hold(self, who: int, amount: int) -> None:
        self.number += 1
        account, request_id = self.accounts[who], f"r{self.number}"
        outcome = self.apply(hold(*self.ids[who], amount, request_id))
        if account.suspended:
            assert outcome == Suspended()
        elif amount > account.available:
            assert outcome == Short(amount, account.balance + account.overdraft, account.available)
        else:
            assert outcome == Held()
            account.held += amount
            self.open[request_id] = (who, amount, None)

    def close(self, request_id: str, charge: int) -> tuple[int, int]:
        who, amount, _ = self.open.pop(request_id)
        account = self.accounts[who]
        charged = min(charge, amount + max(0, account.available))
        account.balance -= charged
        account.held -= amount
        self.revenue += charge
        self.overrun += charge - charged
        self.closed.append(request_id)
        return charged, charge - charged

    @precondition(lambda self: self.open)
    @rule(data=st.data(), usage=USAGES, voided=st.booleans())
    def settle(self, data: st.DataObject, usage: Usage, voided: bool) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.open)))
        who = self.open[request_id][0]
        outcome = self.apply(void(request_id) if voided else settle(request_id, usage))
        charged, overrun = self.close(request_id, 0 if voided else amount_nano(DEAR.tiers, usage))
        assert outcome == Settled(self.ids[who][0], charged, overrun)

    @precondition(lambda self: self.closed)
    @rule(data=st.data(), usage=USAGES)
    def settle_again(self, data: st.DataObject, usage: Usage) -> None:
        assert self.apply(settle(data.draw(st.sampled_from(self.closed)), usage)) == AlreadySettled()

    @precondition(lambda self: self.open)
    @rule(data=st.data(), usage=USAGES)
    def progress(self, data: st.DataObject, usage: Usage) -> None:
        request_id = data.draw(st.sampled_from(sorted(self.open)))
        who, amount, _ = self.open[request_id]
        self.apply(Progress(request_id, usage))
        self.open[request_id] = (who, amount, usage)

    @rule(who=st.integers(0, 1), amount=AMOUNTS, external_id=st.sampled_from([None, "x", "y"]))
    def top_up(self, who: int, amount: int, external_id: str | None) -> None:
        outcome = self.apply(TopUp("ab"[who], amount, T0, external_id))
        if external_id in self.paid and external_id is not None:
            same = self.paid[external_id] == (who, amount)
            assert isinstance(outcome, ToppedUp) == same
            assert not (isinstance(outcome, ToppedUp) and outcome.applied)
        elif amount == 0:
            assert isinstance(outcome, Denied)
        else:
            assert isinstance(outcome, ToppedUp)
            assert outcome.applied
            self.accounts[who].balance += amount
            if external_id is not None:
                self.paid[external_id] = (who, amount)

    @rule(who=st.integers(0, 1), overdraft=st.integers(0, 1_000_000), suspended=st.booleans())
    def change(self, who: int, overdraft: int, suspended: bool) -> None:
        account = self.accounts[who]
        outcome = self.apply(SetAccount("ab"[who], T0, overdraft_nano=overdraft, suspended=suspended))
        allowed = account.balance - account.held >= -overdraft
        assert isinstance(outcome, Denied) != allowed
        if allowed:
            account.overdraft, account.suspended = overdraft, suspended

    @rule()
    def crash(self) -> None:
        self.book.store.close()
        self.book = Book(self.path)
        assert self.book.store.recover(T0 + 5) == len(self.open)
        for request_id, (_, amount, usage) in sorted(self.open.items()):
            self.close(request_id, 0 if usage is None else min(amount, amount_nano(DEAR.tiers, usage)))

    @invariant()
    def agrees(self) -> None:
        for (account_id, _), account in zip(self.ids, self.accounts, strict=True):
            assert self.book.balance(account_id) == (account.balance, account.held)
        internal = [self.book.balance(account_id)[0] for account_id in (2, 3)]
        assert internal == [self.revenue, -self.overrun]
        assert self.book.one("SELECT sum(balance_nano) FROM accounts") == (0,)

    def teardown(self) -> None:
        if hasattr(self, "book"):
            self.book.store.close()
            assert verify(self.path) == []
            self.directory.cleanup()


TestLedgerModel = LedgerMachine.TestCase
TestLedgerModel.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
