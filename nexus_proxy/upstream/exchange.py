"""One upstream call, from the first byte sent to the settlement.

Strategy: an exchange is driven by what happens to it (bytes, an end, a clock, the ledger's word), not by a task, and it
outlives its client. The parser's callbacks move the bytes: provider → tap → client. Why the call is over is one value,
`Cause`, set once; then it is settled, and only when that is durable the terminal bytes go. Everything after the cause
is decided from that value and from what the tap saw. The client is a sink that may leave at any point, which changes
only who is listening. Whatever fails, `_wind_up` settles the hold, answers the client and gives everything back.
"""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

from nexus_proxy.config import Limits, Timeouts
from nexus_proxy.core.judgement import Cause, Seen, ending_of, fault_of, flags_of, usage_of
from nexus_proxy.core.model import Model
from nexus_proxy.core.places import Places
from nexus_proxy.core.refusal import read_error_body, read_refusal
from nexus_proxy.core.requests import Outgoing
from nexus_proxy.core.settlement import Ending, EndState, Verdict
from nexus_proxy.core.tap import JsonTap, SniffTap, Tap, make_tap
from nexus_proxy.core.usage import Usage
from nexus_proxy.errors import ClientGone, NexusError, UpstreamBroken, UpstreamError
from nexus_proxy.upstream.connection import Connection, Headers
from nexus_proxy.upstream.provider import Upstream
from nexus_proxy.upstream.response import content_type_of, error_document, error_event, is_encoded, retry_after_ns
from nexus_proxy.upstream.watch import Watch

ERROR_BODY_MAX = 64 * 1024
_LF = 10  # ends an event, and no credential has it
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


class Client(Protocol):
    """Who listens. None of these may raise or block."""

    def send(self, data: bytes) -> None:
        """Send bytes of the body now."""

    def end(self) -> None:
        """The answer is whole: end the body as its framing says."""

    def cut(self) -> None:
        """The answer is not whole: close the connection so that everybody can see it."""


class Opening(NamedTuple):
    """What the client's response starts with. With `whole` it is all of it, settled by `verdict`."""

    content_type: str
    content_encoding: str | None
    whole: bytes | None = None
    verdict: Verdict | None = None

    def __repr__(self) -> str:
        return f"Opening({self.content_type!r})"  # the answer: for no log


class _Final(NamedTuple):
    """What is said when the settlement is durable: the whole answer, or as far as it came."""

    whole: bytes
    prefix: bytes
    verdict: Verdict | None


_NOTHING = _Final(b"", b"", None)

OnOver = Callable[["Exchange", BaseException | None], None]


