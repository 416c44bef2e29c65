"""What the built-in provider says: a friendly text, cut into pieces of about a token each.

Strategy: pure functions of the request, so that the same prompt always gets the same answer.
"""

import re
from typing import Any, Final

_PIECE: Final = re.compile(r"\s*[A-Za-z0-9']{1,8}|\s*[^\sA-Za-z0-9']|\s+")
_SAMPLES: Final[dict[str, Any]] = {
    "integer": 1,
    "number": 1.5,
    "boolean": True,
    "array": [],
    "object": {},
    "null": None,
}
_ECHO_MAX: Final = 80


def pieces(text: str) -> list[str]:
    """Cut a text into pieces; joined, they are the text. Never more pieces than bytes."""
    return _PIECE.findall(text)


def text_of(message: dict[str, Any]) -> str:
    """Return the text of a message, whether it is one text or a list of parts."""
    content = message.get("content") or ""
    if isinstance(content, str):
        return content
    return " ".join(str(part.get("text") or "") for part in content)


def compose(messages: list[dict[str, Any]], index: int) -> str:
    """Answer the last message; `index` is which of several choices this is."""
    said = " ".join(text_of(messages[-1]).split())
    if len(said) > _ECHO_MAX:
        said = said[:_ECHO_MAX].rsplit(" ", 1)[0] + "…"
    opening = ("Hello from behind the door!", "Hi there!", "Good day to you!")[index % 3]
    return (
        f"{opening} You said: “{said}”. I am no model, only a small server with good manners, but everything "
        "between us is real: your key was checked, money was set aside before my first word, and what I count "
        "at the end is what you pay. 祝你好运!"
    )


def think(messages: list[dict[str, Any]]) -> str:
    """Return what goes before the answer, of a provider that thinks aloud."""
    words = len(text_of(messages[-1]).split())
    return f"The message has {words} words. A greeting, an echo and an honest word will do. 想好了。"


def sample_arguments(parameters: dict[str, Any]) -> dict[str, Any]:
    """Return arguments that fit the required part of a tool's JSON schema, as far as its types go."""
    properties = parameters.get("properties") or {}
    return {name: _sample(properties.get(name) or {}) for name in parameters.get("required") or properties}


def _sample(schema: dict[str, Any]) -> Any:
    if schema.get("enum"):
        return schema["enum"][0]
    return _SAMPLES.get(str(schema.get("type")), "demo")
