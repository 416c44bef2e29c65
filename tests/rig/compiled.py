"""What a test of the compiled form has to know: who reaches what in it.

Strategy: compiled modules call each other, and read each other's constants, without a look at the names; they take no
subclass that is not compiled with them. A test that patches such a name would pass or fail for another reason than it
says. So it is skipped where it tries to, and reported as skipped; with the sources it runs.
"""

import importlib
import sys
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from types import ModuleType
from typing import Any

import pytest

from nexus_proxy.runtime import native
from nexus_proxy.runtime.native import PACKAGE, SUFFIX

UNREACHED = "patches what compiled callers do not look up: {}"

# For tests that give stand-ins where the compiled form takes nothing but the real thing.
gives_stand_ins = pytest.mark.skipif(native.in_use(), reason="gives stand-ins, which compiled callees refuse")


def from_source(*names: str) -> ModuleType:
    """Return the last of some modules as its source has it, whichever form is in use; it imports the others likewise.

    Its classes may be inherited from, if what they inherit from is named before.
    """
    module = importlib.import_module(names[-1])
    if not is_compiled(module):
        return module
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            loader = SourceFileLoader(name, str(PACKAGE.joinpath(*name.split(".")[1:]).with_suffix(".py")))
            spec = spec_from_loader(name, loader)
            assert spec is not None
            module = module_from_spec(spec)
            patch.setitem(sys.modules, name, module)
            loader.exec_module(module)
    return module


def is_compiled(owner: object) -> bool:
    """Tell whether a module, a class or an object belongs to the compiled form."""
    if not isinstance(owner, ModuleType):
        found = sys.modules.get((owner if isinstance(owner, type) else type(owner)).__module__)
        return found is not None and is_compiled(found)
    return owner.__name__.startswith("nexus_proxy.") and str(owner.__file__).endswith(SUFFIX)


def skip_what_does_not_reach() -> None:
    """Skip every test that patches a compiled module, class or object from now on, if the compiled form is in use."""
    if not native.in_use():
        return
    patch = pytest.MonkeyPatch.setattr

    def setattr_or_skip(self: pytest.MonkeyPatch, target: Any, name: Any, *value: Any, **options: Any) -> None:
        owner = sys.modules.get(target.rpartition(".")[0]) if isinstance(target, str) else target
        if is_compiled(owner):
            pytest.skip(UNREACHED.format(target if isinstance(target, str) else name))
        patch(self, target, name, *value, **options)

    pytest.MonkeyPatch.setattr = setattr_or_skip  # type: ignore[method-assign]
