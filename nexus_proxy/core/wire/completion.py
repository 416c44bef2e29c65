"""What a provider's JSON says about an answer: its usage, how far it got, or that it is an error.

Strategy: only top-level fields count, in the objects of the provider, never text that looks like them. Nothing of a
provider's shape is taken for granted: what has an unexpected type is as if it were not there. Nothing in here raises.
"""

import json
from typing import Any, Final

import orjson

from nexus_proxy.core.wire.dialect import COMMON_FAILURES, Dialect, Failure
from nexus_proxy.core.wire.usage import Usage, find, later_usage, over_choices, read_usage, with_thinking

CHOICES_MAX: Final = 1024  # choice indexes that are remembered; `n` is at most 128
CHOICES: Final = b'"choices"'  # what a completion is known by, however broken the rest of it is


def read_json(payload: bytes | bytearray) -> Any:
    """Parse a JSON text, or return None. Takes lone surrogates, which some providers cut characters into."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            return json.loads(payload)
        except (ValueError, RecursionError):
            return None


def is_error(found: dict[str, Any], dialect: Dialect) -> bool:
    """Tell whether an object is an error, in the dialect's shape or in any provider's, whatever its HTTP status."""
    if found.get("error"):
        return True
    own = dialect.failure
    if found.get("choices"):
        # Part of a completion, which is charged: what is wrong beside it is so only if the choices say nothing.
        return bool(own) and _fails(found, own) and not _says(found, dialect)
    return _fails(found, COMMON_FAILURES) or _fails(found, own)


def is_unread(found: Any, body: bytes | bytearray) -> bool:
    """Tell whether what looks like a completion could not be read as one: it does not parse, or its choices are in
    another place or of another type. Choices that are empty or null are read: there are none.

    `found` is what `body` was parsed to, or None.
    """
    if isinstance(found, dict) and "choices" in found:
        choices = found["choices"]
        return bool(choices) and not (isinstance(choices, list) and any(isinstance(one, dict) for one in choices))
    return CHOICES in body


def _fails(found: dict[str, Any], failures: tuple[Failure, ...]) -> bool:
    return any(failure.is_in(found) for failure in failures)


def _says(found: dict[str, Any], dialect: Dialect) -> bool:
    answer = Completion(dialect)
    answer.read(found)
    return answer.output_bytes > 0 or answer.usage is not None


class Completion:
    """What has been seen of one answer."""

    # Slots, here and in the taps: an object of more than 30 attributes is slow without them, and larger.
    __slots__ = (
        "_by_choice",
        "_dialect",
        "_shape",
        "_texts",
        "began",
        "choices",
        "error",
        "finish",
        "output_bytes",
        "thought",
        "usage",
    )

    def __init__(self, dialect: Dialect) -> None:
        self.usage: Usage | None = None  # the last real usage seen
        self.output_bytes = 0  # UTF-8 bytes of content, reasoning and tool calls seen
        self.began = False  # part of a completion was seen
        self.thought = False  # reasoning was seen
        self.error: dict[str, Any] | None = None  # the last error object seen, refused or relayed
        self.finish: dict[int, str] = {}  # by choice index
        self.choices: set[int] = set()  # the indexes seen
        self._dialect = dialect
        self._shape = dialect.usage
        self._texts = dialect.text_names
        self._by_choice: dict[int, Usage] | None = None  # usages, where the dialect has them so

    @property
    def finished(self) -> bool:
        """Every choice that was seen has a finish reason, and one was seen."""
        return bool(self.choices) and len(self.finish) == len(self.choices)

    def read(self, found: dict[str, Any]) -> bool:
        """Take one chunk, or one whole completion. Tell whether it reports real usage."""
        shape = self._shape
        in_choice = None
        choices = found.get("choices")
        if choices and isinstance(choices, list):
            whole = 0
            for choice in choices:
                if not isinstance(choice, dict):
                    continue
                self.began = True
                index = choice.get("index") or 0
                if index and (type(index) is not int or not 0 <= index < CHOICES_MAX):
                    index = 0
                self.choices.add(index)
                if (reason := choice.get("finish_reason")) and isinstance(reason, str):
                    self.finish[index] = reason
                if (delta := choice.get("delta")) and isinstance(delta, dict):
                    self.output_bytes += self._read_message(delta)
                if (message := choice.get("message")) and isinstance(message, dict):
                    whole += self._read_message(message)
                if shape.in_choice and (told := choice.get("usage")):
                    in_choice = told
                    self._read_choice(index, told)
            if whole > self.output_bytes:  # whole messages may repeat what deltas have said
                self.output_bytes = whole
        reported = self._placed(found) if shape.at else found.get("usage")
        if reported is None and in_choice is None:
            usage = None
        else:
            usage = read_usage(reported, in_choice, shape)
            if in_choice is not None and self._by_choice and not self._is_real(reported):
                usage = over_choices(self._by_choice.values())
            if usage is not None:
                self.began = True
                self.usage = usage if self.usage is None else later_usage(self.usage, usage)
        if self.thought and self.usage is not None:
            self.usage = with_thinking(self.usage)
        return usage is not None

    def _read_choice(self, index: int, told: Any) -> None:
        usage = read_usage(told, None, self._shape)
        if usage is not None:
            if self._by_choice is None:
                self._by_choice = {}
            self._by_choice[index] = later_usage(self._by_choice.get(index), usage)

    def _is_real(self, reported: Any) -> bool:
        return reported is not None and read_usage(reported, None, self._shape) is not None

    def _placed(self, found: dict[str, Any]) -> Any:
        """Return the usage object of an event, from the first of the dialect's own places that has a real one."""
        for path in self._shape.at:
            if self._is_real(there := find(found, path)):
                return there
        return found.get("usage")

    def _read_message(self, message: dict[str, Any]) -> int:
        """Return the bytes of what a delta or a message says; remember that it reasons."""
        size = listed = 0
        texts = self._texts
        for key, value in message.items():
            if not value:
                continue
            if isinstance(value, str):
                if key in texts:
                    size += len(value) if value.isascii() else len(value.encode("utf-8", "surrogatepass"))
                    if not self.thought and key in self._dialect.reasoning_names:
                        self.thought = True
            elif isinstance(value, list):
                if key == "content":
                    size += sum(_size(part.get("text")) for part in value if isinstance(part, dict))
                elif key == "tool_calls":
                    size += sum(_called(call.get("function")) for call in value if isinstance(call, dict))
                elif key in self._dialect.reasoning_names:
                    listed += sum(_size(part.get("text")) for part in value if isinstance(part, dict))
            elif key == "function_call":
                size += _called(value)
        if listed:
            names = self._dialect.reasoning_names
            if not any(isinstance(message.get(name), str) and message[name] for name in names):
                size += listed  # else it says the same again
            self.thought = True
        return size


def _called(function: Any) -> int:
    return _size(function.get("name")) + _size(function.get("arguments")) if isinstance(function, dict) else 0


def _size(text: Any) -> int:
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0
