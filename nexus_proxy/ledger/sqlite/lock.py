"""One writer for one ledger file, across processes.

Strategy: an exclusive `flock` on `<ledger>.lock`, which the kernel drops when the process ends, however it ends. The
file stays; it names the holder for the message.
"""

import fcntl
import os
from pathlib import Path

from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.files import Place, open_private, place_of


class LedgerInUse(LedgerError):
    """Another process, or another store of this one, is the ledger's writer."""


class WriterLock:
    """The right to write one ledger file."""

    def __init__(self, ledger: Path) -> None:
        resolved = ledger.resolve()  # two names of one file are one lock
        self.path = resolved.with_name(resolved.name + ".lock")
        self._name = str(self.path)
        self._descriptor: int | None = None
        self._locked: Place = None  # the file that is

    def take(self) -> None:
        """Take the lock, or raise LedgerInUse at once. LedgerError if the lock file cannot be opened."""
        try:
            descriptor = open_private(self.path, os.O_RDWR | os.O_CREAT)
        except OSError as error:
            raise LedgerError(f"cannot open the lock file {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise LedgerInUse(
                f"the ledger is in use by process {holder} (lock file {self.path}); "
                "one ledger file has one writer, and the verbs of nexus-proxy reach it by themselves"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        self._descriptor = descriptor
        locked = os.fstat(descriptor)
        self._locked = locked.st_dev, locked.st_ino

    def is_held(self) -> bool:
        """Tell whether the file under the lock's name is still the one that is locked."""
        return self._locked is not None and place_of(self._name) == self._locked

    def release(self) -> None:
        """Give the lock back. Releasing twice is no error."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = self._locked = None
