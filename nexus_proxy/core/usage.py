"""The token counts of one answer, and how to read them off a provider's usage object.

Strategy: a usage object is real only if it counts prompt tokens (placeholders do not); the last real one wins and
usages are never summed, but for those of the choices of one answer, which count each choice by itself. Cached and
cache-written tokens are inside the prompt count, reasoning tokens inside the completion count. Counts that cannot be
are clamped and flagged, so no answer can ever credit anybody. The common names are those of OpenAI, DeepSeek, Moonshot
and Qwen; no two of them contradict each other, so one table reads them all. What else there is, the dialect names.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

COUNT_MAX = 10**12  # a count above this is no count: tokens × price must stay far inside int64

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


COMMON_SHAPE = UsageShape()


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
    counts = _counts(found, shape) if isinstance(found, dict) else None
    if counts is None:
        return None if in_choice is None else read_usage(in_choice, None, shape)
    prompt, completion, cached, cache_write, reasoning, total = counts
    if cached is None and isinstance(in_choice, dict):
        cached = _cached(in_choice, shape)
    flagged = False
    if completion is None:
        completion, flagged = (0, True) if total is None or total < prompt else (total - prompt, False)
    elif total is not None and total != prompt + completion:
        flagged = True
        if reasoning is not None and total - prompt - completion == _count(reasoning):
            completion = total - prompt  # the thinking was counted beside the completion, and the total says so
    if cached is None and cache_write is None and reasoning is None:
        return Usage(prompt, completion, flagged=flagged)
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
    hit, wrong_hit = _within(cached, prompt)
    write, wrong_write = _within(cache_write, prompt - hit)
    thought, wrong_thought = _within(reasoning, completion)
    return Usage(prompt, completion, hit, write, thought, flagged or wrong_hit or wrong_write or wrong_thought)


def _within(value: Any, room: int) -> tuple[int, bool]:
    """Return a part's count, 0 if it is absent, and whether it had to be clamped."""
    if value is None:
        return 0, False
    count = _count(value)
    if count is None:
        return 0, True
    return (room, True) if count > room else (count, False)


def _counts(found: dict[str, Any], shape: UsageShape) -> tuple[int, int | None, Any, Any, Any, int | None] | None:
    """Return prompt, completion, cached, cache-written, reasoning and total of a real usage object, or None."""
    own = shape.renames
    prompt = _own(found, shape.prompt) if own else None
    if prompt is None and (prompt := found.get("prompt_tokens")) is None:
        prompt = found.get("input_tokens")
    if type(prompt) is not int or not 0 < prompt <= COUNT_MAX:  # a bool is no count: its type is not int
        return None
    completion = _own(found, shape.completion) if own else None
    if completion is None and (completion := found.get("completion_tokens")) is None:
        completion = found.get("output_tokens")
    if completion is not None and (type(completion) is not int or not 0 <= completion <= COUNT_MAX):
        return None
    write = _own(found, shape.cache_write) if own else None
    details = found.get("prompt_tokens_details")
    if write is None and isinstance(details, dict) and (write := details.get("cache_creation_input_tokens")) is None:
        write = details.get("cache_write_tokens")
    if write is None and isinstance(details := found.get("input_tokens_details"), dict):
        write = details.get("cache_write_tokens")
    reasoning = _own(found, shape.reasoning) if own else None
    if reasoning is None and isinstance(details := found.get("completion_tokens_details"), dict):
        reasoning = details.get("reasoning_tokens")
    if reasoning is None and isinstance(details := found.get("output_tokens_details"), dict):
        reasoning = details.get("reasoning_tokens")
    total = _own(found, shape.total) if own else None
    if total is None:
        total = found.get("total_tokens")
    return prompt, completion, _cached(found, shape), write, reasoning, _count(total)


def _cached(found: dict[str, Any], shape: UsageShape) -> Any:
    cached = _own(found, shape.cached) if shape.renames else None
    if cached is None and isinstance(details := found.get("prompt_tokens_details"), dict):
        cached = details.get("cached_tokens")
    if cached is None and (cached := found.get("prompt_cache_hit_tokens")) is None:
        cached = found.get("cached_tokens")
    if cached is None and isinstance(details := found.get("input_tokens_details"), dict):
        cached = details.get("cached_tokens")
    return cached


def _own(found: dict[str, Any], paths: tuple[Path, ...]) -> Any:
    for path in paths:
        if (value := find(found, path)) is not None:
            return value
    return None


def _count(value: Any) -> int | None:
    """Return a token count, or None for what is none: a bool is an int in Python, and no count."""
    return value if type(value) is int and 0 <= value <= COUNT_MAX else None
