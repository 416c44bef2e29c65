"""Every golden answer of every dialect, at every cut, read by the tap alone (B32, B33).

Strategy: no sockets. Each stream goes through in one piece and cut once at every byte, in LF; in the other forms cut
around each line end, at a stride, and at random places. `NEXUS_TEST_LONG=1` cuts every form at every byte, and each
file 10,000 times at random.
"""

import os
import random
from typing import Any

import pytest

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.core.wire.refusal import read_refusal
from nexus_proxy.core.wire.tap import make_tap
from tests.dialects.golden import ALL, DIALECTS, Golden

LONG = bool(os.environ.get("NEXUS_TEST_LONG"))
STRIDE = 1 if LONG else 29
RANDOM = 10_000 if LONG else 40  # multi-cuts of each stream
TABLE = load_catalogue().dialects
OF_200 = [golden for golden in ALL if golden.expect["status"] == 200]
STREAMS = [golden for golden in OF_200 if golden.streams]
DOCUMENTS = [golden for golden in OF_200 if not golden.streams]
FORMS = ("crlf", "cr", "commented", "commented crlf")


def name_of(golden: Golden) -> str:
    return golden.name


def read(golden: Golden, pieces: list[bytes], *, drop: bool = False) -> tuple[Any, bytes]:
    """Feed the pieces; return the tap after the end, and the bytes that went out meanwhile."""
    tap = make_tap(golden.expect["content_type"], TABLE[golden.dialect], drop_usage_event=drop)
    given = b"".join([tap.feed(piece) for piece in pieces])
    tap.end()
    return tap, given


def check(golden: Golden, pieces: list[bytes], expected: bytes, *, drop: bool = False) -> None:
    """Compare what came of the pieces with what is right."""
    tap, given = read(golden, pieces, drop=drop)
    expect = golden.expect
    if expect["error"] is not None:
        assert tap.refusal is not None
        assert not tap.complete
        assert b"".join(line for line in given.splitlines() if not line.startswith(b":")).strip() == b""
        assert tap.release() == b""
        assert read_refusal(200, tap.refusal, TABLE[golden.dialect], secret="").code == expect["error"]
        return
    assert tap.refusal is None
    assert (tap.usage and tap.usage._asdict()) == expect["usage"]
    assert tap.output_bytes == expect["output_bytes"]
    assert tap.complete == expect["complete"]
    assert (tap.error is not None) == expect["late_error"]
    if golden.streams:
        assert {str(index): reason for index, reason in tap._tap.finish.items()} == expect["finish"]
    assert given + tap.release() == expected


def test_every_dialect_has_its_golden_files() -> None:
    assert set(DIALECTS) == set(TABLE)
    for dialect in DIALECTS:
        cases = {golden.case for golden in ALL if golden.dialect == dialect}
        assert cases >= {"unasked.sse", "asked.sse", "document.json", "tools.sse", "late.sse"}
        assert cases >= {"no-money.json", "rate.json", "auth.json", "bad-request.json", "overloaded.json"}
        assert "hidden.sse" in cases


@pytest.mark.parametrize("golden", STREAMS, ids=name_of)
@pytest.mark.parametrize("drop", [False, True], ids=["all", "removed"])
def test_b32_a_stream_at_every_cut(golden: Golden, drop: bool) -> None:
    body = golden.body
    expected = golden.for_client(body, drop=drop)
    check(golden, [body], expected, drop=drop)
    if drop and not golden.expect["usage_event"] and not LONG:
        return  # nothing is to be removed, and nothing was: as before
    for cut in range(1, len(body)):
        check(golden, [body[:cut], body[cut:]], expected, drop=drop)


@pytest.mark.parametrize("golden", STREAMS, ids=name_of)
@pytest.mark.parametrize("how", FORMS)
def test_b33_a_stream_in_its_other_forms(golden: Golden, how: str) -> None:
    body = golden.form(how)
    expected = golden.for_client(body, drop=True)
    check(golden, [body], expected, drop=True)
    check(golden, [body], body)
    check(golden, [body[n : n + 1] for n in range(len(body))], expected, drop=True)
    for cut in range(1, len(body)):
        if cut % STRIDE == 0 or body[cut - 1] < 0x20:
            check(golden, [body[:cut], body[cut:]], expected, drop=True)


@pytest.mark.parametrize("golden", STREAMS, ids=name_of)
def test_b32_random_multi_cuts(golden: Golden) -> None:
    chance = random.Random(golden.name)
    forms = [(body, golden.for_client(body, drop=True)) for body in map(golden.form, ("lf", *FORMS))]
    for _ in range(RANDOM):
        body, expected = chance.choice(forms)
        cuts = sorted(chance.sample(range(1, len(body)), chance.randint(2, 9)))
        pieces = [body[a:b] for a, b in zip([0, *cuts], [*cuts, len(body)], strict=True)]
        check(golden, pieces, expected, drop=True)


@pytest.mark.parametrize("golden", DOCUMENTS, ids=name_of)
def test_b32_a_document_at_every_cut(golden: Golden) -> None:
    body = golden.body
    for cut in range(len(body)):
        check(golden, [body[:cut], body[cut:]], body)
