"""The golden answers of each dialect: our own text in the providers' shapes, beside what must come of each.

Strategy: a file `golden/DIALECT/CASE.sse` or `.json` is the body as it is on the wire, with LF; what it is to come to
stands in `….expect.json`, written down by hand and in fractions. Other line ends, and comments and blank lines between
the events, are derived from it here.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

DIRECTORY = Path(__file__).parents[1] / "golden"
# What every model of these tests costs, per million tokens; each kind of token shows in the last digits.
PRICE = {"input": "0.37", "cached_input": "0.031", "cache_write": "0.463", "output": "1.93"}
_COMMENT = b": \xe6\xb5\xaa [DONE]\n"


@dataclass(frozen=True, slots=True)
class Golden:
    """One answer. `expect` has `status`, `content_type`, `include_usage` (whether it was asked so), `usage`,
    `charge_nano`, `finish`, `complete`, `output_bytes`, `usage_event` (there is one that only usage is in), `error`
    (the code that the client gets instead of it) and `late_error` (one comes after content)."""

    dialect: str
    case: str
    body: bytes
    expect: dict[str, Any]

    @property
    def name(self) -> str:
        """Whose it is and which."""
        return f"{self.dialect}/{self.case}"

    @property
    def streams(self) -> bool:
        """It is a stream of events."""
        return self.case.endswith(".sse")

    def form(self, how: str) -> bytes:
        """Return the body in another form that means the same."""
        match how:
            case "crlf":
                return self.body.replace(b"\n", b"\r\n")
            case "cr":
                return self.body.replace(b"\n", b"\r")
            case "commented":
                return _COMMENT + self.body.replace(b"\n\n", b"\n" + _COMMENT + b"\n\n\n" + _COMMENT)
            case "commented crlf":
                return self.form("commented").replace(b"\n", b"\r\n")
        assert how == "lf"
        return self.body

    def for_client(self, body: bytes, *, drop: bool) -> bytes:
        """Return what the client must get of a form of it: all, or all but the event that only the door asked for."""
        if not (drop and self.expect["usage_event"]):
            return body
        end = rb"(?:\r\n|\n|\r)"
        # Between the event's line and its blank line a comment may stand: it goes with the event.
        pattern = rb'data: ?\{[^\r\n]*"choices":\[\][^\r\n]*' + end + rb"(?::[^\r\n]*" + end + rb")?" + end
        kept, times = re.subn(pattern, b"", body)
        assert times == 1
        return kept


def load() -> list[Golden]:
    """Return all of them."""
    found = []
    for path in sorted(DIRECTORY.glob("*/*")):
        if not path.name.endswith(".expect.json"):
            expect = orjson.loads(path.with_name(path.name + ".expect.json").read_bytes())
            found.append(Golden(path.parent.name, path.name, path.read_bytes(), expect))
    return found


ALL = load()
DIALECTS = sorted({golden.dialect for golden in ALL})
