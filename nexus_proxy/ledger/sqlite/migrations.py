"""How a ledger file gets from the version it has to the version that this program needs.

Strategy: each step and the record that it was done are one transaction, so a process killed in the middle leaves the
version before or the version after, never something between. Steps are only ever added at the end.
"""

import sqlite3
from typing import Final

from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.sqlite.schema import TABLES
from nexus_proxy.ledger.sqlite.views import VIEWS

_HAS_HOLDS: Final = "SELECT 1 FROM sqlite_master WHERE name = 'holds'"
STEPS: tuple[str, ...] = (TABLES + VIEWS,)


def migrate(connection: sqlite3.Connection, steps: tuple[str, ...] = STEPS) -> None:
    """Bring the file to the newest version. LedgerError if a newer program has written it, or one too old to know."""
    version = version_of(connection, len(steps))
    for number, step in enumerate(steps[version:], version + 1):
        try:
            connection.executescript(f"BEGIN IMMEDIATE;\n{step}\nPRAGMA user_version = {number};\nCOMMIT;")
        except sqlite3.Error:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def version_of(connection: sqlite3.Connection, newest: int = len(STEPS)) -> int:
    """Return the version of a file. LedgerError if a newer program has written it, or one too old to know."""
    version: int = connection.execute("PRAGMA user_version").fetchone()[0]
    if version > newest:
        raise LedgerError(f"the ledger has version {version}, this program knows up to {newest}: use a newer one")
    if version == 1 and not connection.execute(_HAS_HOLDS).fetchone():
        raise LedgerError(
            "the ledger is from before the first release; this program cannot read it: keep it, and begin another"
        )
    return version
