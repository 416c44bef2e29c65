"""The alerts: what they fire on, by promtool itself, and that each says what to do."""

import contextlib
import re
import sqlite3
import subprocess
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from grafana.front_door import FAILURES
from nexus_proxy.errors import NexusError, leaves
from nexus_proxy.ledger.sqlite.migrations import migrate
from tests.grafana.test_dashboards import labels_by_name
from tests.rig.house import House
from tests.rig.raw_client import get
from tests.rig.service import program

ROOT: Final = Path(__file__).parents[2]
CASES: Final = Path(__file__).parent / "alerts_test.yml"
RULES: Final[list[dict[str, Any]]] = [
    rule
    for group in yaml.safe_load((ROOT / "grafana" / "alerts.yml").read_text("utf-8"))["groups"]
    for rule in group["rules"]
]
by_alert = pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule["alert"])


def promtool(*arguments: str, text: bytes | bytearray | None = None) -> str:
    """Run it, and return what it said. AssertionError with that if it found something."""
    binary = program("promtool", "prometheus")
    done = subprocess.run([binary, *arguments], input=text, capture_output=True, timeout=60, check=False)
    said = (done.stdout + done.stderr).decode()
    assert done.returncode == 0, said
    return said


def test_promtool_finds_the_rules_and_the_configuration_sound() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", str(ROOT / "grafana" / "alerts.yml"))
    assert "1 rule files found" in promtool("check", "config", str(ROOT / "config" / "prometheus.yml"))


def test_alerts_fire_on_what_they_should_and_on_nothing_else() -> None:
    assert "SUCCESS" in promtool("test", "rules", str(CASES))


async def test_promtool_finds_the_metrics_of_a_door_sound(house: House) -> None:
    await (await house.ask()).is_exact()
    await house.door.raw(get("/v1/models", house.door.key))
    scraped = (await house.door.operators("/metrics")).body
    assert b"nexus_tokens_total" in scraped
    assert promtool("check", "metrics", text=scraped) == ""


@by_alert
def test_an_alert_says_what_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in ("critical", "warning", "info")
    notes = rule["annotations"]
    assert re.fullmatch(r"[A-Z][^{}]+\.", notes["summary"]), "a fixed sentence"
    assert "{{" in notes["description"]
    headings = re.findall(r"^## (\w+)$", (ROOT / "grafana" / "runbook.md").read_text("utf-8"), re.MULTILINE)
    assert rule["alert"] in headings
    assert notes["runbook"] == f"grafana/runbook.md#{rule['alert'].lower()}"


@by_alert
def test_an_alert_is_seen_to_fire(rule: dict[str, Any]) -> None:
    cases = yaml.safe_load(CASES.read_text("utf-8"))["tests"]
    fired = [case["alertname"] for test in cases for case in test["alert_rule_test"] if case["exp_alerts"]]
    assert rule["alert"] in fired


@by_alert
def test_an_alert_asks_only_for_what_there_is(rule: dict[str, Any]) -> None:
    known = set(labels_by_name()) | {"up"}
    named = set(re.findall(r"\b(?:nexus|process)_\w+|\bup\b", rule["expr"]))
    assert named
    assert named <= known


def test_what_counts_as_failed_is_what_the_dashboard_shows_as_failed() -> None:
    (ratio,) = (rule["expr"] for rule in RULES if rule["alert"] == "NexusErrorRatio")
    failed, taken, enough = re.findall(r'code=~"([^"]+)"', ratio)
    unplanned = FAILURES.replace("|shutting_down", "")  # a stop that was meant is no failure to be woken for
    assert (failed, taken, enough) == (unplanned, f"ok|{unplanned}", f"ok|{unplanned}")


def test_the_codes_and_the_job_that_alerts_name_are_there() -> None:
    codes = {leaf.code for leaf in leaves(NexusError)}
    named = {code for rule in RULES for code in re.findall(r'code="(\w+)"', rule["expr"])}
    assert named == {"upstream_no_funds", "upstream_auth", "ledger_unavailable"} <= codes
    (scraped,) = yaml.safe_load((ROOT / "config" / "prometheus.yml").read_text("utf-8"))["scrape_configs"]
    assert {job for rule in RULES for job in re.findall(r'job="([^"]+)"', rule["expr"])} == {scraped["job_name"]}


def test_what_the_runbook_asks_the_ledger_can_be_asked(tmp_path: Path) -> None:
    text = " ".join((ROOT / "grafana" / "runbook.md").read_text("utf-8").split())
    asked = re.findall(r"`(SELECT [^`]+)`", text)
    assert len(asked) == 4
    with contextlib.closing(sqlite3.connect(tmp_path / "nexus.db")) as db:
        migrate(db)
        for query in asked:
            db.execute(query)


def test_the_runbook_has_no_other_headings() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "grafana" / "runbook.md").read_text("utf-8"), re.MULTILINE)
    assert headings == [rule["alert"] for rule in RULES]
