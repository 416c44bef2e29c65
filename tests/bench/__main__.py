"""`python -m tests.bench`: what the door costs, beside what it is compared with, on this machine.

Strategy: the system that is measured has one core to itself, the provider and the clients share another. Every
scenario is run against every system in turn, several times. Nothing is reported of a run in which a request failed or
the ledger does not agree. What is printed, every round as CSV and a plot are in the folder that is named at the end.
"""

import argparse
import contextlib
import fnmatch
import os
import platform
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import uvloop
from rich.console import Console

from nexus_proxy.runtime import native
from tests.bench import plot, report
from tests.bench.door import Door
from tests.bench.loaded import LoadedDoor, Size, fresh_door
from tests.bench.peers import LiteLLM, Portkey
from tests.bench.processes import cores, pinned_here, program, raise_open_files
from tests.bench.proxies import NGINX_BINARY, Bare, Nginx
from tests.bench.rounds import Sample, measure
from tests.bench.scenarios import SCENARIOS, Setting
from tests.bench.systems import Direct, Place, System, Worthless

PEERS = (LiteLLM.name, Portkey.name)
SYSTEMS = (Direct.name, Nginx.name, Door.name, LoadedDoor.name, Bare.name)
_FILES_APART = 500  # open files beside the streams' own


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be run."""

    scenarios: Sequence[str] = tuple(SCENARIOS)
    systems: Sequence[str] = SYSTEMS
    rounds: int = 5
    setting: Setting = field(default_factory=Setting)
    size: Size = field(default_factory=Size)


async def run(options: Options, directory: Path, say: Callable[[str], None]) -> tuple[list[Sample], list[str]]:
    """Run it, with the ledgers in that directory. Worthless."""
    measured_core, load_core = cores()
    say("starting the provider")
    async with program("tests.bench.upstream", core=load_core) as (_, upstream_port):
        with pinned_here(load_core):
            place, size = Place(directory, upstream_port, measured_core), options.size
            make: dict[str, Callable[[], System]] = {
                Direct.name: lambda: Direct(place),
                Nginx.name: lambda: Nginx(place),
                Door.name: lambda: fresh_door(place, size, say),
                LoadedDoor.name: lambda: LoadedDoor(place, size, say),
                Bare.name: lambda: Bare(place),
                LiteLLM.name: lambda: LiteLLM(place, say),
                Portkey.name: lambda: Portkey(place),
            }
            scenarios = [SCENARIOS[name] for name in options.scenarios]
            wanted = [name for name in options.systems if any(name in scenario.systems for scenario in scenarios)]
            return await measure([make[name]() for name in wanted], scenarios, options.setting, options.rounds, say)


def _choose(chosen: argparse.Namespace, parser: argparse.ArgumentParser, console: Console) -> Options:
    scenarios = [
        name for name in SCENARIOS if any(fnmatch.fnmatchcase(name, pattern) for pattern in chosen.scenario or ["*"])
    ]
    for pattern in chosen.scenario or []:
        if not fnmatch.filter(SCENARIOS, pattern):
            parser.error(f"there is no scenario {pattern!r}; there are {', '.join(SCENARIOS)}")
    systems = list(chosen.system or SYSTEMS)
    if NGINX_BINARY is None and Nginx.name in systems:
        if chosen.system:
            parser.error("nginx is not installed (Debian: nginx-light)")
        systems.remove(Nginx.name)
        console.print("[yellow]nginx is not installed (Debian: nginx-light): it is not measured.[/]")
    for name, least in (("rounds", 1), ("streams", 1), ("rows", 0)):
        if (given := getattr(chosen, name)) < least:
            parser.error(f"--{name}: at least {least}, not {given}")
    if not chosen.seconds > 0:
        parser.error(f"--seconds: above 0, not {chosen.seconds}")
    size = Size(rows=chosen.rows, asking=chosen.asking)
    if not 1 <= size.asking <= size.keys:
        parser.error(f"1 to {size.keys:,} keys can ask, not {size.asking:,}")
    files = raise_open_files()
    if "memory" in scenarios and files < 2 * chosen.streams + _FILES_APART:
        parser.error(f"{files} open files are not enough for {chosen.streams} streams; see `ulimit -Hn`, or --streams")
    return Options(
        scenarios=scenarios,
        systems=[*systems, *dict.fromkeys(chosen.peer or [])],
        rounds=chosen.rounds,
        setting=Setting(seconds=chosen.seconds, open_streams=chosen.streams),
        size=size,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description="Measure what the door costs.")
    size = Size()
    parser.add_argument("--scenario", nargs="+", metavar="NAME", help=f"or a pattern; {', '.join(SCENARIOS)}")
    parser.add_argument("--system", nargs="+", choices=SYSTEMS, help="all of them, if none is named")
    parser.add_argument("--peer", nargs="+", choices=PEERS, help="other gateways; they are installed from the network")
    parser.add_argument("--rounds", type=int, default=5, help="of everything, interleaved [5]")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each load [5]")
    parser.add_argument(
        "--rows", type=int, default=size.rows, help=f"requests in the ledger of door-loaded [{size.rows:,}]"
    )
    parser.add_argument(
        "--asking", type=int, default=size.asking, help=f"keys that ask either door, in turn [{size.asking}]"
    )
    parser.add_argument("--streams", type=int, default=5_000, help="open at once in the scenario memory [5,000]")
    parser.add_argument("--out", type=Path, help="where the report goes; a new temporary folder")
    parser.add_argument(
        "--directory", type=Path, help="where ledgers and peers lie meanwhile, and stay; else temporary"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run from the command line: 0 if there is a report, 1 if the run was worthless, 2 for wrong usage."""
    parser = _parser()
    chosen = parser.parse_args(arguments)
    console = Console(record=True, width=None if sys.stdout.isatty() else 130)
    options = _choose(chosen, parser, console)
    out = chosen.out or Path(tempfile.mkdtemp(prefix="nexus-bench-"))
    out.mkdir(parents=True, exist_ok=True)
    for line in _machine():
        console.print(line)
    with _directory(chosen.directory) as directory, console.status("") as status:
        try:
            say = status.update if console.is_terminal else print
            samples, proofs = uvloop.run(run(options, directory, say))
        except Worthless as why:
            console.print(f"Nothing is reported: {why}", markup=False)
            return 1
    report.show(samples, console)
    for proof in proofs:
        console.print(proof, markup=False)
    report.write(samples, out)
    plot.draw(samples, out / "plot.png")
    console.print(f"All of it is in {out}", highlight=False)
    (out / "report.txt").write_text(console.export_text(), encoding="utf-8")
    return 0


@contextlib.contextmanager
def _directory(chosen: Path | None) -> Iterator[Path]:
    if chosen is not None:
        chosen.mkdir(parents=True, exist_ok=True)
        yield chosen.resolve()
    else:
        with tempfile.TemporaryDirectory(prefix="nexus-bench-") as directory:
            yield Path(directory)


def _machine() -> Iterator[str]:
    measured_core, load_core = cores()
    form = "compiled" if native.in_use() else "from its sources"
    yield f"{platform.platform()}, Python {platform.python_version()}, {os.cpu_count()} cores; the door runs {form}"
    if measured_core == load_core:
        yield f"[yellow]Only core {load_core} is there: the load takes its share of it.[/]"
    else:
        yield f"Measured on core {measured_core}; provider and clients on core {load_core}."
    yield f"Load of the machine before: {os.getloadavg()[0]:.2f}"


if __name__ == "__main__":
    sys.exit(main())
