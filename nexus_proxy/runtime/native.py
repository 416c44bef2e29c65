"""Which form of the modules is imported: the sources, or what `python -m nexus_proxy.runtime.compile` made of them.

Strategy: as with `__pycache__`, the compiled form lies in a folder of its own and counts for nothing unless it was made
of exactly these sources: it is looked for under their digest. Any line that was changed, another branch, an upgrade,
another Python: each means the sources again, all of them. There is no mix, and nothing to be cleaned up first.
"""

import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from importlib.abc import MetaPathFinder
from importlib.machinery import EXTENSION_SUFFIXES, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Final

SUFFIX: Final = EXTENSION_SUFFIXES[0]  # names the interpreter and its ABI
FOLDER: Final = "__compiled__"
PACKAGE: Final = Path(__file__).parents[1]


class Finder(MetaPathFinder):
    """Finds the modules of one compiled form, before anybody looks for their sources."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self.files = files

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is, if it is one of these."""
        file = self.files.get(fullname)
        return spec_from_file_location(fullname, file) if file else None


def digest(package: Path) -> str:
    """Name the sources of a package, all of them: compiled code has the constants of modules that are not, too."""
    found = sha256(SUFFIX.encode())
    for path in sorted(package.rglob("*.py")):
        name = path.relative_to(package)
        if FOLDER in name.parts or not path.is_file():  # one in the making, or an editor's mark
            continue
        source = path.read_bytes()
        found.update(b"%b %d\n" % (name.as_posix().encode(), len(source)))
        found.update(source)
    return found.hexdigest()[:16]


def modules(form: Path) -> dict[str, Path]:
    """Return the files of a compiled form by the names of their modules."""
    return {
        ".".join(path.relative_to(form).parts).removesuffix(SUFFIX): path for path in sorted(form.rglob(f"*{SUFFIX}"))
    }


def use(package: Path = PACKAGE) -> Finder | None:
    """Import the compiled form from now on, if there is one of these sources. It costs one look where there is none."""
    home = package / FOLDER
    if not home.is_dir():
        return None
    found = modules(home / digest(package))
    if not found:
        return None
    finder = Finder(found)
    sys.meta_path.insert(0, finder)
    return finder


def in_use() -> bool:
    """Tell whether this process runs the compiled form."""
    return any(isinstance(finder, Finder) for finder in sys.meta_path)
