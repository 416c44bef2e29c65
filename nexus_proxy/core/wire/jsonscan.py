"""Find the usage in a JSON document that is too long to hold, that broke off, or that is none.

Strategy: a regular expression jumps from mark to mark; a stack of the keys that lead to the current place tells where
a mark stands. Strings are skipped as such, whatever they contain. Of the document only the usage objects are kept, up
to USAGE_BYTES_MAX each, those of a dialect's own places too. Keys written with escapes are not recognised. Nothing in
here raises.
"""

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from nexus_proxy.core.wire.dialect import COMMON_REASONING
from nexus_proxy.core.wire.usage import Path

DEPTH_MAX: Final = 1024  # a deeper document is not scanned further
KEY_BYTES_MAX: Final = 64
USAGE_BYTES_MAX: Final = 65_536

_MARK: Final = re.compile(rb'["{}\[\],:]')
_STRING: Final = re.compile(rb'(?:[^"\\]++|\\.)*+', re.DOTALL)  # up to the closing quote, or to the end of the piece
# Whatever is complete before the next bracket that has to be counted: scalars, strings, containers without containers.
_FLAT: Final = rb'(?:[^"{}\[\]]++|"(?:[^"\\]++|\\.)*+")'
_DULL: Final = re.compile(rb"(?:%s|[{\[]%s*+[}\]])*+" % (_FLAT, _FLAT), re.DOTALL)

_CHOICE = [b"", b"choices", b""]
_USAGE: Final = (b"", b"usage")
_CHOICE_USAGE: Final = (*_CHOICE, b"usage")
_MESSAGE_DEPTH: Final = 4
_TEXTS: Final = frozenset({b"content", b"text", b"refusal", b"name", b"arguments"})
_SPACE: Final = b" \t\r\n"


