"""The admins' socket of a ledger, served without a door."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from nexus_proxy.admin.application import application
from nexus_proxy.admin.socket import AdminSocket
from nexus_proxy.admin.verbs import Admin


@contextlib.asynccontextmanager
async def listening(admin: Admin, ledger: Path) -> AsyncIterator[None]:
    """Serve the verbs on the socket beside the ledger for as long as the block runs. LedgerError."""
    server = AdminSocket(application(admin), ledger)
    await server.start()
    try:
        yield
    finally:
        await server.stop()
