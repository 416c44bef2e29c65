"""The compiled form: used if it was made of exactly these sources, and otherwise not at all."""

import importlib.util
import shutil
import subprocess
import sys
from importlib.machinery import ExtensionFileLoader
from pathlib import Path

import pytest

from nexus_proxy.runtime import compile as command
from nexus_proxy.runtime import native
from nexus_proxy.runtime.native import FOLDER, SUFFIX, digest, modules, use
from tests.rig.compiled import from_source

SOURCES = {
    "__init__.py": (
        "from pathlib import Path\nfrom nexus_proxy.runtime import native\nnative.use(Path(__file__).parent)\n"
    ),
    "inner/__init__.py": "",
    "inner/half.py": "from house.outer import WHOLE\ndef half() -> int:\n    return WHOLE // 2\n",
    "outer.py": "from typing import Final\nWHOLE: Final = 84\n",
}
PATTERNS = ("inner/*.py",)
SHOW = "from house.inner import half; print(half.half(), half.__spec__.loader.__class__.__name__)"


@pytest.fixture
def house(tmp_path: Path) -> Path:
    """A package with a module to compile and one that is not."""
    package = tmp_path / "house"
    for name, source in SOURCES.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(source)
    return package


def pretend(package: Path) -> Path:
    """Lay an empty compiled form of a package as it is now."""
    file = package / FOLDER / digest(package) / package.name / "inner" / f"half{SUFFIX}"
    file.parent.mkdir(parents=True)
    file.touch()
    return file


def shown(package: Path) -> str:
    """Return what the package says in a process of its own, and by which loader it came."""
    root = str(native.PACKAGE.parent)
    program = f"import sys; sys.path[:0] = [{str(package.parent)!r}, {root!r}]; {SHOW}"
    return subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True, cwd=package.parent
    ).stdout.strip()


def test_without_a_compiled_form_nothing_is_done(house: Path) -> None:
    before = list(sys.meta_path)
    assert use(house) is None
    (house / FOLDER).mkdir()
    assert use(house) is None
    assert sys.meta_path == before


def test_a_form_of_these_sources_is_used(house: Path) -> None:
    file = pretend(house)
    finder = use(house)
    assert finder is not None
    try:
        assert sys.meta_path[0] is finder
        spec = finder.find_spec("house.inner.half", None)
        assert spec is not None
        assert isinstance(spec.loader, ExtensionFileLoader)
        assert spec.origin == str(file)
        assert finder.find_spec("house.outer", None) is None
    finally:
        sys.meta_path.remove(finder)


@pytest.mark.parametrize("changed", ["inner/half.py", "outer.py", "new.py", "inner/__init__.py"])
def test_one_line_changed_anywhere_and_it_is_not_used(house: Path, changed: str) -> None:
    pretend(house)
    with (house / changed).open("a") as source:
        source.write("# changed\n")
    assert use(house) is None


def test_a_module_gone_or_renamed_and_it_is_not_used(house: Path) -> None:
    pretend(house)
    (house / "outer.py").rename(house / "other.py")
    assert use(house) is None
    (house / "other.py").unlink()
    assert use(house) is None


def test_another_interpreter_has_another_digest(house: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = digest(house)
    monkeypatch.setattr(native, "SUFFIX", ".cpython-399-other.so")
    assert digest(house) != before


def test_what_is_compiled_exists_and_is_named_once() -> None:
    found = command.sources(native.PACKAGE)
    assert len(found) == len(set(found)) > 40
    assert not {path.name for path in found} & {"__init__.py", "log.py", "config.py"}


def test_a_pattern_that_finds_nothing_is_told(house: Path) -> None:
    with pytest.raises(command.NotCompiled, match=r"no gone\.py to compile"):
        command.sources(house, ("inner/*.py", "gone.py"))


def test_a_class_of_the_sources_may_be_inherited_from_in_either_form() -> None:
    base = from_source("nexus_proxy.core.wire.completion", "nexus_proxy.core.wire.stream").SseTap
    assert type("Child", (base,), {}).__mro__[1] is base


needs_compiler = pytest.mark.skipif(
    shutil.which("cc") is None or importlib.util.find_spec("setuptools") is None, reason="there is no C compiler"
)


@needs_compiler
def test_compiled_changed_and_compiled_again(house: Path) -> None:
    assert shown(house) == "42 SourceFileLoader"
    first = command.compile_package(house, PATTERNS)
    assert set(modules(first)) > {"house.inner.half"}
    assert shown(house) == "42 ExtensionFileLoader"

    outer = house / "outer.py"
    outer.write_text(outer.read_text().replace("84", "86"))  # a constant that was compiled into another module
    assert shown(house) == "43 SourceFileLoader"

    (house / "inner/half.py").write_text("def half() -> int:\n    return 'no'\n")
    with pytest.raises(command.NotCompiled, match="Incompatible return value"):
        command.compile_package(house, PATTERNS)
    assert list((house / FOLDER).iterdir()) == [first]

    (house / "inner/half.py").write_text(SOURCES["inner/half.py"])
    second = command.compile_package(house, PATTERNS)
    assert list((house / FOLDER).iterdir()) == [second]
    assert shown(house) == "43 ExtensionFileLoader"
    shutil.rmtree(house / FOLDER)
    assert shown(house) == "43 SourceFileLoader"


def test_a_package_that_is_not_the_one_that_runs_is_refused(tmp_path: Path) -> None:
    here, installed = tmp_path / "here", tmp_path / "installed"
    here.mkdir()
    command.check_place(here, installed)  # installed in place: there is no copy
    command.check_place(here, here)
    installed.mkdir()
    with pytest.raises(command.NotCompiled, match="what runs is in"):
        command.check_place(here, installed)
