"""How each provider says that it will not answer, for the built-in provider to say it.

Strategy: a table from the kind of failure to the HTTP status and the body, in each provider's own disguise: several say
it under a 200. Providers whose words are not known speak as OpenAI does. `{key}` stands for the credential that was
sent, since some repeat it; ACCOUNT stands where they name whose account it is. Neither may reach a client before an
answer has begun; what is said after that is relayed as it is, but for the credential.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from nexus_proxy.demo.words import text_of

ACCOUNT: Final = "acct-demo-7731"
COMMAND: Final = "/fail"
HIDDEN: Final = "hidden"
LATE: Final = "late"


@dataclass(frozen=True, slots=True)
class Failure:
    """One failure. `inside` is what is said under a 200, where that is not the same body."""

    status: int
    body: Any
    inside: Any = None

    def payload(self, key: str, *, inside: bool) -> bytes:
        """Return the body."""
        said = self.inside if inside and self.inside is not None else self.body
        return json.dumps(said, ensure_ascii=False, separators=(",", ":")).replace("{key}", key).encode()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a prompt such as `/fail no_money hidden` wishes for. `place` is empty, HIDDEN or LATE."""

    kind: str
    place: str


def wish_of(message: Mapping[str, Any]) -> Wish | None:
    """Return what the message wishes for, or None."""
    words = text_of(dict(message)).split()
    if len(words) not in (2, 3) or words[0] != COMMAND or words[1] not in KINDS:
        return None
    place = words[2] if len(words) == 3 else ""
    return Wish(words[1], place) if place in ("", HIDDEN, LATE) else None


def help_on(message: Mapping[str, Any]) -> str | None:
    """Return how to wish, for a message that begins as a wish does and is none; or None."""
    if text_of(dict(message)).split()[:1] != [COMMAND] or wish_of(message) is not None:
        return None
    kinds = ", ".join(sorted(KINDS))
    return f"That is no failure that I know. Say {COMMAND} KIND, or add {HIDDEN} or {LATE}. KIND is one of {kinds}."


# --- what they say ---------------------------------------------------------------------------------------------------

_OWING: Final = f"The account {ACCOUNT} has an insufficient balance, please recharge (key {{key}})."
_SLOW: Final = f"Too many requests of the account {ACCOUNT}."
_STRANGER: Final = "The credential {key} is not valid."
_WRONG: Final = "The request has a parameter that cannot be (sent with {key})."
_RUDE: Final = "The text may be inappropriate (sent with {key})."
_BUSY: Final = "All machines are busy, come back later."
_UNKNOWN: Final = f"The account {ACCOUNT} has no such model."


def _error(message: str, kind: str | None, code: str | None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": None, "code": code}, **more}


def _typed(message: str, kind: str) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind}}


def _coded(message: str, code: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message}}


def _native(message: str, code: str) -> dict[str, Any]:
    return {"code": code, "message": message, "request_id": "demo-request"}


def _minimax(message: str, kind: str, status: int) -> dict[str, Any]:
    error = {"type": kind, "message": message, "http_code": str(status)}
    return {"type": "error", "error": error, "request_id": "demo-request"}


def _base(message: str, number: int) -> dict[str, Any]:
    base = {"status_code": number, "status_msg": message}
    return {"id": "", "choices": None, "created": 0, "model": "", "object": "", "usage": None, "base_resp": base}


