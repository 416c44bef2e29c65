"""The clock of one exchange: when it has waited long enough, and for what.

Strategy: the first byte, which every exchange waits for, is waited for in company: see `runtime.timeouts`. From then on
there is one timer, set to the next instant at which something can be due. Nothing is set anew for a byte that comes: it
only moves `heard_at`, and a timer that finds nothing due sets itself again.
"""

import asyncio
from collections.abc import Callable

from nexus_proxy.config import Timeouts
from nexus_proxy.core.wire.outcome import Cause
from nexus_proxy.runtime.timeouts import TimeoutQueue

PROGRESS_S = 5.0
STOPPED_S = 0.25  # a timer that is later than this tells of a process that was stopped


class ExchangeTimer:
    """`on_due` is told why the exchange is over, `on_progress` that it is time to journal. Times are the loop's.

    `first_bytes` is where all exchanges wait for the first byte, as long as the timeouts say.
    """

    __slots__ = (
        "_deadline",
        "_drain_until",
        "_due",
        "_first_bytes",
        "_loop",
        "_on_due",
        "_on_progress",
        "_paused",
        "_progressed_at",
        "_sent_at",
        "_timeouts",
        "_timer",
        "began",
        "heard_at",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeouts: Timeouts,
        first_bytes: TimeoutQueue,
        *,
        on_due: Callable[[Cause], None],
        on_progress: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._timeouts = timeouts
        self._first_bytes = first_bytes
        self._on_due = on_due
        self._on_progress = on_progress
        self._deadline = loop.time() + timeouts.exchange_s
        self._drain_until: float | None = None
        self._sent_at: float | None = None
        self._progressed_at = self._due = 0.0
        self._paused = False
        self._timer: asyncio.TimerHandle | None = None
        self.began = False  # a byte of the answer has come
        self.heard_at = 0.0  # when the last one did

    def start(self) -> None:
        """The request goes out: from now on the provider is waited for."""
        self._sent_at = self.heard_at = now = self._loop.time()
        self._due = self._next(now)
        if self._due == now + self._first_bytes.wait_s:
            self._first_bytes.enter(self, now)
        else:  # the exchange's own time is over before that
            self._arm()

    def overdue(self) -> None:
        """The first byte did not come in time."""
        self._ring()

    def begin(self) -> None:
        """The answer has begun: from now on its silences count, and what it comes to is journaled."""
        self.began = True
        self._arm()
        self._progress()

    def drain(self, until: float | None) -> None:
        """The client has left: read on for so long; None is as long as the exchange may take."""
        self._drain_until = self._deadline if until is None else until
        self._arm()

    def pause(self) -> None:
        """The provider is not listened to: its silence does not count."""
        self._paused = True

    def resume(self) -> None:
        """It is listened to again."""
        self._paused = False
        self.heard_at = self._loop.time()
        self._arm()

    def stop(self) -> None:
        """Nothing is due any more."""
        self._first_bytes.leave(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def end(self) -> None:
        """Nothing will be due again, and nobody is to be told."""
        self.stop()
        self._on_due, self._on_progress = _nobody, _nothing  # who was told holds this timer: no cycle may stay

    def _arm(self) -> None:
        self.stop()
        if self._sent_at is not None:  # until then a connection is being made, which has a limit of its own
            self._due = self._next(self._sent_at)
            self._timer = self._loop.call_at(self._due, self._ring)

    def _next(self, sent_at: float) -> float:
        timeouts, due = self._timeouts, self._deadline
        if self._drain_until is not None:
            due = min(due, self._drain_until)
        if self._paused:  # the listener watches a client that does not read
            return due
        if not self.began:
            return min(due, sent_at + self._first_bytes.wait_s)
        return min(due, self.heard_at + timeouts.silence_s, self._loop.time() + PROGRESS_S)

    def _ring(self) -> None:
        self._timer = None
        now = self._loop.time()
        if now - self._due > STOPPED_S and self._drain_until is None:
            # This process was stopped, or the loop was held: what came meanwhile is read before anybody is timed out.
            self._due = now + STOPPED_S
            self._timer = self._loop.call_at(self._due, self._ring)
            return
        assert self._sent_at is not None
        cause = self._cause(now, self._sent_at)
        if cause is not None:
            self._on_due(cause)
            return
        self._arm()
        if self.began and not self._paused and now >= self._progressed_at + PROGRESS_S:
            self._progress()

    def _cause(self, now: float, sent_at: float) -> Cause | None:
        if now >= self._deadline:
            return Cause.TOO_LONG
        if self._drain_until is not None and now >= self._drain_until:
            return Cause.ABANDONED
        if self._paused:
            return None
        if not self.began:
            return Cause.LATE if now >= sent_at + self._first_bytes.wait_s else None
        return Cause.SILENT if now >= self.heard_at + self._timeouts.silence_s else None

    def _progress(self) -> None:
        self._progressed_at = self._loop.time()
        self._on_progress()


def _nobody(_cause: Cause) -> None:
    pass


def _nothing() -> None:
    pass
