"""Which configuration a verb works with, and what of it the verb needs.

Strategy: only `serve` and `config check` need the providers' secrets. Every other verb reads the same file with
secrets made up, so that an admin can top up from a shell that holds none.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from nexus_proxy.config import Config, load

_PLACES = (Path("config/nexus.toml"), Path("nexus.toml"))


class _MadeUp(dict[str, str]):
    """An environment in which every variable has a value."""

    def get(self, name: str, default: object = None) -> str:
        return super().get(name) or "unset"


@dataclass(frozen=True, slots=True)
class Settings:
    """The file that was named or found; None where there is none."""

    path: Path | None

    @classmethod
    def found(cls, named: Path | None) -> "Settings":
        """Take the named file, or the first of the usual places that exists."""
        return cls(named or next((place for place in _PLACES if place.is_file()), None))

    def config(self) -> Config:
        """Read everything, secrets included. ConfigError."""
        return load(self.path, os.environ)

    def config_without_secrets(self) -> Config:
        """Read all but the secrets. ConfigError."""
        return load(self.path, _MadeUp(os.environ))
