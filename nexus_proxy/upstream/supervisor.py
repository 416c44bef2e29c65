"""The owner of every exchange's task: nothing that holds money runs unowned.

Strategy: an exchange is started here and stays here until its task has ended, whatever its client does. At the end of
the server the supervisor waits, and tells the rest to stop.
"""

import asyncio
from collections.abc import Callable, Coroutine

from nexus_proxy.upstream.exchange import Exchange

WIND_UP_S = 10.0  # for exchanges that were told to stop to settle


class Supervisor:
    """Runs exchanges. `on_fault` is told of exceptions, which are faults of our own."""

    def __init__(self, on_fault: Callable[[BaseException], None]) -> None:
        self._on_fault = on_fault
        self._running: dict[asyncio.Task[None], Exchange] = {}

    def __len__(self) -> int:
        return len(self._running)

    def start(self, exchange: Exchange, conduct: Coroutine[None, None, None]) -> None:
        """Run `conduct`, which runs the exchange."""
        task = asyncio.get_running_loop().create_task(conduct)
        self._running[task] = exchange
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        del self._running[task]
        if not task.cancelled() and (fault := task.exception()) is not None:
            self._on_fault(fault)

    async def finish(self, timeout_s: float) -> int:
        """Wait for the exchanges to end by themselves, then stop the rest. Return how many had to be stopped."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        while self._running and (left_s := deadline - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._running, timeout=left_s)
        stopped = list(self._running.items())
        for _, exchange in stopped:
            exchange.shut_down()
        if stopped:
            await asyncio.wait([task for task, _ in stopped], timeout=WIND_UP_S)
        return len(stopped)
