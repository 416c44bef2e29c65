"""What a provider's error means to a client of ours.

Strategy: the dialect's rules first, then marks that mean the same wherever they stand, then the HTTP status. What a
provider says about the operator's account with it is never repeated; what it says about the request is, with anything
that looks like a secret taken out.
"""

import re
from typing import Any

from nexus_proxy import errors
from nexus_proxy.core.dialect import Dialect, ErrorRule

MESSAGE_CHARS_MAX = 500
OVERLOADED_RETRY_AFTER_NS = 1_000_000_000  # where the provider does not say

# Rules that hold for every provider, after its own of the catalogue.
COMMON_RULES = (
    ErrorRule("upstream_no_funds", marks=frozenset({"insufficient_quota", "insufficient_balance", "billing_error"})),
    ErrorRule("upstream_no_funds", marks=frozenset({"insufficient_balance_error", "Arrearage", "AccountOverdueError"})),
    # Not of a 400, which may quote what the client wrote.
    ErrorRule("upstream_no_funds", statuses=frozenset({200, 402, 403, 429, 503}), text="insufficient balance"),
    ErrorRule("upstream_no_funds", statuses=frozenset({200, 402, 403, 429, 503}), text="account is in arrears"),
    ErrorRule("upstream_rate_limited", marks=frozenset({"rate_limit_exceeded", "rate_limit_error", "429"})),
    ErrorRule("upstream_auth", marks=frozenset({"invalid_api_key", "authentication_error", "401", "403"})),
    ErrorRule("upstream_overloaded", marks=frozenset({"overloaded_error", "engine_overloaded_error", "503", "529"})),
)
# Under a 200 the status says nothing; these marks say that it is the request that is wrong.
REQUEST_MARKS = frozenset({"invalid_request_error", "invalid_parameter_error", "content_filter", "400", "422"})

_SECRET = re.compile(r"(?:sk|ak|tp|bce-v3)[-/][\w\-./]{4,}|(?i:bearer)\s+\S+", re.ASCII)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]+")

_LEAVES: dict[str, tuple[type[errors.UpstreamError], str]] = {
    "upstream_no_funds": (errors.UpstreamNoFunds, "This model is not available at the moment. The operator was told."),
    "upstream_auth": (errors.UpstreamAuth, "The model's provider refused this gateway. The operator was told."),
    "upstream_model": (errors.UpstreamModel, "The model's provider does not serve this model at the moment."),
    "upstream_rate_limited": (errors.UpstreamRateLimited, "The model's provider limits the rate of requests."),
    "upstream_overloaded": (errors.UpstreamOverloaded, "The model's provider is overloaded."),
    "upstream_timeout": (errors.UpstreamTimeout, "The model's provider took too long."),
    "upstream_broken": (errors.UpstreamBroken, "The model's provider failed to answer."),
}


def read_refusal(
    status: int, payload: Any, dialect: Dialect, *, secret: str, retry_after_ns: int | None = None
) -> errors.UpstreamError:
    """Return the error for the client. `payload` is the parsed body, or None; `secret` is taken out of any message."""
    marks, message = _marks_and_message(payload)
    code = _code(status, marks, message.casefold(), dialect)
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
    if status in (400, 413, 422) or (status == 200 and REQUEST_MARKS & marks):
        return "invalid_parameter"
    by_status = {
        401: "upstream_auth",
        402: "upstream_no_funds",
        403: "upstream_auth",
        404: "upstream_model",
        408: "upstream_timeout",
        429: "upstream_rate_limited",
        503: "upstream_overloaded",
        529: "upstream_overloaded",
    }
    return by_status.get(status, "upstream_broken")


def _marks_and_message(payload: Any) -> tuple[set[str], str]:
    """Collect every `code` and `type` that stands where providers put them, and the first message."""
    places = [payload]
    if isinstance(payload, dict):
        places += [payload.get("error"), payload.get("base_resp")]
    marks: set[str] = set()
    message = ""
    for place in places:
        if isinstance(place, str):
            message = message or place
        if not isinstance(place, dict):
            continue
        for name in ("code", "type", "status_code", "error_code"):
            value = place.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool):
                marks.add(str(value))
        for name in ("message", "status_msg", "error_msg", "detail"):
            value = place.get(name)
            if isinstance(value, str) and not message:
                message = value
    return marks, message


def _clean(message: str, secret: str) -> str:
    if secret:
        message = message.replace(secret, "[removed]")
    return _CONTROL.sub(" ", _SECRET.sub("[removed]", message))[:MESSAGE_CHARS_MAX].strip()
