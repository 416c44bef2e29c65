"""Messages are cut where their length says, however they come."""

import pytest

from tests.bench.framing import Messages, cut

MESSAGE = b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabc"
WHOLE = (MESSAGE[:-7], b"abc")


def test_a_message_is_cut_where_its_length_says_and_not_before() -> None:
    assert cut(MESSAGE + MESSAGE) == (*WHOLE, MESSAGE)
    assert [cut(MESSAGE[:end]) for end in range(len(MESSAGE))] == [None] * len(MESSAGE)


@pytest.mark.parametrize("size", range(1, 2 * len(MESSAGE) + 1))
def test_pieces_of_any_size_make_the_same_messages(size: int) -> None:
    messages, data = Messages(), MESSAGE + MESSAGE
    found = [message for at in range(0, len(data), size) for message in messages.feed(data[at : at + size])]
    assert found == [WHOLE, WHOLE]
    assert messages.between


def test_what_is_left_of_a_message_is_seen() -> None:
    messages = Messages()
    assert list(messages.feed(MESSAGE + b"H")) == [WHOLE]
    assert not messages.between
