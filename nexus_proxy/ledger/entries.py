"""The hash chain over the entries: each hash covers the one before, so that no entry can change or go unnoticed."""

import hashlib
from typing import NamedTuple

import orjson

GENESIS = "0" * 64  # what the first entry has before it


class Entry(NamedTuple):
    """One row of `entries`, in the order of its columns, without the hash."""

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


def chain(previous: str, entry: Entry) -> str:
    """Return the entry's hash: SHA-256, in hex, of the previous hash and the entry's values as a JSON array."""
    return hashlib.sha256(previous.encode() + orjson.dumps(tuple(entry))).hexdigest()
