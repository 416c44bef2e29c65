"""The ledger's files as the system has them: which file a name stands for, and who may read a new one.

Strategy: balances and what was asked when are nobody else's business, so every file is made for its owner alone. A file
that exists keeps the mode that its operator gave it.
"""

import os
from pathlib import Path

Place = tuple[int, int] | None


def place_of(path: str | Path) -> Place:
    """Return device and inode of the file at a path, None if there is none."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def open_private(path: str | Path, flags: int) -> int:
    """Open a file, as an opener of `open` does; a new one is its owner's alone."""
    return os.open(path, flags, 0o600)


def create_private(path: Path) -> None:
    """Make an empty file, unless there is one. OSError if that cannot be."""
    if not path.exists():
        os.close(open_private(path, os.O_RDWR | os.O_CREAT))
