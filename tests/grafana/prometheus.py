"""A real Prometheus that scrapes a door, as config/prometheus.yml says, only more often.

Strategy: the shipped file is read and changed where a test must: the target's port, the interval, absolute paths. It is
asked through its own HTTP API.
"""

import asyncio
import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.rig.door import free_port
from tests.rig.eventually import eventually
from tests.rig.service import program

CONFIG = Path(__file__).parents[2] / "config" / "prometheus.yml"
SCRAPE_S = 1


@dataclass(frozen=True, slots=True)
class Prometheus:
    """One that runs."""

    url: str

    def ask(self, path: str, **arguments: str | float) -> Any:
        """Return the `data` of an answer of its API. AssertionError with its words if it refuses."""
        try:
            with urllib.request.urlopen(f"{self.url}{path}?{urllib.parse.urlencode(arguments)}", timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()}") from None

    def at(self, query: str, at_s: float) -> list[dict[str, Any]]:
        """Return the series of an instant query."""
        return list(self.ask("/api/v1/query", query=query, time=at_s)["result"])

    def value(self, query: str) -> float | None:
        """Return what an instant query says now, if that is one number."""
        series = self.at(query, time.time())
        return float(series[0]["value"][1]) if len(series) == 1 else None

    def over(self, query: str, start_s: float, end_s: float, step_s: float) -> list[dict[str, Any]]:
        """Return the series of a range query."""
        return list(self.ask("/api/v1/query_range", query=query, start=start_s, end=end_s, step=step_s)["result"])

    def label_values(self, series: str, label: str) -> list[str]:
        """Return what Grafana's `label_values(series, label)` finds."""
        return list(self.ask(f"/api/v1/label/{label}/values", **{"match[]": series}))

    def is_ready(self) -> bool:
        """Tell whether it can be asked."""
        try:
            urllib.request.urlopen(f"{self.url}/-/ready", timeout=1).close()
        except OSError:
            return False
        return True


@asynccontextmanager
async def prometheus(directory: Path, target_port: int) -> AsyncIterator[Prometheus]:
    """Run one for the length of a block."""
    binary, port = program("prometheus", "prometheus"), free_port()
    config = yaml.safe_load(CONFIG.read_text("utf-8"))
    config["global"] = {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"}
    config["rule_files"] = [str(CONFIG.parent / path) for path in config["rule_files"]]
    (job,) = config["scrape_configs"]
    job["static_configs"] = [{"targets": [f"127.0.0.1:{target_port}"]}]
    path = directory / "prometheus.yml"
    path.write_text(yaml.safe_dump(config), "utf-8")
    with (directory / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            binary, f"--config.file={path}", f"--storage.tsdb.path={directory / 'tsdb'}",
            f"--web.listen-address=127.0.0.1:{port}", stdout=log, stderr=log,
        )  # fmt: skip
    running = Prometheus(f"http://127.0.0.1:{port}")
    try:
        await eventually(running.is_ready, timeout_s=20)
        yield running
    finally:
        process.terminate()
        await process.wait()
