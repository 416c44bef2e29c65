"""A chat completion request: read, checked, and made ready for a provider.

Strategy: bytes in, a checked request out; then, with the model known, the body that goes upstream and the bounds that
the hold stands on. What is priced is what is forwarded: the upstream body is written from what was parsed. The model's
`context` bounds the input, the limit that is sent bounds the output.
"""

from dataclasses import dataclass
from typing import Any

from nexus_proxy.core.model import Model

BODY_BYTES_MAX = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A checked request; `body` is the parsed object, nulls of named parameters removed."""

    model: str
    stream: bool
    include_usage: bool  # the client asked for the usage event itself
    n: int
    output_limit: int | None  # tokens, from max_tokens or max_completion_tokens
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Outgoing:
    """What goes upstream, and what it can cost at most."""

    body: bytes
    stream: bool
    usage_injected: bool  # we asked for a usage event that the client did not ask for
    input_bound: int  # tokens
    output_bound: int  # tokens, over all choices
    prompt_estimate: int  # tokens: ceil(text bytes / 4) plus media allowances


def parse_chat(raw: bytes) -> ChatRequest:
    """Read and check a body. InvalidJson, InvalidParameter (with `param`)."""
    raise NotImplementedError


def prepare(request: ChatRequest, model: Model) -> Outgoing:
    """Write the body for the provider and bound its tokens. InvalidParameter, UnsupportedParameter."""
    raise NotImplementedError
