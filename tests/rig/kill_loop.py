"""Kill the server with SIGKILL under load, again and again, and look for a request that was lost or paid for twice.

Strategy: the real program before a provider in a process of its own, which logs what it received and what usage it
sent; clients that journal what they saw; a killer with a seed. After each kill the raw files are copied and checked
before the restart, and the ledger again after it; the same database goes through all kills, so that errors add up. At
the end everything is reconciled with both journals. `python -m tests.rig.kill_loop --kills 20`.
"""

import argparse
import asyncio
import contextlib
import json
import random
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.rig import reckon
from tests.rig.answers import SHAPES
from tests.rig.door import DoorProcess
from tests.rig.eventually import eventually
from tests.rig.invariants import copied, violations
from tests.rig.settings import settings


@dataclass(frozen=True, slots=True)
class Saw:
    """What a client saw of one request."""

    tag: str
    model: str
    request_id: str | None  # None: the connection ended before an answer began
    status: int | None
    complete: bool


def limit_of(tag: str) -> int:
    """Return the limit of output tokens that a request asks for: by it the ledger's rows are told apart."""
    return 200 + int(tag[1:]) % 7900  # never below what the provider reports


class KillLoop:
    """One run. `run` returns what was found wrong, for a person; nothing if all is well."""

    def __init__(self, directory: Path, *, seed: int, clients: int = 32) -> None:
        self.directory = directory
        self.dice = random.Random(seed)
        self.seed = seed
        self.clients = clients
        self.saw: list[Saw] = []
        self.wrong: list[str] = []
        self.recovery_s: list[float] = []
        self._number = 0
        self._up = asyncio.Event()

    async def run(self, kills: int) -> list[str]:
        """Kill so many times."""
        async with self._upstream() as (url, truth_log):
            door = DoorProcess(self.directory, settings(url))
            await door.start()
            door.key = await door.mint("acme", topup="1000.00")
            self._up.set()
            load = [asyncio.create_task(self._client(door)) for _ in range(self.clients)]
            try:
                for kill in range(kills):
                    await self._kill(door, kill)
                await asyncio.sleep(0.3)
            finally:
                for task in load:
                    task.cancel()
                ended = await asyncio.gather(*load, return_exceptions=True)
            self.wrong += [f"client: {fault!r}" for fault in ended if isinstance(fault, Exception)]
            await self._reconcile(door, truth_log)
            await door.stop()
        return self.wrong

    @contextlib.asynccontextmanager
    async def _upstream(self) -> AsyncIterator[tuple[str, Path]]:
        log = self.directory / "truth.jsonl"
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.rig.fault_upstream", "--log", str(log), "--seed", str(self.seed),
            stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{int(await process.stdout.readline())}", log
        finally:
            process.kill()
            await process.wait()

    async def _kill(self, door: DoorProcess, kill: int) -> None:
        await asyncio.sleep(0.15 + self.dice.random() * 0.4)
        self._up.clear()
        await door.stop(signal.SIGKILL)
        self._check(door, f"kill {kill}, before the restart")
        before = time.monotonic()
        if self.dice.random() < 0.2:  # once more, during the recovery
            await door.launch()
            await asyncio.sleep(self.dice.random() * 0.8)
            await door.stop(signal.SIGKILL)
            self._check(door, f"kill {kill}, during recovery")
            before = time.monotonic()
        await door.start()
        self.recovery_s.append(time.monotonic() - before)
        if door.open_holds():
            self.wrong.append(f"kill {kill}: holds are open after the recovery")
        self._check(door, f"kill {kill}, after the recovery")
        self._up.set()

    def _check(self, door: DoorProcess, when: str) -> None:
        with copied(door.ledger_path, self.directory / "copy") as db:
            self.wrong += [f"{when}: {found}" for found in violations(db)]

    async def _client(self, door: DoorProcess) -> None:
        while True:
            await self._up.wait()
            self._number += 1
            tag, model = f"k{self._number}", f"m-{self.dice.choice(SHAPES)}"
            limit = limit_of(tag)
            request_id, status, complete = None, None, False
            with contextlib.suppress(ConnectionError, TimeoutError):
                async with door.connect() as connection:
                    stream = self.dice.random() < 0.7
                    await connection.send(door.request(tag, model=model, stream=stream, max_tokens=limit))
                    answer = await connection.read_head()
                    request_id, status = answer.header("x-request-id"), answer.status
                    await connection.read_rest()
                    complete = answer.complete
            self.saw.append(Saw(tag, model, request_id, status, complete))
            if status is None:
                await asyncio.sleep(0.01)

    async def _reconcile(self, door: DoorProcess, truth_log: Path) -> None:
        """Compare the ledger with what the upstream logged and what the clients saw."""
        await eventually(lambda: door.open_holds() == 0, timeout_s=20)
        self._check(door, "at the end")
        rows = {row["request_id"]: row for row in door.rows()}
        received: dict[str, dict[str, Any]] = {}
        for line in (await asyncio.to_thread(truth_log.read_text)).splitlines():
            entry = json.loads(line)
            received.setdefault(entry["tag"], entry)["usage"] = entry["usage"]
        for saw in self.saw:
            row = rows.get(saw.request_id or "")
            truth = received.get(saw.tag)
            if saw.request_id is not None and truth is not None and row is None:
                self.wrong.append(f"I7 {saw}: the upstream saw it, the ledger has no hold")
            if saw.complete and saw.status == 200:
                usage = truth and truth["usage"]
                if row is None or usage is None:
                    self.wrong.append(f"I8 {saw}: complete, but row {row}, usage {usage}")
                elif reckon.nano(row["charge"]) != reckon.charge_nano(usage, door.values["models"][saw.model]["price"]):
                    self.wrong.append(f"I8 {saw}: charged {row['charge']}, the truth is {usage}")
        held = {row["output_bound"] for row in door.sql("SELECT output_bound FROM requests")}
        self.wrong += [f"I7 {tag} reached the upstream without a hold" for tag in received if limit_of(tag) not in held]
        log = door.log_path.read_text(errors="replace")
        self.wrong += [f"log: {line[:300]}" for line in log.splitlines() if "Traceback" in line]


async def main() -> int:
    """Run from the command line; the seed is printed, so that a failure can be repeated."""
    options = argparse.ArgumentParser(description="Kill the server under load and check that no money is lost.")
    options.add_argument("--kills", type=int, default=20)
    options.add_argument("--seed", type=int, default=int(time.time()))
    options.add_argument("--clients", type=int, default=32)
    chosen = options.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        loop = KillLoop(Path(directory), seed=chosen.seed, clients=chosen.clients)
        wrong = await loop.run(chosen.kills)
    for line in wrong:
        print(line)
    complete = sum(saw.complete for saw in loop.saw)
    slowest = max(loop.recovery_s, default=0.0)
    print(f"{chosen.kills} kills, {len(loop.saw)} requests, {complete} complete, slowest restart {slowest:.2f} s")
    print(f"{len(wrong)} violations")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
