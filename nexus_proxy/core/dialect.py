"""How a provider puts usage and errors on the wire, as data.

Strategy: whatever can be said by a table is said by a table; a new provider is an entry in the catalogue.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ErrorRule:
    """One way a provider says one thing. Every condition that is given must hold; the first rule that fits wins."""

    code: str  # a code of `errors`: upstream_no_funds, upstream_rate_limited, upstream_auth, …
    statuses: frozenset[int] = frozenset()  # HTTP statuses; empty is any
    marks: frozenset[str] = frozenset()  # values of the error object's `code` or `type`, as text; empty is any
    text: str = ""  # a part of the message, case-folded; empty is any


@dataclass(frozen=True, slots=True)
class Dialect:
    """What must be known of a provider's wire to meter it. Sources: the provider's entry in the catalogue."""

    name: str
    ask_usage: bool  # a stream carries usage only if `stream_options.include_usage` asks for it
    usage_in_choice: bool = False  # usage may sit in `choices[i].usage` (Moonshot)
    errors: tuple[ErrorRule, ...] = ()  # looked at before the rules that hold for all providers
