"""What a provider's error means to a client of ours.

Strategy: the dialect's rules first, then marks that mean the same wherever they stand, then the HTTP status. What a
provider says about the operator's account with it is never repeated; what it says about the request is, with anything
that looks like a secret taken out.
"""

import re
from typing import Any, Final

from nexus_proxy import errors
from nexus_proxy.core.wire.completion import read_json
from nexus_proxy.core.wire.dialect import Dialect, ErrorRule
from nexus_proxy.core.wire.usage import find

MESSAGE_CHARS_MAX: Final = 500
READ_CHARS_MAX: Final = 16_384  # of a message that is longer
READ_LINES_MAX: Final = 100  # of a body in the clothes of a stream
MARK_CHARS_MAX: Final = 128  # what is longer is no code
MARK_PARTS_MAX: Final = 8  # beginnings of a mark with dots
MARKS_MAX: Final = 256  # of one error
OVERLOADED_RETRY_AFTER_NS: Final = 1_000_000_000  # where the provider does not say

_ABOUT_US: Final = frozenset({200, 402, 403, 429, 503})  # not 400, whose message may quote what the client wrote
# Rules that hold for every provider, after its own of the catalogue.
COMMON_RULES: Final = (
    ErrorRule("upstream_no_funds", statuses=frozenset({402})),
    ErrorRule("upstream_no_funds", marks=frozenset({"insufficient_quota", "insufficient_balance", "billing_error"})),
    ErrorRule("upstream_no_funds", marks=frozenset({"insufficient_balance_error", "Arrearage", "AccountOverdueError"})),
    ErrorRule("upstream_no_funds", marks=frozenset({"exceeded_current_quota_error"})),
    ErrorRule("upstream_no_funds", statuses=_ABOUT_US, text="insufficient balance"),
    ErrorRule("upstream_no_funds", statuses=_ABOUT_US, text="balance is insufficient"),
    ErrorRule("upstream_no_funds", statuses=_ABOUT_US, text="account is in arrears"),
    ErrorRule("upstream_rate_limited", marks=frozenset({"rate_limit_exceeded", "rate_limit_error", "429"})),
    ErrorRule("upstream_rate_limited", marks=frozenset({"rate_limit_reached_error"})),
    ErrorRule("upstream_auth", marks=frozenset({"invalid_api_key", "authentication_error", "401", "403"})),
    ErrorRule("upstream_overloaded", marks=frozenset({"overloaded_error", "engine_overloaded_error", "503", "529"})),
    ErrorRule("upstream_model", marks=frozenset({"model_not_found"})),
)
# Under a 200 the status says nothing; these marks say that it is the request that is wrong.
REQUEST_MARKS: Final = frozenset({"invalid_request_error", "invalid_parameter_error", "content_filter", "400", "422"})

_MARKS: Final = ("code", "type", "status_code", "error_code", "http_code", "Code")
_MESSAGES: Final = ("message", "status_msg", "error_msg", "msg", "detail", "Message")

_BY_STATUS: Final = {
    400: "invalid_parameter",
    401: "upstream_auth",
    402: "upstream_no_funds",
    403: "upstream_auth",
    404: "upstream_model",
    408: "upstream_timeout",
    413: "invalid_parameter",
    422: "invalid_parameter",
    429: "upstream_rate_limited",
    503: "upstream_overloaded",
    529: "upstream_overloaded",
}
_STATUSES: Final = frozenset(map(str, _BY_STATUS))

