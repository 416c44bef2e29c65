"""Every cause, with what the tap saw: what the client is told, what the ledger is told."""

from types import SimpleNamespace
from typing import Any, cast

import pytest

from nexus_proxy.core.money.settlement import EndState
from nexus_proxy.core.request.chat import Outgoing
from nexus_proxy.core.wire.outcome import Cause, Seen, ending_of, fault_of, flags_of, usage_of
from nexus_proxy.core.wire.tap import Tap
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import UpstreamTimeout, UpstreamUnreachable

OUTGOING = Outgoing(b"{}", True, False, input_bound=100, output_bound=50, prompt_estimate=7)
USAGE = Usage(20, 10)


def tap(**said: Any) -> Tap:
    """Return a tap that saw part of a stream, but for what is said otherwise."""
    plain: dict[str, Any] = {
        "streams": True,
        "began": True,
        "complete": False,
        "broken": False,
        "error": None,
        "usage": None,
    }
    plain |= {"output_bytes": 40, "kept": 0, "thought": False}
    return cast(Tap, SimpleNamespace(**plain | said))


def seen(cause: Cause, found: Tap | None, **said: Any) -> Seen:
    plain: dict[str, Any] = {"outgoing": OUTGOING, "sent": True, "streaming": True, "client_gone": False}
    return Seen(cause, found, **plain | said)


def flagged(what: Seen) -> tuple[str, ...]:
    return flags_of(what, ending_of(what))


@pytest.mark.parametrize(
    ("cause", "found", "code"),
    [
        (Cause.ENDED, tap(complete=True), None),
        (Cause.ENDED, tap(broken=True), "upstream_broken"),
        (Cause.ENDED, None, None),
        (Cause.DONE, tap(complete=True), None),
        (Cause.BROKEN, tap(), "upstream_broken"),
        (Cause.LATE, None, "upstream_timeout"),
        (Cause.SILENT, tap(), "upstream_timeout"),
        (Cause.TOO_LONG, tap(), "upstream_timeout"),
        (Cause.ABANDONED, tap(), "client_gone"),
        (Cause.SHUT_DOWN, tap(), "shutting_down"),
    ],
)
def test_each_cause_has_its_fault(cause: Cause, found: Tap | None, code: str | None) -> None:
    fault = fault_of(cause, found, encoded=False)
    assert (fault.code if fault is not None else None) == code


def test_b31_what_cannot_be_read_is_not_judged_by_its_content() -> None:
    assert fault_of(Cause.ENDED, tap(broken=True), encoded=True) is None
    ending = ending_of(seen(Cause.ENDED, tap(began=False, broken=True), unread=321, encoded=True))
    assert (ending.began, ending.output_bytes, ending.complete) == (True, 321, False)
    assert ending.end_state is EndState.COMPLETE


def test_a_document_that_ended_without_a_finish_reason_was_not_cut() -> None:
    ending = ending_of(seen(Cause.ENDED, tap(streams=False, usage=USAGE), streaming=False))
    assert (ending.end_state, ending.complete, ending.whole) == (EndState.COMPLETE, False, True)


@pytest.mark.parametrize(
    ("case", "state", "began", "complete"),
    [
        (seen(Cause.DONE, tap(complete=True)), EndState.COMPLETE, True, True),
        (seen(Cause.ENDED, tap(complete=True)), EndState.COMPLETE, True, True),
        (seen(Cause.ENDED, tap(complete=True), client_gone=True), EndState.CLIENT_GONE, True, True),
        (seen(Cause.ENDED, tap(broken=True)), EndState.UPSTREAM_CUT, True, False),
        (seen(Cause.BROKEN, tap()), EndState.UPSTREAM_CUT, True, False),
        (seen(Cause.BROKEN, tap(complete=True)), EndState.UPSTREAM_CUT, True, False),  # a reset is no clean end
        (seen(Cause.BROKEN, None, streaming=False), EndState.UPSTREAM_ERROR, False, False),
        (seen(Cause.REFUSED, tap(began=False), streaming=False), EndState.UPSTREAM_ERROR, False, False),
        (seen(Cause.DONE, tap(complete=True, error={"error": 1})), EndState.UPSTREAM_ERROR, True, False),
        (seen(Cause.LATE, None, streaming=False), EndState.TIMEOUT, False, False),
        (seen(Cause.SILENT, tap()), EndState.TIMEOUT, True, False),
        (seen(Cause.SHUT_DOWN, tap()), EndState.TIMEOUT, True, False),
        (seen(Cause.BROKEN, None, streaming=False, error=UpstreamTimeout("t")), EndState.TIMEOUT, False, False),
        (
            seen(Cause.BROKEN, None, streaming=False, error=UpstreamUnreachable("u")),
            EndState.UPSTREAM_ERROR,
            False,
            False,
        ),
        (seen(Cause.ABANDONED, tap(), client_gone=True), EndState.CLIENT_GONE, True, False),
        # a document that stopped in the middle reaches the client as far as it came, even before a word was read
        (
            seen(Cause.BROKEN, tap(streams=False, began=False, kept=3), streaming=False),
            EndState.UPSTREAM_CUT,
            True,
            False,
        ),
        (
            seen(Cause.ENDED, tap(streams=False, began=False, kept=3), streaming=False),
            EndState.UPSTREAM_ERROR,
            False,
            False,
        ),
    ],
)
def test_each_ending_has_its_state(case: Seen, state: EndState, began: bool, complete: bool) -> None:
    ending = ending_of(case)
    assert (ending.end_state, ending.began, ending.complete) == (state, began, complete)
    assert ending.prompt_estimate == 7


