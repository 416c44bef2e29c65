"""The built-in provider: a real HTTP server on loopback that answers as a provider of the chosen dialect would.

Strategy: no model, only manners. A short friendly text that echoes the prompt is cut into token-like pieces; usage
counts those pieces, and messages that were sent before count as cached. What it says is the same in every dialect; how
is told by `shapes`. A prompt such as `/fail no_money` gets a failure instead, in the dialect's own words: `failures`.
Every answer is written down in `sent`, so that a test or the demo can compare what was charged with what was said.
"""

import asyncio
import hashlib
import json
import secrets
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web

from nexus_proxy.demo.failures import FAILURES, HIDDEN, LATE, Wish, help_on, wish_of
from nexus_proxy.demo.shapes import SHAPES, Choice, Counts, Shape, Writer
from nexus_proxy.demo.words import compose, pieces, sample_arguments, text_of, think

SENT_MAX: Final = 1_000
PREFIXES_MAX: Final = 10_000
TEMPLATE_TOKENS: Final = 3  # what a chat template adds to every prompt
_LATE_EVENTS: Final = 4  # before a failure that comes late


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer as it was sent: the text of each choice, what it used, that as an object of the wire, and the bytes.

    What was never put on the wire is None.
    """

    texts: tuple[str, ...]
    counts: Counts | None
    usage: dict[str, Any] | None
    body: bytes


class DemoProvider:
    """Start it, ask it at `base_url` with `api_key`, read `sent`, stop it."""

    def __init__(self, *, dialect: str = "openai", pace_s: float = 0.02, warm: Sequence[dict[str, Any]] = ()) -> None:
        """`pace_s` is the pause between two events. `warm` are messages that others are taken to have sent before."""
        self.dialect = dialect
        self.api_key = "demo-" + secrets.token_hex(16)
        self.sent: deque[Answer] = deque(maxlen=SENT_MAX)
        self.base_url = ""
        self._shape = SHAPES[dialect]
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
            return self._fail(Wish("auth", ""), streamed=False)
        try:
            body = json.loads(await request.read())
            messages: list[dict[str, Any]] = body["messages"]
            prefixes = _prefixes(messages)
            streamed = bool(body.get("stream"))
            choices = [_choose(self._shape, body, index) for index in range(body.get("n") or 1)]
            wish = wish_of(messages[-1])
        except (ValueError, LookupError, TypeError, AttributeError):
            return self._fail(Wish("bad_request", ""), streamed=False)
        if wish is not None and not (streamed and wish.place == LATE):
            return self._fail(wish, streamed=streamed)
        counts = self._counts(prefixes, body, choices)
        self._remember(prefixes)
        asked = bool((body.get("stream_options") or {}).get("include_usage"))
        writer = Writer(self._shape, body.get("model"), asked=asked)
        if streamed:
            return await self._stream(request, writer, choices, counts, wish)
        await asyncio.sleep(self._pace_s)
        written = writer.document(choices, counts)
        self._write_down(choices, counts, written)
        return web.Response(body=written, content_type="application/json")

    async def _stream(
        self, request: web.Request, writer: Writer, choices: list[Choice], counts: Counts, wish: Wish | None
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": self._shape.media_type})
        events = [(self._shape.waiting, None), *writer.stream(choices, counts)]
        if wish is not None:
            late = FAILURES[self.dialect][wish.kind].payload(self.api_key, inside=True)
            events = [*events[: 1 + _LATE_EVENTS], (self._shape.data + late + b"\n\n", None)]
        reported = next((counts for _, counts in reversed(events) if counts is not None), None)
        self._write_down(choices, reported, b"".join(data for data, _ in events))
        await response.prepare(request)
        try:
            for number, (data, _) in enumerate(events):
                if len(choices) < number < len(events) - len(choices):
                    await asyncio.sleep(self._pace_s)
                if data:
                    await response.write(data)
        except ConnectionError:
            pass  # whoever asked has left
        return response

    def _fail(self, wish: Wish, *, streamed: bool) -> web.Response:
        """Say a failure: with its own status, or under a 200."""
        inside = wish.place in (HIDDEN, LATE)
        failure = FAILURES[self.dialect][wish.kind]
        said, status = failure.payload(self.api_key, inside=inside), 200 if inside else failure.status
        if streamed and (inside or (self._shape.fails_as_event and status == 400)):
            event = self._shape.data + said + b"\n\n"
            return web.Response(status=status, body=event, headers={"Content-Type": self._shape.media_type})
        return web.Response(status=status, body=said, content_type="application/json")

    def _write_down(self, choices: list[Choice], counts: Counts | None, body: bytes) -> None:
        usage = None if counts is None else self._shape.usage(counts)
        self.sent.append(Answer(tuple(choice.text for choice in choices), counts, usage, body))

    def _counts(self, prefixes: list[tuple[str, int]], body: dict[str, Any], choices: list[Choice]) -> Counts:
        prompt = prefixes[-1][1] + TEMPLATE_TOKENS
        cached = written = 0
        if self._shape.caches:
            cached = max((tokens for text, tokens in prefixes if text in self._prefixes), default=0)
        if self._shape.writes_cache:
            marked = [
                tokens for message, (_, tokens) in zip(body["messages"], prefixes, strict=True) if _marked(message)
            ]
            written = max(0, max(marked, default=0) - cached)
        thought = sum(len(choice.thought) for choice in choices)
        return Counts(prompt, cached, written, thought + sum(len(choice.parts) for choice in choices), thought)

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


def _marked(message: dict[str, Any]) -> bool:
    """Tell whether a message asks for its beginning to be cached."""
    content = message.get("content")
    return isinstance(content, list) and any("cache_control" in part for part in content)


def _choose(shape: Shape, body: dict[str, Any], index: int) -> Choice:
    """Decide what one choice says: a tool's call if tools are offered and none has answered yet, else a text."""
    messages: list[dict[str, Any]] = body["messages"]
    tool = None
    if body.get("tools") and body.get("tool_choice") != "none" and messages[-1].get("role") != "tool":
        function = body["tools"][0]["function"]
        tool = str(function["name"])
        text = json.dumps(sample_arguments(function.get("parameters") or {}))
    else:
        text = help_on(messages[-1]) or compose(messages, index)
    thought, parts = pieces(think(messages)) if _thinks(shape, body) else [], pieces(text)
    thought = thought[: body.get("thinking_budget")]
    limit = body.get("max_completion_tokens")
    if limit is None and body.get("max_tokens") is not None:
        limit = body["max_tokens"] + (0 if shape.limit_covers_thinking else len(thought))
    if limit is not None and len(thought) + len(parts) > limit:
        left = max(0, limit - len(thought))
        return Choice(tuple(thought[:limit]), tuple(parts[:left]), "length", tool if left else None)
    return Choice(tuple(thought), tuple(parts), "stop" if tool is None else "tool_calls", tool)


def _thinks(shape: Shape, body: dict[str, Any]) -> bool:
    """Tell whether it thinks: where the provider does so by itself or is asked to, and is not told otherwise."""
    if shape.thinks is None:
        return False
    told = (body.get("thinking") or {}).get("type")
    if told is not None:
        return bool(told != "disabled")
    return bool(body.get("enable_thinking", shape.thinks))
