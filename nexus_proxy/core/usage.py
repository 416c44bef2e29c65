"""The token counts of one answer, and how to read them off a provider's usage object.

Strategy: a usage object is real only if it counts prompt tokens (placeholders do not); the last real one wins and
usages are never summed. Cached and cache-written tokens are inside the prompt count, reasoning tokens inside the
completion count. Counts that cannot be are clamped and flagged, so no answer can ever credit anybody.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Usage:
    """Token counts. `flagged` tells that the provider's figures contradicted each other and were clamped."""

    prompt: int  # all input, cached and cache-written tokens included
    completion: int  # all output, reasoning included
    cached: int = 0  # part of prompt, read from the provider's cache
    cache_write: int = 0  # part of prompt, written to the provider's cache
    reasoning: int = 0  # part of completion
    flagged: bool = False
