"""What is looked at, not asserted: the dashboards as pictures, and how long their queries of a long ledger take."""

import argparse
import asyncio
import tempfile
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.bench.loaded import Size
from tests.grafana.filling import dashboards, values_of
from tests.grafana.picture import draw
from tests.grafana.scene import LONG_RUN_S, busy
from tests.grafana.timing import RANGES, made, timings

_SLOW_MS = 200


async def pictures(folder: Path, seconds: float) -> None:
    """Keep a door busy, and draw each dashboard from what its queries return."""
    print(f"A door is kept busy for {seconds:g} s…", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        async with busy(Path(directory), seconds) as scene:
            for name, dashboard in dashboards().items():
                path = folder / f"{Path(name).stem}.png"
                draw(dashboard, scene, values_of(dashboard, scene.prometheus, scene.door.ledger_path), path)
                print(path)


def queries(size: Size) -> None:
    """Make a ledger, and print how long each of its panels takes."""
    table = Table("panel", *RANGES, "rows", title=f"{size.rows:,} requests of {size.keys:,} keys in 90 days; ms")
    with tempfile.TemporaryDirectory() as directory, Console(stderr=True).status("A ledger is made and asked…"):
        for timing in timings(made(Path(directory), size)):
            cells = (f"[{'red' if ms > _SLOW_MS else 'green'}]{ms:.0f}" for ms in timing.ms.values())
            table.add_row(timing.panel, *cells, str(timing.rows))
    Console().print(table)


def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(prog="python -m tests.grafana", description=__doc__)
    verbs = options.add_subparsers(dest="verb", required=True)
    drawn = verbs.add_parser("pictures", help="draw each dashboard as a PNG, from a busy minute")
    drawn.add_argument("folder", type=Path)
    drawn.add_argument("--seconds", type=float, default=LONG_RUN_S, help="how long the door is kept busy")
    timed = verbs.add_parser("queries", help="time the panels that ask the ledger")
    timed.add_argument("--requests", type=int, default=1_000_000)
    timed.add_argument("--accounts", type=int, default=100)
    timed.add_argument("--keys", type=int, default=1_000)
    chosen = options.parse_args()
    if chosen.verb == "pictures":
        chosen.folder.mkdir(parents=True, exist_ok=True)
        asyncio.run(pictures(chosen.folder, chosen.seconds))
    else:
        queries(Size(chosen.accounts, chosen.keys, chosen.requests))


if __name__ == "__main__":
    main()
