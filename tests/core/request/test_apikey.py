"""Keys: their shape, their checksum, and that no slip of the hand makes another valid key."""

import hashlib
import string
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.request.apikey import PREFIX, hash_bearer, hash_key, hint, is_well_formed, mint

BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase
ENTROPY = st.binary(min_size=32, max_size=32)


def from_base62(text: str) -> int:
    number = 0
    for char in text:
        number = number * 62 + BASE62.index(char)
    return number


@given(ENTROPY)
def test_a_key_carries_its_entropy_and_the_checksum_of_what_precedes_it(entropy: bytes) -> None:
    key = mint(entropy)
    assert key.startswith("sk-ai-nexus-")
    assert len(key) == 12 + 43 + 6
    assert from_base62(key[12:55]) == int.from_bytes(entropy, "big")
    assert from_base62(key[55:]) == zlib.crc32(key[:55].encode())
    assert is_well_formed(key)


@pytest.mark.parametrize("entropy", [b"\0" * 32, b"\xff" * 32])
def test_the_ends_of_the_range_fit(entropy: bytes) -> None:
    assert len(mint(entropy)) == 61
    assert is_well_formed(mint(entropy))


@given(ENTROPY, st.integers(0, 60), st.sampled_from(BASE62 + "-_ \n\0é"))
def test_f24_one_changed_character_is_caught(entropy: bytes, at: int, char: str) -> None:
    key = mint(entropy)
    assert is_well_formed(key[:at] + char + key[at + 1 :]) == (char == key[at])


@given(ENTROPY, st.integers(0, 60))
def test_f24_a_lost_or_doubled_character_is_caught(entropy: bytes, at: int) -> None:
    key = mint(entropy)
    assert not is_well_formed(key[:at] + key[at + 1 :])
    assert not is_well_formed(key[:at] + key[at] + key[at:])


@given(st.text(), ENTROPY)
def test_no_text_raises_and_nothing_around_a_key_is_forgiven(text: str, entropy: bytes) -> None:
    assert not is_well_formed(text)
    assert not is_well_formed(PREFIX + text)
    if text:
        assert not is_well_formed(mint(entropy) + text)
        assert not is_well_formed(text + mint(entropy))


def test_text_that_no_encoding_takes_is_not_well_formed() -> None:
    assert not is_well_formed(PREFIX + "\udcff" * 49)
    assert not is_well_formed(PREFIX + "٣" * 49)  # a digit to str.isdigit


def test_a_key_is_stored_as_its_hash_and_known_by_its_end() -> None:
    key = mint(bytes(range(32)))
    assert hash_key(key) == hashlib.sha256(key.encode()).digest()
    assert hint(key) == key[-4:]


KEY = mint(bytes(range(32)))


@pytest.mark.parametrize("value", [f"Bearer {KEY}", f"bearer {KEY}", f"BEARER  {KEY} "])
def test_the_key_of_an_authorization_is_hashed(value: str) -> None:
    assert hash_bearer(value) == hash_key(KEY)


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        KEY,
        f"Basic {KEY}",
        f"Bearer{KEY}",
        f" Bearer {KEY}",
        f"Bearer {KEY[:-1]}",
        f"Bearer {KEY}, x",
        f"Bearer {KEY[:-7]}{KEY[-6:]}",
        f"Bearer {PREFIX}" + "\udcff" * 49,
    ],
)
def test_nothing_else_is(value: str) -> None:
    assert hash_bearer(value) is None
