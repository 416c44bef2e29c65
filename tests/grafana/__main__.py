"""Draw each dashboard as a picture, from a busy minute: `python -m tests.grafana --pictures FOLDER`."""

import argparse
import asyncio
import tempfile
from pathlib import Path

from tests.grafana.filling import dashboards, values_of
from tests.grafana.picture import draw
from tests.grafana.scene import LONG_RUN_S, busy


async def main() -> None:
    """Run from the command line."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--pictures", type=Path, required=True, metavar="FOLDER", help="where the PNGs are written")
    options.add_argument("--seconds", type=float, default=LONG_RUN_S, help="how long the door is kept busy")
    chosen = options.parse_args()
    chosen.pictures.mkdir(parents=True, exist_ok=True)
    print(f"A door is kept busy for {chosen.seconds:g} s…", flush=True)
    with tempfile.TemporaryDirectory() as directory:
        async with busy(Path(directory), chosen.seconds) as scene:
            for name, dashboard in dashboards().items():
                path = chosen.pictures / f"{Path(name).stem}.png"
                draw(dashboard, scene, values_of(dashboard, scene.prometheus, scene.door.ledger_path), path)
                print(path)


if __name__ == "__main__":
    asyncio.run(main())
