"""How a verb reaches the ledger: through the server if one runs, else by itself under the same lock.

Strategy: ask the socket; if nobody listens, take the ledger's lock and run the same verb here. A server that is just
starting or ending, or another command, holds the lock without answering for a moment: both ways are tried again until
the patience ends.
"""

import asyncio
import time
from typing import Any, Final

from nexus_proxy.api.admin import Admin
from nexus_proxy.api.admin_socket import ServerAbsent, call, socket_path
from nexus_proxy.cli.settings import Settings
from nexus_proxy.config import Config
from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.declaration import accept, declarations
from nexus_proxy.ledger.protocol import Operation, Outcome, Store
from nexus_proxy.ledger.reader import SqliteReader
from nexus_proxy.ledger.sqlite import SqliteStore

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
            return call(config.ledger_path, verb, arguments)
        except ServerAbsent:
            pass
        try:
            return asyncio.run(_alone(config, verb, arguments))
        except LedgerError as error:
            if not isinstance(error.__cause__, BlockingIOError):  # anything but a lock that another process has
                raise
            if time.monotonic() > deadline:
                socket = socket_path(config.ledger_path)
                raise LedgerError(f"no server answers on {socket}, and yet {error}") from error
        time.sleep(_PAUSE_S)


async def _alone(config: Config, verb: str, arguments: dict[str, Any]) -> Any:
    store = SqliteStore(config.ledger_path)
    store.open()
    try:
        for outcome in store.apply(declarations(config, _now_ms())):
            accept(outcome)
        reader = SqliteReader(config.ledger_path)
        try:
            admin = Admin(Direct(store), reader, None, config, _now_ms)
            return await admin.verbs()[verb](**arguments)
        finally:
            await reader.close()
    finally:
        store.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
