"""How each provider puts an answer on the wire, for the built-in provider to write it.

Strategy: what differs between providers is a line of the table SHAPES: the order of the members, what stands where for
nothing, where usage sits and what its counts are called. One writer follows any line of it. Nothing is shared with the
code that reads these shapes, so that a mistake there has nothing to agree with.
"""

import json
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any, Final

Members = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Counts:
    """Tokens of one answer. Cached and cache-written ones are part of the prompt, reasoning is part of completion."""

    prompt: int
    cached: int
    cache_write: int
    completion: int
    reasoning: int


@dataclass(frozen=True, slots=True)
class Choice:
    """What one choice says, piece by piece. With a `tool`, the parts are the arguments of its call."""

    thought: tuple[str, ...]
    parts: tuple[str, ...]
    finish: str
    tool: str | None = None
    call_id: str = field(default_factory=lambda: f"call_{secrets.token_hex(8)}")

    @property
    def text(self) -> str:
        """What it says, or the arguments of its call."""
        return "".join(self.parts)


class Where(Enum):
    """Where a stream has its usage."""

    OWN = "an event of its own, without choices"
    FINISH = "the event with the finish reason"
    CHOICE = "the choice that finishes"
    EVERY = "every event, so far"
    WHOLE = "a last event that is the whole completion"
    LAST = "the last event that says something"


class Null(Enum):
    """In which of a stream's other events `usage` stands for nothing."""

    ALWAYS = "in all of them"
    ASKED = "in all of them, if usage was asked for"
    NEVER = "in none"


# --- usage, as each provider names the counts ------------------------------------------------------------------------


def _three(counts: Counts) -> dict[str, Any]:
    total = counts.prompt + counts.completion
    return {"prompt_tokens": counts.prompt, "completion_tokens": counts.completion, "total_tokens": total}


def _details(counts: Counts) -> dict[str, Any]:
    prompt = {"cached_tokens": counts.cached}
    return {
        **_three(counts),
        "prompt_tokens_details": prompt,
        "completion_tokens_details": {"reasoning_tokens": counts.reasoning},
    }


def _thought_only_if_any(counts: Counts) -> dict[str, Any]:
    usage = _details(counts)
    if not counts.reasoning:
        del usage["completion_tokens_details"]
    return usage


def _deepseek(counts: Counts) -> dict[str, Any]:
    hit_and_miss = {
        "prompt_cache_hit_tokens": counts.cached,
        "prompt_cache_miss_tokens": counts.prompt - counts.cached,
    }
    return _thought_only_if_any(counts) | hit_and_miss


def _qwen(counts: Counts) -> dict[str, Any]:
    usage = _thought_only_if_any(counts)
    if counts.cache_write:
        usage["prompt_tokens_details"] |= {
            "cache_creation_input_tokens": counts.cache_write,
            "cache_type": "ephemeral",
        }
    return usage


def _minimax(counts: Counts) -> dict[str, Any]:
    usage = _details(counts)
    return {"total_tokens": usage.pop("total_tokens"), "total_characters": 0, **usage}


def _cached_at_the_top(counts: Counts) -> dict[str, Any]:
    return {**_three(counts), "cached_tokens": counts.cached}


def _output_only(counts: Counts) -> dict[str, Any]:
    return {**_three(counts), "completion_tokens_details": {"reasoning_tokens": counts.reasoning}}


# --- the table -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Shape:
    """One provider's manners. A member that an `order` does not name is not written."""

    order: tuple[str, ...] = ("id", "object", "created", "model", "choices", "usage")  # of an event
    document: tuple[str, ...] = ()  # of an unstreamed answer; empty is as `order`
    choice: tuple[str, ...] = ("index", "delta", "message", "finish_reason")
    fixed: Members = field(default_factory=dict)  # members of event and document that never change
    whole: Members = field(default_factory=dict)  # and of what is a whole completion only
    fixed_choice: Members = field(default_factory=dict)
    always: Members = field(default_factory=dict)  # what every delta has, unless it says it itself
    first: Members = field(default_factory=lambda: {"role": "assistant", "content": ""})  # further, in the first
    message: Members = field(default_factory=dict)  # further members of an unstreamed message
    last: Members = field(default_factory=dict)  # the delta that finishes
    reasoning: str = "reasoning_content"
    thinks: bool | None = None  # by itself; False: if asked; None: never
    limit_covers_thinking: bool = True  # `max_tokens`, that is; `max_completion_tokens` always does
    call_later: Members = field(default_factory=dict)  # what later pieces of a tool's call have beside the arguments
    call_again: bool = False  # each piece repeats the call's id, with an empty name
    call_at_once: bool = False
    unfinished: bool = True  # `finish_reason` is there before the end, as null
    finishes: bool = True  # there is a `finish_reason` at all
    usage: Callable[[Counts], dict[str, Any]] = _details
    where: Where = Where.OWN
    unasked: bool = False  # a stream reports usage whether asked or not
    null: Null = Null.ASKED
    nothing: Members | None = None  # what stands for nothing; None is null
    identity: str = "chatcmpl-{}"
    data: bytes = b"data: "
    media_type: str = "text/event-stream; charset=utf-8"
    waiting: bytes = b""  # keep-alive before a stream
    waiting_document: bytes = b""  # and before an unstreamed answer
    done: bool = True  # `[DONE]` comes
    repeats: bool = False  # each event says at the top, too, what was said so far, and whether it is the last one
    caches: bool = True  # it reports cached tokens, so that it has them
    writes_cache: bool = False  # and cache-written ones, where a message is marked for it
    fails_as_event: bool = False  # a stream's 400 is an event, too


