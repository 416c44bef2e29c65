"""`python -m nexus_proxy.runtime.compile` compiles what a request walks through; `--remove` takes that away again.

Strategy: mypyc is given a copy of the sources, so that what was compiled is what the digest names, whoever edits
meanwhile. The result is moved to where `native` looks for it when all of it is there; whatever fails before leaves
everything as it was. The sources stay the only sources, and where no compiler is, nothing is missed.
"""

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import distribution
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from nexus_proxy.runtime import native

# What is compiled, as patterns below the package. Left out is what is not on the path of a request, and what does not
# work compiled: `observe.log` (a compiled function does not become a method of the class it is set on), `web.protocol`
# (slots).
COMPILED: Final = (
    "chain/*.py",
    "core/**/*.py",
    "ledger/directory.py",
    "ledger/files.py",
    "ledger/hold.py",
    "ledger/protocol.py",
    "ledger/sqlite/lock.py",
    "ledger/sqlite/posting.py",
    "ledger/sqlite/statements.py",
    "ledger/sqlite/store.py",
    "ledger/writer.py",
    "limiter/*.py",
    "observe/counters.py",
    "observe/log_writer.py",
    "observe/metrics.py",
    "observe/record.py",
    "observe/request_log.py",
    "request/context.py",
    "request/record.py",
    "request/services.py",
    "request/setup.py",
    "runtime/clock.py",
    "runtime/timeouts.py",
    "upstream/*.py",
    "web/incoming.py",
    "web/response.py",
)
OPTIONS: Final = ("--config-file=", "--disable-error-code=import-untyped")  # of mypy: the same wherever it is run
SETTINGS: Final = {"MYPYC_OPT_LEVEL": "3", "MYPYC_DEBUG_LEVEL": "0"}  # the environment may say otherwise


SCRATCH: Final = "making-"
MODULE: Final = "nexus_proxy.runtime.compile"


class NotCompiled(Exception):
    """There is no compiled form, or no new one. What was there before is still there."""


def sources(package: Path, patterns: Sequence[str] = COMPILED) -> list[Path]:
    """Return the files to compile. NotCompiled if a pattern finds none: a module was moved, and would be forgotten."""
    found: list[Path] = []
    for pattern in patterns:
        matching = [path for path in sorted(package.glob(pattern)) if path.name != "__init__.py"]
        if not matching:
            raise NotCompiled(f"there is no {pattern} to compile in {package}")
        found += matching
    return found


def compile_package(package: Path = native.PACKAGE, patterns: Sequence[str] = COMPILED) -> Path:
    """Compile a package and return the folder of the result. It replaces the one before. NotCompiled."""
    if find_spec("mypyc") is None:
        raise NotCompiled("mypyc is not installed: pip install 'nexus-proxy[compiled]'")
    home = package / native.FOLDER
    home.mkdir(exist_ok=True)
    with TemporaryDirectory(dir=home, prefix=SCRATCH) as scratch:
        copy = Path(scratch, "source", package.name)
        shutil.copytree(package, copy, ignore=shutil.ignore_patterns(native.FOLDER, "__pycache__"))
        _run_mypyc(copy.parent, [str(path.relative_to(copy.parent)) for path in sources(copy, patterns)])
        built = Path(scratch, "built")
        for path in native.modules(copy.parent).values():
            if "build" not in path.relative_to(copy.parent).parts:  # mypyc's own folder has each of them once more
                kept = built / path.relative_to(copy.parent)
                kept.parent.mkdir(parents=True, exist_ok=True)
                path.rename(kept)
        form = home / native.digest(copy)
        for other in home.iterdir():
            if native.modules(other) and not other.name.startswith(
                SCRATCH
            ):  # not another Python's, nor one in the making
                shutil.rmtree(other)
        built.rename(form)
    return form


def _run_mypyc(directory: Path, files: Sequence[str]) -> None:
    done = subprocess.run(
        (sys.executable, "-m", "mypyc", *OPTIONS, *files),
        cwd=directory,
        env=SETTINGS | os.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        raise NotCompiled(f"mypyc failed:\n{done.stdout}")


def remove(home: Path) -> None:
    """Take away every compiled form, all of it at once for whoever starts meanwhile. OSError."""
    if home.exists():
        with TemporaryDirectory(dir=home.parent, prefix=f".{native.FOLDER}") as scratch:
            home.rename(Path(scratch, native.FOLDER))


def check_place(package: Path, installed: Path) -> None:
    """Refuse a package that another one, which is installed, would be run instead of. NotCompiled."""
    if installed.is_dir() and not installed.samefile(package):
        raise NotCompiled(f"what runs is in {installed}, this is {package}: say `python -P -m {MODULE}`")


def _installed() -> Path:
    """Return where the package is if it was copied there; installed in place, it leaves nothing there."""
    return Path(str(distribution("nexus-proxy").locate_file("nexus_proxy")))


def main(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code."""
    parser = argparse.ArgumentParser(prog=f"python -m {MODULE}", description="Compile this package.")
    parser.add_argument("--remove", action="store_true", help="take the compiled form away")
    home = native.PACKAGE / native.FOLDER
    chosen = parser.parse_args(arguments)
    try:
        check_place(native.PACKAGE, _installed())
        if chosen.remove:
            remove(home)
            print(f"The sources are used; nothing is left in {home}")
            return 0
        form = compile_package()
    except (NotCompiled, OSError) as failure:
        print(f"Not done: {failure}", file=sys.stderr)
        return 1
    files = native.modules(form).values()
    print(f"{len(files) - 1} modules, {sum(path.stat().st_size for path in files):,} bytes: {form}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
