"""A ledger file, opened to be read beside whoever writes it."""

import sqlite3
from pathlib import Path

from nexus_proxy.errors import LedgerError

UnreadableError = sqlite3.Error  # what reading a file raises that is damaged, locked or no ledger


def uri(path: Path) -> str:
    """Return the name under which SQLite opens the file without ever writing it."""
    return f"{path.absolute().as_uri()}?mode=ro"


def connect(path: Path) -> sqlite3.Connection:
    """Open a ledger. LedgerError if there is none, or it may not be read."""
    if not path.is_file():
        raise LedgerError(f"there is no ledger at {path}")
    try:
        return sqlite3.connect(uri(path), uri=True, isolation_level=None, timeout=5.0)
    except sqlite3.Error as error:
        raise LedgerError(f"the ledger {path} cannot be read: {error}") from error