_ASSISTANT: Final[Members] = MappingProxyType({"role": "assistant"})
_SENSITIVE: Final = ("input_sensitive", "output_sensitive", "input_sensitive_type", "output_sensitive_type")
_QWEN_ORDER: Final = ("choices", "object", "usage", "system_fingerprint", "created", "model", "id")

SHAPES: Final[Mapping[str, Shape]] = MappingProxyType(
    {
        "openai": Shape(
            choice=("index", "delta", "message", "logprobs", "finish_reason"),
            fixed_choice={"logprobs": None},
            message={"refusal": None},
        ),
        "deepseek": Shape(
            order=("id", "object", "created", "model", "system_fingerprint", "choices", "usage"),
            document=("id", "object", "created", "model", "choices", "usage", "system_fingerprint"),
            choice=("index", "delta", "message", "logprobs", "finish_reason"),
            fixed={"system_fingerprint": "fp_demo_prod_fp8_kvcache"},
            fixed_choice={"logprobs": None},
            always={"content": None, "reasoning_content": None},
            first={"role": "assistant", "reasoning_content": ""},
            last={"content": ""},
            thinks=True,
            usage=_deepseek,
            where=Where.FINISH,
            unasked=True,
            identity="{}",
            waiting=b": keep-alive\n\n",
            waiting_document=b"\n\n\n",
        ),
        "qwen": Shape(
            order=_QWEN_ORDER,
            choice=("message", "finish_reason", "logprobs", "delta", "index"),
            fixed={"system_fingerprint": None},
            fixed_choice={"logprobs": None},
            first={"content": "", "role": "assistant"},
            last={"content": ""},
            thinks=False,
            limit_covers_thinking=False,
            call_later={"id": "", "type": "function"},
            usage=_qwen,
            null=Null.ALWAYS,
            writes_cache=True,
            fails_as_event=True,
        ),
        "moonshot": Shape(
            order=("id", "object", "created", "model", "choices", "system_fingerprint", "usage"),
            document=("id", "object", "created", "model", "choices", "usage"),
            choice=("index", "delta", "message", "finish_reason", "usage"),
            fixed={"system_fingerprint": "fpv0_demo"},
            thinks=False,
            usage=_cached_at_the_top,
            where=Where.CHOICE,
            unasked=True,
            null=Null.NEVER,
        ),
        "zhipu": Shape(
            order=("id", "created", "object", "model", "choices", "usage"),
            document=("choices", "created", "id", "model", "object", "request_id", "usage"),
            choice=("index", "finish_reason", "delta", "message"),
            fixed={"request_id": "20261122-demo"},
            always=_ASSISTANT,
            first={"content": ""},
            last={"content": ""},
            thinks=True,
            call_at_once=True,
            unfinished=False,
            where=Where.FINISH,
            unasked=True,
            null=Null.NEVER,
            identity="20261122{}",
            media_type="text/event-stream;charset=UTF-8",
        ),
        "minimax": Shape(
            order=("id", "choices", "created", "model", "object", "usage", *_SENSITIVE, "service_tier", "base_resp"),
            choice=("finish_reason", "index", "delta", "message"),
            fixed=dict(zip(_SENSITIVE, (False, False, 0, 0), strict=True)),
            whole={"service_tier": "standard", "base_resp": {"status_code": 0, "status_msg": ""}},
            always={"content": "", "role": "assistant", "name": "MiniMax AI", "audio_content": ""},
            message={"name": "MiniMax AI", "audio_content": ""},
            thinks=True,
            unfinished=False,
            usage=_minimax,
            where=Where.WHOLE,
            unasked=True,
            null=Null.ALWAYS,
            nothing={"total_tokens": 0, "total_characters": 0},
            identity="06{}",
        ),
        "doubao": Shape(
            order=("choices", "created", "id", "model", "service_tier", "object", "usage"),
            choice=("delta", "message", "finish_reason", "index"),
            fixed={"service_tier": "default"},
            always={"content": "", "role": "assistant"},
            thinks=True,
            limit_covers_thinking=False,
            unfinished=False,
            null=Null.ALWAYS,
            identity="021764{}",
        ),
        "hunyuan": Shape(
            order=("id", "object", "created", "model", "note", "choices", "usage"),
            fixed={"note": "Written by a machine; this mark stays with it."},
            always={"role": "assistant", "content": "", "reasoning_content": ""},
            first={},
            thinks=False,
            call_again=True,
            usage=_three,
            null=Null.NEVER,
            identity="{}",
            caches=False,
        ),
        "qianfan": Shape(
            choice=("index", "delta", "message", "finish_reason", "flag"),
            fixed_choice={"flag": 0},
            first={"content": ""},
            last={"content": ""},
            thinks=False,
            unfinished=False,
            usage=_output_only,
            where=Where.FINISH,
            null=Null.NEVER,
            identity="as-{}",
            caches=False,
        ),
        "stepfun": Shape(
            reasoning="reasoning",
            thinks=True,
            usage=_cached_at_the_top,
            null=Null.NEVER,
            identity="{}.demo",
        ),
        "siliconflow": Shape(
            order=("id", "object", "created", "model", "choices", "system_fingerprint", "usage"),
            fixed={"system_fingerprint": ""},
            always={"content": None, "reasoning_content": None},
            first={"role": "assistant", "content": ""},
            last={"content": ""},
            thinks=False,
            limit_covers_thinking=False,
            usage=_output_only,
            where=Where.EVERY,
            unasked=True,
            identity="01{}",
            caches=False,
        ),
        "spark": Shape(
            order=("code", "message", "sid", "id", "created", "choices", "usage"),
            document=("code", "message", "sid", "choices", "usage"),
            choice=("delta", "message", "index"),
            fixed={"code": 0, "message": "Success", "sid": "cha000b-demo"},
            always=_ASSISTANT,
            first={"content": ""},
            finishes=False,
            usage=_three,
            where=Where.LAST,
            unasked=True,
            null=Null.NEVER,
            identity="cha000b{}",
            data=b"data:",
            caches=False,
        ),
        "yi": Shape(
            order=("id", "object", "created", "model", "choices", "content", "lastOne", "usage"),
            document=("id", "object", "created", "model", "choices", "usage"),
            choice=("delta", "message", "index", "finish_reason"),
            repeats=True,
            unfinished=False,
            usage=_three,
            where=Where.FINISH,
            unasked=True,
            null=Null.NEVER,
            identity="cmpl-{}",
            caches=False,
        ),
        "baichuan": Shape(
            always=_ASSISTANT,
            first={"content": ""},
            last={"content": ""},
            usage=_three,
            where=Where.FINISH,
            identity="chatcmpl-M{}",
            null=Null.NEVER,
            caches=False,
        ),
        "mimo": Shape(
            order=("id", "choices", "created", "model", "object", "usage"),
            choice=("delta", "message", "finish_reason", "index"),
            always={"reasoning_content": None},
            thinks=False,
            identity="{}",
        ),
    }
)


