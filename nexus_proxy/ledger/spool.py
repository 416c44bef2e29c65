"""Settlements that a server could not commit before it had to end.

Strategy: one JSON line each in `<ledger>.spool`, flushed to the disk, read by the next start before it recovers
anything. A settlement that is read twice, or had been committed after all, changes nothing: its hold has ended.
"""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import orjson

from nexus_proxy.core.settlement import EndState, UsageSource
from nexus_proxy.core.usage import Usage
from nexus_proxy.ledger.protocol import Settle


class Spool:
    """The spool file of one ledger."""

    def __init__(self, ledger: Path) -> None:
        self.path = ledger.with_name(ledger.name + ".spool")

    def append(self, settlements: Sequence[Settle]) -> None:
        """Write settlements, durably. OSError."""
        descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(descriptor, b"".join(orjson.dumps(settlement) + b"\n" for settlement in settlements))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def read(self) -> Iterator[Settle]:
        """Return what is there, in order; a last line that was cut off by a crash is left out."""
        lines = self.path.read_bytes().split(b"\n")[:-1] if self.path.exists() else []
        for line in lines:
            found = orjson.loads(line)
            usage = found["usage"]
            yield Settle(
                **found
                | {
                    "end_state": EndState(found["end_state"]),
                    "usage_source": UsageSource(found["usage_source"]),
                    "usage": None if usage is None else Usage(**usage),
                }
            )

    def remove(self) -> None:
        """Forget what was read."""
        self.path.unlink(missing_ok=True)
