"""Both ends agree on every byte."""

from tests.bench.answers import (
    BEGIN,
    END,
    LAST_CHUNK,
    Asked,
    asked,
    event,
    loose_stamps,
    payload,
    question,
    unstamped,
)


def unchunked(data: bytes) -> bytes:
    """Remove the framing, the slow and obvious way."""
    body, rest = b"", data
    while True:
        size, _, rest = rest.partition(b"\r\n")
        if int(size, 16) == 0:
            assert rest == b"\r\n"
            return body
        body, rest = body + rest[: int(size, 16)], rest[int(size, 16) + 2 :]


def test_what_is_sent_is_what_is_expected() -> None:
    sent = BEGIN.partition(b"\r\n\r\n")[2] + event(7) + event(2**63) + END
    assert sent.endswith(LAST_CHUNK)
    body = unchunked(sent)
    plain, stamps = unstamped(body)
    assert plain == payload(2)
    assert [sent_ns for _, sent_ns in stamps] == [7, 2**63]
    assert [body[:end].count(b"\n\n") for end, _ in stamps] == [2, 3]  # behind the role's and its own
    assert [sent_ns for _, sent_ns in loose_stamps(body)] == [7, 2**63]


def test_one_byte_more_or_less_is_another_payload() -> None:
    body = unchunked(BEGIN.partition(b"\r\n\r\n")[2] + event(7) + END)
    for wrong in (body[:-1], body + b"\n", body.replace(b"delta", b"Delta", 1), body.replace(b"\n\n", b"\n", 1)):
        assert unstamped(wrong)[0] != payload(1)


def test_a_stream_is_asked_for_in_the_prompt() -> None:
    wanted = Asked("paced", 250)
    assert asked(question("m", stream=wanted)) == wanted
    assert asked(question("m", stream=wanted).replace(b'":"', b'": "')) == wanted  # as others write JSON
    assert asked(question("m")) is None
    assert len(question("m", prompt_bytes=400_000)) - len(question("m", prompt_bytes=0)) == 400_000
