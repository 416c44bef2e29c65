"""The one writer of the ledger: a thread that commits whatever has queued up, and only then tells who waits.

Strategy: the event loop gathers operations and hands them over in lists; the thread takes the lists that are there,
applies them as one durable transaction, and hands all outcomes back in one call into the loop. While a batch is being
committed the next one gathers, so durability costs one disk flush a batch. Waking the thread costs more than an
operation (both want the interpreter's lock), and a batch as much as ten, so in company an operation waits while turns
of the loop bring more, within a bound; a lone one does not. Turns, not a time: they are short while little goes on, and
then nobody is kept waiting. Progress hurries nobody: it goes with the next list, or soon.

A waiter that gave up or left has not been charged: its operation is dropped if the thread has not taken it yet; a hold
that was taken all the same is voided as soon as its outcome comes back. Settlements are never dropped: while the store
is busy they stay queued, in order, and are tried again. All decisions about who still waits are made in the loop, so
that no lock is needed. If the store breaks, or the thread meets what it does not expect, nothing is tried again:
`on_broken` is told, and the process should end (fail stop).
"""

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Final, cast

from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.errors import LedgerError, LedgerUnavailable
from nexus_proxy.ledger.protocol import (
    AlreadySettled,
    Held,
    Hold,
    Landed,
    Operation,
    Outcome,
    Progress,
    Settle,
    Settled,
    Short,
    Store,
    StoreBroken,
    StoreBusy,
    Suspended,
)
from nexus_proxy.runtime.clock import now_ms
from nexus_proxy.runtime.timeouts import TimeoutQueue

BATCH_MAX: Final = 512  # operations of one transaction
BACK_OFF_S: Final = (0.02, 0.05, 0.1, 0.2)
GATHER_MAX_S: Final = 0.004  # how long the first of a list waits if others keep coming
QUIET_TURNS: Final = 2  # of the loop, after which nobody else is expected
RIDE_S: Final = 0.1  # how long progress waits for a list to go with
COMPANY_S: Final = 0.02  # how long after a batch of several operations more of them are expected
PROBE_S: Final = 0.25  # how often an idle writer whose store was busy tries whether it still is
RETRY_AFTER_NS: Final = 1_000_000_000  # what a client is told
STOP_TIMEOUT_S: Final = 5.0  # how long a stop waits for a store that is busy; what is left is recovered at next start


class _Item:
    """An operation on its way. `abandoned` is set by the loop and read by the thread: nobody waits any more.

    Who waits has a `future`, or is told by `landed`; of progress nobody wants to know.
    """

    __slots__ = ("abandoned", "future", "landed", "op")

    def __init__(
        self, op: Operation, future: "asyncio.Future[Outcome] | None" = None, landed: Landed | None = None
    ) -> None:
        self.op = op
        self.future = future
        self.landed = landed
        self.abandoned = False

    def overdue(self) -> None:
        """It waited for the commit timeout."""
        if self.future is not None and not self.future.done():
            self.abandoned = True
            self.future.set_exception(_unavailable())


