"""The client's side of an exchange: what it gets, in which order, and what it never gets."""

import pytest

from nexus_proxy.upstream.delivery import Delivery, beginning_size, secret_forms

KEY = b"bce-v3/ALTAK-x/9f"
FORMS = secret_forms(KEY)


class Listener:
    """A client that remembers."""

    def __init__(self) -> None:
        self.got: list[bytes | str] = []

    def send(self, data: bytes) -> None:
        self.got.append(data)

    def end(self) -> None:
        self.got.append("end")

    def cut(self) -> None:
        self.got.append("cut")


@pytest.mark.parametrize("when", range(4))
def test_a_client_gets_the_same_whenever_its_head_is_out(when: int) -> None:
    delivery, listener = Delivery(FORMS), Listener()
    steps = [lambda: delivery.give(b"a\n"), lambda: delivery.give(b"b"), delivery.end]
    for number, step in enumerate(steps):
        if number == when:
            delivery.attach(listener)
        step()
    if when == len(steps):
        delivery.attach(listener)
    delivery.give(b"late")
    delivery.cut()
    assert listener.got.pop() == "end"
    assert b"".join(data for data in listener.got if isinstance(data, bytes)) == b"a\nb"


def test_who_has_left_gets_nothing_and_is_cut() -> None:
    delivery, listener = Delivery(FORMS), Listener()
    delivery.attach(listener)
    delivery.leave()
    delivery.give(b"a")
    delivery.end()
    assert listener.got == ["cut"]
    late = Listener()
    delivery.attach(late)
    assert late.got == []


@pytest.mark.parametrize("form", [KEY, KEY.replace(b"/", b"\\/")], ids=["plain", "escaped"])
@pytest.mark.parametrize("cut", range(1, len(KEY)))
def test_f6_the_credential_does_not_go_out_in_two_pieces(form: bytes, cut: int) -> None:
    delivery, listener = Delivery(FORMS), Listener()
    delivery.attach(listener)
    delivery.give(b"x" + form[:cut])
    delivery.give(form[cut:] + b"\n")
    delivery.give(b"more")
    delivery.end()
    assert delivery.echoed
    assert listener.got in ([b"x", "end"], ["end"])  # the end is the exchange's to choose


def test_what_only_begins_like_it_waits_for_what_follows() -> None:
    delivery, listener = Delivery(FORMS), Listener()
    delivery.attach(listener)
    delivery.give(b"xbce-")
    assert listener.got == [b"x"]
    delivery.give(b"v4 ")
    assert listener.got == [b"x", b"bce-v4 "]
    delivery.give(b"b")
    delivery.end()
    assert listener.got[2:] == [b"b", "end"]


@pytest.mark.parametrize(
    ("given", "boundary"),
    [
        ([], True),
        ([b"a\n\n"], True),
        ([b"a\n"], False),
        ([b"a\r\n\r\n"], True),
        ([b"a\n\n", b"c"], False),
        ([KEY], True),
    ],
)
def test_a_boundary_is_where_the_client_stands(given: list[bytes], boundary: bool) -> None:
    delivery = Delivery(FORMS)
    for data in given:
        delivery.give(data)
    assert delivery.at_boundary is boundary


def test_without_a_credential_nothing_waits() -> None:
    delivery, listener = Delivery(secret_forms(b"")), Listener()
    delivery.attach(listener)
    delivery.give(b"abc")
    assert listener.got == [b"abc"]


@pytest.mark.parametrize(
    ("data", "secret", "size"),
    [(b"abc", b"cd", 1), (b"aab", b"aabc", 3), (b"abab", b"abc", 2), (b"x", b"abc", 0), (b"ab", b"ab", 0)],
)
def test_beginning_size(data: bytes, secret: bytes, size: int) -> None:
    assert beginning_size(data, secret) == size
