"""The token counts of one answer, and how to read them off a provider's usage object.

Strategy: a usage object is real only if it counts prompt tokens (placeholders do not); the last real one wins and
usages are never summed, but for those of the choices of one answer, which count each choice by itself. Cached and
cache-written tokens are inside the prompt count, reasoning tokens inside the completion count. Counts that cannot be
are clamped and flagged, so no answer can ever credit anybody. The common names are those of OpenAI, DeepSeek, Moonshot
and Qwen; no two of them contradict each other, so one table reads them all. What else there is, the dialect names.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

COUNT_MAX: Final = 10**12  # a count above this is no count: tokens × price must stay far inside int64

Path = tuple[str, ...]  # the keys that lead from an object to a value within it


class Usage(NamedTuple):
    """Token counts. `flagged`: the provider's figures contradicted each other, or what was seen, and were put right."""

    prompt: int  # all input, cached and cache-written tokens included
    completion: int  # all output, reasoning included
    cached: int = 0  # part of prompt, read from the provider's cache
    cache_write: int = 0  # part of prompt, written to the provider's cache
    reasoning: int = 0  # part of completion
    flagged: bool = False


@dataclass(frozen=True, slots=True)
class UsageShape:
    """Where a dialect puts its usage beside the event's `usage`, and its names beside the common ones.

    Names are tried before the common ones, the first that is present wins; places before the event's `usage`.
    """

    in_choice: bool = False  # usage may sit in `choices[i].usage` (Moonshot)
    at: tuple[Path, ...] = ()  # of a usage object, from the event's top
    prompt: tuple[Path, ...] = ()  # this and the rest: of a count, within the usage object
    completion: tuple[Path, ...] = ()
    cached: tuple[Path, ...] = ()
    cache_write: tuple[Path, ...] = ()
    reasoning: tuple[Path, ...] = ()
    total: tuple[Path, ...] = ()
    renames: bool = field(init=False, repr=False)  # it has names of its own

    def __post_init__(self) -> None:
        names = (self.prompt, self.completion, self.cached, self.cache_write, self.reasoning, self.total)
        object.__setattr__(self, "renames", any(names))


COMMON_SHAPE: Final = UsageShape()


def find(found: Any, path: Path) -> Any:
    """Return what a path leads to, or None."""
    for key in path:
        if not isinstance(found, dict):
            return None
        found = found.get(key)
    return found


def read_usage(found: Any, in_choice: Any = None, shape: UsageShape = COMMON_SHAPE) -> Usage | None:
    """Return the counts of a provider's usage object, or None if it is not real. Never raises.

    Real is an object whose prompt count is a whole number above 0 and whose completion count, if it has one, is a
    whole number too. `in_choice` is the usage of the same event's choice: it stands in where `found` is not real,
    and may know the cached tokens that `found` does not name.
    """
    counts = None
    if isinstance(found, dict):
        counts = _counts(_in_common_names(found, shape) if shape.renames else found)
    if counts is None:
        return None if in_choice is None else read_usage(in_choice, None, shape)
    prompt, completion, cached, cache_write, reasoning, total = counts
    if cached is None and isinstance(in_choice, dict):
        cached = _input_parts(_in_common_names(in_choice, shape) if shape.renames else in_choice)[0]
    flagged = False
    if completion is None:
        total = _count(total)
        completion, flagged = (0, True) if total is None or total < prompt else (total - prompt, False)
    elif total is not None and total != prompt + completion and (total := _count(total)) is not None:
        flagged = True
        if reasoning is not None and total - prompt - completion == _count(reasoning):
            completion = total - prompt  # the thinking was counted beside the completion, and the total says so
    return _clamped(prompt, completion, cached, cache_write, reasoning, flagged)


def over_choices(usages: Iterable[Usage]) -> Usage:
    """Return what choices that were counted each by itself come to: they share one prompt. At least one is given."""
    total = Usage(0, 0)
    for usage in usages:
        total = Usage(
            max(total.prompt, usage.prompt),
            total.completion + usage.completion,
            max(total.cached, usage.cached),
            max(total.cache_write, usage.cache_write),
            total.reasoning + usage.reasoning,
            total.flagged or usage.flagged,
        )
    return _clamped(
        total.prompt, total.completion, total.cached, total.cache_write, total.reasoning, flagged=total.flagged
    )


def with_thinking(usage: Usage) -> Usage:
    """Return the counts of an answer in which reasoning was seen: at least one token of them is reasoning.

    Some providers charge the whole output at another rate once there was thinking, and do not count its tokens. The
    one that is put in their place is flagged, and a row that keeps the counts still proves its charge.
    """
    return usage if usage.reasoning or not usage.completion else usage._replace(reasoning=1, flagged=True)