# --- the writer ------------------------------------------------------------------------------------------------------


class Writer:
    """Writes one answer in one shape."""

    def __init__(self, shape: Shape, model: Any, *, asked: bool = False) -> None:
        """`asked` tells whether the request asked a stream for usage."""
        self._shape = shape
        self._asked = asked
        identity = shape.identity.format(secrets.token_hex(8))
        self._head = {"id": identity, "created": int(time.time()), "model": model, **shape.fixed}

    def document(self, choices: Sequence[Choice], counts: Counts) -> bytes:
        """Return an unstreamed answer."""
        order = self._shape.document or self._shape.order
        return self._shape.waiting_document + _json(self._whole(order, choices, counts))

    def stream(self, choices: Sequence[Choice], counts: Counts) -> Iterator[tuple[bytes, Counts | None]]:
        """Yield each event, `[DONE]` included, and what it says was used, if it does."""
        shape, where = self._shape, self._shape.where
        reports = shape.unasked or self._asked
        texts = [""] * len(choices)
        said = Counts(counts.prompt, counts.cached, counts.cache_write, 0, 0)

        def event(index: int, delta: Members, finish: str | None = None, *, ends: bool = False) -> Any:
            usage = counts if ends and reports else said if where is Where.EVERY else None
            written = usage if usage is None or where is not Where.CHOICE else _of_one(counts, choices[index])
            return self._event(index, {**shape.always, **delta}, texts[index], written, finish), usage

        for index, choice in enumerate(choices):
            yield event(index, {**shape.first, **self._opening(choice)})
        for step in range(max(len(choice.thought) + len(choice.parts) for choice in choices)):
            for index, choice in enumerate(choices):
                if (delta := self._delta(choice, step)) is None:
                    continue
                said = replace(
                    said, completion=said.completion + 1, reasoning=said.reasoning + (step < len(choice.thought))
                )
                texts[index] += delta.get("content") or ""
                yield event(index, delta, ends=where is Where.LAST and said.completion == counts.completion)
        for index, choice in enumerate(choices if shape.finishes else ()):
            ends = where is Where.CHOICE or (index + 1 == len(choices) and where in (Where.FINISH, Where.EVERY))
            yield event(index, shape.last, choice.finish, ends=ends)
        if where is Where.WHOLE:
            yield self._line(self._whole(shape.order, choices, counts)), counts
        elif self._asked and where in (Where.OWN, Where.CHOICE):
            members = {"object": "chat.completion.chunk", "choices": [], "usage": shape.usage(counts)}
            yield self._line(self._in_order(shape.order, members)), counts
        if shape.done:
            yield shape.data + b"[DONE]\n\n", None

    # --- the parts ----------------------------------------------------------------------------------------------

    def _event(self, index: int, delta: Members, text: str, usage: Counts | None, finish: str | None) -> bytes:
        shape = self._shape
        choice: dict[str, Any] = {"index": index, "delta": delta}
        if finish is not None or shape.unfinished:
            choice["finish_reason"] = finish
        members: dict[str, Any] = {"object": "chat.completion.chunk"}
        if usage is not None:
            (choice if shape.where is Where.CHOICE else members)["usage"] = shape.usage(usage)
        elif shape.null is Null.ALWAYS or (shape.null is Null.ASKED and self._asked):
            members["usage"] = shape.nothing
        if shape.repeats:
            members |= {"content": text, "lastOne": finish is not None}
        members["choices"] = [self._choice(choice)]
        return self._line(self._in_order(shape.order, members))

    def _whole(self, order: Sequence[str], choices: Sequence[Choice], counts: Counts) -> dict[str, Any]:
        written = []
        for index, choice in enumerate(choices):
            message: dict[str, Any] = {"role": "assistant", "content": choice.text, **self._shape.message}
            if choice.tool is not None:
                message |= {"content": None, "tool_calls": [_call(choice, choice.text)]}
            if choice.thought:
                message[self._shape.reasoning] = "".join(choice.thought)
            inner: dict[str, Any] = {"index": index, "message": message}
            if self._shape.finishes:
                inner["finish_reason"] = choice.finish
            written.append(self._choice(inner))
        usage = self._shape.usage(counts)
        members = {"object": "chat.completion", "choices": written, "usage": usage}
        return self._in_order(order, {**self._shape.whole, **members})

    def _in_order(self, order: Sequence[str], members: Members) -> dict[str, Any]:
        known = {**self._head, **members}
        return {name: known[name] for name in order if name in known}

    def _choice(self, members: Members) -> dict[str, Any]:
        known = {**self._shape.fixed_choice, **members}
        return {name: known[name] for name in self._shape.choice if name in known}

    def _opening(self, choice: Choice) -> Members:
        if choice.tool is None or choice.thought or self._shape.call_at_once:
            return {}
        return {"content": None, "tool_calls": [{"index": 0, **_call(choice, "")}]}

    def _delta(self, choice: Choice, step: int) -> Members | None:
        """Return what a choice says in this step: its thinking first, piece by piece, then the rest."""
        if step < len(choice.thought):
            return {self._shape.reasoning: choice.thought[step]}
        step -= len(choice.thought)
        if step >= len(choice.parts):
            return None
        part = choice.parts[step]
        if choice.tool is None:
            return {"content": part}
        if self._shape.call_at_once:
            return None if step else {"tool_calls": [{"index": 0, **_call(choice, choice.text)}]}
        if not step and choice.thought:
            return {"tool_calls": [{"index": 0, **_call(choice, part)}]}
        if self._shape.call_again:
            return {"tool_calls": [{"index": 0, **_call(choice, part, name="")}]}
        return {"tool_calls": [{"index": 0, **self._shape.call_later, "function": {"arguments": part}}]}

    def _line(self, value: Members) -> bytes:
        return self._shape.data + _json(value) + b"\n\n"


def _of_one(counts: Counts, choice: Choice) -> Counts:
    """Return what an answer used, as far as one choice is concerned: all of the prompt."""
    return replace(counts, completion=len(choice.thought) + len(choice.parts), reasoning=len(choice.thought))


def _call(choice: Choice, arguments: str, *, name: str | None = None) -> dict[str, Any]:
    function = {"name": choice.tool if name is None else name, "arguments": arguments}
    return {"id": choice.call_id, "type": "function", "function": function}


def _json(value: Members) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")
