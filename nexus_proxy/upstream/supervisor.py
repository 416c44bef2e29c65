"""The owner of every exchange: nothing that holds money runs unowned.

Strategy: an exchange is started here and stays here until it is over, whatever its client does. At the end of the
server the supervisor waits, and tells the rest to stop.
"""

import asyncio
from collections.abc import Callable

from nexus_proxy.upstream.exchange import Exchange

WIND_UP_S = 10.0  # for exchanges that were told to stop to settle


class Supervisor:
    """Runs exchanges. `on_fault` is told of exceptions, which are faults of our own."""

    def __init__(self, on_fault: Callable[[BaseException], None]) -> None:
        self._on_fault = on_fault
        self._running: dict[Exchange, Callable[[Exchange], None]] = {}
        self._quiet: asyncio.Future[None] | None = None  # somebody waits for the last one

    def __len__(self) -> int:
        return len(self._running)

    def start(self, exchange: Exchange, over: Callable[[Exchange], None]) -> None:
        """Begin the exchange; `over` is told when it is over."""
        self._running[exchange] = over
        exchange.begin(self._ended)

    def _ended(self, exchange: Exchange, fault: BaseException | None) -> None:
        over = self._running.pop(exchange)
        try:
            over(exchange)
        except Exception as another:  # noqa: BLE001 - a supervisor
            fault = fault or another
        if fault is not None:
            self._on_fault(fault)
        if self._quiet is not None and not self._running and not self._quiet.done():
            self._quiet.set_result(None)

    async def finish(self, timeout_s: float) -> int:
        """Wait for the exchanges to end by themselves, then stop the rest. Return how many had to be stopped."""
        await self._wait(timeout_s)
        stopped = list(self._running)
        for exchange in stopped:
            exchange.shut_down()
        await self._wait(WIND_UP_S)
        return len(stopped)

    async def _wait(self, timeout_s: float) -> None:
        if self._running:
            self._quiet = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._quiet,), timeout=timeout_s)
            self._quiet = None
