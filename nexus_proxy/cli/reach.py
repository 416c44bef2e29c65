"""How a verb reaches the ledger: through the server if one runs, else by itself under the same lock.

Strategy: ask the socket; if nobody listens, take the ledger's lock and run the same verb here. A server that is just
starting or ending, or another command, holds the lock without answering for a moment: both ways are tried again until
the patience ends. Only `account_create` may find no ledger and make one.
"""

import asyncio
import time
from pathlib import Path
from typing import Any, Final

from nexus_proxy.admin.socket import ServerAbsent, call, socket_path
from nexus_proxy.admin.verbs import Admin
from nexus_proxy.cli.settings import Settings
from nexus_proxy.config import Config
from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.declaration import accept, declarations
from nexus_proxy.ledger.open import make_reader, make_store
from nexus_proxy.ledger.protocol import Operation, Outcome, Store
from nexus_proxy.ledger.sqlite.lock import LedgerInUse
from nexus_proxy.runtime.clock import now_ms

PATIENCE_S: Final = 3.0
_PAUSE_S: Final = 0.05


class Direct:
    """A ledger's writer for one caller: each operation is a batch of its own."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, op: Operation) -> Outcome:
        """Apply one operation, durably. Blocks, for there is nobody to keep waiting."""
        return self._store.apply([op])[0]


def ask(settings: Settings, verb: str, arguments: dict[str, Any]) -> Any:
    """Run one admin verb and return its value. Refused; LedgerError if neither server nor ledger can be had."""
    config = settings.config_without_secrets()
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call(config.ledger.path, verb, arguments)
        except ServerAbsent:
            pass
        if verb != "account_create":
            existing_ledger(settings)
        try:
            return asyncio.run(_alone(config, verb, arguments))
        except LedgerInUse as error:
            if time.monotonic() > deadline:
                socket = socket_path(config.ledger.path)
                raise LedgerError(f"no server answers on {socket}, and yet {error}") from error
        time.sleep(_PAUSE_S)


def existing_ledger(settings: Settings) -> Path:
    """Return where the ledger is. LedgerError, with the configuration that says so, if there is none."""
    path = settings.config_without_secrets().ledger.path
    if not path.exists():
        by = "no configuration file was found" if settings.path is None else f"configuration: {settings.path}"
        raise LedgerError(f"there is no ledger at {path} ({by})")
    return path


async def _alone(config: Config, verb: str, arguments: dict[str, Any]) -> Any:
    store = make_store(config.ledger)
    store.open()
    try:
        for outcome in store.apply(declarations(config, now_ms())):
            accept(outcome)
        reader = make_reader(config.ledger)
        try:
            admin = Admin(Direct(store), reader, None, config, now_ms)
            return await admin.verbs()[verb](**arguments)
        finally:
            await reader.close()
    finally:
        store.close()
