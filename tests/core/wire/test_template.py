"""An event that is known by its template comes to the same as one that is read.

Strategy: two taps hear the same pieces, one of which never looks for a template; what they let go, and all that they
remember, must be the same after each piece. The pieces are events that are nearly alike, cut where an event may be.
"""

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.core.wire.completion import Completion
from nexus_proxy.core.wire.dialect import Dialect, Failure
from nexus_proxy.core.wire.stream import SseTap
from nexus_proxy.core.wire.template import TEMPLATE_BYTES_MAX, EventTemplate, template_of
from nexus_proxy.core.wire.usage import UsageShape
from tests.rig.compiled import from_source

NAMES = frozenset({"content", "reasoning_content"})
PLAIN = Dialect("openai", ask_usage=False)
ODD = Dialect(
    "odd", ask_usage=False, usage=UsageShape(in_choice=True, at=(("meta", "usage"),)), failure=(Failure(("fault",)),)
)
DIALECTS = [PLAIN, ODD, *load_catalogue().dialects.values()]
USAGE = {"prompt_tokens": 9, "completion_tokens": 3}


class Reader(from_source(Completion.__module__, SseTap.__module__).SseTap):  # type: ignore[misc]
    """A tap that reads every event."""

    def _look_for_template(self, found: dict[str, Any], blank: bytes) -> None:
        pass


def state(tap: SseTap) -> tuple[Any, ...]:
    return (
        tap.output_bytes, tap.unread, tap.began, tap.thought, tap.usage, tap.error, tap.refusal, tap.done, tap.finish,
        tap.choices, tap.complete, tap.finished, tap.at_boundary, tap.kept,
    )  # fmt: skip


def compare(pieces: list[bytes], dialect: Dialect = PLAIN, *, drop: bool = False, ended: bool = True) -> SseTap:
    """Let both taps hear the pieces; return the one with templates."""
    tap, reader = SseTap(dialect, drop_usage_event=drop), Reader(dialect, drop_usage_event=drop)
    for piece in pieces:
        assert tap.feed(piece) == reader.feed(piece)
        assert state(tap) == state(reader)
    if ended:
        tap.end()
        reader.end()
        assert state(tap) == state(reader)
    assert tap.release() == reader.release()
    return tap


def event(text: Any = "x", end: bytes = b"\n", name: str = "content", **more: Any) -> bytes:
    found = {"id": "1", "choices": [{"index": 0, "delta": {name: text}, "finish_reason": None}], "usage": None} | more
    return b"data: " + orjson.dumps(found) + end * 2


def raw(said: bytes) -> bytes:
    """An event with these bytes between the quotes of its text."""
    return event("@").replace(b'"@"', b'"%b"' % said)


def template(data: bytes) -> EventTemplate | None:
    return template_of(data, 5, orjson.loads(data[5:]), NAMES)


RAW = [
    b"", b" ", b"plain", "漢字".encode(), "漢字".encode()[:4], b"\xff", b"a\\nb", b'a\\"b', b"\\u4e2d", b"\\ud800",
    b'"', b'","x":"', b'"},"finish_reason":"stop","d":{"e":"', b"\x01", b"\t", b"\x7f", b"\\x", b"[DONE]",
    b"\\", b"\\ud83d\\ude00",
]  # fmt: skip


@pytest.mark.parametrize("said", RAW)
def test_a_text_of_any_bytes_is_read_the_same(said: bytes) -> None:
    compare([event("first"), raw(said), raw(said) + raw(b"z"), raw(b"y") + raw(said), event()])


@pytest.mark.parametrize("said", ["Hello", "漢字", "a\nb", 'say "x"', "😀", "\\"])
def test_an_event_that_differs_in_its_text_only_is_known(said: str) -> None:
    made = template(event("first"))
    assert made is not None
    size = len(said.encode())
    assert made.said(event(said)) == size
    assert made.said(event(said) * 3) == 3 * size
    assert made.said(event(said) + event("") + event(said)) == 0
    assert made.said(event(said)[:-1]) == 0
    assert made.said(event(said) + b"\n") == 0
    assert made.said(event(said, id="2")) == 0
    assert made.said(event(said, name="reasoning_content")) == 0


CHOICE = {"index": 0, "delta": {"content": "x"}}
NONE = [
    event(""), event(None), event(["x"]), event("x", name="role"), event("x", choices=[]), event("x", choices=None),
    event("x", choices=[CHOICE, CHOICE]), event("x", choices=["x"]), event("x", choices=[{"index": 0, "delta": "x"}]),
    event("x", choices=[CHOICE | {"finish_reason": "stop"}]), event("x", choices=[CHOICE | {"usage": USAGE}]),
    event("x", choices=[CHOICE | {"message": {"content": "x"}}]),
    event("x", choices=[{"index": 0, "delta": {"content": "x", "reasoning_content": "y"}}]),
    event("x", choices=[{"index": 0, "delta": {"content": "x", "tool_calls": [{"function": {"arguments": "y"}}]}}]),
    event("x", more="x"),  # the last text that looks like it is another one
    raw(b"\\u0078"),  # not as it would be written
    event("x" * TEMPLATE_BYTES_MAX),
]  # fmt: skip


