"""The one place where a limiter is made."""

from nexus_proxy.limiter.memory import MemoryLimiter
from nexus_proxy.limiter.protocol import Limiter


def make_limiter() -> Limiter:
    """Return the limiter of a single process; its windows are empty."""
    return MemoryLimiter()
