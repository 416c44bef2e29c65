"""The tap of a streamed answer.

Strategy: lines make blocks, a block with data is an event. There are two ways to let a block go: as its lines come
(`pass`), or whole, once its blank line is there (`whole`). The first event that says something is whole, and so are
those before it, because an error there is not relayed; so is every event where the one that our `include_usage` caused
must be removed. In either way the line `data: [DONE]` never leaves before `release`, nor do the bytes at the start of a
line that could still become it.
A block of more than EVENT_BYTES_MAX passes unparsed, and is counted as output, byte for byte. Whole events that differ
from one that was read in nothing but their text are told by their `EventTemplate`, and pass as they are.
"""

from typing import Any, Final

from nexus_proxy.core.wire.completion import CHOICES, Completion, is_error, is_unread, read_json
from nexus_proxy.core.wire.dialect import Dialect
from nexus_proxy.core.wire.sse import BOM, COLON, CR, DONE, LF, LineSplitter, might_be_done
from nexus_proxy.core.wire.template import EventTemplate, template_of

EVENT_BYTES_MAX: Final = 1 << 20  # a longer event passes unparsed
TEMPLATE_EVERY_BYTES: Final = 64  # of output: a template costs as much as a few events that are read


class SseTap(Completion):
    """Reads a stream of events. See `tap.Tap` for what its members promise."""

    __slots__ = (
        "_block",
        "_boundary",
        "_data",
        "_drop",
        "_dropped_last",
        "_ended",
        "_first",
        "_kept",
        "_kept_size",
        "_long",
        "_name",
        "_opening",
        "_ready",
        "_released",
        "_sent",
        "_size",
        "_splitter",
        "_tail",
        "_template",
        "_template_due",
        "_unread",
        "_whole",
        "done",
        "refusal",
    )

    streams = True

    def __init__(self, dialect: Dialect, *, drop_usage_event: bool) -> None:
        super().__init__(dialect)
        self.refusal: dict[str, Any] | None = None
        self.done = False
        self._drop = drop_usage_event
        self._opening = True  # no event that says something has been seen yet
        self._unread = 0  # bytes of events, and of lines of none, that look like a completion and could not be read
        self._splitter = LineSplitter()
        self._first = True  # the first line, which may begin with a byte order mark
        self._sent = 0  # bytes of the incomplete line that the client has
        self._tail = False  # the incomplete line is so long that its head has been forgotten
        self._block = False  # a field line has come, its blank line has not
        self._long = False  # the block is too long: it passes, and is not parsed
        self._whole = True  # the block that is open, or comes next, is let go whole
        self._size = 0  # bytes of the block that are remembered
        self._data: list[bytes] = []  # the block's data lines
        self._name = b""  # the block's event name
        self._kept: list[bytes] = []  # the block's lines, if it goes whole; after `[DONE]`, the terminal bytes
        self._kept_size = 0  # of the terminal bytes
        self._dropped_last = False  # the last line ended the event that was removed
        self._ended = False
        self._released = False
        self._boundary: bool | None = None  # once it is final: what `at_boundary` says
        self._template: EventTemplate | None = None  # of the last event that has one
        self._template_due = 0  # the output from which on another one is looked for
        self._ready: EventTemplate | None = None  # the same, while nothing is kept back and an event can begin

    # --- what the exchange asks -----------------------------------------------------------------------------------

    @property
    def complete(self) -> bool:
        """`[DONE]` came, or every choice has a finish reason and the body ended as its framing says."""
        return self.done or (self._ended and self.finished)

    @property
    def broken(self) -> bool:
        """The body ended, and the stream in it did not; no error that was relayed says why."""
        return self._ended and not self.complete and self.error is None

    @property
    def unread(self) -> int:
        """Bytes of what looks like a completion and could not be read; of a cut event, if nothing else came."""
        if self.began:
            return self._unread
        cut = b"".join([*self._data, self._splitter.rest])
        return self._unread + (len(cut) if CHOICES in cut else 0)

    @property
    def at_boundary(self) -> bool:
        """The client has whole events only, so that one of ours can follow."""
        if self._boundary is not None:
            return self._boundary
        return not (self._sent or self._tail) and (not self._block or self._whole)

    @property
    def kept(self) -> int:
        """Bytes that are kept back now."""
        return sum(map(len, self._kept)) + len(self._splitter.rest) - self._sent

    # --- bytes ----------------------------------------------------------------------------------------------------

    def follow(self, head: bytes) -> None:
        """Begin within a line: the client has its head already."""
        self._splitter.rest += head
        self._sent = len(head)

    def feed(self, data: bytes) -> bytes:
        """Take bytes of the body as they come; return what the client may have now."""
        ready = self._ready
        if ready is not None and (said := ready.said(data)) and len(data) <= EVENT_BYTES_MAX:
            self.output_bytes += said
            return data
        out = self._feed(data)
        # What follows can be known by its template if it begins an event, and nothing before it is in hand.
        clear = not (self._block or self._tail or self.done or self._released or self.refusal)
        self._ready = self._template if clear and self._splitter.at_start else None
        return out

    def _feed(self, data: bytes) -> bytes:
        if not data or self.refusal is not None:
            return b""
        if self._released:
            self._boundary = False
            return data
        if self.done:
            self._keep_terminal(data)
            return b""
        out: list[bytes] = []
        lines = self._splitter.feed(data)
        if self._splitter.glue and not self._dropped_last:
            (self._kept if self._block and self._whole else out).append(b"\n")
        self._dropped_last = False
        if lines:
            self._take(lines, out)
        if self._splitter.rest and not self.done:
            self._take_rest(out)
        if not out:
            return b""
        return out[0] if len(out) == 1 else b"".join(out)

    def end(self) -> None:
        """The body ended as its framing says. What its last, unfinished event reports counts."""
        if not (self._ended or self.done or self._released or self.refusal):
            self._boundary = self.at_boundary
            out: list[bytes] = []
            if self._splitter.rest:
                self._take([self._splitter.forget()], out)
            if self._block:
                self._end_block(b"", out)
            self._kept = out
        elif self.done and self.usage is None and not self._released:
            self._read_behind()
        self._ended = True

    def _read_behind(self) -> None:
        """Look for the usage behind `[DONE]`: some put it there, and clients do not read so far."""
        for line in b"".join(self._kept).splitlines():
            if line.startswith(b"data:") and not DONE.match(line):
                found = read_json(line[5:])
                if isinstance(found, dict):
                    self.read(found)

    def partial(self) -> bytes:
        """Return, and forget, what is kept back of an unfinished event or line: never a terminal byte.

        For a stream that was cut: it may follow what the client has. Nothing is to be fed afterwards.
        """
        if self.done or self.refusal is not None:
            return b""
        boundary = self.at_boundary
        rest = b"".join(self._kept) + self._splitter.forget()[self._sent :]
        self._kept.clear()
        self._sent = 0
        self._boundary = boundary and not rest
        return rest

    def release(self) -> bytes:
        """Return everything that is kept back, for the client; from now on `feed` keeps nothing back."""
        self._ready = None
        if self.done:
            rest = b"".join(self._kept)
            self._kept.clear()
            if rest:
                self._boundary = rest.endswith((b"\n\n", b"\r\r", b"\r\n\r\n"))
        else:
            rest = self.partial()
        self._released = True
        return rest

    # --- lines and blocks -----------------------------------------------------------------------------------------

    def _take(self, lines: list[bytes], out: list[bytes]) -> None:
        sent = self._sent
        self._sent = 0
        special = sent > 0 or self._first or self._tail
        whole = self._whole
        for number, line in enumerate(lines):
            raw = line
            if special:
                special = False
                first, self._first = self._first, False
                if self._tail:
                    self._tail = False
                    self._pass(line, out)
                    continue
                raw = line[sent:]
                if first:
                    line = line.removeprefix(BOM)
            head = line[0] if line else COLON  # a stream of nothing but a byte order mark says nothing
            if head in (LF, CR):
                if self._block:
                    self._dropped_last = self._end_block(raw, out) and number + 1 == len(lines)
                    if self.refusal is not None:
                        return
                    whole = self._whole
                else:
                    out.append(raw)
                continue
            if head == COLON:
                if not (self._block and whole):
                    out.append(raw)
                    continue
            elif line.startswith(b"data:"):
                if DONE.match(line):
                    self._terminate([raw, *lines[number + 1 :]], out)
                    return
                self._block = True
                if not self._long:
                    self._data.append(line)
            else:
                self._block = True
                if line.startswith(b"event:"):
                    self._name = line[6:].strip()
                elif CHOICES in line:
                    self._unread += len(line)
            if self._long:
                self._pass(raw, out)
                continue
            (self._kept if whole else out).append(raw)
            self._size += len(line)
            if self._size > EVENT_BYTES_MAX:
                self._give_up(out)
                whole = False

    def _take_rest(self, out: list[bytes]) -> None:
        """Decide what of the incomplete line may go, and bound what is remembered of it."""
        rest = self._splitter.rest
        if self._tail:
            self._pass(self._splitter.forget(), out)
            return
        if rest[0] == COLON:
            if not (self._block and self._whole):
                out.append(self._splitter.forget())
                self._tail = True
                return
        elif DONE.match(rest):
            self._terminate([], out)
            return
        elif not self._whole and not might_be_done(rest):
            out.append(bytes(rest[self._sent :]) if self._sent else bytes(rest))
            self._sent = len(rest)
        if self._size + len(rest) > EVENT_BYTES_MAX:
            sent, self._sent, self._tail, self._block = self._sent, 0, True, True
            line = self._splitter.forget()
            self._give_up(out)
            self.output_bytes += len(line)
            out.append(line[sent:])

    def _pass(self, raw: bytes, out: list[bytes]) -> None:
        """Let bytes go that nothing is read from; of a block that is too long they count as output."""
        out.append(raw)
        if self._long:
            self.output_bytes += len(raw)

    def _give_up(self, out: list[bytes]) -> None:
        """The block is too long: let go what was kept of it, and read no more of it."""
        out.extend(self._kept)
        self._kept.clear()
        self._data.clear()
        self.output_bytes += self._size
        self.began = True
        self._size = 0
        self._long = True
        self._opening = self._whole = False

    def _end_block(self, blank: bytes, out: list[bytes]) -> bool:
        """The block is whole: read its event and let it go. True if it was removed instead."""
        removed = bool(self._data) and self._event(blank)
        if self.refusal is not None:
            out.clear()
            self._kept.clear()
            self._splitter.forget()
            return True
        if removed:
            self._kept.clear()
        else:
            if self._kept:
                out.extend(self._kept)
                self._kept.clear()
            if blank:
                out.append(blank)
        if self._opening and (self.began or self._unread):  # what says less is like a keep-alive
            self._opening = False
        self._data.clear()
        self._name = b""
        self._size = 0
        self._block = self._long = False
        self._whole = self._opening or self._drop
        return removed

    def _event(self, blank: bytes) -> bool:
        """Read an event. True if it is not for the client: a refusal, or the usage that only we asked for."""
        # Line ends and leading blanks stay in: between JSON's tokens they mean nothing, within a string they are wrong.
        payload = self._data[0][5:] if len(self._data) == 1 else b"".join([line[5:] for line in self._data])
        found = read_json(payload)
        if not isinstance(found, dict):
            if self._name != b"error":
                self._unread += len(payload) if is_unread(found, payload) else 0
                return False
            found = {"error": {"message": payload.decode("utf-8", "replace").strip()}}
        if self._name == b"error" or is_error(found, self._dialect):
            self.error = found
            if self._opening:  # though a keep-alive may be out: what it says is not for the client as it stands
                self.refusal = found
                return True
            self.read(found)
            return False
        reports = self.read(found)
        if not (self.output_bytes or reports) and is_unread(found, payload):
            self._unread += len(payload)
        if not reports and self.output_bytes >= self._template_due:
            self._look_for_template(found, blank)
        return reports and self._drop and found.get("choices") == []

    def _look_for_template(self, found: dict[str, Any], blank: bytes) -> None:
        """See what the events that follow may have in common with this one."""
        line = self._data[0]
        if len(self._data) > 1 or self._name or not (line.endswith(b"\n") and blank.endswith(b"\n")):
            return
        event = line + blank
        if self._template is None or not self._template.said(event):
            self._template = template_of(event, 5, found, self._texts)
            self._template_due = self.output_bytes + TEMPLATE_EVERY_BYTES

    def _terminate(self, lines: list[bytes], out: list[bytes]) -> None:
        """The line that ends the answer has begun: from here on everything waits."""
        self._boundary = not self._block
        if self._block:
            self._end_block(b"", out)
            if self.refusal is not None:
                return
        self.done = True
        for line in lines:
            self._keep_terminal(line)
        self._keep_terminal(self._splitter.forget())

    def _keep_terminal(self, data: bytes) -> None:
        """Keep bytes back; what follows the end by more than a mebibyte is nobody's, and not kept."""
        room = EVENT_BYTES_MAX - self._kept_size
        if data and room > 0:
            self._kept.append(data[:room])
            self._kept_size += min(len(data), room)
