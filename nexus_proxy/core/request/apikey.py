"""API keys: `sk-ai-nexus-`, 43 base62 characters of randomness (256 bits), 6 of the CRC32 of what precedes them.

Strategy: the checksum tells a typing error or a guess from a key without a look-up; it proves nothing else. Digits are
`0-9A-Za-z`, most significant first, padded with `0`. A key is stored only as its hash.
"""

import re
import zlib
from hashlib import sha256
from typing import Final

PREFIX: Final = "sk-ai-nexus-"
ENTROPY_BYTES: Final = 32
HINT_CHARS: Final = 4

_ALPHABET: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_PAIRS = [high + low for high in _ALPHABET for low in _ALPHABET]  # two digits at once: every request asks
_SECRET_CHARS: Final = 43  # 62**43 > 2**256
_CHECKSUM_CHARS: Final = 6  # 62**6 > 2**32
_SHAPE: Final = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_SECRET_CHARS + _CHECKSUM_CHARS}}}")


def mint(entropy: bytes) -> str:
    """Return the key made of 32 random bytes."""
    assert len(entropy) == ENTROPY_BYTES, "a key is made of 256 bits"
    body = PREFIX + _base62(int.from_bytes(entropy, "big"), _SECRET_CHARS)
    return body + _checksum(body)


def is_well_formed(key: str) -> bool:
    """Tell whether the shape and the checksum are right. Never raises, whatever the text."""
    return _SHAPE.fullmatch(key) is not None and _checksum(key[:-_CHECKSUM_CHARS]) == key[-_CHECKSUM_CHARS:]


def hash_key(key: str) -> bytes:
    """Return the SHA-256 under which a key is stored and looked up. The key is well-formed."""
    return sha256(key.encode("ascii")).digest()


def hash_bearer(authorization: str) -> bytes | None:
    """Return the hash of the key in the value of an Authorization header, if it is `Bearer` and a well-formed key."""
    scheme, _, key = authorization.partition(" ")
    key = key.strip()
    return hash_key(key) if scheme.lower() == "bearer" and is_well_formed(key) else None


def hint(key: str) -> str:
    """Return the last four characters, by which a person tells keys apart."""
    return key[-HINT_CHARS:]


def _checksum(body: str) -> str:
    number = zlib.crc32(body.encode("ascii"))
    return _PAIRS[number // 62**4] + _PAIRS[number // 62**2 % 62**2] + _PAIRS[number % 62**2]


def _base62(number: int, width: int) -> str:
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
