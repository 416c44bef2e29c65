"""What README promises and a program can look up."""

import re
import sqlite3
import tomllib
from collections.abc import Iterable
from pathlib import Path

import pytest

import nexus_proxy
from nexus_proxy import errors
from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.cli.main import cli
from nexus_proxy.cli.providers import renewed
from nexus_proxy.config import resolve
from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.errors import NexusError
from nexus_proxy.ledger.sqlite.migrations import migrate
from nexus_proxy.observe.metrics import METRICS

README = Path(__file__).parent.parent.joinpath("README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", METRICS)
def test_every_metric_is_documented(name: str) -> None:
    assert f"| `{name}` | {METRICS[name]} |" in README


def test_every_code_is_documented() -> None:
    leaves = [e for e in vars(errors).values() if isinstance(e, type) and issubclass(e, NexusError)]
    missing = {leaf.code for leaf in leaves} - {"client_gone"}  # nobody is there to read that one
    assert {code for code in missing if f"`{code}`" not in README} == set()


def test_every_view_and_column_is_there(tmp_path: Path) -> None:
    db = sqlite3.connect(tmp_path / "nexus.db")
    migrate(db)
    for name in ("usage", "margin_by_model", "balances", "open_holds"):
        (line,) = (row for row in README.splitlines() if row.startswith(f"| `{name}` |") and "--" not in row)
        promised = [column.strip() for column in line.split("|")[2].split(",")]
        there = [column[0] for column in db.execute(f'SELECT * FROM "{name}"').description]
        assert [column for column in promised if column not in there] == []
    db.close()


@pytest.mark.parametrize("words", [EndState, UsageSource, ("open", "posted", "voided"), ("estimator",)])
def test_every_word_of_a_row_is_explained(words: Iterable[str]) -> None:
    ledger = README.partition("## The ledger")[2].partition("## Metrics")[0]
    assert [str(word) for word in words if not re.search(rf"\b{word}\b", ledger)] == []


def test_every_flag_of_a_row_is_explained() -> None:
    ledger = README.partition("## The ledger")[2].partition("## Metrics")[0]
    explained = set(re.findall(r"^\| `(\w+)` \|", ledger.partition("| flag |")[2], re.MULTILINE))
    package = Path(nexus_proxy.__file__).parent
    sources = [
        path.read_text("utf-8") for place in ("core", "upstream", "ledger") for path in (package / place).rglob("*.py")
    ]
    written = {flag for flag in explained if any(f'"{flag}"' in source for source in sources)}
    assert written == explained
    judged = (
        (package / "core" / "wire" / "outcome.py")
        .read_text("utf-8")
        .partition("def flags_of")[2]
        .partition("\ndef ")[0]
    )
    assert set(re.findall(r'\("(\w+)",\)', judged)) <= explained


def test_the_table_of_providers_is_the_catalogue() -> None:
    assert renewed(README, load_catalogue()) == README, "renew it: nexus-proxy providers --write README.md"


def test_every_configuration_that_it_shows_loads() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert blocks
    for block in blocks:
        assert resolve(tomllib.loads(block), Path("/"), {}, secrets=False).models


def test_every_verb_is_documented() -> None:
    table = "\n".join(row for row in README.splitlines() if row.startswith("| `"))
    assert [name for name in cli.commands if f"`{name}" not in table] == []


def test_every_option_of_a_verb_that_is_named_is_there() -> None:
    quoted = {
        "models": ("--prices", "--all"),
        "quote": ("--input", "--output", "--cached", "--cache-write", "--reasoning", "--at"),
        "demo": ("--once", "--dialect"),
    }
    for verb, options in quoted.items():
        there = {name for param in cli.commands[verb].params for name in param.opts}
        assert [option for option in options if option not in there or option not in README] == []


def test_every_link_of_a_page_leads_somewhere() -> None:
    root = Path(__file__).parent.parent
    pages = [root / "README.md", root / ".github" / "CONTRIBUTING.md", root / "grafana" / "runbook.md"]
    pages += [*(root / "nexus_proxy" / "manual").glob("*.md"), root / "tests" / "faults" / "README.md"]
    assert len(pages) == 7
    for page in pages:
        links = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text("utf-8"))
        assert [link for link in links if not link.startswith("http") and not (page.parent / link).exists()] == [], page


def test_every_place_that_the_architecture_names_is_there() -> None:
    package = Path(nexus_proxy.__file__).parent
    page = (package / "manual" / "architecture.md").read_text("utf-8")
    names = re.findall(r"`((?:\w+/)+\w+\.(?:py|json))`", page)
    assert len(names) > 10
    assert [name for name in names if not (package / name).exists()] == []
    for name in re.findall(r"`(\w+\.\w+|[a-z]\w+_\w+)`", page):
        last = name.rpartition(".")[2]
        assert any(re.search(rf"\b{last}\b", path.read_text("utf-8")) for path in package.rglob("*.py")), name
