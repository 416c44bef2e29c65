"""The built-in provider: a real HTTP server on loopback that answers as an OpenAI-compatible model would.

Strategy: no model, only manners. A short friendly text that echoes the prompt is cut into token-like pieces; usage
counts those pieces, and messages that were sent before count as cached. Every answer is written down in `sent`, so
that a test or the demo can compare what was charged with what was said.
"""

import asyncio
import hashlib
import json
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from nexus_proxy.demo.words import compose, pieces, sample_arguments, text_of

SENT_MAX: Final = 1_000
PREFIXES_MAX: Final = 10_000
TEMPLATE_TOKENS: Final = 3  # what a chat template adds to every prompt


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it was sent: the text of each choice, and the usage object of the wire."""

    texts: tuple[str, ...]
    usage: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Choice:
    """What one choice says, piece by piece. With a `tool`, the pieces are the arguments of its call."""

    parts: tuple[str, ...]
    finish: str
    tool: str | None = None


class DemoProvider:
    """Start it, ask it at `base_url` with `api_key`, read `sent`, stop it."""

    def __init__(self, *, pace_s: float = 0.02, warm: Sequence[dict[str, Any]] = ()) -> None:
        """`pace_s` is the pause between two events. `warm` are messages that others are taken to have sent before."""
        self.api_key = "demo-" + secrets.token_hex(16)
        self.sent: deque[Answer] = deque(maxlen=SENT_MAX)
        self.base_url = ""
        self._pace_s = pace_s
        self._prefixes: OrderedDict[str, None] = OrderedDict()
        self._remember(_prefixes(warm))
        app = web.Application(client_max_size=16 << 20)
        app.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=1.0)

    async def start(self, port: int = 0) -> None:
        """Listen on loopback; port 0 takes a free one. OSError."""
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.base_url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"

    async def stop(self) -> None:
        """Close the listener and what is open."""
        await self._runner.cleanup()

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return _refusal(401, "invalid_api_key", "Wrong credential.")
        try:
            body = json.loads(await request.read())
            messages: list[dict[str, Any]] = body["messages"]
            prefixes = _prefixes(messages)
            choices = [_choose(body, index) for index in range(body.get("n") or 1)]
        except (ValueError, LookupError, TypeError, AttributeError):
            return _refusal(400, "invalid_request_error", "Expected a chat completion request.")
        usage = self._usage(prefixes, sum(len(choice.parts) for choice in choices))
        self._remember(prefixes)
        self.sent.append(Answer(tuple("".join(choice.parts) for choice in choices), usage))
        head = {"id": f"chatcmpl-{secrets.token_hex(12)}", "created": int(time.time()), "model": body.get("model")}
        if not body.get("stream"):
            await asyncio.sleep(self._pace_s)
            return web.json_response({**head, "object": "chat.completion", **_document(choices), "usage": usage})
        include_usage = bool((body.get("stream_options") or {}).get("include_usage"))
        return await self._stream(request, head, choices, usage if include_usage else None)

    async def _stream(
        self, request: web.Request, head: dict[str, Any], choices: list[_Choice], usage: dict[str, Any] | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream; charset=utf-8"})
        await response.prepare(request)
        empty = {} if usage is None else {"usage": None}

        async def send(index: int, delta: dict[str, Any], finish: str | None = None) -> None:
            choice = {"index": index, "delta": delta, "finish_reason": finish}
            await response.write(_event({**head, "object": "chat.completion.chunk", "choices": [choice], **empty}))

        try:
            for index, choice in enumerate(choices):
                await send(index, {"role": "assistant", **_opening(choice)})
            for step in range(max(len(choice.parts) for choice in choices)):
                await asyncio.sleep(self._pace_s)
                for index, choice in enumerate(choices):
                    if step < len(choice.parts):
                        await send(index, _delta(choice, choice.parts[step]))
            for index, choice in enumerate(choices):
                await send(index, {}, choice.finish)
            if usage is not None:
                last = {**head, "object": "chat.completion.chunk", "choices": [], "usage": usage}
                await response.write(_event(last))
            await response.write(b"data: [DONE]\n\n")
        except ConnectionError:
            pass  # whoever asked has left
        return response

    def _usage(self, prefixes: list[tuple[str, int]], completion: int) -> dict[str, Any]:
        prompt = prefixes[-1][1] + TEMPLATE_TOKENS
        cached = max((tokens for text, tokens in prefixes if text in self._prefixes), default=0)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": cached},
            "completion_tokens_details": {"reasoning_tokens": 0},
        }

    def _remember(self, prefixes: list[tuple[str, int]]) -> None:
        for text, _ in prefixes:
            self._prefixes[text] = None
            self._prefixes.move_to_end(text)
        while len(self._prefixes) > PREFIXES_MAX:
            self._prefixes.popitem(last=False)


def _prefixes(messages: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Return each beginning of the conversation, as a digest, with its tokens so far."""
    found: list[tuple[str, int]] = []
    digest, tokens = hashlib.sha256(), 0
    for message in messages:
        written = json.dumps(message, sort_keys=True)
        digest.update(written.encode())
        tokens += len(pieces(text_of(message))) + 1
        found.append((digest.hexdigest(), tokens))
    return found


def _choose(body: dict[str, Any], index: int) -> _Choice:
    """Decide what one choice says: a tool's call if tools are offered and none has answered yet, else a text."""
    messages: list[dict[str, Any]] = body["messages"]
    tool = None
    if body.get("tools") and body.get("tool_choice") != "none" and messages[-1].get("role") != "tool":
        function = body["tools"][0]["function"]
        tool = str(function["name"])
        text = json.dumps(sample_arguments(function.get("parameters") or {}))
    else:
        text = compose(messages, index)
    parts = pieces(text)
    limit = body.get("max_completion_tokens") or body.get("max_tokens")
    if limit is not None and len(parts) > limit:
        return _Choice(tuple(parts[:limit]), "length", tool)
    return _Choice(tuple(parts), "stop" if tool is None else "tool_calls", tool)


def _call_head(tool: str, arguments: str) -> dict[str, Any]:
    function = {"name": tool, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(8)}", "type": "function", "function": function}


def _opening(choice: _Choice) -> dict[str, Any]:
    if choice.tool is None:
        return {"content": ""}
    return {"content": None, "tool_calls": [{"index": 0, **_call_head(choice.tool, "")}]}


def _delta(choice: _Choice, part: str) -> dict[str, Any]:
    if choice.tool is None:
        return {"content": part}
    return {"tool_calls": [{"index": 0, "function": {"arguments": part}}]}


def _document(choices: list[_Choice]) -> dict[str, Any]:
    written = []
    for index, choice in enumerate(choices):
        text = "".join(choice.parts)
        message: dict[str, Any] = {"role": "assistant", "content": text if choice.tool is None else None}
        if choice.tool is not None:
            message["tool_calls"] = [_call_head(choice.tool, text)]
        written.append({"index": index, "message": message, "finish_reason": choice.finish})
    return {"choices": written}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def _refusal(status: int, code: str, message: str) -> web.Response:
    error = {"message": message, "type": "invalid_request_error", "param": None, "code": code}
    return web.json_response({"error": error}, status=status)
