"""How many JSON requests a second the door serves on one core: whole chain on, durable, before a fast provider.

Strategy: the real program with its ledger on disk has one core to itself; provider and client share the other. Beside
it, round by round on the same core, a bare aiohttp proxy: what a machine is worth differs, the ratio hardly does. Only
a run in which every request was answered and charged exactly is reported: the ledger's rows are counted and the ledger
is verified. `python -m tests.bench.json_rate [--connections 32] [--seconds 5] [--rounds 3]`.
"""

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import uvloop
from rich.console import Console
from rich.table import Table

from tests.bench import fast_upstream
from tests.bench.load import Measured, load
from tests.bench.processes import cores, cpu_us, pin, pinned_here, program
from tests.rig.door import DoorProcess
from tests.rig.reckon import charge_nano, nano
from tests.rig.settings import PRICES, settings

DOOR, BARE = "door", "bare aiohttp"
RPM_MAX = 1_000_000  # the most that a plan can have: 16,667 requests a second


class Worthless(Exception):
    """A run that must not be reported, and why."""


@dataclass(frozen=True, slots=True)
class Target:
    """A process that is measured."""

    name: str
    pid: int
    port: int


@dataclass(frozen=True, slots=True)
class Round:
    """One load on one target."""

    target: str
    rate: float  # requests a second
    p50_ms: float
    p99_ms: float
    cpu_us: float  # of the target, a request
    busy: float  # share of its core that the target used


async def measure(
    directory: Path,
    *,
    connections: int = 32,
    seconds: float = 5.0,
    rounds: int = 3,
    warm_s: float = 2.0,
    say: Callable[[str], None] = lambda _: None,
) -> list[Round]:
    """Run it, with the ledger in that directory. Worthless if a request failed or the ledger does not agree."""
    measured_core, load_core = cores()
    with pinned_here(load_core):
        async with program("tests.bench.fast_upstream") as (upstream_pid, upstream_port):
            url = f"http://127.0.0.1:{upstream_port}"
            async with program("tests.bench.bare_proxy", url) as (bare_pid, bare_port):
                door = DoorProcess(directory, settings(url, {"plans": {"wide": {"rpm": RPM_MAX}}}))
                await door.start()
                try:
                    door.key = await door.mint("acme", topup="1000000.00")
                    for pid, core in ((upstream_pid, load_core), (bare_pid, measured_core)):
                        pin(pid, core)
                    pin(door.process.pid, measured_core)
                    targets = (Target(DOOR, door.process.pid, door.port), Target(BARE, bare_pid, bare_port))
                    found, served = [], 0
                    for number in range(rounds + 1):
                        for target in targets:
                            say(f"round {number} of {rounds}: {target.name}" if number else f"warm-up: {target.name}")
                            took_s = seconds if number else warm_s
                            measured, round_ = await _round(target, door.request(), connections, took_s)
                            served += measured.requests if target.name == DOOR else 0
                            if number:
                                found.append(round_)
                    say("looking at the ledger")
                    await _check(door, served)
                finally:
                    await door.stop()
    return found


async def _round(target: Target, request: bytes, connections: int, seconds: float) -> tuple[Measured, Round]:
    before_us = cpu_us(target.pid)
    measured = await load(target.port, request, fast_upstream.BODY, connections=connections, seconds=seconds)
    used_us = cpu_us(target.pid) - before_us
    if measured.failures or not measured.requests:
        raise Worthless(f"{target.name}: requests failed: {dict(measured.failures)}")
    round_ = Round(
        target=target.name,
        rate=measured.rate,
        p50_ms=measured.latency_ms(50),
        p99_ms=measured.latency_ms(99),
        cpu_us=used_us / measured.requests,
        busy=used_us / 1e6 / measured.seconds,
    )
    return measured, round_


async def _check(door: DoorProcess, served: int) -> None:
    """Compare the ledger with what the client saw, and let it prove itself. Worthless if it does not agree."""
    rows = door.sql("SELECT status, state, usage_source, charge, count(*) AS n FROM usage GROUP BY 1, 2, 3, 4")
    got = {(row["status"], row["state"], row["usage_source"], nano(row["charge"] or 0)): row["n"] for row in rows}
    exact = charge_nano(fast_upstream.ANSWER.counts(), PRICES["openai"])
    if got != {(200, "posted", "reported", exact): served}:
        raise Worthless(f"{served} requests were answered at {exact} nano-units each, the ledger has {got}")
    verify = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "nexus_proxy", "--config", str(door.config_path), "ledger", "verify",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, _ = await verify.communicate()
    if verify.returncode != 0:
        raise Worthless(f"ledger verify: {output.decode()}")


def report(rounds: Sequence[Round], console: Console) -> None:
    """Print the rounds, their medians, and how the door compares."""
    table = Table(title="JSON requests on one core; CPU is a request's, core is how much of it was used")
    for name in ("", "round", "requests/s", "p50 ms", "p99 ms", "CPU µs", "core"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    medians = []
    for target in (DOOR, BARE):
        mine = [round_ for round_ in rounds if round_.target == target]
        middle = Round(target, *(median(values) for values in zip(*map(_figures, mine), strict=True)))
        medians.append(middle)
        for number, round_ in enumerate(mine, 1):
            _row(table, str(number), round_)
        _row(table, "median", middle, style="bold")
        table.add_section()
    door, bare = medians
    table.add_row("door / bare", "", f"{door.rate / bare.rate:.2f}", "", "", f"{door.cpu_us / bare.cpu_us:.2f}", "")
    console.print(table)


def _figures(round_: Round) -> tuple[float, ...]:
    return round_.rate, round_.p50_ms, round_.p99_ms, round_.cpu_us, round_.busy


def _row(table: Table, number: str, round_: Round, style: str | None = None) -> None:
    cells = (f"{round_.rate:,.0f}", f"{round_.p50_ms:.2f}", f"{round_.p99_ms:.2f}", f"{round_.cpu_us:.0f}")
    table.add_row(round_.target, number, *cells, f"{round_.busy:.0%}", style=style)


def main() -> int:
    """Run from the command line: 0 if there is a report, 1 if the run was worthless."""
    options = argparse.ArgumentParser(description="Measure the door's JSON requests a second on one core.")
    options.add_argument("--connections", type=int, default=32)
    options.add_argument("--seconds", type=float, default=5.0)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--directory", default=None, help="where the ledger lies meanwhile; the temporary directory")
    chosen = options.parse_args()
    console = Console()
    measured_core, load_core = cores()
    if measured_core == load_core:
        console.print(f"[yellow]Only core {load_core} is there: the load takes its share of it.[/]")
    else:
        console.print(f"Measured on core {measured_core}; provider and client on core {load_core}.")
    console.print(f"{chosen.connections} connections; load of the machine before: {os.getloadavg()[0]:.2f}")
    with tempfile.TemporaryDirectory(dir=chosen.directory) as directory, console.status("starting") as status:
        try:
            rounds = uvloop.run(
                measure(
                    Path(directory),
                    connections=chosen.connections,
                    seconds=chosen.seconds,
                    rounds=chosen.rounds,
                    say=console.print if not console.is_terminal else status.update,
                )
            )
        except Worthless as why:
            console.print(f"Nothing is reported: {why}", markup=False)
            return 1
    report(rounds, console)
    console.print("Every request was answered and has its row, charged exactly; ledger verify found nothing.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