class Writer:
    """Group commit on a store. Everything but the thread's own methods is called from the event loop."""

    def __init__(
        self,
        store: Store,
        *,
        loop: asyncio.AbstractEventLoop,
        on_broken: Callable[[BaseException], None],
        commit_timeout_s: float = 1.0,
    ) -> None:
        self.observe: Callable[[int, float], None] | None = None  # a batch was committed: operations, seconds
        self.batches = 0
        self.operations = 0
        self.withdrawn = 0  # holds voided because nobody waited for them any more
        self.busy = 0  # commits that have to be tried again; counted by the thread
        self.spooled = 0  # settlements that the end of the writer left to the next start
        self.unsaved: list[str] = []  # requests of settlements that could not even be left: recovered by their progress
        self.on_unclaimed: Callable[[Outcome], None] | None = None  # what an admin did who has given up waiting
        self._store = store
        self._loop = loop
        self._on_broken = on_broken
        self._gathered: list[_Item] = []  # not handed over yet
        self._progress: list[_Item] = []  # nor these, which wait for nothing but a batch to go with
        self._progress_timer: asyncio.TimerHandle | None = None
        self._armed = False  # they will be, at the end of this turn or a few later
        self._handed = False  # the thread has a list
        self._seen = 0  # how many were gathered a turn of the loop ago
        self._quiet = 0  # turns that brought none
        self._hand_over_by = 0.0  # the loop's time
        self._company_until = 0.0  # the loop's time
        self._waiting = TimeoutQueue(loop, commit_timeout_s)
        self._queue: SimpleQueue[list[_Item] | None] = SimpleQueue()
        self._worker: threading.Thread | None = None
        self._unsettled = 0  # settlements and other items whose outcome has not come back
        self._idle: asyncio.Future[None] | None = None  # the stop waits for the last outcome
        self._writable = False
        self._accepting = False

    @property
    def writable(self) -> bool:
        """The last commit succeeded, and the writer runs."""
        return self._writable and self._accepting

    @property
    def queued(self) -> int:
        """Operations whose outcome has not come back."""
        return self._unsettled

    async def start(self) -> int:
        """Open the store and recover it; return how many holds an earlier run had left open. LedgerError."""
        started: asyncio.Future[int] = self._loop.create_future()
        self._worker = threading.Thread(target=self._run, args=(started,), name="ledger-writer", daemon=True)
        self._worker.start()
        recovered = await started
        self._accepting = True
        return recovered

    async def stop(self) -> None:
        """Commit what is queued, then end the thread and close the store."""
        thread, self._worker = self._worker, None
        if thread is None:
            return
        if self._accepting:
            with suppress(TimeoutError):
                await self._settle_down()
        self._accepting = False
        self._hand_over()
        self._queue.put(None)
        await asyncio.to_thread(thread.join)

    async def _settle_down(self) -> None:
        if self._unsettled:
            self._idle = self._loop.create_future()
            await asyncio.wait_for(self._idle, STOP_TIMEOUT_S)

    def _rest(self) -> None:
        if self._idle is not None and not self._idle.done():
            self._idle.set_result(None)

    def hold(self, op: Hold) -> "Coroutine[Any, Any, Held | Short | Suspended]":
        """Return when the hold is durable, or refused. LedgerUnavailable if it could not be had in time."""
        return cast("Coroutine[Any, Any, Held | Short | Suspended]", self.run(op))

    def settle(self, op: Settle, landed: Landed) -> None:
        """Queue a settlement. `landed` is told when it is durable, which may be late but is never given up.

        With None if the writer ends before: then the next start does it.
        """
        self._put(_Item(op, None, landed))

    def progress(self, op: Progress) -> None:
        """Journal with the next batch what would be charged if this process died; only a request's newest counts."""
        if self._accepting:
            self._progress.append(_Item(op))
            if self._progress_timer is None:
                self._progress_timer = self._loop.call_later(RIDE_S, self._progress_is_due)

    async def run(self, op: Operation) -> Outcome:
        """Apply one operation. LedgerUnavailable after the commit timeout: then it was withdrawn, if not yet begun."""
        future: asyncio.Future[Outcome] = self._loop.create_future()
        item = _Item(op, future)
        self._put(item)
        self._waiting.enter(item, self._loop.time())
        try:
            return await future
        except asyncio.CancelledError:
            item.abandoned = True
            if future.done() and not future.cancelled() and future.exception() is None:
                self._withdraw(op, future.result())  # it was ours before we could be told
            raise
        finally:
            self._waiting.leave(item)

    def _put(self, item: _Item) -> None:
        if self._accepting:
            self._unsettled += 1
            self._gather(item)
        else:
            self._fail(item)

    def _gather(self, item: _Item) -> None:
        self._gathered.append(item)
        if not (self._armed or (self._handed and self._writable)):  # a busy thread also drops what is abandoned
            self._arm()

    def _arm(self) -> None:
        self._armed = True
        now = self._loop.time()
        if now < self._company_until:
            self._seen = self._quiet = 0
            self._hand_over_by = now + GATHER_MAX_S
            self._loop.call_soon(self._hand_over_unless_grown)
        else:
            self._loop.call_soon(self._hand_over)

    def _hand_over_unless_grown(self) -> None:
        """Wait another turn of the loop if the last ones brought more; else all who could come are probably here."""
        seen, self._seen = self._seen, len(self._gathered)
        self._quiet = 0 if self._seen > seen else self._quiet + 1
        if self._quiet < QUIET_TURNS and self._loop.time() < self._hand_over_by:
            self._loop.call_soon(self._hand_over_unless_grown)
        else:
            self._hand_over()

    def _hand_over(self) -> None:
        self._armed = False
        if self._gathered or self._progress:
            self._handed = True
            handed = self._progress + self._gathered  # in this order: a settlement overtakes its request's progress
            self._gathered, self._progress = [], []
            self._queue.put(handed)

    def _progress_is_due(self) -> None:
        self._progress_timer = None
        if self._progress and not self._armed:
            self._hand_over()

    def _deliver(self, items: list[_Item], outcomes: list[Outcome], commit_s: float, done: bool) -> None:
        """Tell who waits; take back what nobody waits for."""
        self.batches += 1
        self.operations += len(outcomes)
        for index, item in enumerate(items):  # progress follows the items in `outcomes`
            outcome, future, landed = outcomes[index], item.future, item.landed
            if landed is not None:
                self._land(landed, cast("Settled | AlreadySettled", outcome))
            elif future is None:
                continue
            elif future.done():
                self._withdraw(item.op, outcome)
            else:
                future.set_result(outcome)
        if len(items) > 1:
            self._company_until = self._loop.time() + COMPANY_S
        self._forget(len(items), done)
        if self.observe is not None:
            self.observe(len(outcomes), commit_s)

    def _land(self, landed: Landed, outcome: "Settled | AlreadySettled | None") -> None:
        try:
            landed(outcome)
        except Exception as fault:  # noqa: BLE001 - of one request; the others of its batch wait to be told
            self._loop.call_exception_handler({"message": "a settlement was not taken note of", "exception": fault})

    def _withdraw(self, op: Operation, outcome: Outcome) -> None:
        if not isinstance(op, Hold):
            if self.on_unclaimed is not None:
                self._loop.call_soon(self.on_unclaimed, outcome)  # behind the settlements of the same batch
        elif isinstance(outcome, Held):
            self.withdrawn += 1
            self.settle(
                Settle(
                    op.request_id,
                    EndState.CLIENT_GONE,
                    UsageSource.NONE,
                    None,
                    0,
                    0,
                    status=499,
                    closed_ms=now_ms(),
                    flags="withdrawn",
                ),
                _nobody,
            )

    def _forget(self, count: int, done: bool) -> None:
        """Count what came back; if the thread is done with what it had, the next list may follow."""
        self._handed = not done
        if done and self._gathered and not self._armed:
            self._arm()
        self._unsettled -= count
        if self._unsettled == 0:
            self._rest()

    def _break(self, error: BaseException, items: list[_Item]) -> None:
        """Fail everybody who waits, and have the process ended."""
        self._end(items)
        self._on_broken(error)

    def _end(self, items: list[_Item]) -> None:
        """The thread ends: fail what it had taken and what is still queued."""
        self._accepting = self._writable = False
        self._hand_over()
        while not self._queue.empty():
            items += self._queue.get() or ()
        for item in items:
            self._fail(item)
        self._unsettled = 0
        self._rest()

    def _fail(self, item: _Item) -> None:
        if item.landed is not None:
            self._loop.call_soon(self._land, item.landed, None)
        elif item.future is not None and not item.future.done():
            item.future.set_exception(_unavailable())

    # --- the thread -----------------------------------------------------------------------------------------------

    def _run(self, started: "asyncio.Future[int]") -> None:
        backlog: list[_Item] = []
        try:
            try:
                self._store.open()
                recovered = self._store.recover(now_ms())
            except BaseException as error:  # noqa: BLE001 - whatever it is, the starter waits for it
                self._call(_refuse, started, error)
                return
            self._writable = True
            self._call(_resolve, started, recovered)
            try:
                self._serve(backlog)
                self._call(self._end, backlog)
            except BaseException as error:  # noqa: BLE001 - the supervisor: a writer that dies must not die silently
                self._spool(backlog)  # one that was committed all the same is known by its row
                self._call(self._break, error, backlog)
        finally:
            self._store.close()

    def _serve(self, backlog: list[_Item]) -> None:
        """Take, commit, hand back, until the queue's end. `backlog` has what is taken and not handed back."""
        progress: dict[str, Progress] = {}
        ended = False
        failures = 0
        while not ended or backlog or progress:
            if not ended:
                ended = self._take(backlog, progress, wait=not (backlog or progress))
            kept = [
                item for item in backlog if not item.abandoned
            ]  # looked at once: the loop may abandon more meanwhile
            if gone := len(backlog) - len(kept):
                backlog[:] = kept
                self._call(self._forget, gone, not (backlog or progress))
            if not (backlog or progress) and self._writable:
                continue
            items = backlog[:BATCH_MAX]
            batch: list[Operation] = [item.op for item in items]
            batch += progress.values()
            began = time.perf_counter()
            try:
                outcomes = self._store.apply(batch)
            except StoreBusy:
                self._writable = False
                self.busy += 1
                if ended:  # the stop has waited long enough
                    self._spool(backlog)
                    return
                time.sleep(BACK_OFF_S[min(failures, len(BACK_OFF_S) - 1)])
                failures += 1
                continue
            self._writable = True
            failures = 0
            del backlog[: len(items)]
            progress.clear()
            if items or outcomes:
                self._call(self._deliver, items, outcomes, time.perf_counter() - began, not backlog)
            self._store.tidy(busy=bool(backlog or self._gathered) or not self._queue.empty())

    def _spool(self, backlog: list[_Item]) -> None:
        settlements = [item.op for item in backlog if isinstance(item.op, Settle)]
        if not settlements:
            return
        try:
            self._store.spool(settlements)
            self.spooled = len(settlements)
        except OSError:
            self.unsaved = [op.request_id for op in settlements]

    def _take(self, backlog: list[_Item], progress: dict[str, Progress], *, wait: bool) -> bool:
        """Move what is queued into the backlog; True at the queue's end. Waits for the first list if asked to."""
        while True:
            try:
                # While the store is busy the writer wakes up to try again: nobody may come before it is writable.
                timeout = None if self._writable else PROBE_S
                handed = self._queue.get(timeout=timeout) if wait else self._queue.get_nowait()
            except Empty:
                return False
            wait = False
            if handed is None:
                return True
            for item in handed:
                if isinstance(item.op, Progress):
                    progress[item.op.request_id] = item.op
                else:
                    if progress and isinstance(item.op, Settle):
                        progress.pop(item.op.request_id, None)
                    backlog.append(item)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            self._loop.call_soon_threadsafe(function, *arguments)


def _resolve(started: "asyncio.Future[int]", recovered: int) -> None:
    if not started.done():
        started.set_result(recovered)


def _refuse(started: "asyncio.Future[int]", error: BaseException) -> None:
    if not started.done():
        if isinstance(error, StoreBusy | StoreBroken):
            cause, error = error, LedgerError(f"the ledger cannot be recovered: {error}")
            error.__cause__ = cause
        started.set_exception(error)


def _unavailable() -> LedgerUnavailable:
    return LedgerUnavailable("The ledger cannot commit at the moment.", retry_after_ns=RETRY_AFTER_NS)


def _nobody(_outcome: "Settled | AlreadySettled | None") -> None:
    """Nobody waits for the end of a hold that nobody waited for."""
