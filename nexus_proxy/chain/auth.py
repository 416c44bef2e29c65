"""Who is calling.

Strategy: a key with a wrong checksum is rejected without a look-up; the rest are found by their hash in memory. One
answer for every kind of wrong, so that nothing can be learnt by trying.
"""

from collections.abc import Sequence

from nexus_proxy.answers import Reply
from nexus_proxy.clock import now_ms
from nexus_proxy.core.apikey import hash_key, is_well_formed
from nexus_proxy.errors import InvalidKey
from nexus_proxy.ledger.directory import Directory, Key
from nexus_proxy.visit import Handler, Visit


async def auth(visit: Visit, handler: Handler) -> Reply:
    """Find the key and its account. InvalidKey, but not where nothing is served, whoever asks."""
    key = _find(visit.parts.directory, visit.arrival.authorization)
    if key is not None:
        visit.key = key
    elif visit.route is not None:
        raise InvalidKey("Incorrect API key provided. Send it as 'Authorization: Bearer sk-ai-nexus-…'.")
    return await handler(visit)


def _find(directory: Directory, values: Sequence[str]) -> Key | None:
    if len(values) != 1:
        return None
    scheme, _, secret = values[0].partition(" ")
    secret = secret.strip()
    if scheme.lower() != "bearer" or not is_well_formed(secret):
        return None
    key = directory.find(hash_key(secret))
    if key is None or key.revoked or (key.expires_ms is not None and key.expires_ms <= now_ms()):
        return None
    return key
