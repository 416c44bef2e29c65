"""What the configuration says, as requests use it.

Strategy: apart from the services, which live as long as the server. A request keeps the setup with which it began, so
that another one can take its place for the requests that come later.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from nexus_proxy.config import Config
from nexus_proxy.runtime.timeouts import TimeoutQueue
from nexus_proxy.upstream.pool import Upstream


@dataclass(frozen=True, slots=True)
class Setup:
    """One configuration, and what was made of it. Upstreams are by the names of their providers."""

    config: Config
    upstreams: Mapping[str, Upstream]
    commits: TimeoutQueue  # of settlements
    first_bytes: TimeoutQueue  # of exchanges
