"""One consistent copy of a ledger, while it is being written.

Strategy: SQLite's backup in a single step is one read transaction. The copy is made beside its target, flushed to disk,
and only then given its name, so that a file with that name is always whole.
"""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.files import create_private
from nexus_proxy.ledger.sqlite.readonly import connect


def backup(path: Path, target: Path) -> None:
    """Copy the ledger to `target`. LedgerError if there is no ledger, the target exists, or it cannot be written."""
    if target.exists():
        raise LedgerError(f"{target} exists already")
    partial = target.with_name(f"{target.name}.{os.getpid()}.partial")
    try:
        with closing(connect(path)) as source:
            create_private(partial)
            with closing(sqlite3.connect(partial)) as copy:
                source.backup(copy, pages=-1)
                copy.execute("PRAGMA journal_mode = DELETE")  # one file that can be read from read-only media
        _flush(partial)
        os.link(partial, target)  # unlike a rename, this never replaces a file
        _flush(target.parent)
    except FileExistsError as error:
        raise LedgerError(f"{target} exists already") from error
    except (OSError, sqlite3.Error) as error:
        raise LedgerError(f"the ledger could not be copied to {target}: {error}") from error
    finally:
        partial.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