def is_plausible(usage: Usage, prompt_bound: int, completion_bound: int) -> bool:
    """Tell whether counts can be true of a request with these bounds: a provider's slip must not empty an account.

    Twice the bound is believed, since a bound may be off where a provider adds to the prompt; more is a slip.
    """
    return usage.prompt <= 2 * prompt_bound and usage.completion <= 2 * completion_bound


def later_usage(before: Usage | None, now: Usage) -> Usage:
    """Return what counts after `now` was reported: `now`, unless it takes something back; then the most of each."""
    if before is None or (now.prompt >= before.prompt and now.completion >= before.completion):
        return now
    return _clamped(
        max(before.prompt, now.prompt),
        max(before.completion, now.completion),
        max(before.cached, now.cached),
        max(before.cache_write, now.cache_write),
        max(before.reasoning, now.reasoning),
        True,
    )


def _clamped(prompt: int, completion: int, cached: Any, cache_write: Any, reasoning: Any, flagged: bool) -> Usage:
    hit = written = thought = 0
    if cached is not None:
        hit, wrong = _within(cached, prompt)
        flagged = flagged or wrong
    if cache_write is not None:
        written, wrong = _within(cache_write, prompt - hit)
        flagged = flagged or wrong
    if reasoning is not None:
        thought, wrong = _within(reasoning, completion)
        flagged = flagged or wrong
    return Usage(prompt, completion, hit, written, thought, flagged)


def _within(value: Any, room: int) -> tuple[int, bool]:
    """Return a part's count, and whether it had to be clamped."""
    if type(value) is int and 0 <= value <= room <= COUNT_MAX:
        return value, False
    count = _count(value)
    if count is None:
        return 0, True
    return (room, True) if count > room else (count, False)


def _counts(found: dict[str, Any]) -> tuple[int, int | None, Any, Any, Any, Any] | None:
    """Return prompt, completion, cached, cache-written, reasoning and total of a real usage object, or None.

    The last four are as they were found. A bool is no count: its type is not int.
    """
    if (prompt := found.get("prompt_tokens")) is None:
        prompt = found.get("input_tokens")
    if type(prompt) is not int or not 0 < prompt <= COUNT_MAX:
        return None
    if (completion := found.get("completion_tokens")) is None:
        completion = found.get("output_tokens")
    if completion is not None and (type(completion) is not int or not 0 <= completion <= COUNT_MAX):
        return None
    cached, written = _input_parts(found)
    reasoning = None
    if (details := found.get("completion_tokens_details")) and isinstance(details, dict):
        reasoning = details.get("reasoning_tokens")
    if reasoning is None and (details := found.get("output_tokens_details")) and isinstance(details, dict):
        reasoning = details.get("reasoning_tokens")
    return prompt, completion, cached, written, reasoning, found.get("total_tokens")


def _input_parts(found: dict[str, Any]) -> tuple[Any, Any]:
    """Return what a usage object says was read from and written to the cache; None where it says nothing."""
    cached = written = None
    if (details := found.get("prompt_tokens_details")) and isinstance(details, dict):
        cached = details.get("cached_tokens")
        if (written := details.get("cache_creation_input_tokens")) is None:
            written = details.get("cache_write_tokens")
    if cached is None and (cached := found.get("prompt_cache_hit_tokens")) is None:
        cached = found.get("cached_tokens")
    if (details := found.get("input_tokens_details")) and isinstance(details, dict):
        cached = details.get("cached_tokens") if cached is None else cached
        written = details.get("cache_write_tokens") if written is None else written
    return cached, written


# The common place of a count: before all others, so that what a dialect has under a name of its own goes there.
_COMMON_PLACES: tuple[tuple[str, Path], ...] = (
    ("prompt", ("prompt_tokens",)),
    ("completion", ("completion_tokens",)),
    ("cached", ("prompt_tokens_details", "cached_tokens")),
    ("cache_write", ("prompt_tokens_details", "cache_creation_input_tokens")),
    ("reasoning", ("completion_tokens_details", "reasoning_tokens")),
    ("total", ("total_tokens",)),
)


def _in_common_names(found: dict[str, Any], shape: UsageShape) -> dict[str, Any]:
    """Return a usage object that says the same, with what is under the dialect's own names under the common ones."""
    renamed = dict(found)
    for kind, (*outer, name) in _COMMON_PLACES:
        if (value := _own(found, getattr(shape, kind))) is None:
            continue
        place = renamed
        for key in outer:
            inner = renamed.get(key)
            place = renamed[key] = dict(inner) if isinstance(inner, dict) else {}
        place[name] = value
    return renamed


def _own(found: dict[str, Any], paths: tuple[Path, ...]) -> Any:
    for path in paths:
        if (value := find(found, path)) is not None:
            return value
    return None


def _count(value: Any) -> int | None:
    """Return a token count, or None for what is none: a bool is an int in Python, and no count."""
    return value if type(value) is int and 0 <= value <= COUNT_MAX else None
