"""What the built-in provider writes looks like the golden files of its dialect, member for member.

Strategy: the writer and the files were written apart; of each event the names are compared, in their order.
"""

import json
from collections.abc import Iterable
from typing import Any

import pytest

from nexus_proxy.demo.shapes import SHAPES, Choice, Counts, Writer
from tests.dialects.golden import ALL

DIALECTS = pytest.mark.parametrize("dialect", sorted(SHAPES))


def events(body: bytes) -> Iterable[dict[str, Any]]:
    for line in body.splitlines():
        data = line.removeprefix(b"data:").strip()
        if line.startswith(b"data:") and data != b"[DONE]":
            yield json.loads(data)


def look(event: dict[str, Any]) -> tuple[Any, ...]:
    """Return the names of an event, of its choice and of its usage, and what stands where usage would."""
    usage = event.get("usage")
    choices = [(tuple(choice), tuple(sorted(choice.get("usage", ())))) for choice in event["choices"]]
    return tuple(event), *choices, tuple(sorted(usage)) if usage else usage


def written(dialect: str, *, asked: bool, thinks: bool = False) -> bytes:
    shape = SHAPES[dialect]
    thought = ("Hm", "m") if thinks else ()
    choice = Choice(thought, ("He", "llo"), "stop")
    counts = Counts(9, 4 if shape.caches else 0, 0, 2 + len(thought), len(thought))
    return b"".join(data for data, _ in Writer(shape, "m", asked=asked).stream([choice], counts))


def golden(dialect: str, case: str) -> bytes:
    return next(golden.body for golden in ALL if (golden.dialect, golden.case) == (dialect, case))


@DIALECTS
@pytest.mark.parametrize("asked", [False, True], ids=["unasked", "asked"])
def test_a_stream_looks_like_the_golden_one(dialect: str, asked: bool) -> None:
    body = golden(dialect, "asked.sse" if asked else "unasked.sse")
    thinks = b"reasoning" in body.replace(b'"reasoning_content":""', b"")
    mine = written(dialect, asked=asked, thinks=thinks and SHAPES[dialect].thinks is not None)
    assert {look(event) for event in events(mine)} == {look(event) for event in events(body)}
    assert mine.endswith(b"[DONE]\n\n")
    assert (b"data: {" in mine) == (b"data: {" in body)


@DIALECTS
def test_a_document_looks_like_the_golden_one(dialect: str) -> None:
    body = golden(dialect, "document.json")
    thought = ("Hm",) if b"reasoning" in body and SHAPES[dialect].thinks is not None else ()
    counts = Counts(9, 0, 0, 3, len(thought))
    mine = Writer(SHAPES[dialect], "m").document([Choice(thought, ("He", "llo"), "stop")], counts)
    for sent in (mine, body):
        assert sent.startswith(SHAPES[dialect].waiting_document)
    found, expected = json.loads(mine), json.loads(body)
    assert set(found) == set(expected)
    assert set(found["choices"][0]) == set(expected["choices"][0])
    assert set(found["choices"][0]["message"]) == set(expected["choices"][0]["message"])


@DIALECTS
def test_what_a_stream_says_was_used_is_what_its_last_usage_says(dialect: str) -> None:
    shape = SHAPES[dialect]
    choices = [Choice((), ("a", "b"), "stop"), Choice((), ("c",), "length")]
    counts = Counts(9, 0, 0, 3, 0)
    for asked in (False, True):
        told = [told for _, told in Writer(shape, "m", asked=asked).stream(choices, counts) if told is not None]
        assert (told[-1:] == [counts]) is (shape.unasked or asked)
