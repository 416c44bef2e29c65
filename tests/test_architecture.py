"""The floors of the house: a module imports only from floors below its own."""

import ast
import subprocess
import sys
from collections.abc import Iterator
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
        "runtime",
        "core",
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


def test_every_module_imports_only_from_below() -> None:
    assert complaints(modules()) == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("core.wire.tap", "import asyncio"),
        ("core.wire.tap", "from datetime import datetime"),
        ("core.wire.tap", "from nexus_proxy.config import Config"),
        ("errors", "from nexus_proxy.core.money.amounts import NANO"),
        ("ledger.writer", "from nexus_proxy.limiter.protocol import Limit"),
        ("ledger.writer", "from nexus_proxy.upstream import exchange"),
        ("chain.auth", "from nexus_proxy.chain.metering import metering"),
        ("chain.auth", "from nexus_proxy.chain import metering"),
        ("chain.auth", "import nexus_proxy.api.models"),
        ("chain.auth", "def late() -> None:\n    from nexus_proxy.server import Door"),
        ("chain.auth", "from nexus_proxy import server"),
        ("server", "from nexus_proxy.cli import main"),
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
