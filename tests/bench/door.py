"""The door as a system that is measured.

Strategy: the real program with everything on, as an operator would run it, and its log in a file. What it served is
compared with its ledger, and the ledger proves itself.
"""

import asyncio
import sys
from collections.abc import Sequence

from tests.bench.answers import ANSWER
from tests.bench.processes import pinned_here
from tests.bench.systems import CONNECTIONS_MAX, START_S, STOP_S, Place, System, Worthless, head
from tests.rig.door import DoorProcess
from tests.rig.eventually import eventually
from tests.rig.reckon import charge_nano
from tests.rig.settings import PRICES, settings


class Door(System):
    """The door, as it is served: real keys, real limiter, durable ledger, metrics, and a log line a request."""

    name = "door"

    def __init__(self, place: Place) -> None:
        super().__init__(place)
        for left in self.directory.glob("nexus.db*"):  # of an earlier run in the same folder
            left.unlink()
        provider = {"p-openai": {"in_flight_max": CONNECTIONS_MAX}}
        self.door = DoorProcess(self.directory, settings(place.upstream_url, {"providers": provider}))
        self.port = self.door.port
        self.before = 0  # rows that were there before
        self._late = 0
        self._set_up = False

    async def start(self) -> None:
        if not self._set_up:
            await asyncio.to_thread(self.prepare)
        with pinned_here(self.place.core):
            await self.door.launch()
        self.pid = self.door.process.pid
        try:
            await eventually(self._is_ready, START_S)
        except TimeoutError:
            raise Worthless(f"{self.name} is not ready; {self.door.log_path} may tell why") from None
        if not self._set_up:
            self.heads = [head(key) for key in await self.keys()]
            self._set_up = True

    async def _is_ready(self) -> bool:
        if self.door.process.returncode is not None:
            raise Worthless(f"{self.name} has ended; {self.door.log_path} may tell why")
        return await self.door.is_ready()

    def prepare(self) -> None:
        """Do what must be done before the first start. In a thread."""

    async def keys(self) -> Sequence[str]:
        """Return the keys that are used in turn."""
        return [await self.door.mint("acme", topup="1000000.00")]

    async def stop(self) -> None:
        if not hasattr(self.door, "process") or self.door.process.returncode is not None:
            return
        try:
            if self._set_up:
                await self._look()
        finally:
            code = await self.door.stop(timeout_s=STOP_S)
        if code != 0:
            raise Worthless(f"{self.name} did not end well; {self.door.log_path} may tell why")

    async def _look(self) -> None:
        """Take down what a process counted, before it ends. Worthless if it did not log everything."""
        if dropped := await self.door.metric("nexus_log_lines_dropped_total"):
            raise Worthless(f"{self.name}: {dropped:.0f} lines of the log were dropped")
        self._late += int(await self.door.metric("nexus_settle_late_total"))

    async def prove(self) -> str:
        """Compare the ledger with what the clients saw, and let it prove itself. Worthless if it does not agree."""
        await self.stop()
        query = (
            "SELECT streamed, status, state, usage_source, charge_nano, overrun_nano, count(*) AS n "
            "FROM requests WHERE seq > ? GROUP BY 1, 2, 3, 4, 5, 6"
        )
        rows = [tuple(row.values()) for row in self.door.sql(query, self.before)]
        exact = charge_nano(ANSWER.counts(), PRICES["openai"])
        expected = [
            (int(streamed), 200, "posted", "reported", exact, 0, self.served[streamed])
            for streamed in (False, True)
            if self.served[streamed]
        ]
        if rows != expected:
            raise Worthless(f"{self.name}: the ledger has {rows}, the clients saw {expected}")
        verify = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "nexus_proxy", "--config", str(self.door.config_path), "ledger", "verify",
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        output, _ = await verify.communicate()
        if verify.returncode != 0:
            raise Worthless(f"{self.name}: ledger verify: {output.decode()}")
        late = (
            f"; {self._late:,} of them went out before that was durable" if self._late else ", durably before its end"
        )
        return (
            f"{await super().prove()} Each has its row and was charged exactly{late}. "
            f"{self.before + sum(self.served.values()):,} rows; ledger verify found nothing."
        )
