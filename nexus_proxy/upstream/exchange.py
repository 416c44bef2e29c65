"""One upstream call, from the first byte sent to the settlement.

Strategy: an exchange is driven by what happens to it (bytes, an end, a clock, the ledger's word), not by a task, and it
outlives its client. The parser's callbacks move the bytes: provider → tap → client. Why the call is over is one value,
`Cause`, set once; then it is settled, and the terminal bytes wait for that to be durable, `commit_s` at most.
Everything after the cause is decided from that value and from what the tap saw. The client may leave at any point,
which changes only who is listening: see `delivery`. Whatever fails, `_wind_up` settles the hold, answers the client and
gives everything back: each way in, by which the loop, the connection or the ledger calls, catches a fault of our own;
what `on_head` or `on_body` raises ends the connection, and so comes in as `on_broken`.
"""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from nexus_proxy.config import Limits, Timeouts
from nexus_proxy.core.control.slots import Slots
from nexus_proxy.core.model import Model
from nexus_proxy.core.money.settlement import Ending, EndState, Verdict
from nexus_proxy.core.request.chat import Outgoing
from nexus_proxy.core.wire.outcome import Cause, Seen, ending_of, fault_of, flags_of, usage_of
from nexus_proxy.core.wire.refusal import read_error_body, read_refusal
from nexus_proxy.core.wire.tap import JsonTap, SniffTap, Tap, make_tap
from nexus_proxy.core.wire.usage import Usage
from nexus_proxy.errors import ClientGone, NexusError, UpstreamBroken, UpstreamError
from nexus_proxy.runtime.timeouts import TimeoutQueue
from nexus_proxy.upstream.connection import Connection, Headers
from nexus_proxy.upstream.delivery import Client, Delivery
from nexus_proxy.upstream.pool import Upstream
from nexus_proxy.upstream.response import content_type_of, error_document, error_event, is_encoded, retry_after_ns
from nexus_proxy.upstream.timer import ExchangeTimer

ERROR_BODY_MAX = 64 * 1024
LARGE_BODY_BYTES = 64 * 1024  # what is worth giving up early
BEHIND_BYTES_MAX = 1 << 20  # of what comes behind `[DONE]`
END_GRACE_S = 2.0  # how long the end of the body, or a late usage, is waited for behind `[DONE]`


class Books(Protocol):
    """What an exchange needs of the ledger."""

    def progress(self, usage: Usage | None, prompt_estimate: int, output_bytes: int, *, thought: bool = False) -> None:
        """Journal what was seen so far."""

    def settle(
        self, ending: Ending, *, status: int, first_byte: float | None = None, flags: tuple[str, ...] = ()
    ) -> Verdict:
        """Post what the ending is charged. The first call counts."""

    def when_durable(self, told: Callable[[NexusError | None], None]) -> None:
        """Call `told` once: when that is durable or the commit deadline has passed, or with what is wrong if it never
        will be."""


class ResponseStart:
    """What the client's response starts with. With `whole` it is all of it, settled by `verdict`."""

    __slots__ = ("content_encoding", "content_type", "verdict", "whole")

    def __init__(
        self,
        content_type: str,
        content_encoding: str | None,
        whole: bytes | None = None,
        verdict: Verdict | None = None,
    ) -> None:
        self.content_type = content_type
        self.content_encoding = content_encoding
        self.whole = whole
        self.verdict = verdict

    def __repr__(self) -> str:
        return f"ResponseStart({self.content_type!r})"  # the answer: for no log


OnOver = Callable[["Exchange", BaseException | None], None]


