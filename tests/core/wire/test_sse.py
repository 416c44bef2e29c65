"""Lines come out the same however the bytes are cut."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.wire.sse import DONE, LineSplitter, might_be_done


def split(pieces: list[bytes]) -> tuple[list[bytes], bytes]:
    """Return the complete lines, each glued to its late LF, and the incomplete one."""
    splitter, lines = LineSplitter(), list[bytes]()
    for piece in pieces:
        new = splitter.feed(piece)
        if splitter.glue:
            lines[-1] += splitter.glue
        lines += new
    return lines, bytes(splitter.rest)


@given(st.lists(st.sampled_from([b"a", b"\r", b"\n", b"\r\n", b"\xe6\xb5\xaa", b"data: x", b" "])), st.data())
def test_b33_any_mixture_of_line_ends_gives_the_lines_of_the_whole(parts: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(parts)
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(whole) - 1)))))
    pieces = [piece for cut in slices(cuts, len(whole)) if (piece := whole[cut])]
    lines, rest = split(pieces)
    expected = whole.splitlines(True)
    incomplete = expected.pop() if expected and not expected[-1].endswith((b"\r", b"\n")) else b""
    assert (lines, rest) == (expected, incomplete)


def slices(cuts: list[int], size: int) -> list[slice]:
    return [slice(a, b) for a, b in zip([0, *cuts], [*cuts, size], strict=True)]


def test_forget_gives_back_the_incomplete_line_once() -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"one\ntwo") == [b"one\n"]
    assert splitter.forget() == b"two"
    assert splitter.forget() == b""
    assert splitter.feed(b" more\n") == [b" more\n"]


@pytest.mark.parametrize(
    "line", [b"data: [DONE]", b"data:[DONE]", b"data:  [DONE]", b"data:\t[DONE] ", b"data: [DONE]x"]
)
def test_every_spelling_that_sdks_accept_ends_an_answer(line: bytes) -> None:
    assert DONE.match(line)
    for cut in range(line.index(b"]") + 1):
        assert might_be_done(line[:cut])


@pytest.mark.parametrize(
    "line",
    [b"date", b"d:", b": data: [DONE]", b"data: [DONF", b"data: {", b"data: x", b"data:" + b" " * 65, b"data [DONE]"],
)
def test_other_lines_do_not(line: bytes) -> None:
    assert not DONE.match(line)
    assert not might_be_done(line)
