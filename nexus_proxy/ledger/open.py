"""The one place where a ledger's store and its reader are made, by the ledger's URL."""

from nexus_proxy.config import LedgerUrl
from nexus_proxy.ledger.protocol import Reader, Store
from nexus_proxy.ledger.sqlite.read import SqliteReader
from nexus_proxy.ledger.sqlite.store import SqliteStore


def make_store(url: LedgerUrl) -> Store:
    """Return the store that writes there. It is not open yet."""
    return SqliteStore(url.path)


def make_reader(url: LedgerUrl) -> Reader:
    """Return what reads there, beside the store. It opens with the first read."""
    return SqliteReader(url.path)
