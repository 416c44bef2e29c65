"""How a provider puts usage and errors on the wire, and what it makes of parameters, as data.

Strategy: whatever can be said by a table is said by a table; a new provider is an entry in the catalogue, or in the
configuration. What holds for all providers stands here once, and a dialect adds to it. What can be worked out of an
entry is worked out when it is loaded, not once per request.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from nexus_proxy.core.wire.usage import COMMON_SHAPE, Path, UsageShape, find

CERTAINTIES: Final = ("captured", "documented", "reported", "assumed")  # the surest first

COMMON_REASONING: Final = frozenset({"reasoning_content", "reasoning"})  # of a delta, or a message
_TEXTS: Final = frozenset({"content", "refusal"})


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """One way a provider says one thing. Every condition that is given must hold; the first rule that fits wins."""

    code: str  # a code of `errors`: upstream_no_funds, upstream_rate_limited, upstream_auth, …
    statuses: frozenset[int] = frozenset()  # HTTP statuses; empty is any
    marks: frozenset[str] = frozenset()  # values of the error object's `code` or `type`, as text; empty is any
    text: str = ""  # a part of the message, case-folded; empty is any


@dataclass(frozen=True, slots=True)
class Failure:
    """Where an error hides under a 200: a value that is there and is none of the harmless ones.

    What is absent, null or empty is harmless.
    """

    path: Path
    ok: frozenset[str] = frozenset()  # the harmless values, as `plain` writes them
    beside: tuple[str, ...] = ()  # it counts only if one of these keys is there too; empty is always

    def is_in(self, found: Mapping[str, Any]) -> bool:
        """Tell whether this object is an error."""
        if self.path[0] not in found:
            return False
        value = find(found, self.path)
        if value is None or (not value and isinstance(value, str | list | dict)) or plain(value) in self.ok:
            return False
        return not self.beside or any(key in found for key in self.beside)


def plain(value: Any) -> str:
    """Return a JSON value as a text to compare: `0` and `"0"` are the same, `true` is not `1`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else str(value)


# Where providers and what stands before them hide errors, whichever dialect an entry names.
COMMON_FAILURES: Final = (
    Failure(("base_resp", "status_code"), frozenset({"0"})),  # MiniMax
    Failure(("error_code",), frozenset({"0"})),  # Qianfan
    Failure(("code",), frozenset({"0"}), ("message", "msg")),  # Spark, SiliconFlow, Qwen's own API
    Failure(("Response", "Error")),  # Tencent's own API
)


@dataclass(frozen=True, slots=True)
class Dialect:
    """What must be known of a provider's wire to meter it. Sources: the provider's entry in the catalogue."""

    name: str
    ask_usage: bool  # a stream carries usage only if `stream_options.include_usage` asks for it
    usage: UsageShape = COMMON_SHAPE
    reasoning: frozenset[str] = frozenset()  # further names of a delta's reasoning
    failure: tuple[Failure, ...] = ()  # beside the common ones
    errors: tuple[ErrorRule, ...] = ()  # looked at before the rules that hold for all providers
    limit_parameter: str = "max_tokens"  # of its models, unless a model's entry says otherwise; so the next
    limit_covers_thinking: bool = True
    budget_parameter: str = ""  # bounds the thinking that the limit does not cover; empty: nothing does
    refused_parameters: frozenset[str] = frozenset()
    renamed_parameters: tuple[tuple[str, str], ...] = ()  # ours → the provider's
    certainty: str = "assumed"  # of its facts on usage and errors, the weakest that money depends on
    matters: str = ""  # to users, in a sentence
    notes: str = ""
    reasoning_names: frozenset[str] = field(init=False, repr=False, compare=False)
    text_names: frozenset[str] = field(init=False, repr=False, compare=False)  # of a delta: what the model writes
    barred_parameters: frozenset[str] = field(init=False, repr=False, compare=False)  # case-folded

    def __post_init__(self) -> None:
        object.__setattr__(self, "reasoning_names", COMMON_REASONING | self.reasoning)
        object.__setattr__(self, "text_names", _TEXTS | self.reasoning_names)
        # A provider's own name for what is checked under ours would pass the check.
        barred = self.refused_parameters | {theirs for _, theirs in self.renamed_parameters}
        object.__setattr__(self, "barred_parameters", frozenset(name.casefold() for name in barred))
