"""Write the dashboards as JSON: `python -m grafana`."""

from pathlib import Path

from grafana import front_door, money

FOLDER = Path(__file__).parent / "dashboards"
DASHBOARDS = {"front-door.json": front_door.DASHBOARD, "money.json": money.DASHBOARD}

if __name__ == "__main__":
    for name, made in DASHBOARDS.items():
        FOLDER.joinpath(name).write_text(made.json(), encoding="utf-8")
        print(FOLDER / name)