class Scanner:
    """Reads a document piece by piece. `at` are a dialect's own places of usage, `reasoning` its names of thinking."""

    def __init__(self, *, at: Iterable[Path] = (), reasoning: Iterable[str] = COMMON_REASONING) -> None:
        self.kept: dict[tuple[bytes, ...], bytes] = {}  # the last value at each place of usage, by the way to it
        self._wanted = {_USAGE, _CHOICE_USAGE, *((b"", *(key.encode() for key in path)) for path in at)}
        self._last_keys = frozenset(way[-1] for way in self._wanted)
        self._deepest = max(map(len, self._wanted))
        self._ways = frozenset(way[:depth] for way in self._wanted for depth in range(2, len(way)))  # what leads there
        self._reasoning = frozenset(name.encode() for name in reasoning)
        self._texts = _TEXTS | self._reasoning
        self.choices = False  # a choice was seen
        self.finished = False  # every choice that has ended has a finish reason, and one has
        self.thought = False  # reasoning was seen
        self.text_bytes = 0  # of what the choices say, as it is written
        self.closed = False  # the document is whole, and nothing but white space follows it
        self._broken = False
        self._unfinished = False  # a choice ended without a finish reason
        self._reason = False  # the choice that is read has one
        self._path: list[bytes] = []  # for each open container the key under which it stands; b"" in an array
        self._kinds = bytearray()  # for each open container its bracket
        self._key = b""  # the key of the value that is being read
        self._key_next = False
        self._dull = False  # nothing in here counts, so that it is skipped in long strides
        self._string = False  # within a string
        self._escaped = False  # the piece before ended with a backslash within a string
        self._text = bytearray()  # of the string that is a key
        self._capture: bytearray | None = None
        self._capture_way: tuple[bytes, ...] = ()
        self._capture_depth = 0

    def feed(self, data: bytes) -> None:
        """Take the next piece."""
        at = start = 0  # `start`: from where on a captured value is not yet copied
        while at < len(data) and not self._broken:
            if self.closed:  # whatever follows is not of this document
                self._broken = bool(data[at:].strip(_SPACE))
                self.closed = not self._broken
                return
            if self._string:
                at = self._skip_string(data, at)
                continue
            if self._dull:
                at = _DULL.match(data, at).end()  # type: ignore[union-attr]  # it matches the empty string too
            match = _MARK.search(data, at)
            if match is None:
                break
            at = match.end()
            mark = data[at - 1]
            if self._capture is not None and mark in b",}]" and len(self._path) == self._capture_depth:
                self._end_capture(data[start : at - 1])
            if self._step(mark):
                start = at
            elif self._capture is not None and mark in b"}]" and len(self._path) == self._capture_depth:
                self._end_capture(data[start:at])  # now, as the document may break off here
        if self._capture is not None:
            self._add(data[start:])

    def _step(self, mark: int) -> bool:
        """Take a mark outside of strings. True if a value to keep begins after it."""
        if mark == 0x22:  # "
            self._string = True
            self._text.clear()
        elif mark in b"{[":
            self._open(mark)
        elif mark in b"}]":
            if not self._kinds or self._kinds.pop() != mark - 2:  # } and ] are two above their openers
                self._broken = True
                return False
            if self._path == _CHOICE and mark == 0x7D:  # }
                self._unfinished = self._unfinished or not self._reason
                self.finished = not self._unfinished
            self._key = self._path.pop()
            self._key_next = False
            self._dull = self._is_dull()
            self.closed = not self._path
        elif mark == 0x2C:  # ,
            self._key_next = self._kinds.endswith(b"{")
        else:  # :
            self._key_next = False
            if self._key in self._last_keys and self._capture is None and len(self._path) < self._deepest:
                way = (*self._path, self._key)
                if way in self._wanted:
                    self._capture, self._capture_way, self._capture_depth = bytearray(), way, len(self._path)
                    return True
        return False

    def _open(self, mark: int) -> None:
        if len(self._path) == DEPTH_MAX:
            self._broken = True
            return
        self._path.append(self._key)
        self._kinds.append(mark)
        self._key = b""
        self._key_next = mark == 0x7B  # {
        self._dull = self._is_dull()
        if self._path == _CHOICE and self._key_next:
            self.choices = True
            self._reason = False

    def _is_dull(self) -> bool:
        path = self._path
        if len(path) < 2 or path[1] != b"choices":
            return len(path) >= 2 and tuple(path) not in self._ways
        return len(path) > 3 and path[3] not in (b"message", b"delta")

    def _skip_string(self, data: bytes, at: int) -> int:
        """Go to the end of the string, or of the piece; return where that is."""
        begin = at
        if self._escaped:
            self._escaped = False
            at += 1
        end = _STRING.match(data, at).end()  # type: ignore[union-attr]  # it matches the empty string too
        if self._key_next:
            self._text += data[begin : min(end, begin + KEY_BYTES_MAX - len(self._text))]
        elif self._path[1:2] == [b"choices"] and end > begin:
            if self._key in self._texts:
                self.text_bytes += end - begin
                self.thought = self.thought or (self._key in self._reasoning and len(self._path) == _MESSAGE_DEPTH)
            elif self._key == b"finish_reason" and self._path == _CHOICE:
                self._reason = True
        if end == len(data):
            return end
        if data[end] == 0x22:
            self._string = False
            if self._key_next:
                self._key = bytes(self._text)
        else:
            self._escaped = True  # a backslash, and the piece ends
        return end + 1

    def _add(self, piece: bytes) -> None:
        assert self._capture is not None
        self._capture += piece
        if len(self._capture) > USAGE_BYTES_MAX:
            self._capture = None

    def _end_capture(self, piece: bytes) -> None:
        self._add(piece)
        if self._capture is not None:
            self.kept[self._capture_way] = bytes(self._capture)
            self._capture = None

    def place(self, parse: Callable[[bytes], Any]) -> dict[str, Any]:
        """Return an object that has what was kept, parsed, where it stood."""
        found: dict[str, Any] = {}
        for way, value in self.kept.items():
            if way == _CHOICE_USAGE:
                found["choices"] = [{"usage": parse(value)}]
                continue
            holder = found
            for key in way[1:-1]:
                holder = holder.setdefault(key.decode(), {})
                if not isinstance(holder, dict):
                    break
            else:
                holder[way[-1].decode()] = parse(value)
        return found
