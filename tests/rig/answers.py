"""Well-behaved answers, in the shapes that the providers really send.

Strategy: an answer is a value; its stream is a list of events, each with the usage that it reports, so that a test can
say which bytes the client must get. Shapes: `openai` and `qwen` report on an event of their own, only if asked;
`deepseek` always, on the event that finishes; `moonshot` inside the choice that finishes.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

import orjson

from tests.rig.steps import LAST_CHUNK, Chunk, Received, Script, Step, sse_head, whole

Shape = Literal["openai", "qwen", "deepseek", "moonshot"]
SHAPES: tuple[Shape, ...] = ("openai", "qwen", "deepseek", "moonshot")
DONE = b"data: [DONE]\n\n"


def shape_of(path: str) -> Shape:
    """Return the shape that a path such as `/deepseek/v1/chat/completions` names."""
    first = path.strip("/").split("/")[0]
    return next((shape for shape in SHAPES if shape == first), "openai")


@dataclass(frozen=True, slots=True)
class Event:
    """One event of a stream, as bytes. `only_usage` marks the one that is there because it was asked for."""

    data: bytes
    usage: dict[str, Any] | None = None
    only_usage: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """What the provider says, whichever way it is asked."""

    shape: Shape = "openai"
    words: int = 5  # content deltas of each choice
    prompt: int = 25
    completion: int = 10
    cached: int = 0
    reasoning: int = 0
    text: str = "wörd "
    cuts: Sequence[int] | None = None  # where the body is cut into chunks; None: one chunk per event
    usage: bool = True  # False: the provider forgets to report
    extra_headers: tuple[str, ...] = ()

    def counts(self) -> dict[str, Any]:
        """Return the usage object."""
        usage: dict[str, Any] = {
            "prompt_tokens": self.prompt,
            "completion_tokens": self.completion,
            "total_tokens": self.prompt + self.completion,
        }
        if self.shape == "deepseek":
            usage["prompt_cache_hit_tokens"] = self.cached
            usage["prompt_cache_miss_tokens"] = self.prompt - self.cached
        if self.shape == "moonshot":
            usage["cached_tokens"] = self.cached
        else:
            usage["prompt_tokens_details"] = {"cached_tokens": self.cached}
        if self.reasoning:
            usage["completion_tokens_details"] = {"reasoning_tokens": self.reasoning}
        return usage

    def events(self, body: dict[str, Any]) -> list[Event]:
        """Return the stream's events for a request body, `[DONE]` last."""
        n = body.get("n") or 1
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        counts = self.counts() if self.usage else None
        own_event = self.shape in ("openai", "qwen")
        events: list[Event] = []

        def add(choices: list[dict[str, Any]], usage: dict[str, Any] | None = None, only_usage: bool = False) -> None:
            chunk: dict[str, Any] = {"id": "chatcmpl-fu", "object": "chat.completion.chunk", "created": 1718000000}
            chunk |= {"model": body.get("model", "fu"), "choices": choices}
            in_choice = any("usage" in choice for choice in choices)
            if asked or (usage is not None and not in_choice):
                chunk["usage"] = None if in_choice else usage
            events.append(Event(b"data: " + orjson.dumps(chunk) + b"\n\n", usage, only_usage))

        for i in range(n):
            add([{"index": i, "delta": {"role": "assistant", "content": ""}, "finish_reason": None}])
        if self.reasoning:
            add([{"index": 0, "delta": {"reasoning_content": "hmm 思考"}, "finish_reason": None}])
        for w in range(self.words):
            for i in range(n):
                add([{"index": i, "delta": {"content": f"{self.text}{w} "}, "finish_reason": None}])
        for i in range(n):
            choice: dict[str, Any] = {"index": i, "delta": {}, "finish_reason": "stop"}
            last = i == n - 1
            if self.shape == "moonshot" and counts is not None and last:
                choice["usage"] = counts
            add([choice], counts if last and not own_event else None)
        if own_event and asked and counts is not None:
            add([], counts, only_usage=True)
        events.append(Event(DONE))
        return events

    def document(self, body: dict[str, Any]) -> bytes:
        """Return the unstreamed answer."""
        n = body.get("n") or 1
        text = "".join(f"{self.text}{w} " for w in range(self.words))
        choices = [
            {"index": i, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"} for i in range(n)
        ]
        answer: dict[str, Any] = {"id": "chatcmpl-fu", "object": "chat.completion", "created": 1718000000}
        answer |= {"model": body.get("model", "fu"), "choices": choices}
        if self.usage:
            answer["usage"] = self.counts()
        return orjson.dumps(answer)

    def script(self, received: Received) -> Script:
        """Return the steps that answer a request, streamed if it asked for it."""
        body = received.json
        if not body.get("stream"):
            return whole(200, self.document(body), *self.extra_headers, usage=self.counts() if self.usage else None)
        events = self.events(body)
        return [sse_head(*self.extra_headers), *chunks(events, self.cuts), LAST_CHUNK]

    def seen_by_client(self, body_upstream: dict[str, Any], *, client_asked: bool) -> bytes:
        """Return the bytes that a client must get of the stream: all, less the event that only the door asked for."""
        return b"".join(e.data for e in self.events(body_upstream) if client_asked or not e.only_usage)


def chunks(events: Iterable[Event], cuts: Sequence[int] | None = None) -> list[Chunk]:
    """Return the events as chunks, or their bytes cut where `cuts` says."""
    events = list(events)
    if cuts is None:
        return [Chunk(e.data, e.usage) for e in events]
    ends = list(accumulate(len(e.data) for e in events))
    data = b"".join(e.data for e in events)
    edges = [0, *sorted(set(cuts) - {0, len(data)}), len(data)]

    def reported(start: int, end: int) -> dict[str, Any] | None:
        there = [e.usage for e, at in zip(events, ends, strict=True) if e.usage is not None and start < at <= end]
        return there[-1] if there else None

    return [Chunk(data[start:end], reported(start, end)) for start, end in pairwise(edges)]


def stream_of(*events: bytes, usage: dict[str, Any] | None = None) -> list[Step]:
    """Return a complete stream of these raw bytes, one chunk each; `usage` is what the last one reports."""
    pieces = [Chunk(e, usage if i == len(events) - 1 else None) for i, e in enumerate(events)]
    return [sse_head(), *pieces, LAST_CHUNK]
