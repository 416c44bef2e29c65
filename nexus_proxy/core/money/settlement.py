"""How a request ends: what is charged, and why.

Strategy: a pure decision. The exchange says what it saw and how it ended; this module says what the ledger posts.
The charge is exact where the provider reported usage, an estimate (never above the hold) where it did not, and
nothing where the provider began no answer. What every request makes here is a plain class: compiled, that costs a tenth
of a named tuple.
"""

from enum import StrEnum
from typing import Final

from nexus_proxy.core.money.amounts import ceil_div
from nexus_proxy.core.money.prices import Price, amount_nano
from nexus_proxy.core.wire.usage import Usage

ESTIMATOR_VERSION: Final = 1
BYTES_PER_TOKEN: Final = 4  # of the estimate


class EndState(StrEnum):
    """How the exchange ended."""

    COMPLETE = "complete"
    CLIENT_GONE = "client_gone"
    UPSTREAM_CUT = "upstream_cut"
    UPSTREAM_ERROR = "upstream_error"
    TIMEOUT = "timeout"
    CRASHED = "crashed"


class UsageSource(StrEnum):
    """Where the counts of a charge come from."""

    REPORTED = "reported"  # the provider's last word on an answer that came whole, and the client was there for it
    DRAINED = "drained"  # the same, read to the end after the client had left
    CUMULATIVE = "cumulative"  # the last usage seen in an answer that was cut
    ESTIMATED = "estimated"  # counted from bytes
    RECOVERED = "recovered"  # the last journaled progress of a process that died
    NONE = "none"  # nothing was charged


class Ending:
    """What the exchange saw. `usage` is None where the provider reported none."""

    __slots__ = ("began", "complete", "end_state", "output_bytes", "prompt_estimate", "thought", "usage", "whole")

    def __init__(
        self,
        end_state: EndState,
        began: bool,
        complete: bool,
        usage: Usage | None,
        prompt_estimate: int,
        output_bytes: int,
        whole: bool = False,
        thought: bool = False,
    ) -> None:
        self.end_state = end_state
        self.began = began  # an answer began: at least one byte of a completion came
        self.complete = complete  # `[DONE]` came, or every choice finished and the body ended as its framing says
        self.usage = usage
        self.prompt_estimate = prompt_estimate  # tokens: ceil(text bytes / 4) plus media allowances
        self.output_bytes = output_bytes  # of content, reasoning and tool arguments seen
        self.whole = whole  # not complete, but nothing broke off: the body ended, and is one document without an error
        self.thought = thought  # reasoning was seen


class Verdict:
    """What is to be posted. `charge_nano` 0 with source NONE voids the hold."""

    __slots__ = ("charge_nano", "cost_nano", "end_state", "usage", "usage_source")

    def __init__(
        self, end_state: EndState, usage_source: UsageSource, usage: Usage | None, charge_nano: int, cost_nano: int
    ) -> None:
        self.end_state = end_state
        self.usage_source = usage_source
        self.usage = usage
        self.charge_nano = charge_nano
        self.cost_nano = cost_nano  # nano-units of the price's cost currency


def estimate(prompt_estimate: int, output_bytes: int, *, thought: bool = False) -> Usage:
    """Return the counts that are charged where the provider reported none: four bytes a token, no cache discount.

    Of an answer that `thought`, one token counts as reasoning, for a price that asks whether there was any.
    """
    completion = ceil_div(output_bytes, BYTES_PER_TOKEN)
    return Usage(prompt_estimate, completion, reasoning=1 if thought and completion else 0)


def decide(ending: Ending, price: Price, hold_nano: int) -> Verdict:
    """Return what an exchange that ended like this is charged. An estimate is capped at the hold; a report is not.

    | usage | the answer         | charge      | source                                   |
    |-------|--------------------|-------------|------------------------------------------|
    | yes   | complete, or whole | by usage    | reported; drained if the client had left |
    | yes   | cut                | by usage    | cumulative                               |
    | no    | began              | an estimate | estimated                                |
    | no    | did not begin      | nothing     | none                                     |

    A whole document whose choices lack a finish reason is not complete, but its usage is the provider's last word.
    """
    usage = ending.usage
    if usage is not None:
        if not (ending.complete or ending.whole):
            source = UsageSource.CUMULATIVE
        elif ending.end_state is EndState.CLIENT_GONE:
            source = UsageSource.DRAINED
        else:
            source = UsageSource.REPORTED
        charge_nano = amount_nano(price.tiers, usage)
    elif ending.began:
        source = UsageSource.ESTIMATED
        usage = estimate(ending.prompt_estimate, ending.output_bytes, thought=ending.thought)
        charge_nano = min(amount_nano(price.tiers, usage), hold_nano)
    else:
        return Verdict(ending.end_state, UsageSource.NONE, None, 0, 0)
    return Verdict(ending.end_state, source, usage, charge_nano, amount_nano(price.cost_tiers, usage))
