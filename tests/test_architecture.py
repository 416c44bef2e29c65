"""The floors of the house: a module imports only from floors below its own."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import nexus_proxy
from nexus_proxy.runtime import native

ROOT = Path(nexus_proxy.__file__).parent

# From the ground up. A package stands for its modules, which import each other freely, unless it is in APART.
FLOORS: tuple[frozenset[str], ...] = tuple(
    frozenset(floor.split())
    for floor in (
        "errors",
        "core runtime",  # side by side: the core has no clock
        "catalogue observe",
        "config",
        "ledger limiter web",
        "upstream",
        "request admin",
        "chain api",
        "server",
        "demo",  # what it shows is a door that runs
        "cli",
        "__main__",
    )
)
# Drivers stay in their room.
AT_HOME: Mapping[str, str] = {"sqlite3": "ledger.sqlite", "aiosqlite": "ledger.sqlite"}
# Stores and limiters are made in one place each.
MADE_IN: Mapping[str, str] = {
    "SqliteStore": "ledger.open",
    "SqliteReader": "ledger.open",
    "MemoryLimiter": "limiter.open",
}
# A module's tests stand in the file of its name. Where they do not, here is where, mostly through whoever uses it.
TESTED_IN: Mapping[str, str] = {
    "admin.application": "admin/test_verbs.py",
    "admin.socket": "admin/test_verbs.py",
    "admin.values": "admin/test_verbs.py",
    "api.routing": "faults/test_group_a.py",
    "catalogue.loader": "catalogue/test_catalogue.py",
    "chain.auth": "faults/test_group_f.py",
    "chain.compose": "test_server.py",
    "chain.metering": "faults/test_group_e.py",
    "cli.accounts": "test_cli.py",
    "cli.arguments": "test_cli.py",
    "cli.main": "test_cli.py",
    "cli.operate": "test_cli.py",
    "cli.prices": "cli/test_reports.py",
    "cli.reach": "test_cli.py",
    "cli.settings": "test_cli.py",
    "config.file": "config/test_load.py",
    "config.models": "config/test_load.py",
    "config.plans": "config/test_load.py",
    "config.providers": "config/test_load.py",
    "config.reading": "config/test_load.py",
    "core.money.chain": "ledger/sqlite/test_verify.py",
    "core.request.parameters": "core/request/test_chat.py",
    "core.wire.dialect": "dialects/test_golden_tap.py",
    "core.wire.document": "core/wire/test_tap.py",
    "core.wire.jsonscan": "core/wire/test_tap.py",
    "core.wire.sniff": "core/wire/test_tap.py",
    "core.wire.stream": "core/wire/test_tap.py",
    "demo.failures": "demo/test_provider.py",
    "demo.scene": "demo/test_show.py",
    "demo.words": "demo/test_provider.py",
    "errors": "web/test_response.py",
    "ledger.declaration": "test_server.py",
    "ledger.directory": "admin/test_verbs.py",
    "ledger.files": "ledger/sqlite/test_store.py",
    "ledger.open": "test_server.py",
    "ledger.spool": "ledger/test_writer.py",
    "ledger.sqlite.administration": "ledger/sqlite/test_store.py",
    "ledger.sqlite.backup": "ledger/sqlite/test_verify.py",
    "ledger.sqlite.lock": "ledger/sqlite/test_store.py",
    "ledger.sqlite.migrations": "ledger/sqlite/test_store.py",
    "ledger.sqlite.prices": "ledger/sqlite/test_price_in_force.py",
    "ledger.sqlite.readonly": "ledger/sqlite/test_verify.py",
    "ledger.sqlite.rows": "ledger/sqlite/test_read.py",
    "ledger.sqlite.schema": "ledger/sqlite/test_store.py",
    "ledger.sqlite.views": "ledger/sqlite/test_read.py",
    "limiter.open": "test_server.py",
    "observe.record": "request/test_record.py",
    "observe.request_log": "request/test_record.py",
    "runtime.compile": "runtime/test_native.py",
    "upstream.supervisor": "upstream/test_exchange.py",
}
# What is hardly more than fields and signatures.
DECLARES = frozenset(
    {
        "config.types",
        "core.model",
        "ledger.protocol",
        "limiter.protocol",
        "request.appkeys",
        "request.services",
        "request.setup",
    }
)
LINES_MAX = 400
# Longer ones, how long at the most, and why. No number here may grow.
LONG: Mapping[str, tuple[int, str]] = {
    "config.file": (416, "the shape of the file, a class for each table"),
    "demo.shapes": (488, "what each provider's answers look like, as tables"),
    "ledger.writer": (430, "gathering, the thread and the face in one: to be three"),
    "upstream.exchange": (626, "exchange and attempt in one: to be two"),
}
APART = frozenset({"chain"})  # only its __init__ may import its modules
IMPURE = frozenset(
    {"asyncio", "aiohttp", "time", "datetime", "os", "pathlib", "random", "secrets", "io", "socket", "threading"}
    | {"sqlite3", "aiosqlite", "logging", "structlog", "subprocess", "tempfile", "uuid", "httptools", "uvloop"}
)


def modules() -> dict[str, str]:
    """Return the source of every module, by its name below the package: `chain.auth`, `chain.__init__`, `errors`."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): path.read_text("utf-8")
        for path in sorted(ROOT.rglob("*.py"))
        if path != ROOT / "__init__.py"
    }


