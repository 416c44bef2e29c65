"""Settlements that a server could not commit before it had to end.

Strategy: one JSON line each in `<ledger>.spool`, flushed to the disk, read by the next start before it recovers
anything. A settlement that is read twice, or had been committed after all, changes nothing: its hold has ended.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import orjson

from nexus_proxy.core.money.settlement import EndState, UsageSource
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import LedgerError
from nexus_proxy.ledger.files import open_private
from nexus_proxy.ledger.protocol import Settle

BALLAST_BYTES: Final = (4 << 20, 1 << 20, 1 << 18)  # as much as there is; a settlement takes about 400
END: Final = b" ;\n"  # of a line that was written whole
FIELDS: Final = (
    "request_id", "end_state", "usage_source", "usage", "charge_nano", "cost_nano", "status", "closed_ms",
    "first_byte_ms", "duration_ms", "flags", "estimator",
)  # fmt: skip


class Spool:
    """The spool file of one ledger."""

    def __init__(self, ledger: Path) -> None:
        resolved = ledger.resolve()  # two names of one file have one spool
        self.path = resolved.with_name(resolved.name + ".spool")
        self._ballast = resolved.with_name(resolved.name + ".ballast")

    def reserve(self) -> None:
        """Take room on the disk for the day on which there is none. As far as that goes: no error if it cannot be."""
        for size in BALLAST_BYTES:
            with suppress(OSError), open(self._ballast, "wb", opener=open_private) as file:
                os.posix_fallocate(file.fileno(), 0, size)
                return

    def free(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def append(self, settlements: Sequence[Settle]) -> None:
        """Write settlements, durably. OSError if there is no room, not even what was reserved."""
        try:
            self._append(settlements)
        except OSError:
            self.free()
            self._append(settlements)  # what was half written ends at the first new line

    def _append(self, settlements: Sequence[Settle]) -> None:
        with open(self.path, "ab", opener=open_private) as file:
            # A line that an earlier crash cut off ends here, and is left out when the file is read.
            file.write(b"\n" + b"".join(map(_line, settlements)))
            file.flush()
            os.fsync(file.fileno())
        _sync(self.path.parent)

    def read(self) -> Iterator[Settle]:
        """Return what is there, in order. LedgerError if a line that was written whole cannot be understood."""
        lines = self.path.read_bytes().split(b"\n") if self.path.exists() else []
        for line in lines:
            if line.endswith(END[:-1]):
                yield self._settle(line.removesuffix(END[:-1]))

    def keep(self, settlements: Sequence[Settle]) -> None:
        """Forget all but these."""
        if settlements:
            kept = self.path.with_name(self.path.name + ".new")
            kept.unlink(missing_ok=True)
            with open(kept, "ab", opener=open_private) as file:
                file.write(b"".join(map(_line, settlements)))
                file.flush()
                os.fsync(file.fileno())
            kept.replace(self.path)
        else:
            self.path.unlink(missing_ok=True)
        _sync(self.path.parent)

    def _settle(self, line: bytes) -> Settle:
        try:
            found = orjson.loads(line)
            usage = found["usage"]
            changes = {
                "end_state": EndState(found["end_state"]),
                "usage_source": UsageSource(found["usage_source"]),
                "usage": None if usage is None else Usage(**usage),
            }
            return Settle(**found | changes)
        except (ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{self.path} has a line that cannot be read: {line[:80]!r} ({error})") from error


def _line(settlement: Settle) -> bytes:
    usage = settlement.usage
    values = {name: getattr(settlement, name) for name in FIELDS}
    return orjson.dumps(values | {"usage": usage and usage._asdict()}) + END


def _sync(directory: Path) -> None:
    """Make a new or removed name in a directory durable."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
