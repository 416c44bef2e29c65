"""The money that is set aside for one request, from the durable hold to the one settlement.

Strategy: whoever conducts the request lends this object to the exchange; it knows the price, the bound and the ledger,
so the exchange only says what it saw. Settling twice is impossible here (the first verdict stands) and in the
database. A settlement is never cancelled: who waits for it may give up, the ledger does not.
"""

import asyncio
from collections.abc import Callable
from typing import Protocol

from nexus_proxy.core.money.prices import Price
from nexus_proxy.core.money.settlement import ESTIMATOR_VERSION, Ending, UsageSource, Verdict, decide, estimate
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import LedgerUnavailable, NexusError
from nexus_proxy.ledger.protocol import AlreadySettled, Hold, Landed, Progress, Settle, Settled
from nexus_proxy.runtime.timeouts import TimeoutQueue


class Settler(Protocol):
    """What of the writer is needed here."""

    def settle(self, op: Settle, landed: Landed) -> None:
        """Queue a settlement; `landed` is told when it is durable, or None if that will not be."""

    def progress(self, op: Progress) -> None:
        """Remember what would be charged if this process died now."""


class OpenHold:
    """A durable hold. `verdict` is None until it is settled, `settled` until that is durable.

    `commits` is where settlements wait to be durable, until the deadline; `on_settled` is told what the ledger made of
    the settlement, however late that is.
    """

    __slots__ = (
        "_commits",
        "_failure",
        "_held_at",
        "_landed",
        "_last",
        "_loop",
        "_on_settled",
        "_opened",
        "_told",
        "_writer",
        "hold",
        "late",
        "price",
        "settled",
        "verdict",
    )

    def __init__(
        self,
        writer: Settler,
        hold: Hold,
        price: Price,
        *,
        loop: asyncio.AbstractEventLoop,
        opened: float,
        commits: TimeoutQueue,
        on_settled: "Callable[[OpenHold, Settled | AlreadySettled], None]",
    ) -> None:
        self._writer = writer
        self._loop = loop
        self._opened = opened  # the loop's time at which the request came
        self._held_at = loop.time()
        self._commits = commits
        self._on_settled = on_settled
        self._last: Usage | None = None
        self._landed = False  # the ledger has told what became of the settlement
        self._failure: NexusError | None = None
        self._told: Callable[[NexusError | None], None] | None = None
        self.hold = hold
        self.price = price
        self.verdict: Verdict | None = None
        self.settled: Settled | None = None
        self.late = False

    def progress(self, usage: Usage | None, prompt_estimate: int, output_bytes: int, *, thought: bool = False) -> None:
        """Journal the counts seen so far, if they changed. `thought`: there is reasoning in the output."""
        counts = usage or estimate(prompt_estimate, output_bytes, thought=thought)
        if counts != self._last and self.verdict is None:
            self._last = counts
            self._writer.progress(Progress(self.hold.request_id, counts))

    def settle(
        self, ending: Ending, *, status: int, first_byte: float | None = None, flags: tuple[str, ...] = ()
    ) -> Verdict:
        """Decide and post what the ending is charged; only the first call does. `first_byte` is the loop's time."""
        if self.verdict is not None:
            return self.verdict
        hold, opened, now = self.hold, self._opened, self._loop.time()
        self.verdict = verdict = decide(ending, self.price, hold.hold_nano)
        usage_source, usage = verdict.usage_source, verdict.usage
        if usage is not None and usage.flagged:
            flags = (*flags, "usage_flagged")
        closed_ms = hold.opened_ms + int((now - self._held_at) * 1000)
        first_byte_ms = None if first_byte is None else int((first_byte - opened) * 1000)
        duration_ms = int((now - opened) * 1000)
        operation = Settle(
            hold.request_id,
            verdict.end_state,
            usage_source,
            usage,
            verdict.charge_nano,
            verdict.cost_nano,
            status,
            closed_ms,
            first_byte_ms,
            duration_ms,
            " ".join(flags),
            ESTIMATOR_VERSION if usage_source is UsageSource.ESTIMATED else None,
        )
        self._writer.settle(operation, self._land)
        return verdict

    def when_durable(self, told: Callable[[NexusError | None], None]) -> None:
        """Call `told` once: when the settlement is durable, or the commit deadline has passed.

        `late` tells then that the deadline passed first; the ledger goes on trying. With LedgerUnavailable if it has
        given up: then the process is ending, and the next start recovers the hold.
        """
        if self._landed:
            told(self._failure)
        else:
            self._told = told
            self._commits.enter(self, self._loop.time())

    def _land(self, outcome: Settled | AlreadySettled | None) -> None:
        self._landed = True
        if outcome is None:
            self._failure = LedgerUnavailable("The ledger cannot commit.")
        else:
            if isinstance(outcome, Settled):
                self.settled = outcome
            self._on_settled(self, outcome)
        self._commits.leave(self)
        self._tell(self._failure)

    def overdue(self) -> None:
        """The commit deadline has passed."""
        self.late = True
        self._tell(None)

    def _tell(self, failure: NexusError | None) -> None:
        told, self._told = self._told, None
        if told is not None:
            told(failure)
