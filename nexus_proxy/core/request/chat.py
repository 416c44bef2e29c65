"""A chat completion request: read, checked, and made ready for a provider.

Strategy: bytes in, a checked request out; then, with the model known, the body that goes upstream and the bounds that
the hold stands on. What is priced is what is forwarded: the upstream body is written from what was parsed. The model's
`context` bounds the input, the limit that is sent bounds the output.

A byte-level tokenizer makes no more tokens than bytes, so the body's bytes bound its text. An image is bounded by the
model's allowance, and then its payload does not count. Whatever else a prompt can refer to (video, audio, files, parts
that we do not know) has no bound but the model's context.
"""

from typing import Any, Final

import orjson

from nexus_proxy.core.model import Model
from nexus_proxy.core.request.parameters import check_parameters, refuse_barred, refuse_price_changes
from nexus_proxy.errors import InvalidJson, InvalidParameter

TEMPERATURE_DEFAULT: Final = 0.7

VALUES_MAX: Final = 100_000  # of one document: what can be parsed without a pause that other requests would feel
_UNCOUNTED_BYTES_MAX: Final = 256 * 1024  # a document this short cannot hold enough values to matter

_TEXT_PART: Final = frozenset({"type", "text", "cache_control"})
_IMAGE_PART: Final = frozenset({"type", "image_url", "min_pixels", "max_pixels", "detail", "cache_control"})
_MESSAGE_LISTS: Final = frozenset({"tool_calls", "function_call", "reasoning_details", "annotations", "cache_control"})
# Providers write these into the prompt in a notation of their own, which may be longer than ours.
_WRITTEN_AGAIN: Final = frozenset({"tools", "functions", "response_format"})
_FILE_REFERENCE: Final = b"fileid://"  # Qwen-Long reads a whole uploaded file in place of this text


class ChatRequest:
    """A checked request; `body` is the parsed object, nulls of top-level parameters removed."""

    __slots__ = ("body", "include_usage", "model", "n", "output_limit", "stream")

    def __init__(
        self, model: str, stream: bool, include_usage: bool, n: int, output_limit: int | None, body: dict[str, Any]
    ) -> None:
        self.model = model
        self.stream = stream
        self.include_usage = include_usage  # the client asked for the usage event itself
        self.n = n
        self.output_limit = output_limit  # tokens, from max_tokens or max_completion_tokens
        self.body = body

    def __repr__(self) -> str:
        return f"ChatRequest({self.model!r})"  # the prompt: for no log


class Outgoing:
    """What goes upstream, and what it can cost at most."""

    __slots__ = ("body", "input_bound", "output_bound", "prompt_estimate", "stream", "usage_injected")

    def __init__(
        self,
        body: bytes,
        stream: bool,
        usage_injected: bool,
        input_bound: int,
        output_bound: int,
        prompt_estimate: int,
    ) -> None:
        self.body = body  # until it was heard: it may be large, and the answer long
        self.stream = stream
        self.usage_injected = usage_injected  # we asked for a usage event that the client did not ask for
        self.input_bound = input_bound  # tokens
        self.output_bound = output_bound  # tokens, over all choices
        self.prompt_estimate = prompt_estimate  # tokens: ceil(text bytes / 4) plus media allowances

    def __repr__(self) -> str:
        return f"Outgoing({len(self.body)} bytes)"  # the prompt: for no log


def parse_chat(raw: bytes) -> ChatRequest:
    """Read and check a body. InvalidJson, InvalidParameter and UnsupportedParameter (with `param`)."""
    if len(raw) > _UNCOUNTED_BYTES_MAX and _has_too_many_values(raw):
        raise InvalidJson(f"The body holds more than {VALUES_MAX} values.")
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InvalidJson(f"The body is not valid JSON: {error}.") from None
    if type(body) is not dict:
        raise InvalidJson("The body must be a JSON object.")
    if None in body.values():
        body = {name: value for name, value in body.items() if value is not None}
    check_parameters(body)
    stream, n = body.get("stream", False), body.get("n", 1)
    options = body.get("stream_options")
    include_usage = options is not None and options.get("include_usage") is True
    output_limit = body["max_tokens"] if "max_tokens" in body else body.get("max_completion_tokens")
    return ChatRequest(body["model"], stream, include_usage, n, output_limit, body)