class Exchange:
    """One call. `opening` ends with an Opening or the NexusError for the client."""

    __slots__ = (
        "_answered",
        "_books",
        "_choices",
        "_client",
        "_client_gone",
        "_connection",
        "_content_type",
        "_dialing",
        "_drain_from",
        "_draining",
        "_drains",
        "_echoed",
        "_encoding",
        "_ended",
        "_error_body",
        "_farewell",
        "_final",
        "_grace",
        "_held",
        "_limits",
        "_loop",
        "_model",
        "_on_over",
        "_outgoing",
        "_paused",
        "_pending",
        "_received",
        "_retry_after",
        "_reused",
        "_secret",
        "_sent",
        "_settled",
        "_status",
        "_stream",
        "_upstream",
        "_upstream_over",
        "_watch",
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
        self._limits = limits
        self._drains = drains
        self._watch = Watch(self._loop, timeouts, on_due=self._finish, on_progress=self._progress)
        self._on_over: OnOver | None = None
        self._connection: Connection | None = None
        self._dialing: asyncio.Task[Connection] | None = None
        self._grace: asyncio.TimerHandle | None = None
        self._client: Client | None = None
        self._client_gone = self._draining = self._paused = False
        self._drain_from = 0
        self._pending: list[bytes] = []  # released before the client's head was out
        self._farewell: Callable[[Client], None] | None = None  # how the client's answer ends; nothing follows it
        self._stream = False  # bytes have been released: the client's answer is a 200 that began
        self._reused = self._sent = False
        self._upstream_over = False  # nothing more comes from the provider
        self._settled = self._answered = self._ended = False
        self._final = _NOTHING
        self._received = 0
        self._status = 0
        self._content_type = ""
        self._encoding: str | None = None
        self._secret = upstream.secret
        self._echoed = False  # the provider sent our credential back
        self._held = b""  # the last bytes, which could be the beginning of our credential: they wait for what follows
        self._choices = False  # what looks like a completion came, whatever else it looked like
        self._error_body = b""
        self._retry_after: int | None = None
        self.tap: Tap | None = None
        self.opening: asyncio.Future[Opening] = self._loop.create_future()
        self.cause: Cause | None = None  # why it is over
        self.error: NexusError | None = None  # what the client was told, or would have been
        self.first_byte: float | None = None  # the loop's time
        self.status = 0  # the HTTP status of the client's answer, 499 if it left before one began

    def begin(self, on_over: "OnOver") -> None:
        """Send the request. `on_over` is called once, when all is settled, said and given back; with the fault if one
        of our own ended it."""
        self._on_over = on_over
        if self.cause is not None:  # the client has left already, and the provider gets nothing
            self._loop.call_soon(self._conclude)
            return
        try:
            connection = self._upstream.take_idle()
            if connection is None:
                self._dial()
            else:
                self._reused = True
                self._send(connection)
        except Exception as fault:  # noqa: BLE001 - see the strategy
            self._wind_up(fault)

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
        if self.cause is not None:
            return
        if not self._sent or self._upstream.provider.on_disconnect == "cancel" or not self._drains.enter():
            self._finish(Cause.ABANDONED)
            return
        self._draining = True
        self._drain_from = self._received
        # An unstreamed answer comes at its end or not at all, so it has the exchange's own time.
        self._watch.drain(self._loop.time() + self._limits.drain_s if self._outgoing.stream else None)

    def pause(self) -> None:
        """The client cannot keep up: stop reading from the provider."""
        if not self._paused and self.cause is None:
            self._paused = True
            self._watch.pause()
            if self._connection is not None:
                self._connection.pause()

    def resume(self) -> None:
        """The client has caught up."""
        if self._paused:
            self._paused = False
            if self._connection is not None:
                self._connection.resume()
            if self.cause is None:
                self._watch.resume()

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
        now = self._watch.heard_at = self._loop.time()
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
            self.first_byte = now
            if isinstance(tap, SniffTap):
                self.tap = tap = tap.settled
            # Not now: an answer that came whole is over before this runs, and needs neither clock nor journal.
            self._loop.call_soon(self._begin_watch)
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

    def _done_at_last(self) -> None:
        if self.tap is not None and self.cause is None:
            self.tap.end()
            self._finish(Cause.DONE)

    def on_end(self) -> None:
        try:
            if self.tap is not None:
                self.tap.end()
            self._upstream_over = True
            refused = self.tap is None or self.tap.refusal is not None
            self._finish(Cause.REFUSED if refused else Cause.ENDED)
            if not self._stream:
                self._conclude()  # now: no bytes are on their way to the client
            elif self._answered:
                self._end_stream()
        except Exception as fault:  # noqa: BLE001 - see the strategy
            self._wind_up(fault)

    def on_broken(self, reason: str) -> None:
        assert self._connection is not None
        self._upstream_over = True
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
        else:
            self._finish(Cause.DONE if self.tap is not None and self.tap.done else Cause.BROKEN)

    def _is_stale(self, connection: Connection) -> bool:
        retry = self._reused and self._upstream.provider.retry_stale and not self._client_gone
        return retry and not connection.heard

    # --- from the first byte to the last ----------------------------------------------------------------------

    def _dial(self) -> None:
        self._dialing = self._loop.create_task(self._upstream.connect())
        self._dialing.add_done_callback(self._dialed)

    def _dialed(self, dialing: asyncio.Task[Connection]) -> None:
        self._dialing = None
        try:
            connection = dialing.result()
            if self.cause is None:
                self._send(connection)
            else:  # the client left meanwhile, or the server is ending, and the provider got nothing
                connection.abort()
        except UpstreamError as error:
            self.error = self.error or error
            self.cause = self.cause or Cause.BROKEN
        except asyncio.CancelledError:
            self.cause = self.cause or Cause.SHUT_DOWN
        except Exception as fault:  # noqa: BLE001 - see the strategy
            self._wind_up(fault)
        if self.cause is not None:
            self._conclude()

    def _send(self, connection: Connection) -> None:
        upstream, outgoing = self._upstream, self._outgoing
        self._connection = connection
        self._sent = True
        self._watch.start()
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
        if self._settled or self._ended:
            return
        try:
            self._settle_up()
            self._books.when_durable(self._durable)
        except Exception as fault:  # noqa: BLE001 - see the strategy
            self._wind_up(fault)

    def _settle_up(self) -> None:
        cause, tap = self.cause, self.tap
        assert cause is not None
        self._watch.stop()
        if self._upstream_over or cause not in (Cause.ENDED, Cause.DONE):
            self._let_go()  # whatever else it sends, nobody is told
        if self.error is None:
            self.error = (
                self._refusal() if cause is Cause.REFUSED else fault_of(cause, tap, encoded=self._encoding is not None)
            )
        seen = self._seen(cause)
        ending, flags = ending_of(seen), flags_of(seen)
        whole = prefix = b""
        if tap is not None and not self._stream and cause is not Cause.REFUSED:
            if self.error is None:
                whole = tap.release()
                if self._is_echo(whole):
                    whole, self.error = b"", UpstreamBroken("The provider's answer cannot be passed on.")
                    ending = ending._replace(end_state=EndState.UPSTREAM_ERROR, began=False, usage=None)
                    flags = flags_of(self._seen(cause))
            elif not tap.streams:
                prefix = tap.partial()  # it stopped in the middle: delivered as far as it came, and visibly cut
        if self._client_gone and not self._stream:
            self.status = 499
        elif self._stream or whole or prefix:
            self.status = 200
        else:
            self.status = self.error.status if self.error is not None else 502
        self._final = _Final(whole, prefix, self._settle(ending, flags))

    def _settle(self, ending: Ending, flags: tuple[str, ...]) -> Verdict:
        verdict = self._books.settle(ending, status=self.status, first_byte=self.first_byte, flags=flags)
        self._settled = True
        return verdict

    def _durable(self, error: NexusError | None) -> None:
        """It is charged, or will be: answer with a refusal, a whole body, the terminal bytes, or a visible cut."""
        if self._ended:
            return
        try:
            self._answer(error)
        except Exception as fault:  # noqa: BLE001 - see the strategy
            self._wind_up(fault)

    def _answer(self, error: NexusError | None) -> None:
        whole, prefix, verdict = self._final
        if error is not None:
            whole, self.error = b"", error  # it cannot be charged, so it must not look whole
        if self._client_gone:
            pass
        elif self._stream:
            self._close_stream()
            if self.error is None and not self._upstream_over:
                # Settled already; what still comes behind `[DONE]` is let through, but not waited for long.
                self._answered = True
                self._stop_grace()
                self._grace = self._loop.call_later(END_GRACE_S, self._end_stream)
                return
        elif whole:
            self._open(Opening(self._content_type, self._encoding, whole, verdict))
        elif prefix:
            self._deliver(prefix)
            self._say(_cut)
        else:
            self._open_error(self.error or UpstreamBroken("The model's provider sent an empty answer."))
        self._wind_up()

    def _close_stream(self) -> None:
        """End a stream that has begun: properly if the provider did, else visibly cut, with one error event of ours."""
        tap = self.tap
        assert tap is not None
        if self.error is None:
            self._deliver(tap.release())
            if self._upstream_over:
                self._say(_end)
            return
        if self.cause is not Cause.REFUSED:
            self._deliver(tap.partial())
        if not tap.streams:
            if self.cause is Cause.REFUSED:
                self._deliver(error_document(self.error))
        elif tap.at_boundary:
            self._deliver(error_event(self.error))
        self._say(_cut)

    def _end_stream(self) -> None:
        self._say(_end)
        self._wind_up()

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
        self._say(_cut)
        self._let_go()
        self._watch.end()
        self._stop_grace()
        if self._dialing is not None:
            self._dialing.cancel()
        if self._draining:
            self._drains.leave()
        assert self._on_over is not None
        self._on_over(self, fault)

    def _say(self, farewell: Callable[[Client], None]) -> None:
        """End the client's answer in this way; if its head is not out yet, as soon as it is. The first way counts."""
        if self._farewell is not None:
            return
        self._deliver(b"", last=True)
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
        """Give bytes to the client. What could be the beginning of our credential waits, unless these are the last."""
        if self._held:
            data, self._held = self._held + data, b""
        if not data or self._client_gone or self._farewell is not None or self._is_echo(data):
            return
        if not last and data[-1] != _LF and (size := beginning_size(data, self._secret)):
            data, self._held = data[:-size], data[-size:]
            if not data:
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

    def _begin_watch(self) -> None:
        if self.cause is None:
            self._watch.begin()

    def _progress(self) -> None:
        tap = self.tap
        # In this order: to ask a document that has not ended costs a scan.
        if tap is not None and self.cause is None and tap.began:
            usage, prompt_estimate = usage_of(tap, self._outgoing), self._outgoing.prompt_estimate
            self._books.progress(usage, prompt_estimate, tap.output_bytes, thought=tap.thought)


def _end(client: Client) -> None:
    client.end()


def _cut(client: Client) -> None:
    client.cut()


def beginning_size(data: bytes, secret: bytes) -> int:
    """Return how many of the last bytes could be the beginning of the secret, less than all of it."""
    at = max(0, len(data) - len(secret) + 1)
    while (at := data.find(secret[:1], at)) >= 0:
        if secret.startswith(data[at:]):
            return len(data) - at
        at += 1
    return 0
