"""What a provider's JSON says about an answer: its usage, how far it got, or that it is an error.

Strategy: only top-level fields count, in the objects of the provider, never text that looks like them. Nothing of a
provider's shape is taken for granted: what has an unexpected type is as if it were not there. Nothing in here raises.
"""

import json
from typing import Any

import orjson

from nexus_proxy.core.dialect import Dialect
from nexus_proxy.core.usage import Usage, later_usage, read_usage, with_thinking

CHOICES_MAX = 1024  # choice indexes that are remembered; `n` is at most 128

_REASONING = frozenset({"reasoning_content", "reasoning"})
_TEXTS = _REASONING | {"content", "refusal"}


def read_json(payload: bytes | bytearray) -> Any:
    """Parse a JSON text, or return None. Takes lone surrogates, which some providers cut characters into."""
    try:
        return orjson.loads(payload)
    except orjson.JSONDecodeError:
        try:
            return json.loads(payload)
        except (ValueError, RecursionError):
            return None


def is_error(found: dict[str, Any]) -> bool:
    """Tell whether an object is an error in any provider's shape, whatever status it came under."""
    if found.get("choices"):
        return bool(found.get("error"))
    if found.get("error"):
        return True
    base = found.get("base_resp")  # MiniMax
    if isinstance(base, dict) and base.get("status_code"):
        return True
    if found.get("error_code"):  # Qianfan
        return True
    return found.get("code") not in (None, "", 0, "0") and "message" in found  # Spark, SiliconFlow, Qwen's own API


class Answer:
    """What has been seen of one answer."""

    def __init__(self, dialect: Dialect) -> None:
        self.usage: Usage | None = None  # the last real usage seen
        self.output_bytes = 0  # UTF-8 bytes of content, reasoning and tool calls seen
        self.began = False  # part of a completion was seen
        self.thought = False  # reasoning was seen
        self.error: dict[str, Any] | None = None  # the last error object seen, refused or relayed
        self.finish: dict[int, str] = {}  # by choice index
        self.choices: set[int] = set()  # the indexes seen
        self._usage_in_choice = dialect.usage_in_choice

    @property
    def finished(self) -> bool:
        """Every choice that was seen has a finish reason, and one was seen."""
        return bool(self.choices) and len(self.finish) == len(self.choices)

    def read(self, found: dict[str, Any]) -> None:
        """Take one chunk, or one whole completion."""
        in_choice = None
        choices = found.get("choices")
        if isinstance(choices, list):
            whole = 0
            for choice in choices:
                if not isinstance(choice, dict):
                    continue
                self.began = True
                index = choice.get("index", 0)
                if type(index) is not int or not 0 <= index < CHOICES_MAX:
                    index = 0
                self.choices.add(index)
                if (reason := choice.get("finish_reason")) and isinstance(reason, str):
                    self.finish[index] = reason
                if isinstance(delta := choice.get("delta"), dict):
                    self.output_bytes += self._read_message(delta)
                if isinstance(message := choice.get("message"), dict):
                    whole += self._read_message(message)
                if self._usage_in_choice:
                    in_choice = choice.get("usage") or in_choice
            if whole > self.output_bytes:  # whole messages may repeat what deltas have said
                self.output_bytes = whole
        reported = found.get("usage")
        if reported is not None or in_choice is not None:
            usage = read_usage(reported, in_choice)
            if usage is not None:
                self.began = True
                self.usage = later_usage(self.usage, usage)
        if self.thought and self.usage is not None:
            self.usage = with_thinking(self.usage)

    def _read_message(self, message: dict[str, Any]) -> int:
        """Return the bytes of what a delta or a message says; remember that it reasons."""
        size = 0
        for key, value in message.items():
            if not value:
                continue
            if isinstance(value, str):
                if key in _TEXTS:
                    size += len(value) if value.isascii() else _size(value)
                    if key in _REASONING:
                        self.thought = True
            elif isinstance(value, list):
                if key == "content":
                    size += sum(_size(part.get("text")) for part in value if isinstance(part, dict))
                elif key == "tool_calls":
                    size += sum(_called(call.get("function")) for call in value if isinstance(call, dict))
            elif key == "function_call":
                size += _called(value)
        return size


def _called(function: Any) -> int:
    return _size(function.get("name")) + _size(function.get("arguments")) if isinstance(function, dict) else 0


def _size(text: Any) -> int:
    return len(text.encode("utf-8", "surrogatepass")) if isinstance(text, str) else 0
