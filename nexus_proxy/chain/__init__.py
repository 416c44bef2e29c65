"""The product in reading order: what happens to a request, stage by stage.

boundary   turns whatever is raised below into an OpenAI error
auth       who is calling
ratelimit  may they, now
metering   is it sound, what can it cost, and is that set aside durably
forward    the call to the provider; the answer on its way to the client
"""

from nexus_proxy.chain.auth import auth
from nexus_proxy.chain.boundary import boundary
from nexus_proxy.chain.compose import Stage, compose
from nexus_proxy.chain.forward import forward
from nexus_proxy.chain.metering import metering
from nexus_proxy.chain.ratelimit import ratelimit

CHAIN: tuple[Stage, ...] = (boundary, auth, ratelimit, metering)

__all__ = ["CHAIN", "compose", "forward"]
