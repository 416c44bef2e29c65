"""One upstream call, from the first byte sent to the settlement.

Strategy: the exchange is a task of its own that outlives its client. The parser's callbacks move the bytes (provider →
tap → client) without waking the task; the task sleeps until the call is over, settles, and only then lets the terminal
bytes go. Why the call is over is one value, `Cause`, set once; everything after it is decided from that value and
from what the tap saw. The client is a sink that may leave at any point, which changes only who is listening.
"""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import orjson

from nexus_proxy.config import Limits, Timeouts
from nexus_proxy.core.judgement import Cause, Seen, ending_of, fault_of, flags_of, usage_of
from nexus_proxy.core.model import Model
from nexus_proxy.core.places import Places
from nexus_proxy.core.refusal import read_refusal
from nexus_proxy.core.requests import Outgoing
from nexus_proxy.core.settlement import Ending, EndState, Verdict
from nexus_proxy.core.tap import JsonTap, Tap, make_tap
from nexus_proxy.core.usage import Usage
from nexus_proxy.errors import ClientGone, LedgerUnavailable, NexusError, UpstreamBroken, UpstreamError
from nexus_proxy.upstream.connection import Connection, Headers
from nexus_proxy.upstream.provider import Upstream
from nexus_proxy.upstream.response import content_type_of, error_document, error_event, is_encoded, retry_after_ns

ERROR_BODY_MAX = 64 * 1024
PROGRESS_S = 5.0
STOPPED_S = 0.25  # a timer that is later than this tells of a process that was stopped
END_GRACE_S = 2.0  # how long the end of the body, or a late usage, is waited for behind `[DONE]`


class Books(Protocol):
    """What an exchange needs of the ledger."""

    def progress(self, usage: Usage | None, prompt_estimate: int, output_bytes: int, *, thought: bool = False) -> None:
        """Journal what was seen so far."""

    def settle(
        self, ending: Ending, *, status: int, first_byte: float | None = None, flags: tuple[str, ...] = ()
    ) -> Verdict:
        """Post what the ending is charged. The first call counts."""

    async def durable(self) -> None:
        """Wait until that is durable, or the commit deadline has passed. LedgerUnavailable if it never will be."""


class Client(Protocol):
    """Who listens. None of these may raise or block."""

    def send(self, data: bytes) -> None:
        """Send bytes of the body now."""

    def end(self) -> None:
        """The answer is whole: end the body as its framing says."""

    def cut(self) -> None:
        """The answer is not whole: close the connection so that everybody can see it."""


@dataclass(frozen=True, slots=True)
class Opening:
    """What the client's response starts with. With `whole` it is all of it, settled by `verdict`."""

    content_type: str
    content_encoding: str | None
    whole: bytes | None = field(default=None, repr=False)
    verdict: Verdict | None = None


