"""Which configuration a verb works with, and what of it the verb needs.

Strategy: only `serve` and `config check` need the providers' secrets. Every other verb reads the same file without
them, so that an admin can top up who may see none.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import click

from nexus_proxy.config import Config, load

_PLACES = (Path("config/nexus.toml"), Path("nexus.toml"))


@dataclass(frozen=True, slots=True)
class Settings:
    """The file that was named or found; None where there is none."""

    path: Path | None
    named_by: str = ""  # what named it, if anything did

    @classmethod
    def found(cls, named: Path | None, named_by: str) -> "Settings":
        """Take the named file, or the first of the usual places that exists."""
        if named is not None:
            return cls(named, named_by)
        return cls(next((place for place in _PLACES if place.is_file()), None))

    def config(self) -> Config:
        """Read everything, secrets included. ConfigError."""
        return load(self._there(), os.environ)

    def config_without_secrets(self) -> Config:
        """Read all but the secrets. ConfigError."""
        return load(self._there(), os.environ, secrets=False)

    def _there(self) -> Path | None:
        """Refuse a name of nothing only now: not every verb needs a configuration."""
        if self.named_by and self.path is not None and (not self.path.exists() or self.path.is_dir()):
            remedy = ": unset the variable, or name another" if self.named_by == "NEXUS_CONFIG" else ""
            raise click.UsageError(f"{self.named_by} names {self.path}, and there is no such file{remedy}")
        return self.path
