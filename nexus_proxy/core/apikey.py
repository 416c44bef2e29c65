"""API keys: `sk-ai-nexus-`, 43 base62 characters of randomness (256 bits), 6 of the CRC32 of what precedes them."""

PREFIX = "sk-ai-nexus-"


def mint(entropy: bytes) -> str:
    """Return the key made of 32 random bytes."""
    raise NotImplementedError


def is_well_formed(key: str) -> bool:
    """Tell whether the shape and the checksum are right. Never raises, whatever the text."""
    raise NotImplementedError


def hash_key(key: str) -> bytes:
    """Return the SHA-256 under which a key is stored and looked up."""
    raise NotImplementedError


def hint(key: str) -> str:
    """Return the last four characters, by which a person tells keys apart."""
    raise NotImplementedError