def imports(source: str) -> Iterator[str]:
    """Yield the dotted name of everything that is imported, wherever in the module that stands."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def floor_of(unit: str) -> int | None:
    return next((number for number, floor in enumerate(FLOORS) if unit in floor), None)


def complaints(sources: dict[str, str]) -> list[str]:
    """Return what is wrong with the imports of some modules."""
    found = []
    for module, source in sources.items():
        unit, _, rest = module.partition(".")
        floor = floor_of(unit)
        if floor is None:
            found.append(f"{module}: has no floor")
            continue
        for name in imports(source):
            package, _, target = name.partition(".")
            if package in AT_HOME and not module.startswith(f"{AT_HOME[package]}."):
                found.append(f"{module}: {package} is for {AT_HOME[package]}")
            if package != "nexus_proxy":
                if unit == "core" and package in IMPURE:
                    found.append(f"{module}: {package} is not pure")
                continue
            other, _, inner = target.partition(".")
            if other == unit:
                if unit in APART and rest != "__init__" and inner:
                    found.append(f"{module}: imports its sibling {inner}")
                continue
            below = floor_of(other)
            if below is None or below >= floor:
                found.append(f"{module}: imports {other}, which is not below it")
    return found


def calls(source: str) -> Iterator[str]:
    """Yield the name of everything that is called."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call):
            yield node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")


def test_stores_and_limiters_are_made_in_one_place() -> None:
    made = {(name, module) for module, source in modules().items() for name in calls(source) if name in MADE_IN}
    assert made == set(MADE_IN.items())


def test_every_module_is_tested_in_the_file_of_its_name_or_where_it_is_said() -> None:
    tests = Path(__file__).parent
    without = set()
    for module in modules():
        room, _, name = module.rpartition(".")
        if name in ("__init__", "__main__") or (tests / room.replace(".", "/") / f"test_{name}.py").exists():
            continue
        without.add(module)
    assert without == TESTED_IN.keys() | DECLARES
    assert not TESTED_IN.keys() & DECLARES
    assert [path for path in TESTED_IN.values() if not (tests / path).exists()] == []


def test_no_module_is_long_without_a_reason() -> None:
    lengths = {module: len(source.splitlines()) for module, source in modules().items()}
    assert {module for module, lines in lengths.items() if lines > LINES_MAX} == LONG.keys()
    assert [module for module, (most, _) in LONG.items() if lengths[module] > most] == []


def test_every_module_imports_only_from_below() -> None:
    assert complaints(modules()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.wire.tap", "import asyncio"),
        ("core.wire.tap", "from datetime import datetime"),
        ("core.wire.tap", "from nexus_proxy.runtime.clock import now_ms"),
        ("core.wire.tap", "from nexus_proxy.runtime.timeouts import TimeoutQueue"),
        ("core.wire.tap", "from nexus_proxy.config import Config"),
        ("errors", "from nexus_proxy.core.money.amounts import NANO"),
        ("ledger.writer", "from nexus_proxy.limiter.protocol import Limit"),
        ("ledger.writer", "from nexus_proxy.upstream import exchange"),
        ("chain.auth", "from nexus_proxy.chain.metering import metering"),
        ("chain.auth", "from nexus_proxy.chain import metering"),
        ("chain.auth", "import nexus_proxy.api.models"),
        ("chain.auth", "def late() -> None:\n    from nexus_proxy.server import Server"),
        ("chain.auth", "from nexus_proxy import server"),
        ("server", "from nexus_proxy.cli import main"),
        ("server", "import sqlite3"),
        ("ledger.writer", "from sqlite3 import Cursor"),
        ("ledger.sqlitish", "import aiosqlite"),
        ("helpers", ""),
        ("helpers.strings", ""),
        ("server", "from nexus_proxy.helpers import x"),
    ],
)
def test_a_wrong_import_is_seen(module: str, source: str) -> None:
    assert len(complaints({module: source})) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        (
            "core.wire.tap",
            "import orjson\nfrom nexus_proxy.core.wire.sse import Reader\nfrom nexus_proxy.errors import NexusError",
        ),
        ("chain.__init__", "from nexus_proxy.chain.auth import auth"),
        ("ledger.writer", "import asyncio\nfrom nexus_proxy.ledger.protocol import Store"),
        ("server", "from nexus_proxy.chain import CHAIN"),
    ],
)
def test_a_right_import_is_not(module: str, source: str) -> None:
    assert complaints({module: source}) == []


@pytest.mark.skipif(native.in_use(), reason="a compiled module is imported once in a process")
def test_every_module_can_be_the_first_to_be_imported() -> None:
    # In one interpreter, our own modules forgotten before each, so that a circle cannot hide behind another's import.
    program = """
import importlib, sys
for name in sys.argv[1:]:
    for known in [known for known in sys.modules if known.partition(".")[0] == "nexus_proxy"]:
        del sys.modules[known]
    importlib.import_module(name)
"""
    names = [f"nexus_proxy.{name.removesuffix('.__init__')}" for name in modules() if name != "__main__"]
    done = subprocess.run(
        [sys.executable, "-c", program, *names], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr[-2_000:]