class Exchange:
    """One call. `run` is its task; `opening` ends with an Opening or the NexusError for the client."""

    __slots__ = (
        "_books",
        "_choices",
        "_client",
        "_client_gone",
        "_connection",
        "_content_type",
        "_deadline",
        "_drain_deadline",
        "_drain_from",
        "_draining",
        "_drains",
        "_due",
        "_echoed",
        "_encoding",
        "_error_body",
        "_farewell",
        "_grace",
        "_last_byte_at",
        "_limits",
        "_loop",
        "_model",
        "_outgoing",
        "_over",
        "_paused",
        "_pending",
        "_progressed",
        "_received",
        "_retry_after",
        "_secret",
        "_sent",
        "_sent_at",
        "_settled",
        "_status",
        "_stream",
        "_timeouts",
        "_timer",
        "_upstream",
        "_upstream_over",
        "cause",
        "error",
        "first_byte",
        "opening",
        "status",
        "tap",
    )

    def __init__(
        self,
        upstream: Upstream,
        model: Model,
        outgoing: Outgoing,
        books: Books,
        *,
        timeouts: Timeouts,
        limits: Limits,
        drains: Places,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._upstream = upstream
        self._model = model
        self._outgoing = outgoing
        self._books = books
        self._timeouts = timeouts
        self._limits = limits
        self._drains = drains
        self._deadline = self._loop.time() + timeouts.exchange_s
        self._connection: Connection | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._over: asyncio.Future[Cause] = self._loop.create_future()
        self._upstream_over: asyncio.Future[None] = self._loop.create_future()  # nothing more comes from the provider
        self._client: Client | None = None
        self._client_gone = False
        self._draining = False
        self._drain_deadline = 0.0
        self._drain_from = 0
        self._pending: list[bytes] = []  # released before the client's head was out
        self._farewell: Callable[[Client], None] | None = None  # how the client's answer ends; nothing follows it
        self._stream = False  # bytes have been released: the client's answer is a 200 that began
        self._sent = self._settled = False
        self._sent_at = self._last_byte_at = 0.0
        self._paused = False
        self._progressed = self._due = 0.0
        self._received = 0
        self._status = 0
        self._content_type = ""
        self._encoding: str | None = None
        self._secret = upstream.provider.api_key.encode()
        self._echoed = False  # the provider sent our credential back
        self._choices = False  # what looks like a completion came, whatever else it looked like
        self._error_body = b""
        self._retry_after: int | None = None
        self.tap: Tap | None = None
        self.opening: asyncio.Future[Opening] = self._loop.create_future()
        self.cause: Cause | None = None
        self.error: NexusError | None = None  # what the client was told, or would have been
        self.first_byte: float | None = None  # the loop's time
        self.status = 0  # the HTTP status of the client's answer, 499 if it left before one began

    # --- the client's side ------------------------------------------------------------------------------------

    def attach(self, client: Client) -> None:
        """Let the bytes flow, after an opening without `whole`."""
        if self._client_gone:
            return
        self._client = client
        for data in self._pending:
            client.send(data)
        self._pending.clear()
        if self._farewell is not None and self._client is not None:
            self._client = None  # all is said: its departure must not cut what was ended
            self._farewell(client)

    def client_left(self) -> None:
        """Nobody listens any more: read on for the usage, within the limits, or stop."""
        if self._client_gone:
            return
        self._client_gone = True
        client, self._client = self._client, None
        if client is not None:
            client.cut()
        self._pending.clear()
        self.resume()
        if not self.opening.done():
            self._open_error(ClientGone("The client left before an answer began."))
        if self._over.done():
            return
        if not self._sent or self._upstream.provider.on_disconnect == "cancel" or not self._drains.enter():
            self._finish(Cause.ABANDONED)
            return
        self._draining = True
        self._drain_from = self._received
        # An unstreamed answer comes at its end or not at all, so it has the exchange's own time.
        self._drain_deadline = self._loop.time() + self._limits.drain_s if self._outgoing.stream else self._deadline
        self._rearm()

    def pause(self) -> None:
        """The client cannot keep up: stop reading from the provider."""
        if not self._paused and not self._over.done():
            self._paused = True
            if self._connection is not None:
                self._connection.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._paused:
            self._paused = False
            self._last_byte_at = self._loop.time()  # the provider was not silent, it was not listened to
            if self._connection is not None:
                self._connection.resume()
            self._rearm()

    def shut_down(self) -> None:
        """This server is ending: stop now and settle by what was seen."""
        self._finish(Cause.SHUT_DOWN)

    # --- the provider's side: the sink of the connection ------------------------------------------------------

    def on_head(self, status: int, headers: Headers) -> None:
        self._status = status
        if status != 200:
            self._retry_after = retry_after_ns(headers)
            self._grace = self._loop.call_later(END_GRACE_S, self._finish, Cause.REFUSED)  # why may follow, or never
            return
        self._content_type = content_type_of(headers)
        self._encoding = is_encoded(headers)
        if self._encoding is not None:
            self.tap = JsonTap(self._model.dialect)  # nothing can be read in it: bytes to be passed on
        else:
            drop = self._outgoing.usage_injected
            self.tap = make_tap(self._content_type, self._model.dialect, drop_usage_event=drop)

    def on_body(self, data: bytes) -> None:
        self._last_byte_at = self._loop.time()
        self._received += len(data)
        tap = self.tap
        if tap is None:
            self._error_body += data[: ERROR_BODY_MAX - len(self._error_body)]
            return
        if self._echoed:
            return
        self._choices = self._choices or b'"choices"' in data
        out = tap.feed(data)
        if self.first_byte is None:
            self.first_byte = self._last_byte_at
            # Not now: an answer that came whole is over before this runs, and needs neither clock nor journal.
            self._loop.call_soon(self._begin_watch)
        if tap.refusal is not None:
            self._finish(Cause.REFUSED)
            return
        if out:
            self._deliver(out)
        if tap.done and not self._over.done():
            if tap.usage is not None:
                self._finish(Cause.DONE)
            elif self._grace is None:
                self._grace = self._loop.call_later(END_GRACE_S, self._done_at_last)  # the usage may still come
        if self._received > self._limits.answer_bytes or (
            self._draining and self._received - self._drain_from > self._limits.drain_bytes
        ):
            self._finish(Cause.ABANDONED if self._draining else Cause.TOO_LONG)

    def _done_at_last(self) -> None:
        if self.tap is not None and not self._over.done():
            self.tap.end()
            self._finish(Cause.DONE)

    def on_end(self) -> None:
        if self.tap is not None:
            self.tap.end()
        self._end_upstream()
        refused = self.tap is None or self.tap.refusal is not None
        self._finish(Cause.REFUSED if refused else Cause.ENDED)

    def on_broken(self, reason: str) -> None:
        self._end_upstream()
        if self._status not in (0, 200):
            self._finish(Cause.REFUSED)
        else:
            self._finish(Cause.DONE if self.tap is not None and self.tap.done else Cause.BROKEN)

    # --- the task ---------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Conduct the call to its settlement. Leaves the hold settled and the client answered on every path."""
        try:
            try:
                cause = await self._converse()
            except UpstreamError as error:
                cause, self.error = Cause.BROKEN, error
            self.cause = cause
            await self._conclude(cause)
        finally:
            self._wind_up()

    def _wind_up(self) -> None:
        """Give everything back. What is not yet settled or answered here is so by a fault of our own."""
        try:
            if not self._settled:
                self.status = self.status or 502
                # Of what was seen only what is sure to be told: the fault may lie in the telling.
                began = self.first_byte is not None
                self._settle(
                    Ending(EndState.UPSTREAM_ERROR, began, False, None, self._outgoing.prompt_estimate, 0), ("fault",)
                )
        finally:
            try:
                if not self.opening.done():
                    self._open_error(UpstreamBroken("The model's provider failed to answer."))
                self._say(_cut)
            finally:
                self._let_go()
                for timer in (self._timer, self._grace):
                    if timer is not None:
                        timer.cancel()
                if self._draining:
                    self._drains.leave()

    async def _converse(self) -> Cause:
        """Send the request and wait until the call is over. UpstreamError if no connection could be made."""
        upstream, outgoing = self._upstream, self._outgoing
        head = upstream.head(outgoing.body, stream=outgoing.stream)
        connection = upstream.take_idle()
        reused = connection is not None
        while True:
            if connection is None:
                connection = await upstream.connect()
            if self._over.done():  # the client left, or the server is ending, and the provider got nothing
                self._connection = connection
                return self._over.result()
            self._connection = connection
            self._sent = True
            self._sent_at = self._last_byte_at = self._loop.time()
            self._rearm()
            connection.send(head, outgoing.body, self)
            cause = await self._over
            stale = cause is Cause.BROKEN and reused and not connection.heard
            if not (stale and upstream.provider.retry_stale) or self._client_gone:
                return cause
            # A kept connection that the provider had closed meanwhile: it took nothing. Once, on a new one.
            reused = self._sent = False
            self._over = self._loop.create_future()
            self._upstream_over = self._loop.create_future()
            connection = None

    async def _conclude(self, cause: Cause) -> None:
        """Settle, then answer: a refusal, a whole body, the terminal bytes, or a visible cut."""
        tap = self.tap
        if cause not in (Cause.ENDED, Cause.DONE):
            self._let_go()  # whatever else it sends, nobody is told
        if self.error is None:
            self.error = (
                self._refusal() if cause is Cause.REFUSED else fault_of(cause, tap, encoded=self._encoding is not None)
            )
        ending = ending_of(self._seen(cause))
        whole = prefix = b""
        if tap is not None and not self._stream and cause is not Cause.REFUSED:
            if self.error is None:
                whole = tap.release()
                if self._is_echo(whole):
                    whole, self.error = b"", UpstreamBroken("The provider's answer cannot be passed on.")
                    ending = replace(ending, end_state=EndState.UPSTREAM_ERROR, began=False, usage=None)
            elif not tap.streams:
                prefix = tap.partial()  # it stopped in the middle: delivered as far as it came, and visibly cut
        flags = flags_of(self._seen(cause))
        if self._client_gone and not self._stream:
            self.status = 499
        elif self._stream or whole or prefix:
            self.status = 200
        else:
            self.status = self.error.status if self.error is not None else 502
        verdict = self._settle(ending, flags)
        try:
            await self._books.durable()
        except LedgerUnavailable as error:
            whole, self.error = b"", error  # it cannot be charged, so it must not look whole
        if self._client_gone:
            return
        if self._stream:
            await self._close_stream(cause)
        elif whole:
            self._open(Opening(self._content_type, self._encoding, whole, verdict))
        elif prefix:
            self._deliver(prefix)
            self._say(_cut)
        else:
            self._open_error(self.error or UpstreamBroken("The model's provider sent an empty answer."))

    def _settle(self, ending: Ending, flags: tuple[str, ...]) -> Verdict:
        verdict = self._books.settle(ending, status=self.status, first_byte=self.first_byte, flags=flags)
        self._settled = True
        return verdict

    async def _close_stream(self, cause: Cause) -> None:
        """End a stream that has begun: properly if the provider did, else visibly cut, with one error event of ours."""
        tap = self.tap
        assert tap is not None
        if self.error is None:
            self._deliver(tap.release())
            if not self._upstream_over.done():
                # Settled already; what still comes behind `[DONE]` is let through, but not waited for long.
                await asyncio.wait((self._upstream_over,), timeout=END_GRACE_S)
            self._say(_end)
            return
        if cause is not Cause.REFUSED:
            self._deliver(tap.partial())
        if not tap.streams:
            if cause is Cause.REFUSED:
                self._deliver(error_document(self.error))
        elif tap.at_boundary:
            self._deliver(error_event(self.error))
        self._say(_cut)

    def _say(self, farewell: Callable[[Client], None]) -> None:
        """End the client's answer in this way; if its head is not out yet, as soon as it is. The first way counts."""
        if self._farewell is not None:
            return
        self._farewell = farewell
        client, self._client = self._client, None
        if client is not None:
            farewell(client)

    def _seen(self, cause: Cause) -> Seen:
        return Seen(
            cause,
            self.tap,
            self._outgoing,
            sent=self._sent,
            streaming=self._stream,
            client_gone=self._client_gone,
            unread=self._received if self._encoding is not None or self._choices else 0,
            encoded=self._encoding is not None,
            echoed=self._echoed,
            error=self.error,
        )

    def _refusal(self) -> NexusError:
        payload: Any = self.tap.refusal if self.tap is not None else _parse(self._error_body)
        return read_refusal(
            self._status,
            payload,
            self._model.dialect,
            secret=self._upstream.provider.api_key,
            retry_after_ns=self._retry_after,
        )

    # --- small steps ------------------------------------------------------------------------------------------

    def _deliver(self, data: bytes) -> None:
        if not data or self._client_gone or self._farewell is not None or self._is_echo(data):
            return
        if self._client is not None:
            self._client.send(data)
            return
        self._pending.append(data)
        if not self._stream:
            self._stream = True
            self._open(Opening(self._content_type, self._encoding))

    def _is_echo(self, data: bytes) -> bool:
        """Tell whether the provider sent our credential back: then nothing of this goes on, nor of what follows."""
        if self._secret and self._secret in data:
            self._echoed = True
            self._finish(Cause.BROKEN)
        return self._echoed

    def _open(self, opening: Opening) -> None:
        if not self.opening.done():
            self.opening.set_result(opening)

    def _open_error(self, error: NexusError) -> None:
        if not self.opening.done():
            self.error = self.error or error
            self.opening.set_exception(error)
            self.opening.exception()  # the handler may be gone; that is no news

    def _finish(self, cause: Cause) -> None:
        if not self._over.done():
            self._over.set_result(cause)

    def _end_upstream(self) -> None:
        if not self._upstream_over.done():
            self._upstream_over.set_result(None)

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.reusable and (self._upstream_over.done() or not self._sent):
            self._upstream.keep(connection)
        else:
            connection.abort()

    def _begin_watch(self) -> None:
        if not self._over.done():
            self._rearm()
            self._progress()

    def _progress(self) -> None:
        tap = self.tap
        # In this order: to ask a document that has not ended costs a scan.
        if tap is not None and not self._over.done() and tap.began:
            self._progressed = self._loop.time()
            usage, prompt_estimate = usage_of(tap, self._outgoing), self._outgoing.prompt_estimate
            self._books.progress(usage, prompt_estimate, tap.output_bytes, thought=tap.thought)

    # --- time -------------------------------------------------------------------------------------------------

    def _rearm(self) -> None:
        """Set the one timer to the next instant at which something can be due."""
        if self._timer is not None:
            self._timer.cancel()
        if not self._over.done():
            self._due = self._next_deadline()
            self._timer = self._loop.call_at(self._due, self._on_timer)

    def _next_deadline(self) -> float:
        timeouts, due = self._timeouts, self._deadline
        if self._draining:
            due = min(due, self._drain_deadline)
        if self._paused:  # the listener watches a client that does not read
            return due
        if self.first_byte is None:
            return min(due, self._sent_at + timeouts.first_byte_s)
        return min(due, self._last_byte_at + timeouts.silence_s, self._loop.time() + PROGRESS_S)

    def _on_timer(self) -> None:
        now, timeouts = self._loop.time(), self._timeouts
        if self._over.done():
            return
        if now - self._due > STOPPED_S and not self._draining:
            # This process was stopped, or the loop was held: what came meanwhile is read before anybody is timed out.
            self._due = now + STOPPED_S
            self._timer = self._loop.call_at(self._due, self._on_timer)
            return
        if now >= self._deadline:
            self._finish(Cause.TOO_LONG)
        elif self._draining and now >= self._drain_deadline:
            self._finish(Cause.ABANDONED)
        elif self._paused:
            pass
        elif self.first_byte is None:
            if now >= self._sent_at + timeouts.first_byte_s:
                self._finish(Cause.LATE)
        elif now >= self._last_byte_at + timeouts.silence_s:
            self._finish(Cause.SILENT)
        elif now >= self._progressed + PROGRESS_S:
            self._progress()
        self._rearm()


def _end(client: Client) -> None:
    client.end()


def _cut(client: Client) -> None:
    client.cut()


def _parse(body: bytes) -> Any:
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(body)
    text = body.removeprefix(b"data:").strip()  # an error body in the clothes of a stream (Qwen)
    with suppress(orjson.JSONDecodeError):
        return orjson.loads(text)
    return None