class Exchange:
    """One call. `opening` ends with a ResponseStart or the NexusError for the client."""

    __slots__ = (
        "_answered",
        "_behind",
        "_books",
        "_connection",
        "_content_type",
        "_delivery",
        "_dialing",
        "_drain_from",
        "_draining",
        "_drains",
        "_encoding",
        "_ended",
        "_error_body",
        "_final",
        "_grace",
        "_late",
        "_limits",
        "_loop",
        "_model",
        "_on_over",
        "_outgoing",
        "_paused",
        "_received",
        "_retry_after",
        "_reused",
        "_sent",
        "_settled",
        "_status",
        "_timer",
        "_upstream",
        "_upstream_over",
        "_verdict",
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
        first_bytes: TimeoutQueue,
        limits: Limits,
        drains: Slots,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._upstream = upstream
        self._model = model
        self._outgoing = outgoing
        self._books = books
        self._limits = limits
        self._drains = drains
        self._timer = ExchangeTimer(self._loop, timeouts, first_bytes, on_due=self._finish, on_progress=self._progress)
        self._on_over: OnOver | None = None
        self._connection: Connection | None = None
        self._dialing: asyncio.Task[Connection] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._delivery = Delivery(upstream.secret_forms)
        self._draining = self._paused = False
        self._drain_from = 0
        self._reused = self._sent = False
        self._upstream_over = False  # nothing more comes from the provider
        self._settled = self._answered = self._ended = False
        self._verdict: Verdict | None = None
        self._final = b""  # what waits for the settlement: a whole answer, as much of it as came, or the terminal bytes
        self._late = b""  # what came behind that before it was durable
        self._behind = 0  # bytes that came behind
        self._received = 0
        self._status = 0
        self._content_type = ""
        self._encoding: str | None = None
        self._error_body = b""
        self._retry_after: int | None = None
        self.tap: Tap | None = None
        self.opening: asyncio.Future[ResponseStart] = self._loop.create_future()
        self.cause: Cause | None = None  # why it is over
        self.error: NexusError | None = None  # what the client was told, or would have been
        self.first_byte: float | None = None  # the loop's time
        self.status = 0  # the HTTP status of the client's answer, 499 if it left before one began

    @property
    def echoed(self) -> bool:
        """The provider sent our credential back."""
        return self._delivery.echoed

    def begin(self, on_over: "OnOver") -> None:
        """Send the request. `on_over` is called once, when all is settled, said and given back; with the fault if one
        of our own ended it."""
        self._on_over = on_over
        if self.cause is not None:  # the client has left already, and the provider gets nothing
            self._loop.call_soon(self._conclude)
        else:
            self._call()

    # --- the client's side ------------------------------------------------------------------------------------

    def attach(self, client: Client) -> None:
        """Let the bytes flow, after an opening without `whole`."""
        self._delivery.attach(client)

    def client_left(self) -> None:
        """Nobody listens any more: read on for the usage, within the limits, or stop."""
        if self._delivery.gone:
            return
        self._delivery.leave()
        self.resume()
        if not self.opening.done():
            self._open_error(ClientGone("The client left before an answer began."))
        if self.cause is not None:
            return
        if not self._sent or self._upstream.provider.on_disconnect == "cancel" or not self._drains.enter():
            self._finish(Cause.ABANDONED)
            return
        self._draining = True
        self._drain_from = self._received
        self._outgoing.body = b""  # nobody is left to send it again for
        # An unstreamed answer comes at its end or not at all, so it has the exchange's own time.
        self._timer.drain(self._loop.time() + self._limits.drain_s if self._outgoing.stream else None)

    def pause(self) -> None:
        """The client cannot keep up: stop reading from the provider."""
        if self._answered:
            self._end_stream()  # all that it needs is on its way; what comes behind `[DONE]` is not worth a buffer
        elif not self._paused and self.cause is None:
            self._paused = True
            self._timer.pause()
            if self._connection is not None:
                self._connection.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._paused:
            self._paused = False
            if self._connection is not None:
                self._connection.resume()
            if self.cause is None:
                self._timer.resume()

    def shut_down(self) -> None:
        """This server is ending: stop now and settle by what was seen."""
        self._finish(Cause.SHUT_DOWN)

    # --- the provider's side: the sink of the connection ------------------------------------------------------

    def on_head(self, status: int, headers: Headers) -> None:
        self._status = status
        if self._outgoing.stream or len(self._outgoing.body) > LARGE_BODY_BYTES:
            # It was heard, so it is not sent again; a small one goes soon, unless the answer is a stream.
            self._outgoing.body = b""
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
        now = self._timer.heard_at = self._loop.time()
        self._received += len(data)
        tap = self.tap
        if tap is None:
            self._error_body += data[: ERROR_BODY_MAX - len(self._error_body)]
            return
        if self._delivery.echoed:
            return
        out = tap.feed(data)
        if self.first_byte is None:
            self.first_byte = now
            if isinstance(tap, SniffTap):
                self.tap = tap = tap.settled
            # An answer that came whole needs neither clock nor journal, nor does one that these bytes end.
            if self._connection is None or not self._connection.whole:
                self._loop.call_soon(self._begin_timer)
        if self._settled:
            self._take_behind(out)
            return
        if tap.refusal is not None:
            self._finish(Cause.REFUSED)
            return
        if out:
            self._deliver(out)
        if tap.done and self.cause is None:
            if tap.usage is not None:
                self._finish(Cause.DONE)
            elif self._grace is None:
                self._grace = self._loop.call_later(END_GRACE_S, self._done_at_last)  # the usage may still come
        if self._received > self._limits.answer_bytes or (
            self._draining and self._received - self._drain_from > self._limits.drain_bytes
        ):
            self._finish(Cause.ABANDONED if self._draining else Cause.TOO_LONG)

    def _take_behind(self, data: bytes) -> None:
        """Let through what comes behind `[DONE]`, within bounds, and not before what it is behind."""
        self._behind += len(data)
        if self._behind > BEHIND_BYTES_MAX:
            if self._answered:
                self._end_stream()
        elif self._answered:
            self._deliver(data)
        else:
            self._late += data

    def _done_at_last(self) -> None:
        try:
            if self.tap is not None and self.cause is None:
                self.tap.end()
                self._finish(Cause.DONE)
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)

    def on_end(self) -> None:
        try:
            if self.tap is not None and not self._settled:
                self.tap.end()
            self._upstream_over = True
            cause = Cause.REFUSED if self.tap is None or self.tap.refusal is not None else Cause.ENDED
            if not self._delivery.began:
                self.cause = self.cause or cause
                self._conclude()  # now: no bytes are on their way to the client
                return
            self._finish(cause)
            if self._answered:
                self._end_stream()
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)

    def on_broken(self, reason: str) -> None:
        try:
            assert self._connection is not None
            self._upstream_over = True
            tap = self.tap
            if self.cause is not None:
                if self._answered:
                    self._end_stream()
            elif self._is_stale(self._connection):
                # A kept connection that the provider had closed meanwhile: it took nothing. Once, on a new one.
                self._reused = self._sent = self._upstream_over = False
                self._connection = None
                self._dial()
            elif self._status not in (0, 200):
                self._finish(Cause.REFUSED)
            elif tap is not None and tap.done:
                tap.end()  # the usage may stand behind
                self._finish(Cause.DONE)
            else:
                self._finish(Cause.BROKEN)
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)

    def _is_stale(self, connection: Connection) -> bool:
        retry = self._reused and self._upstream.provider.retry_stale and not self._delivery.gone
        return retry and not connection.heard

    # --- from the first byte to the last ----------------------------------------------------------------------

    def _call(self) -> None:
        try:
            connection = self._upstream.take_idle()
            if connection is None:
                self._dial()
            else:
                self._reused = True
                self._send(connection)
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)

    def _dial(self) -> None:
        self._dialing = self._loop.create_task(self._upstream.connect())
        self._dialing.add_done_callback(self._dialed)

    def _dialed(self, dialing: asyncio.Task[Connection]) -> None:
        try:
            self._dialing = None
            # Asked, not raised: a traceback would hold this exchange, which holds the error.
            error = None if dialing.cancelled() else dialing.exception()
            if dialing.cancelled():
                self.cause = self.cause or Cause.SHUT_DOWN
            elif isinstance(error, UpstreamError):
                self.error = self.error or error
                self.cause = self.cause or Cause.BROKEN
            elif error is not None:
                self._wind_up(error)
            elif self.cause is None:
                self._send(dialing.result())
            else:  # the client left meanwhile, or the server is ending, and the provider got nothing
                dialing.result().abort()
            if self.cause is not None:
                self._conclude()
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)

    def _send(self, connection: Connection) -> None:
        upstream, outgoing = self._upstream, self._outgoing
        self._connection = connection
        self._sent = True
        self._timer.start()
        connection.send(upstream.head(outgoing.body, stream=outgoing.stream), outgoing.body, self)

    def _finish(self, cause: Cause) -> None:
        """It is over. What follows does so in a turn of its own: the bytes in hand come first."""
        if self.cause is None:
            self.cause = cause
            if self._dialing is not None:
                self._dialing.cancel()
            elif self._on_over is not None:
                self._loop.call_soon(self._conclude)

    def _conclude(self) -> None:
        """Settle, and wait for that to be durable."""
        try:
            if not (self._settled or self._ended):
                self._settle_up()
                self._books.when_durable(self._durable)
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)

    def _settle_up(self) -> None:
        cause, tap, delivery = self.cause, self.tap, self._delivery
        assert cause is not None
        self._timer.stop()
        if self._upstream_over or cause not in (Cause.ENDED, Cause.DONE):
            self._let_go()  # whatever else it sends, nobody is told
        if cause is Cause.REFUSED:
            self.error = self._refusal()
        elif self.error is None:
            self.error = fault_of(cause, tap, encoded=self._encoding is not None)
        seen = self._seen(cause)
        ending = ending_of(seen)
        flags = flags_of(seen, ending)
        if tap is not None and cause is not Cause.REFUSED:
            if self.error is None:
                self._final = tap.release()
            elif not (delivery.began or tap.streams):
                self._final = tap.partial()  # it stopped in the middle: delivered as far as it came, and visibly cut
        if delivery.is_echo(self._final):
            self.error = self.error or UpstreamBroken("The provider's answer cannot be passed on.")
            self._final = b""
            self._end_as_echo(ending)
            flags = ("credential_echoed",)
        if delivery.gone and not delivery.began:
            self.status = 499
        elif delivery.began or self._final:
            self.status = 200
        else:
            self.status = self.error.status if self.error is not None else 502
        self._verdict = self._settle(ending, flags)

    def _end_as_echo(self, ending: Ending) -> None:
        """Make it the ending of an answer that is not passed on, or no further: what the client has is charged."""
        if self._delivery.began:
            ending.end_state, ending.complete, ending.whole = EndState.UPSTREAM_CUT, False, False
        else:
            ending.end_state, ending.began, ending.usage = EndState.UPSTREAM_ERROR, False, None

    def _settle(self, ending: Ending, flags: tuple[str, ...]) -> Verdict:
        verdict = self._books.settle(ending, status=self.status, first_byte=self.first_byte, flags=flags)
        self._settled = True
        return verdict

    def _durable(self, failure: NexusError | None) -> None:
        """It is charged, or will be: answer with a refusal, a whole body, the terminal bytes, or a visible cut."""
        try:
            if self._ended:
                return
            delivery, final = self._delivery, self._final
            self._final = b""
            if failure is not None:  # it cannot be charged, so it must not look whole
                final = final if self.error is not None else b""
                self.error = failure
            if delivery.gone:
                pass
            elif delivery.began:
                self._close_stream(final)
                if self.error is None and not self._upstream_over:
                    # Settled already; what still comes behind `[DONE]` is let through, but not waited for long.
                    self._answered = True
                    self._stop_grace()
                    self._grace = self._loop.call_later(END_GRACE_S, self._end_stream)
                    return
            elif final and self.error is None:
                self._open(ResponseStart(self._content_type, self._encoding, final, self._verdict))
            elif final:
                self._deliver(final, last=True)
                delivery.cut()
            else:
                self._open_error(self.error or UpstreamBroken("The model's provider sent an empty answer."))
            self._wind_up()
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)

    def _close_stream(self, final: bytes) -> None:
        """End a stream that has begun: properly if the provider did, else visibly cut, with one error event of ours."""
        tap, delivery = self.tap, self._delivery
        assert tap is not None
        if self.error is None:
            delivery.give(final)
            delivery.give(self._late)
            if delivery.echoed and self._upstream_over:
                delivery.cut()
            elif self._upstream_over:
                delivery.end()
            return
        if delivery.echoed:
            if tap.streams and delivery.at_boundary:  # what the tap let go after that did not go out
                delivery.add(error_event(self.error))
            delivery.cut()
            return
        if self.cause is not Cause.REFUSED:
            delivery.give(tap.partial())
        if not tap.streams:
            if self.cause is Cause.REFUSED:
                delivery.give(error_document(self.error))
        elif tap.at_boundary:
            delivery.give(error_event(self.error))
        delivery.cut()

    def _end_stream(self) -> None:
        try:
            if self._delivery.echoed:
                self._delivery.cut()
            else:
                self._delivery.end()
            self._wind_up()
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)

    def _wind_up(self, fault: BaseException | None = None) -> None:
        """Give everything back, once. What is not yet settled or answered by now is so by a fault of our own."""
        if self._ended:
            return
        self._ended = True
        self.cause = self.cause or Cause.BROKEN
        try:
            if not self._settled:
                self.status = self.status or 502
                # Of what was seen only what is sure to be told: the fault may lie in the telling.
                began = self.first_byte is not None
                self._settle(
                    Ending(EndState.UPSTREAM_ERROR, began, False, None, self._outgoing.prompt_estimate, 0), ("fault",)
                )
        except Exception as another:  # noqa: BLE001 - the ledger's recovery settles what this could not
            fault = fault or another
        if not self.opening.done():
            self._open_error(UpstreamBroken("The model's provider failed to answer."))
        self._delivery.cut()
        self._let_go()
        self._timer.end()
        self._stop_grace()
        if self._dialing is not None:
            self._dialing.cancel()
        if self._draining:
            self._drains.leave()
        on_over, self._on_over = self._on_over, None
        assert on_over is not None
        on_over(self, fault)

    def _seen(self, cause: Cause) -> Seen:
        tap, encoded = self.tap, self._encoding is not None
        return Seen(
            cause,
            tap,
            self._outgoing,
            sent=self._sent,
            streaming=self._delivery.began,
            client_gone=self._delivery.gone,
            unread=self._received if encoded else tap.unread if tap is not None else 0,
            encoded=encoded,
            echoed=self._delivery.echoed,
            error=self.error,
        )

    def _refusal(self) -> NexusError:
        payload: Any = self.tap.refusal if self.tap is not None else read_error_body(self._error_body)
        return read_refusal(
            self._status,
            payload,
            self._model.dialect,
            secret=self._upstream.provider.api_key,
            retry_after_ns=self._retry_after,
        )

    # --- small steps ------------------------------------------------------------------------------------------

    def _deliver(self, data: bytes, *, last: bool = False) -> None:
        delivery = self._delivery
        began = delivery.began
        delivery.give(data, last=last)
        if delivery.began and not began:
            self._open(ResponseStart(self._content_type, self._encoding))
        if delivery.echoed:
            self._finish(Cause.BROKEN)

    def _open(self, opening: ResponseStart) -> None:
        if not self.opening.done():
            self.opening.set_result(opening)

    def _open_error(self, error: NexusError) -> None:
        if not self.opening.done():
            self.error = self.error or error
            self.opening.set_exception(error)
            self.opening.exception()  # the handler may be gone; that is no news

    def _stop_grace(self) -> None:
        if self._grace is not None:
            self._grace.cancel()
            self._grace = None

    def _let_go(self) -> None:
        connection, self._connection = self._connection, None
        if connection is None:
            return
        if connection.reusable and self._upstream_over:
            self._upstream.keep(connection)
        else:
            connection.abort()

    def _begin_timer(self) -> None:
        try:
            if self.cause is None:
                self._timer.begin()
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)

    def _progress(self) -> None:
        try:
            tap = self.tap
            # In this order: to ask a document that has not ended costs a scan.
            if tap is not None and self.cause is None and tap.began:
                usage, prompt_estimate = usage_of(tap, self._outgoing), self._outgoing.prompt_estimate
                self._books.progress(usage, prompt_estimate, tap.output_bytes, thought=tap.thought)
        except Exception as fault:  # noqa: BLE001 - a way in
            self._wind_up(fault)
