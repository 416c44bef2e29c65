"""Which configuration a verb works with, and what of it the verb needs.

Strategy: only `serve` and `config check` need the providers' secrets. Every other verb reads the same file without
them, so that an admin can top up who may see none.
"""

import os
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

import click

from nexus_proxy.config import Config, WrongConfig, load
from nexus_proxy.config.file import File

_LINE = re.compile(r"\(at line (\d+),")
_SECTIONS = "|".join(File.model_fields)
_KEY = re.compile(rf"\s*(\[+(?:{_SECTIONS})\b[^\s\]=]{{0,80}}|[a-z_][a-z0-9_.]{{0,40}}(?=\s*=[^=]))")
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
        return self._load(secrets=True)

    def config_without_secrets(self) -> Config:
        """Read all but the secrets. ConfigError."""
        return self._load(secrets=False)

    def _load(self, *, secrets: bool) -> Config:
        path = self._there()
        try:
            return load(path, os.environ, secrets=secrets)
        except WrongConfig as error:
            if path is None or not isinstance(error.__cause__, tomllib.TOMLDecodeError):
                raise
            key = _broken_key(path, str(error.__cause__))
            raise WrongConfig([("", f"{error.mistakes[0][1]}{key}")], path) from error.__cause__

    def _there(self) -> Path | None:
        """Refuse a name of nothing only now: not every verb needs a configuration."""
        if self.named_by and self.path is not None and (not self.path.exists() or self.path.is_dir()):
            remedy = ": unset the variable, or name another" if self.named_by == "NEXUS_CONFIG" else ""
            raise click.UsageError(f"{self.named_by} names {self.path}, and there is no such file{remedy}")
        return self.path


def _broken_key(path: Path, message: str) -> str:
    """Return the key or the table's name that begins the line which is no TOML. Nothing else of the line: it may hold
    a secret."""
    line = _LINE.search(message)
    if line is None:
        return ""
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, ValueError):
        return ""
    number = int(line[1])
    key = _KEY.match(lines[number - 1]) if number <= len(lines) else None
    return "" if key is None else f", the line that begins with {key[1]}"