@pytest.mark.parametrize("data", NONE)
def test_an_event_that_can_say_more_than_a_text_has_no_template(data: bytes) -> None:
    assert template(data) is None


def test_half_a_character_has_no_template() -> None:
    found = {"choices": [{"delta": {"content": "\ud800"}}]}
    assert template_of(raw(b"\\ud800"), 5, found, NAMES) is None


def test_an_event_that_is_too_deep_to_compare_has_no_template() -> None:
    deep = event().replace(b'"usage":null', b'"usage":null,"deep":' + b"[" * 1000 + b"]" * 1000)
    assert template(deep) is None
    compare([deep, deep, event()])


def test_a_text_that_is_told_twice_is_the_last() -> None:
    twice = b'data: {"choices":[{"delta":{"content":"a","content":"a"}}]}\n\n'
    made = template(twice)
    assert made is not None
    assert made.said(twice.replace(b'"a"}', b'"bcd"}')) == 3
    assert made.said(twice.replace(b'"a",', b'"bcd",')) == 0


@pytest.mark.parametrize("text", ["x", "another text"])  # the second is what the proof used to put in its place
def test_a_text_that_stands_elsewhere_too_is_told_from_it(text: str) -> None:
    others = [event(text, object=other) for other in (text, "2", "2", "漢" * 50, "漢" * 50)]
    tap = compare(others)
    assert tap.output_bytes == len(text) * len(others)


def test_what_is_no_event_of_its_own_makes_no_template() -> None:
    for first in (event("x", b"\r"), b"event: x\n" + event(), b"data: {\ndata:" + event()[7:]):
        tap = SseTap(PLAIN, drop_usage_event=False)
        tap.feed(first)
        tap.feed(event("y", b"\r"))
        assert tap._template is None
    cr = SseTap(PLAIN, drop_usage_event=False)
    cr.feed(event()[:-2] + b"\r")
    cr.feed(b"\n\n")  # one line end, in two pieces, and a blank line
    assert cr._template is None


def test_a_template_is_looked_for_only_so_often() -> None:
    tap = SseTap(PLAIN, drop_usage_event=False)
    tap.feed(event("x"))
    first = tap._template
    tap.feed(event("x", id="2"))
    assert tap._template is first is not None
    tap.feed(event("x" * 64, id="2"))
    tap.feed(event("x", id="2"))
    assert tap._template is not first


def test_what_is_longer_than_an_event_may_be_is_read() -> None:
    compare([event(), event("y" * (1 << 20)), event(), event("y" * (1 << 19)) * 3, event()])


FAULT = event(fault="busy")
PARTS = [
    *(event(text) for text in ("x", "漢", "two words", "")), *(raw(said) for said in RAW),
    *(event("x", end) for end in (b"\r\n", b"\r")), event("thinks", name="reasoning_content"), event(index=1),
    event("x", choices=[{"index": 1, "delta": {"content": "x"}, "finish_reason": None}]),
    event("x", choices=[{"index": 0, "delta": {"content": "x"}, "finish_reason": "stop"}]),
    event("x", usage=USAGE), event("x", meta={"usage": USAGE}), event("x", choices=[], usage=USAGE),
    event("x", choices=[CHOICE | {"usage": USAGE}]), FAULT, event("", fault="busy"), event(error={"message": "busy"}),
    b": comment\n\n", b": comment\n", b"event: error\n", b"id: 1\n", b"data: {}\n\n", b"data: [DONE]\n\n", b"\n",
    b"\r\n",
    event()[:40], event()[40:], event()[:-1], b"\xef\xbb\xbf",
]  # fmt: skip


@given(
    parts=st.lists(st.sampled_from(PARTS), max_size=12),
    joined=st.lists(st.booleans(), min_size=12, max_size=12),
    cuts=st.lists(st.integers(0, 400), max_size=3),
    dialect=st.sampled_from(DIALECTS),
    drop=st.booleans(),
    ended=st.booleans(),
)
def test_any_events_in_any_pieces_come_to_the_same(
    parts: list[bytes], joined: list[bool], cuts: list[int], dialect: Dialect, drop: bool, ended: bool
) -> None:
    pieces = [event("first")]
    for part, join in zip(parts, joined, strict=False):
        if join:
            pieces[-1] += part
        else:
            pieces.append(part)
    for cut in cuts:
        at = cut % len(pieces)
        pieces[at : at + 1] = [pieces[at][:cut], pieces[at][cut:]]
    compare(pieces, dialect, drop=drop, ended=ended)


@given(at=st.integers(0, 200), to=st.binary(max_size=3), size=st.integers(0, 3), said=st.sampled_from(RAW))
def test_an_event_with_any_bytes_changed_is_read_the_same(at: int, to: bytes, size: int, said: bytes) -> None:
    good = raw(said)
    at %= len(good)
    compare([event("first"), good[:at] + to + good[at + size :], event("last")])
