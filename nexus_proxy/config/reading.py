"""One configuration file while it is being resolved, and every mistake that was found in it.

Strategy: what is wrong is left out, and what hangs on something that was left out is passed over: one mistake, one
line.
"""

from collections.abc import Mapping
from pathlib import Path

from nexus_proxy.catalogue import Catalogue
from nexus_proxy.config.file import File, Mistakes


class Reading:
    """A file whose shape was checked. `environ` is None where the secrets stay where they are."""

    def __init__(
        self, file: File, mistakes: Mistakes, folder: Path, environ: Mapping[str, str] | None, catalogue: Catalogue
    ) -> None:
        self.file, self.folder, self.catalogue, self.environ = file, folder, catalogue, environ
        self.mistakes = mistakes
        self.broken = {where[:depth] for where in mistakes for depth in (1, 2, 3)}  # sections, tables, keys left out
        self.left_out = frozenset(mistakes)

    def wrong(self, what: str, *where: str) -> None:
        """Note down what was expected at a path."""
        if where[:1] != ("models",) or where not in self.broken:  # a key that was left out is no second mistake
            self.mistakes.setdefault(where, what)