def _ark(message: str, code: str, kind: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": f"{message} Request id: 021764-demo", "param": "", "type": kind}}


def _tencent(message: str, code: str) -> dict[str, Any]:
    return {"Response": {"Error": {"Code": code, "Message": message}, "RequestId": "demo-request"}}


def _baidu(message: str, code: str, kind: str) -> dict[str, Any]:
    return {"error": {"code": code, "message": message, "type": kind}, "id": "as-demo"}


def _numbered(message: str, number: int) -> dict[str, Any]:
    return {"error_code": number, "error_msg": message, "id": "as-demo"}


def _flow(message: str, number: int) -> dict[str, Any]:
    return {"code": number, "message": message, "data": None}


def _spark(message: str, number: int) -> dict[str, Any]:
    return _error(f"{message} (sid: cha000b-demo)", "api_error", str(number))


def _bare(message: str, number: int) -> dict[str, Any]:
    return {"code": number, "message": message, "sid": "cha000b-demo"}


_OPENAI: Final[Mapping[str, Failure]] = MappingProxyType(
    {
        "no_money": Failure(429, _error(_OWING, "insufficient_quota", "insufficient_quota")),
        "rate_limit": Failure(429, _error(_SLOW, "requests", "rate_limit_exceeded")),
        "auth": Failure(401, _error(_STRANGER, "invalid_request_error", "invalid_api_key")),
        "bad_request": Failure(400, _error(_WRONG, "invalid_request_error", None)),
        "content": Failure(400, _error(_RUDE, "invalid_request_error", "content_policy_violation")),
        "overloaded": Failure(503, _error(_BUSY, "overloaded_error", None)),
        "unknown_model": Failure(404, _error(_UNKNOWN, "invalid_request_error", "model_not_found")),
    }
)
KINDS: Final = frozenset(_OPENAI)

FAILURES: Final[Mapping[str, Mapping[str, Failure]]] = MappingProxyType(
    {
        "openai": _OPENAI,
        "deepseek": {
            "no_money": Failure(402, _error(_OWING, "unknown_error", "invalid_request_error")),
            "rate_limit": Failure(429, _error(_SLOW, "rate_limit_error", "rate_limit_error")),
            "auth": Failure(401, _error(_STRANGER, "authentication_error", "invalid_request_error")),
            "bad_request": Failure(422, _error(_WRONG, "invalid_request_error", "invalid_request_error")),
            "content": Failure(400, _error(_RUDE, "invalid_request_error", "invalid_request_error")),
            "overloaded": Failure(503, _error(_BUSY, "overloaded_error", "service_unavailable_error")),
            "unknown_model": Failure(404, _error(_UNKNOWN, "invalid_request_error", "model_not_found")),
        },
        "qwen": {
            "no_money": Failure(400, _error(_OWING, "Arrearage", "Arrearage"), _native(_OWING, "Arrearage")),
            "rate_limit": Failure(429, _error(_SLOW, "limit_requests", "limit_requests")),
            "auth": Failure(401, _error(_STRANGER, "invalid_request_error", "invalid_api_key")),
            "bad_request": Failure(400, _error(_WRONG, "invalid_request_error", "invalid_parameter_error")),
            "content": Failure(400, _error(_RUDE, "data_inspection_failed", "data_inspection_failed")),
            "overloaded": Failure(503, _native(_BUSY, "ServiceUnavailable")),
            "unknown_model": Failure(404, _error(_UNKNOWN, "invalid_request_error", "model_not_found")),
        },
        "moonshot": {
            "no_money": Failure(429, _typed(_OWING, "exceeded_current_quota_error")),
            "rate_limit": Failure(429, _typed(_SLOW, "rate_limit_reached_error")),
            "auth": Failure(401, _typed(_STRANGER, "invalid_authentication_error")),
            "bad_request": Failure(400, _typed(_WRONG, "invalid_request_error")),
            "content": Failure(400, _typed(_RUDE, "content_filter")),
            "overloaded": Failure(429, _typed(_BUSY, "engine_overloaded_error")),
            "unknown_model": Failure(404, _typed(_UNKNOWN, "resource_not_found_error")),
        },
        "zhipu": {
            "no_money": Failure(429, _coded(_OWING, "1113")),
            "rate_limit": Failure(429, _coded(_SLOW, "1302")),
            "auth": Failure(401, _coded(_STRANGER, "1002")),
            "bad_request": Failure(400, _coded(_WRONG, "1210")),
            "content": Failure(400, _coded(_RUDE, "1301")),
            "overloaded": Failure(503, _coded(_BUSY, "1312")),
            "unknown_model": Failure(404, _coded(_UNKNOWN, "1211")),
        },
        "minimax": {
            "no_money": Failure(402, _minimax(_OWING, "insufficient_balance_error", 402), _base(_OWING, 1008)),
            "rate_limit": Failure(429, _minimax(_SLOW, "rate_limit_error", 429), _base(_SLOW, 1002)),
            "auth": Failure(401, _minimax(_STRANGER, "authentication_error", 401), _base(_STRANGER, 1004)),
            "bad_request": Failure(400, _minimax(_WRONG, "bad_request_error", 400), _base(_WRONG, 2013)),
            "content": Failure(400, _minimax(_RUDE, "bad_request_error", 400), _base(_RUDE, 1026)),
            "overloaded": Failure(529, _minimax(_BUSY, "overloaded_error", 529)),
            "unknown_model": Failure(404, _minimax(_UNKNOWN, "not_found_error", 404), _base(_UNKNOWN, 2061)),
        },
        "doubao": {
            "no_money": Failure(403, _ark(_OWING, "AccountOverdueError", "Forbidden")),
            "rate_limit": Failure(
                429,
                _ark(_SLOW, "RateLimitExceeded.EndpointRPMExceeded", "TooManyRequests"),
                _ark(_SLOW, "RequestBurstTooFast", "TooManyRequests"),
            ),
            "auth": Failure(401, _ark(_STRANGER, "AuthenticationError", "Unauthorized")),
            "bad_request": Failure(400, _ark(_WRONG, "InvalidParameter", "BadRequest")),
            "content": Failure(400, _ark(_RUDE, "SensitiveContentDetected", "BadRequest")),
            "overloaded": Failure(503, _ark(_BUSY, "overloaded_error", "ServiceUnavailable")),
            "unknown_model": Failure(404, _ark(_UNKNOWN, "ModelNotOpen", "NotFound")),
        },
        "hunyuan": {
            **_OPENAI,
            "no_money": Failure(
                402, _OPENAI["no_money"].body, _tencent(_OWING, "FailedOperation.ResourceInsufficient")
            ),
            "rate_limit": Failure(429, _OPENAI["rate_limit"].body, _tencent(_SLOW, "RequestLimitExceeded")),
            "auth": Failure(401, _OPENAI["auth"].body, _tencent(_STRANGER, "AuthFailure.SecretIdNotFound")),
            "bad_request": Failure(400, _OPENAI["bad_request"].body, _tencent(_WRONG, "InvalidParameterValue")),
        },
        "qianfan": {
            "no_money": Failure(429, _baidu(_OWING, "insufficient_quota", "insufficient_quota")),
            "rate_limit": Failure(
                429, _baidu(_SLOW, "rpm_rate_limit_exceeded", "rate_limit_exceeded"), _numbered(_SLOW, 18)
            ),
            "auth": Failure(
                401, _baidu(_STRANGER, "invalid_iam_token", "invalid_request_error"), _numbered(_STRANGER, 110)
            ),
            "bad_request": Failure(400, _baidu(_WRONG, "invalid_argument", "invalid_request_error")),
            "content": Failure(400, _baidu(_RUDE, "content_filter", "invalid_request_error")),
            "overloaded": Failure(503, _baidu(_BUSY, "overloaded_error", "server_error")),
            "unknown_model": Failure(404, _baidu(_UNKNOWN, "invalid_model", "invalid_request_error")),
        },
        "stepfun": _OPENAI,
        "siliconflow": {
            "no_money": Failure(403, _flow(_OWING, 30001)),
            "rate_limit": Failure(429, _flow("System is really busy, please try again later.", 20015)),
            "auth": Failure(401, "Invalid token {key}", _flow(_STRANGER, 401)),
            "bad_request": Failure(400, {"detail": _WRONG}, {"error": {"message": _WRONG, "code": 400}}),
            "content": Failure(400, {"error": {"message": _RUDE}}, _error(_RUDE, "invalid_request_error", None)),
            "overloaded": Failure(503, _flow(_BUSY, 50505), _flow(_BUSY, 503)),
            "unknown_model": Failure(404, {"detail": _UNKNOWN}, _error(_UNKNOWN, None, "model_not_found")),
        },
        "spark": {
            "no_money": Failure(403, _spark(_OWING, 11200), _bare(_OWING, 11200)),
            "rate_limit": Failure(429, _spark(_SLOW, 11202), _bare(_SLOW, 11203)),
            "auth": Failure(401, _spark(_STRANGER, 401), _bare(_STRANGER, 401)),
            "bad_request": Failure(400, _spark(_WRONG, 10163), _bare(_WRONG, 400)),
            "content": Failure(400, _spark(_RUDE, 10013), _error(_RUDE, "invalid_request_error", "10013")),
            "overloaded": Failure(503, _spark(_BUSY, 10008), _bare(_BUSY, 503)),
            "unknown_model": Failure(404, _spark(_UNKNOWN, 404), _error(_UNKNOWN, "api_error", "model_not_found")),
        },
        "yi": {**_OPENAI, "overloaded": Failure(529, _error(_BUSY, "overloaded_error", None))},
        "baichuan": _OPENAI,
        "mimo": _OPENAI,
    }
)