@pytest.mark.parametrize(
    ("usage", "believed"),
    [(USAGE, True), (Usage(200, 100), True), (Usage(201, 1), False), (Usage(1, 101), False), (Usage(10**12, 0), False)],
)
def test_e16_more_than_twice_the_bound_is_a_slip(usage: Usage, believed: bool) -> None:
    found = tap(complete=True, usage=usage)
    assert usage_of(found, OUTGOING) == (usage if believed else None)
    assert flagged(seen(Cause.DONE, found)) == (() if believed else ("implausible_usage",))


def test_b6_what_the_provider_may_bill_though_nothing_came_is_flagged() -> None:
    for cause in set(Cause) - {Cause.ENDED, Cause.DONE, Cause.REFUSED}:
        assert flagged(seen(cause, None)) == ("unknown_upstream_cost",)
        assert flagged(seen(cause, tap(began=False))) == ("unknown_upstream_cost",)  # keep-alive, no more
        assert flagged(seen(cause, None, sent=False)) == ()
        assert flagged(seen(cause, tap())) == ()


def test_what_seems_to_be_a_completion_is_never_given_away() -> None:
    for cause in (Cause.ENDED, Cause.DONE, Cause.BROKEN):
        ending = ending_of(seen(cause, tap(began=False, output_bytes=0), unread=99))
        assert (ending.began, ending.output_bytes) == (True, 99)
    assert not ending_of(seen(Cause.REFUSED, tap(began=False), unread=99)).began
    kept = seen(Cause.BROKEN, tap(began=False), unread=99, streaming=False, error=UpstreamUnreachable("u"))
    assert not ending_of(kept).began  # the client has nothing of it
    assert ending_of(seen(Cause.ENDED, tap(), unread=99)).output_bytes == 40  # what was read is better
    role_only = ending_of(seen(Cause.ENDED, tap(output_bytes=0), unread=99))
    assert (role_only.began, role_only.output_bytes) == (True, 99)
    wrong = ending_of(seen(Cause.ENDED, tap(streams=False, began=False, output_bytes=5), unread=99))
    assert (wrong.began, wrong.output_bytes) == (True, 99)


ERROR = {"error": {"message": "busy"}}


@pytest.mark.parametrize(
    ("said", "began"),
    [
        ({"output_bytes": 0}, False),
        ({"output_bytes": 0, "usage": USAGE}, True),
        ({"output_bytes": 0, "usage": Usage(10**6, 1)}, True),  # though it is not believed
        ({"output_bytes": 1}, True),
        ({"output_bytes": 0, "error": None}, True),
    ],
)
def test_b17_an_error_before_anything_was_said_charges_nothing(said: dict[str, Any], began: bool) -> None:
    for cause in (Cause.ENDED, Cause.DONE, Cause.BROKEN, Cause.SILENT):
        found = tap(**{"error": ERROR, **said})
        assert ending_of(seen(cause, found)).began is began
        unread = ending_of(seen(cause, found, unread=99))
        assert (unread.began, unread.output_bytes) == (True, said["output_bytes"] or 99)
    assert ending_of(seen(Cause.ENDED, tap(error=ERROR, output_bytes=0))).end_state is EndState.UPSTREAM_ERROR


def test_f6_an_echoed_credential_is_flagged() -> None:
    assert flagged(seen(Cause.BROKEN, tap(), echoed=True)) == ("credential_echoed",)


@pytest.mark.parametrize("thought", [True, False])
def test_a_complete_answer_without_usage_keeps_what_its_estimate_needs(thought: bool) -> None:
    for complete in (True, False):  # the short way, and the long one
        ending = ending_of(seen(Cause.DONE, tap(complete=complete, thought=thought, output_bytes=7)))
        assert (ending.began, ending.thought, ending.output_bytes, ending.usage) == (True, thought, 7, None)
