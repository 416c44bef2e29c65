"""What an exchange that is over comes to: what was wrong with it, and what the ledger is told of it.

Strategy: why it is over is one value, `Cause`; what was seen is in the tap. Everything here follows from these, so that
every combination can be a line of a table.
"""

from enum import Enum

from nexus_proxy.core.money.settlement import Ending, EndState
from nexus_proxy.core.request.chat import Outgoing
from nexus_proxy.core.wire.tap import Tap
from nexus_proxy.core.wire.usage import Usage, is_plausible
from nexus_proxy.errors import ClientGone, NexusError, ShuttingDown, UpstreamBroken, UpstreamTimeout


class Cause(Enum):
    """Why an exchange is over."""

    ENDED = "the body ended as its framing says"
    DONE = "[DONE] came, and the usage with it or not at all"
    REFUSED = "the provider answered with an error"
    BROKEN = "the provider could not be reached, hung up, or sent something that is not HTTP"
    LATE = "no byte of an answer came in time"
    SILENT = "the answer stopped in the middle"
    TOO_LONG = "the whole exchange took too long, or its answer was too large"
    ABANDONED = "the client left, and nobody reads on"
    SHUT_DOWN = "this server is ending"


class Seen:
    """What an exchange saw. `tap` is None if no answer began.

    `unread` are the tap's, or all bytes of an answer that is encoded: where nothing of an answer could be read they are
    all there is to charge by.
    """

    __slots__ = (
        "cause",
        "client_gone",
        "echoed",
        "encoded",
        "error",
        "outgoing",
        "sent",
        "streaming",
        "tap",
        "unread",
    )

    def __init__(
        self,
        cause: Cause,
        tap: Tap | None,
        outgoing: Outgoing,
        *,
        sent: bool,
        streaming: bool,
        client_gone: bool,
        unread: int = 0,
        encoded: bool = False,
        echoed: bool = False,
        error: NexusError | None = None,
    ) -> None:
        self.cause = cause
        self.tap = tap
        self.outgoing = outgoing
        self.sent = sent  # the provider has, or may have, the request
        self.streaming = streaming  # the client has bytes of the answer
        self.client_gone = client_gone
        self.unread = unread  # bytes
        self.encoded = encoded  # compressed, though nothing of the kind was accepted
        self.echoed = echoed  # it held the operator's credential
        self.error = error  # what is wrong, as the client is told


def fault_of(cause: Cause, tap: Tap | None, *, encoded: bool) -> NexusError | None:
    """Return what is wrong with an exchange that is over, or None. What a refusal says is read elsewhere."""
    match cause:
        case Cause.ENDED:
            # What is encoded cannot be judged: that its framing ended well must do.
            if tap is not None and tap.broken and not encoded:
                return UpstreamBroken("The model's provider ended the answer early.")
            return None
        case Cause.DONE:
            return None
        case Cause.REFUSED | Cause.BROKEN:
            return UpstreamBroken("The model's provider broke off.")
        case Cause.LATE | Cause.SILENT:
            return UpstreamTimeout("The model's provider sent nothing for too long.")
        case Cause.TOO_LONG:
            return UpstreamTimeout("The answer took longer, or became larger, than this gateway allows.")
        case Cause.ABANDONED:
            return ClientGone("The client left before an answer began.")
        case Cause.SHUT_DOWN:
            return ShuttingDown("This gateway is shutting down.", retry_after_ns=1_000_000_000)


def usage_of(tap: Tap | None, outgoing: Outgoing) -> Usage | None:
    """Return the usage that the provider reported, unless it cannot be true of this request."""
    usage = tap.usage if tap is not None else None
    if usage is None or not is_plausible(usage, outgoing.input_bound, outgoing.output_bound):
        return None
    return usage


def ending_of(seen: Seen) -> Ending:
    """Return what the settlement is decided from."""
    tap, cause, outgoing = seen.tap, seen.cause, seen.outgoing
    ended = cause is Cause.ENDED or cause is Cause.DONE
    complete = ended and tap is not None and tap.complete and tap.error is None
    if complete and tap is not None and not seen.unread:  # as nearly all do: nothing about it is in doubt
        state = EndState.CLIENT_GONE if seen.client_gone else EndState.COMPLETE
        usage, estimate = usage_of(tap, outgoing), outgoing.prompt_estimate
        return Ending(
            state, tap.began, True, usage, estimate, output_bytes=tap.output_bytes, whole=False, thought=tap.thought
        )
    # Part of a document is here; the client gets it, so an answer began.
    held = tap is not None and not tap.streams and tap.kept > 0 and cause not in (Cause.ENDED, Cause.REFUSED)
    began = tap is not None and cause is not Cause.REFUSED and (tap.began or held)
    output_bytes = tap.output_bytes if tap is not None else 0
    given = seen.streaming or seen.error is None or (tap is not None and not tap.streams)  # the client has it, or will
    if seen.unread and given and cause is not Cause.REFUSED and (seen.encoded or not (began and output_bytes)):
        began, output_bytes = True, seen.unread
    elif tap is not None and tap.error is not None and tap.usage is None and not output_bytes:
        began = False  # a choice was opened, and an error came in place of what it was to say
    whole = cause is Cause.ENDED and tap is not None and tap.began and not tap.broken and tap.error is None
    unjudged = cause is Cause.ENDED and seen.encoded  # its framing ended well, which must do
    return Ending(
        end_state=_end_state(seen, complete=complete or whole or unjudged, began=began),
        began=began,
        complete=complete,
        usage=usage_of(tap, outgoing),
        prompt_estimate=outgoing.prompt_estimate,
        output_bytes=output_bytes,
        whole=whole,
        thought=tap is not None and tap.thought,
    )


def _end_state(seen: Seen, *, complete: bool, began: bool) -> EndState:
    if seen.client_gone:
        return EndState.CLIENT_GONE
    if complete:
        return EndState.COMPLETE
    if seen.cause in (Cause.LATE, Cause.SILENT, Cause.TOO_LONG, Cause.SHUT_DOWN):
        return EndState.TIMEOUT
    if isinstance(seen.error, UpstreamTimeout):
        return EndState.TIMEOUT
    cut = (seen.streaming or began) and (seen.tap is None or seen.tap.error is None)
    return EndState.UPSTREAM_CUT if cut else EndState.UPSTREAM_ERROR


def flags_of(seen: Seen, ending: Ending) -> tuple[str, ...]:
    """Return the words for the row of an exchange that somebody may want to look at.

    `ending` is what `ending_of` made of it.
    """
    tap, cause = seen.tap, seen.cause
    if seen.echoed:
        return ("credential_echoed",)
    if ending.usage is None and tap is not None and tap.usage is not None:
        return ("implausible_usage",)
    if cause is Cause.ENDED or cause is Cause.DONE or cause is Cause.REFUSED or not seen.sent:
        return ()
    # The provider has the request and may bill it, though nothing of an answer came and we charge nothing.
    began = tap is not None and (tap.began or seen.unread > 0)
    return () if began else ("unknown_upstream_cost",)
