"""Who is calling.

Strategy: a key with a wrong checksum is rejected without a look-up; the rest are found by their hash in memory. One
answer for every kind of wrong, so that nothing can be learnt by trying.
"""

import time

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler

from nexus_proxy.appkeys import DIRECTORY, KEY
from nexus_proxy.core.apikey import hash_key, is_well_formed
from nexus_proxy.errors import AccountSuspended, InvalidKey
from nexus_proxy.ledger.directory import Directory, Key


@web.middleware
async def auth(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Find the key and its account. InvalidKey, AccountSuspended."""
    if request.match_info.route.name is None:  # nothing is served there, whoever asks
        return await handler(request)
    key = _find(request.app[DIRECTORY], request.headers.getall(hdrs.AUTHORIZATION, ()))
    request[KEY] = key
    if key.account.suspended:
        raise AccountSuspended("This account is suspended. Contact the operator.")
    return await handler(request)


def _find(directory: Directory, values: "list[str] | tuple[()]") -> Key:
    if len(values) == 1:
        scheme, _, secret = values[0].partition(" ")
        secret = secret.strip()
        if scheme.lower() == "bearer" and is_well_formed(secret):
            key = directory.find(hash_key(secret))
            if key is not None and not key.revoked and (key.expires_ms is None or key.expires_ms > _now_ms()):
                return key
    raise InvalidKey("Incorrect API key provided. Send it as 'Authorization: Bearer sk-ai-nexus-…'.")


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
