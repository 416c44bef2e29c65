"""The configuration file, read once into frozen types.

Strategy: the file's shape is checked as a whole and every mistake is named by its path; what comes out is resolved
(catalogue merged, prices converted, secrets read) and never changes.
"""

import json
import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.config.file import check_shape
from nexus_proxy.config.models import ModelResolver
from nexus_proxy.config.plans import resolve_plans
from nexus_proxy.config.providers import ProviderResolver
from nexus_proxy.config.reading import Reading
from nexus_proxy.config.types import Address, Config, LedgerUrl, Limits, ServerConfig, Timeouts
from nexus_proxy.errors import ConfigError

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


class WrongConfig(ConfigError):
    """The configuration has these mistakes: each a path, empty for the file as a whole, and what was expected."""

    def __init__(self, mistakes: list[tuple[str, str]], file: Path | None = None) -> None:
        lines = [f"{path}: {what}" if path else what for path, what in mistakes]
        head = [] if file is None else [f"{file}:"]
        super().__init__(" ".join([*head, *lines]) if mistakes[0][0] == "" else "\n".join([*head, *lines]))
        self.mistakes = mistakes


def load(path: Path | None, environ: Mapping[str, str], *, secrets: bool = True) -> Config:
    """Read, check and resolve. None is the default: no file, nothing switched on. ConfigError names every mistake.

    Without `secrets` nothing but the file is looked at: every `api_key` is empty, and no `ca_file` need be there.
    """
    if path is None:
        return resolve({}, Path.cwd(), environ, secrets=secrets)
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise WrongConfig([("", str(error))], path) from error
    except RecursionError:
        raise WrongConfig([("", "a value is nested too deep")], path) from None
    try:
        return resolve(document, path.resolve().parent, environ, secrets=secrets)
    except WrongConfig as error:
        raise WrongConfig(error.mistakes, path) from None


def resolve(document: dict[str, Any], folder: Path, environ: Mapping[str, str], *, secrets: bool = True) -> Config:
    """Check and resolve a parsed file. Relative paths stand in `folder`. ConfigError has a line for each mistake."""
    file, mistakes = check_shape(document)
    config = _config(Reading(file, mistakes, folder, environ if secrets else None, load_catalogue()))
    if mistakes:
        raise WrongConfig([(_dotted(where), what) for where, what in sorted(mistakes.items())])
    return config


def _config(reading: Reading) -> Config:
    file = reading.file
    server, plans = _server(reading), resolve_plans(reading)
    by_provider = ProviderResolver(reading)
    providers = by_provider.resolve()
    by_model = ModelResolver(reading, by_provider)
    models = by_model.resolve(providers)
    ledger = LedgerUrl(reading.folder / file.ledger.url.removeprefix("sqlite:"))
    return Config(server, ledger, file.billing.currency, plans, providers, models, tuple(by_model.prices))


def _server(reading: Reading) -> ServerConfig:
    given = reading.file.server
    timeouts = Timeouts(**given.timeouts.model_dump(exclude_none=True))
    limits = Limits(**given.limits.model_dump(exclude_none=True))
    if limits.bodies_bytes < limits.body_bytes:
        reading.wrong("expected at least server.limits.body_bytes", "server", "limits", "bodies_bytes")
    listen, admin_listen = _address(given.listen), _address(given.admin_listen)
    if listen == admin_listen and listen.port:
        reading.wrong("expected another address than server.listen", "server", "admin_listen")
    return ServerConfig(listen, admin_listen, timeouts, limits)


def _address(text: str) -> Address:
    host, _, port = text.rpartition(":")
    return Address(host.removeprefix("[").removesuffix("]"), int(port))


def _dotted(where: tuple[str, ...]) -> str:
    return ".".join(part if _BARE_KEY.fullmatch(part) else json.dumps(part) for part in where)
