"""What the events of one stream have in common, so that most of them need no parser.

Strategy: from one event to the next a provider changes the text that is said, and nothing else. Of an event that was
read, the bytes before and behind that text are kept; that they are what they seem is proved by reading them again
around another text. From then on bytes that begin and end so, with one JSON string between, read the same but for their
text: whatever a well-formed string says, it ends at its own quote. All else is read as if there were no template.
"""

from typing import Any, Final

import orjson

TEMPLATE_BYTES_MAX: Final = 4096  # of an event whose template is kept; longer events are read
_OTHER: Final = "another text"


class EventTemplate:
    """The two ends of an event: all of it but what is between the quotes of its text."""

    __slots__ = ("_after", "_before", "_from", "_to")

    def __init__(self, before: bytes, after: bytes) -> None:
        self._before = before  # with the quote that opens the text
        self._after = after  # with the quote that closes it
        self._from = len(before) - 1
        self._to = 1 - len(after)

    def said(self, data: bytes) -> int:
        """Return the UTF-8 bytes of the text in one or more whole events of this template; 0 if it is anything else, or
        an event of it says nothing."""
        if not (data.startswith(self._before) and data.endswith(self._after)):
            return 0
        try:
            return _size(data[self._from : self._to])
        except orjson.JSONDecodeError:
            return self._said_by_each(data)

    def _said_by_each(self, data: bytes) -> int:
        texts = data[self._from + 1 : self._to - 1].split(self._after + self._before)
        if len(texts) == 1:
            return 0
        try:
            sizes = [_size(b'"%b"' % text) for text in texts]
        except orjson.JSONDecodeError:
            return 0
        return sum(sizes) if all(sizes) else 0


def _size(quoted: bytes) -> int:
    text: str = orjson.loads(quoted)  # what begins with a quote is a string
    return len(text) if text.isascii() else len(text.encode())


def template_of(event: bytes, at: int, found: dict[str, Any], names: frozenset[str]) -> EventTemplate | None:
    """Return the template of an event that was read, if all that it can say is one text.

    `event` is one `data:` line and a blank one, both with their LF; its JSON, from `at` on, is `found`; `names` are
    those of texts. It is no error and reports no usage.
    """
    choices = found.get("choices")
    if len(event) > TEMPLATE_BYTES_MAX or not isinstance(choices, list) or len(choices) != 1:
        return None
    choice = choices[0]
    delta = choice.get("delta") if isinstance(choice, dict) else None
    if not isinstance(delta, dict) or any(choice.get(name) for name in ("finish_reason", "message", "usage")):
        return None
    said = [name for name, value in delta.items() if value and (name in names or not isinstance(value, str))]
    if len(said) != 1 or not isinstance(text := delta[said[0]], str):
        return None
    try:
        quoted = orjson.dumps(text)
    except orjson.JSONEncodeError:  # half a character
        return None
    start = event.rfind(quoted)
    if start < at:
        return None
    template = EventTemplate(event[: start + 1], event[start + len(quoted) - 1 :])
    return template if _is_text(template, at, found, delta, said[0]) else None


def _is_text(template: EventTemplate, at: int, found: dict[str, Any], delta: dict[str, Any], name: str) -> bool:
    """Tell whether it is this text that may change, and nothing else does with it."""
    text = delta[name]
    other = delta[name] = text + _OTHER  # never the text that is there
    try:
        return bool(orjson.loads(template._before[at:] + orjson.dumps(other)[1:-1] + template._after) == found)
    except (orjson.JSONDecodeError, RecursionError):  # the parser goes deeper than a comparison does
        return False
    finally:
        delta[name] = text