def prepare(request: ChatRequest, model: Model) -> Outgoing:
    """Write the body for the provider and bound its tokens. InvalidJson, InvalidParameter, UnsupportedParameter."""
    given, stream, dialect = request.body, request.stream, model.dialect
    refuse_price_changes(given, model.allowed_parameters)
    if dialect.barred_parameters:
        refuse_barred(given, dialect.barred_parameters, model.allowed_parameters)
    body = {**given, "model": model.upstream}
    limit = _set_limit(body, request.output_limit, model)
    if model.send_temperature and "temperature" not in body:
        body["temperature"] = TEMPERATURE_DEFAULT
    inject = stream and dialect.ask_usage and not request.include_usage
    if inject:
        body["stream_options"] = {**body.get("stream_options", {}), "include_usage": True}
    prompt = _measure(body["messages"])
    thinking = 0 if model.limit_covers_thinking else _thinking_bound(body, model)
    try:
        again = 0 if _WRITTEN_AGAIN.isdisjoint(body) else _bytes_written_again(body)
        for ours, theirs in dialect.renamed_parameters:
            if ours in body:
                body[theirs] = body.pop(ours)
        data = orjson.dumps(body)
    except orjson.JSONEncodeError:  # it writes 254 levels and reads 1,024
        raise InvalidJson("The body is nested too deep.") from None
    images, media_tokens, input_bound = prompt.images, model.media_tokens, model.context
    if prompt.others == 0 and _FILE_REFERENCE not in data:
        size = len(data) - prompt.payload_bytes + again + images * media_tokens + model.template_tokens
        input_bound = min(input_bound, size)
    output_bound = request.n * (limit + thinking)
    prompt_estimate = -(-prompt.text_bytes // 4) + (images + prompt.others) * media_tokens
    return Outgoing(data, stream, inject, input_bound, output_bound, prompt_estimate)


def _set_limit(body: dict[str, Any], limit: int | None, model: Model) -> int:
    """Put the output limit under the name that the model's provider knows, and return it."""
    given = "max_tokens" if "max_tokens" in body else "max_completion_tokens"
    if limit is None:
        limit = min(model.default_output, model.max_output)
    elif limit > model.max_output:
        raise InvalidParameter(
            f"'{given}' is {limit}; the model '{model.id}' writes at most {model.max_output} tokens.", param=given
        )
    if given != model.limit_parameter:
        body.pop(given, None)
    body[model.limit_parameter] = limit
    return limit


def _bytes_written_again(body: dict[str, Any]) -> int:
    return sum(len(orjson.dumps(body[name])) for name in _WRITTEN_AGAIN if name in body)


def _thinking_bound(body: dict[str, Any], model: Model) -> int:
    """Return the most tokens of thinking beside the limit. A budget counts only where it is known to be heeded."""
    name = model.dialect.budget_parameter
    budget = body.get(name) if name else None
    return budget if type(budget) is int and budget >= 0 else model.thinking_max


class _Prompt:
    """What the messages hold."""

    __slots__ = ("images", "others", "payload_bytes", "text_bytes")

    def __init__(self) -> None:
        self.text_bytes = 0
        self.images = 0
        self.others = 0  # what only the model's context bounds
        self.payload_bytes = 0  # of images that came in the body; at most what they take in the upstream body


def _measure(messages: list[dict[str, Any]]) -> _Prompt:
    prompt = _Prompt()
    for message in messages:
        for key, value in message.items():
            if type(value) is str:
                if key != "role":
                    prompt.text_bytes += _utf8_bytes(value)
            elif type(value) is list and key == "content":
                for part in value:
                    _measure_part(prompt, part)
            elif type(value) is list and key == "tool_calls":
                for call in value:
                    _measure_call(prompt, call.get("function") if type(call) is dict else None)
            elif type(value) is dict and key == "function_call":
                _measure_call(prompt, value)
            elif type(value) in (list, dict) and key not in _MESSAGE_LISTS:
                prompt.others += 1
    return prompt


def _measure_part(prompt: _Prompt, part: dict[str, Any]) -> None:
    kind = part.get("type")
    if kind in ("text", "refusal") and part.keys() <= _TEXT_PART | {kind}:
        text = part.get(kind)
        prompt.text_bytes += _utf8_bytes(text) if type(text) is str else 0
    elif kind == "image_url" and part.keys() <= _IMAGE_PART:
        prompt.images += 1
        image = part.get("image_url")
        url = image.get("url") if type(image) is dict else image
        if type(url) is str and url.startswith("data:image/"):
            prompt.payload_bytes += len(url)
    else:
        prompt.others += 1


def _measure_call(prompt: _Prompt, function: Any) -> None:
    if type(function) is dict:
        for key in ("name", "arguments"):
            value = function.get(key)
            prompt.text_bytes += _utf8_bytes(value) if type(value) is str else 0


def _utf8_bytes(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode())


def _has_too_many_values(raw: bytes) -> bool:
    """Count values without parsing: a million tiny ones would stop every other request while they are parsed."""
    if raw.count(b",") + raw.count(b"[") + raw.count(b"{") <= VALUES_MAX:
        return False
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"")  # now every quote begins or ends a string
    if bare.count(b'"') > 4 * VALUES_MAX:  # a name and a text for each value
        return True
    outside = b"".join(bare.split(b'"')[::2])
    return outside.count(b",") + outside.count(b"[") + outside.count(b"{") > VALUES_MAX
