"""The token counts of one answer, and how to read them off a provider's usage object.

Strategy: a usage object is real only if it counts prompt tokens (placeholders do not); the last real one wins and
usages are never summed. Cached and cache-written tokens are inside the prompt count, reasoning tokens inside the
completion count. Counts that cannot be are clamped and flagged, so no answer can ever credit anybody. The names are
those of OpenAI, DeepSeek, Moonshot and Qwen; no two of them contradict each other, so one table reads them all.
"""

from dataclasses import dataclass, replace
from typing import Any

COUNT_MAX = 10**12  # a count above this is no count: tokens × price must stay far inside int64


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `flagged`: the provider's figures contradicted each other, or what was seen, and were put right."""

    prompt: int  # all input, cached and cache-written tokens included
    completion: int  # all output, reasoning included
    cached: int = 0  # part of prompt, read from the provider's cache
    cache_write: int = 0  # part of prompt, written to the provider's cache
    reasoning: int = 0  # part of completion
    flagged: bool = False


# (object within usage or "", key); the first that is present wins
_PROMPT = (("", "prompt_tokens"), ("", "input_tokens"))
_COMPLETION = (("", "completion_tokens"), ("", "output_tokens"))
_CACHED = (
    ("prompt_tokens_details", "cached_tokens"),
    ("", "prompt_cache_hit_tokens"),
    ("", "cached_tokens"),
    ("input_tokens_details", "cached_tokens"),
)
_CACHE_WRITE = (
    ("prompt_tokens_details", "cache_creation_input_tokens"),
    ("prompt_tokens_details", "cache_write_tokens"),
    ("input_tokens_details", "cache_write_tokens"),
)
_REASONING = (
    ("completion_tokens_details", "reasoning_tokens"),
    ("output_tokens_details", "reasoning_tokens"),
)


def read_usage(found: Any, in_choice: Any = None) -> Usage | None:
    """Return the counts of a provider's usage object, or None if it is not real. Never raises.

    Real is an object whose prompt count is a whole number above 0 and whose completion count, if it has one, is a
    whole number too. `in_choice` is the usage of the same event's choice: it stands in where `found` is not real,
    and may know the cached tokens that `found` does not name.
    """
    if not isinstance(found, dict):
        return None if in_choice is None else read_usage(in_choice)
    prompt = _count(_first(found, _PROMPT))
    completion, flagged = _completion(found, prompt)
    if not prompt or completion is None:
        return None if in_choice is None else read_usage(in_choice)
    hit = _first(found, _CACHED)
    if hit is None and isinstance(in_choice, dict):
        hit = _first(in_choice, _CACHED)
    return _clamped(prompt, completion, hit, _first(found, _CACHE_WRITE), _first(found, _REASONING), flagged)


def with_thinking(usage: Usage) -> Usage:
    """Return the counts of an answer in which reasoning was seen: at least one token of them is reasoning.

    Some providers charge the whole output at another rate once there was thinking, and do not count its tokens. The
    one that is put in their place is flagged, and a row that keeps the counts still proves its charge.
    """
    return usage if usage.reasoning or not usage.completion else replace(usage, reasoning=1, flagged=True)


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


def _completion(found: dict[str, Any], prompt: int | None) -> tuple[int | None, bool]:
    """Return the completion count and whether it had to be guessed; None if what is there is no count."""
    value = _first(found, _COMPLETION)
    if value is not None:
        return _count(value), False
    total = _count(found.get("total_tokens"))
    if total is None or prompt is None or total < prompt:
        return 0, True
    return total - prompt, False


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


def _first(found: dict[str, Any], places: tuple[tuple[str, str], ...]) -> Any:
    for inside, key in places:
        holder = found.get(inside) if inside else found
        if isinstance(holder, dict) and (value := holder.get(key)) is not None:
            return value
    return None


def _count(value: Any) -> int | None:
    """Return a token count, or None for what is none: a bool is an int in Python, and no count."""
    return value if type(value) is int and 0 <= value <= COUNT_MAX else None