_SECRET: Final = re.compile(r"(?<![\w-])(?:(?:sk|ak|tp|bce-v3)[-/][\w\-./]{4,}|(?i:bearer)\s+\S{12,})", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

_LEAVES: dict[str, tuple[type[errors.UpstreamError], str]] = {
    "upstream_no_funds": (errors.UpstreamNoFunds, "This model is not available at the moment. The operator was told."),
    "upstream_auth": (errors.UpstreamAuth, "The model's provider refused this gateway. The operator was told."),
    "upstream_model": (errors.UpstreamModel, "The model's provider does not serve this model at the moment."),
    "upstream_rate_limited": (errors.UpstreamRateLimited, "The model's provider limits the rate of requests."),
    "upstream_overloaded": (errors.UpstreamOverloaded, "The model's provider is overloaded."),
    "upstream_timeout": (errors.UpstreamTimeout, "The model's provider took too long."),
    "upstream_broken": (errors.UpstreamBroken, "The model's provider failed to answer."),
}


def read_error_body(body: bytes) -> Any:
    """Return what the body of an error holds: a document, one in the clothes of a stream (Qwen), or a text.

    A document that does not parse is no text: what it says may hold a secret in escapes, which nobody would recognise.
    """
    found = read_json(body)
    if found is not None:
        return found
    lines = [line[5:] for line in body.splitlines() if line.startswith(b"data:")]
    for line in lines[:READ_LINES_MAX]:
        if (found := read_json(line)) is not None:
            return found
    text = body.decode("utf-8", "replace").strip("\ufeff \t\r\n")
    if not text or text.startswith("<"):  # a page of whatever stands before the provider
        return None
    documents = (part.strip()[:1] in (b"{", b"[", b'"') for part in (text.encode(), *lines))
    return None if any(documents) else text


def read_refusal(
    status: int, payload: Any, dialect: Dialect, *, secret: str, retry_after_ns: int | None = None
) -> errors.UpstreamError:
    """Return the error for the client. `payload` is the parsed body, or None; `secret` is taken out of any message."""
    marks, message = _marks_and_message(payload, dialect)
    code = _code(status, marks, message[:READ_CHARS_MAX].casefold(), dialect)
    if code == "invalid_parameter":
        return errors.UpstreamRefused(_clean(message, secret) or "The model's provider refused the request.")
    leaf, text = _LEAVES[code]
    if code == "upstream_overloaded" and retry_after_ns is None:
        retry_after_ns = OVERLOADED_RETRY_AFTER_NS
    return leaf(text, retry_after_ns=retry_after_ns if leaf.retry else None)


def _code(status: int, marks: set[str], text: str, dialect: Dialect) -> str:
    for rule in (*dialect.errors, *COMMON_RULES):
        if (
            (not rule.statuses or status in rule.statuses)
            and (not rule.marks or rule.marks & marks)
            and (not rule.text or rule.text in text)
        ):
            return rule.code
    if status == 200:
        if REQUEST_MARKS & marks:
            return "invalid_parameter"
        told = (_BY_STATUS[int(mark)] for mark in sorted(marks) if mark in _STATUSES)
        return next(told, "upstream_broken")
    return _BY_STATUS.get(status, "upstream_broken")


def _marks_and_message(payload: Any, dialect: Dialect) -> tuple[set[str], str]:
    """Collect every `code` and `type` that stands where providers put them, and the first message."""
    marks: set[str] = set()
    message = ""
    for place in _places(payload, dialect):
        if isinstance(place, str):
            message = message or place
        if not isinstance(place, dict):
            continue
        for name in _MARKS:
            _mark(place.get(name), marks)
        for name in _MESSAGES:
            value = place.get(name)
            if isinstance(value, str) and not message:
                message = value
    for failure in dialect.failure:
        _mark(find(payload, failure.path), marks)
    return marks, message


def _mark(value: Any, marks: set[str]) -> None:
    """Note a mark; of one with dots, which go from the general to the special, its beginnings too."""
    if not isinstance(value, str | int) or isinstance(value, bool) or len(marks) >= MARKS_MAX:
        return
    text = str(value)
    if len(text) > MARK_CHARS_MAX:
        return
    marks.add(text)
    end = -1
    for _ in range(MARK_PARTS_MAX):
        if (end := text.find(".", end + 1)) < 0:
            break
        marks.add(text[:end])


def _places(payload: Any, dialect: Dialect) -> list[Any]:
    """Return the objects that an error may be described in, the likeliest last word first."""
    if not isinstance(payload, dict):
        return [payload]
    own = [find(payload, failure.path[:-1]) for failure in dialect.failure]
    return [payload, payload.get("error"), payload.get("base_resp"), find(payload, ("Response", "Error")), *own]


def _clean(message: str, secret: str) -> str:
    if secret:
        message = message.replace(secret, "[removed]")  # before it is cut: half of it is not recognised
    return _CONTROL.sub(" ", _SECRET.sub("[removed]", message[:READ_CHARS_MAX]))[:MESSAGE_CHARS_MAX].strip()
