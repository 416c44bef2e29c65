"""The hash chain over the entries: each hash covers the one before, so that no entry can change or go unnoticed.

Strategy: what is hashed names a request by its public id, the row by the request's `seq`. So the chain also proves that
the id in the request's own row is the one that was charged.
"""

import hashlib
from typing import Any, Final, NamedTuple

import orjson

GENESIS: Final = "0" * 64  # what the first entry has before it


class Entry(NamedTuple):
    """What is hashed of one row of `entries`: its columns in their order, but `request_id` for `seq`."""

    entry_id: int
    at_ms: int
    kind: str
    payer_id: int
    payee_id: int
    amount_nano: int
    request_id: str | None = None
    external_id: str | None = None
    corrects: int | None = None
    note: str = ""


_FRESH = hashlib.sha256()  # to copy it is cheaper than to ask for another


def chain(previous: str, entry: tuple[Any, ...]) -> str:
    """Return the hash of an entry, given as the values of `Entry`: SHA-256, in hex, of the hash before it and of the
    values as a JSON array.
    """
    digest = _FRESH.copy()
    digest.update(previous.encode() + orjson.dumps(entry))
    return digest.hexdigest()
