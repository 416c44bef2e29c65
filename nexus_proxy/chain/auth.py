"""Who is calling.

Strategy: a key with a wrong checksum is rejected without a look-up; the rest are found by their hash in memory. One
answer for every kind of wrong, so that nothing can be learnt by trying.
"""

from nexus_proxy.errors import InvalidKey
from nexus_proxy.ledger.directory import Directory, Key
from nexus_proxy.request.context import Handler, RequestContext
from nexus_proxy.runtime.clock import now_ms
from nexus_proxy.web.response import Reply


async def auth(context: RequestContext, handler: Handler) -> Reply:
    """Find the key and its account. InvalidKey, but not where nothing is served, whoever asks."""
    key = _find(context.services.directory, context.incoming.key_hash)
    if key is not None:
        context.key = key
    elif context.route is not None:
        raise InvalidKey("Incorrect API key provided. Send it as 'Authorization: Bearer sk-ai-nexus-…'.")
    return await handler(context)


def _find(directory: Directory, key_hash: bytes | None) -> Key | None:
    key = directory.find(key_hash) if key_hash is not None else None
    if key is None or key.revoked or (key.expires_ms is not None and key.expires_ms <= now_ms()):
        return None
    return key
