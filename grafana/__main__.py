"""Write the dashboards: `python -m grafana`. `--check` writes nothing and tells what is not as the code makes it."""

import sys
from collections.abc import Sequence
from pathlib import Path

from grafana import front_door, money

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {"front-door.json": front_door.DASHBOARD, "money.json": money.DASHBOARD}


def main(arguments: Sequence[str] = ()) -> int:
    """Write the files, or compare them."""
    stale = [name for name, made in DASHBOARDS.items() if read(name) != made.json()]
    if "--check" in arguments:
        for name in stale:
            print(f"{FOLDER / name} is not what the code makes: python -m grafana")
        return 1 if stale else 0
    for name in stale:
        FOLDER.joinpath(name).write_text(DASHBOARDS[name].json(), encoding="utf-8")
        print(f"{FOLDER / name} written")
    return 0


def read(name: str) -> str:
    """Return what is in the tree; nothing if there is no such file."""
    path = FOLDER / name
    return path.read_text(encoding="utf-8") if path.exists() else ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
