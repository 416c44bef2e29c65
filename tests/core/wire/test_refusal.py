"""What each provider's error is to a client: every disguise of a dialect, by its code.

Sources of the shapes: the providers' pages and captured answers, as the catalogue's dialects have them.
"""

import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.core.wire.dialect import Dialect, ErrorRule, Failure
from nexus_proxy.core.wire.refusal import (
    COMMON_RULES,
    MARK_CHARS_MAX,
    MESSAGE_CHARS_MAX,
    READ_CHARS_MAX,
    read_error_body,
    read_refusal,
)

DIALECTS = load_catalogue().dialects
SECRET = "9f8e7d6c5b4a.provider"
FUNDS, RATE, AUTH, BUSY = "upstream_no_funds", "upstream_rate_limited", "upstream_auth", "upstream_overloaded"
BAD, BROKEN, MODEL, LATE = "invalid_parameter", "upstream_broken", "upstream_model", "upstream_timeout"


def err(message: str = "m", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


def base(code: int, message: str = "m") -> dict[str, Any]:
    return {"choices": None, "base_resp": {"status_code": code, "status_msg": message}}


def native(code: str) -> dict[str, Any]:
    return {"Response": {"Error": {"Code": code, "Message": "m"}, "RequestId": "r"}}


def minimax(kind: str, message: str, status: int) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": message, "http_code": str(status)}, "request_id": "r"}


ODD: list[Any] = [[], "text", 7, {"error": []}, {"error": None}, {"code": []}]
DISGUISES: list[tuple[str, int, Any, str]] = [
    # DeepSeek
    ("deepseek", 402, err("Insufficient Balance", type="unknown_error", code="invalid_request_error"), FUNDS),
    ("deepseek", 402, None, FUNDS),
    ("deepseek", 200, err("Insufficient Balance", code="invalid_request_error"), FUNDS),
    ("deepseek", 400, err("Missing reasoning_content", type="invalid_request_error"), BAD),
    ("deepseek", 401, err("Authentication Fails", type="authentication_error", code="invalid_request_error"), AUTH),
    ("deepseek", 422, {"detail": "unprocessable"}, BAD),
    ("deepseek", 429, err("Rate limit"), RATE),
    ("deepseek", 503, err("busy"), BUSY),
    # Qwen
    ("qwen", 400, err("Access denied, good standing …", type="Arrearage", code="Arrearage"), FUNDS),
    ("qwen", 400, {"code": "Arrearage", "message": "Access denied", "request_id": "r"}, FUNDS),
    ("qwen", 403, err("free tier", code="AllocationQuota.FreeTierOnly", type="x"), FUNDS),
    ("qwen", 401, err("Incorrect API key", type="invalid_request_error", code="invalid_api_key"), AUTH),
    ("qwen", 429, err("too fast", type="limit_requests", code="limit_requests"), RATE),
    ("qwen", 503, err("<503> InternalError.Algo: Too many requests", code="ServiceUnavailable"), RATE),
    ("qwen", 503, err("down", code="ServiceUnavailable"), BUSY),
    ("qwen", 400, err("inappropriate", code="data_inspection_failed"), BAD),
    ("qwen", 200, err("inappropriate", code="data_inspection_failed"), BAD),
    ("qwen", 404, err("The model does not exist", code="model_not_found"), MODEL),
    # Moonshot
    ("moonshot", 429, err("account suspended", type="exceeded_current_quota_error"), FUNDS),
    ("moonshot", 429, err("suspended due to insufficient balance", type="x"), FUNDS),
    ("moonshot", 429, err("slow down", type="rate_limit_reached_error"), RATE),
    ("moonshot", 429, err("overloaded", type="engine_overloaded_error"), BUSY),
    ("moonshot", 401, err("wrong", type="invalid_authentication_error"), AUTH),
    ("moonshot", 401, err("wrong", type="incorrect_api_key_error"), AUTH),
    ("moonshot", 200, err("wrong", type="incorrect_api_key_error"), AUTH),
    ("moonshot", 400, err("risk", type="content_filter"), BAD),
    ("qwen", 429, {"code": "Throttling.RateQuota", "message": "m", "request_id": "r"}, RATE),
    ("qwen", 429, err("Allocated quota exceeded, please increase it", code="insufficient_quota"), RATE),
    ("qwen", 429, err("You exceeded your current quota", code="insufficient_quota"), FUNDS),
    ("qwen", 200, {"code": "Throttling.AllocationQuota", "message": "m"}, RATE),
    ("qwen", 401, {"code": "InvalidApiKey", "message": "m"}, AUTH),
    ("qwen", 200, {"code": "InvalidApiKey", "message": "m"}, AUTH),
    ("qwen", 400, {"code": "DataInspectionFailed", "message": "m"}, BAD),
    ("qwen", 200, {"code": "InvalidParameter.DataInspection", "message": "m"}, BAD),
    ("moonshot", 200, err("no", type="resource_not_found_error"), MODEL),
    # Zhipu and Z.ai: numbers as texts, and statuses of their own
    *(("zhipu", 429, err(code=code), FUNDS) for code in ("1113", "1304", "1308", "1309", "1310")),
    *(("zhipu", 429, err(code=code), RATE) for code in ("1302", "1303", "1305", "1313")),
    *(("zhipu", 500, err(code=code), BUSY) for code in ("1234", "1312", "1120")),
    ("zhipu", 200, err(code="1113"), FUNDS),
    ("zhipu", 200, err(code=1302), RATE),
    ("zhipu", 200, {"code": "1113", "message": "m"}, FUNDS),
    ("zhipu", 401, err(code="1002"), AUTH),
    ("zhipu", 200, {"code": 401, "msg": "m", "success": False}, AUTH),
    ("zhipu", 434, err(), AUTH),
    ("zhipu", 435, err(), BAD),
    ("zhipu", 400, err(code="1211"), MODEL),
    ("zhipu", 400, err(code="1301"), BAD),
    ("zhipu", 429, err(code="1311"), MODEL),
    # MiniMax: base_resp under a 200, and its newer shape
    ("minimax", 200, base(1008, "insufficient balance"), FUNDS),
    ("minimax", 402, minimax("insufficient_balance_error", "insufficient balance (1008)", 402), FUNDS),
    ("minimax", 200, minimax("insufficient_balance_error", "insufficient balance (1008)", 402), FUNDS),
    ("minimax", 200, minimax("x", "no (1008)", 402), FUNDS),
    *(("minimax", 200, base(code), RATE) for code in (1002, 1039, 1041, 2056)),
    ("minimax", 200, minimax("x", "slow down (1002)", 429), RATE),
    *(("minimax", 200, base(code), AUTH) for code in (1004, 2049)),
    *(("minimax", 200, base(code), BAD) for code in (1026, 1027, 2013)),
    ("minimax", 200, base(2061), MODEL),
    ("minimax", 500, minimax("x", "not in your plan (2061)", 500), MODEL),
    ("minimax", 200, base(1001), LATE),
    ("minimax", 200, base(1033), BROKEN),
    ("minimax", 529, minimax("overloaded_error", "m", 529), BUSY),
    ("minimax", 200, minimax("x", "m", 529), BUSY),
    # Doubao
    ("doubao", 403, err(code="AccountOverdueError", type="Forbidden"), FUNDS),
    ("doubao", 400, err(code="AccountOverdueError", type="BadRequest"), FUNDS),
    ("doubao", 200, err(code="AccountOverdueError"), FUNDS),
    ("doubao", 403, err(code="OperationDenied.ServiceOverdue"), FUNDS),
    ("doubao", 429, err(code="SetLimitExceeded"), FUNDS),
    ("doubao", 429, err(code="RateLimitExceeded.EndpointRPMExceeded", type="TooManyRequests"), RATE),
    ("doubao", 200, err(code="RateLimitExceeded.EndpointTPMExceeded"), RATE),
    ("doubao", 200, err(code="RequestBurstTooFast"), RATE),
    ("doubao", 429, err(code="ServerOverloaded"), BUSY),
    ("doubao", 401, err(code="AuthenticationError", type="Unauthorized"), AUTH),
    ("doubao", 200, err(code="AuthenticationError"), AUTH),
    ("doubao", 403, err(code="AccessDenied"), AUTH),
    ("doubao", 404, err(code="ModelNotOpen"), MODEL),
    ("doubao", 404, err(code="InvalidEndpointOrModel.NotFound"), MODEL),
    ("doubao", 400, err(code="SensitiveContentDetected.Violence"), BAD),
    ("doubao", 200, err(code="InvalidParameter"), BAD),
    # Tencent's own API
    ("hunyuan", 200, native("FailedOperation.ResourcePackExhausted"), FUNDS),
    ("hunyuan", 200, native("ResourceUnavailable.InArrears"), FUNDS),
    ("hunyuan", 200, native("RequestLimitExceeded"), RATE),
    ("hunyuan", 200, native("LimitExceeded.Concurrency"), RATE),
    ("hunyuan", 200, native("AuthFailure.SignatureFailure"), AUTH),
    ("hunyuan", 200, native("InvalidParameterValue.Model"), BAD),
    ("hunyuan", 200, native("InternalError"), BROKEN),
    # Qianfan
    *(("qianfan", 200, {"error_code": code, "error_msg": "m"}, RATE) for code in (4, 17, 18, 336501)),
    ("qianfan", 200, {"error_code": 19, "error_msg": "m"}, FUNDS),
    ("qianfan", 200, {"error_code": 110, "error_msg": "m"}, AUTH),
    ("qianfan", 200, {"error_code": 336100, "error_msg": "m"}, BUSY),
    ("qianfan", 200, {"error_code": 336003, "error_msg": "m"}, BAD),
    ("qianfan", 429, err(code="rpm_rate_limit_exceeded"), RATE),
    ("qianfan", 401, err(code="invalid_iam_token", type="invalid_request_error"), AUTH),
    ("qianfan", 400, err(code="malformed_json", type="invalid_request_error"), BAD),
    # StepFun, Yi, Baichuan, MiMo
    ("stepfun", 451, err(type="censorship_blocked"), BAD),
    ("yi", 529, err(), BUSY),
    *((name, 402, err(), FUNDS) for name in ("stepfun", "yi", "baichuan", "mimo")),
    *((name, 429, err(), RATE) for name in ("stepfun", "yi", "baichuan", "mimo", "hunyuan", "siliconflow")),
    # SiliconFlow: four kinds of body
    ("siliconflow", 403, {"code": 30001, "message": "Sorry", "data": None}, FUNDS),
    ("siliconflow", 403, {"code": 5, "message": "Your account balance is insufficient"}, FUNDS),
    ("siliconflow", 503, {"code": 20015, "message": "System is really busy"}, RATE),
    ("siliconflow", 200, {"code": 20015, "message": "System is really busy"}, RATE),
    ("siliconflow", 500, "System is really busy. Please try again later.", RATE),
    ("siliconflow", 400, {"code": 20015, "message": "The parameter is invalid"}, BAD),
    ("siliconflow", 503, {"code": 50505, "message": "Model service overloaded"}, BUSY),
    ("siliconflow", 400, {"code": 20012, "message": "Model does not exist"}, MODEL),
    ("siliconflow", 422, {"detail": "unprocessable"}, BAD),
    ("siliconflow", 401, "Invalid token", AUTH),
    # Spark
    ("spark", 200, {"code": 11200, "message": "m", "sid": "s"}, FUNDS),
    ("spark", 200, err("m (sid: s)", type="api_error", param=None, code="11200"), FUNDS),
    *(("spark", 200, {"code": code, "message": "m"}, RATE) for code in (10007, 11201, 11202, 11203)),
    ("spark", 200, {"code": 10013, "message": "m"}, BAD),
    ("spark", 200, {"code": 10110, "message": "m"}, BUSY),
    ("spark", 200, {"code": 10016, "message": "m"}, AUTH),
    ("spark", 200, {"code": 10012, "message": "m"}, BROKEN),
    # what holds for all
    *((name, 200, err(code="model_not_found", type="invalid_request_error"), MODEL) for name in DIALECTS),
    *((name, 401, err(), AUTH) for name in DIALECTS),
    *((name, 400, err(), BAD) for name in DIALECTS),
    *((name, 503, err(), BUSY) for name in DIALECTS),
    *((name, 200, err(code=402), FUNDS) for name in DIALECTS),
    # any OpenAI-compatible server, and what such servers forward from others
    ("openai", 429, err("quota", type="insufficient_quota", code="insufficient_quota"), FUNDS),
    ("openai", 429, err("billing", code="billing_not_active"), FUNDS),
    ("openai", 402, {"type": "error", "error": {"type": "insufficient_balance_error", "message": "(1008)"}}, FUNDS),
    ("openai", 200, err("x", type="insufficient_balance_error"), FUNDS),
    ("openai", 403, err("overdue", code="AccountOverdueError"), FUNDS),
    ("openai", 200, {"base_resp": {"status_code": 1008, "status_msg": "Insufficient Balance"}}, FUNDS),
    ("openai", 403, {"message": "Your account is in arrears."}, FUNDS),
    ("openai", 400, {"message": "no role 'insufficient balance'"}, "invalid_parameter"),  # a quote of the client's
    ("openai", 429, err("r", code="rate_limit_exceeded"), RATE),
    ("openai", 200, err("r", type="rate_limit_error"), RATE),
    ("openai", 200, err("r", code=429), RATE),
    ("openai", 200, err("a", code="401"), AUTH),
    ("openai", 403, None, AUTH),
    ("openai", 200, err("o", type="overloaded_error"), BUSY),
    ("openai", 529, None, BUSY),
    ("openai", 400, err("c", code="content_policy_violation"), BAD),
    ("openai", 413, None, BAD),
    ("openai", 200, err("b", type="invalid_request_error"), BAD),
    ("openai", 200, err("b", code=400), BAD),
    ("openai", 200, err("b", code=True), BROKEN),
    ("openai", 200, {"code": "20015", "message": "busy"}, BROKEN),
    ("openai", 408, None, "upstream_timeout"),
    ("openai", 404, None, MODEL),
    *(("openai", status, None, BROKEN) for status in (204, 301, 418, 500, 502, 504, 599)),
    *(("openai", 500, payload, BROKEN) for payload in ODD),
]  # fmt: skip


@pytest.mark.parametrize(("dialect", "status", "payload", "code"), DISGUISES)
def test_b9_b15_every_disguise_has_its_code(dialect: str, status: int, payload: Any, code: str) -> None:
    found = read_refusal(status, payload, DIALECTS[dialect], secret=SECRET, retry_after_ns=7)
    assert found.code == code
    assert found.status != 402, "402 is ours alone"
    assert found.status != 401
    assert (found.retry_after_ns == 7) is found.retry
    assert found.retry is (code in (RATE, BUSY))


@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_rule_of_the_catalogue_names_a_code_that_there_is(dialect: str) -> None:
    for rule in (*DIALECTS[dialect].errors, *COMMON_RULES):
        for status in rule.statuses or {200, 400, 500}:
            for mark in rule.marks or {"none"}:
                payload = err(rule.text or "m", code=mark)
                assert read_refusal(status, payload, DIALECTS[dialect], secret="").code


def test_every_class_of_error_is_told_apart_in_every_dialect() -> None:
    by_status = {FUNDS: 402, RATE: 429, AUTH: 401, BAD: 400, BUSY: 503, MODEL: 404}
    for name, dialect in DIALECTS.items():
        for code, status in by_status.items():
            assert read_refusal(status, err(), dialect, secret="").code == code, name


def test_a_mark_with_dots_counts_from_its_beginning_only() -> None:
    for code, expected in (("RateLimitExceeded.A.B", RATE), ("A.RateLimitExceeded", BROKEN), ("RateLimit", BROKEN)):
        assert read_refusal(200, err(code=code), DIALECTS["doubao"], secret="").code == expected


def test_only_the_first_beginnings_of_a_mark_count_and_what_is_long_is_none() -> None:
    assert read_refusal(200, err(code="RateLimitExceeded" + ".x" * 50), DIALECTS["doubao"], secret="").code == RATE
    deep = Dialect("deep", ask_usage=False, errors=(ErrorRule(BAD, marks=frozenset({"a" + ".a" * 8})),))
    assert read_refusal(500, err(code="a" + ".a" * 8), deep, secret="").code == BAD
    assert read_refusal(500, err(code="a" + ".a" * 9), deep, secret="").code == BROKEN
    edge = "AccessDenied." + "x" * (MARK_CHARS_MAX - 13)
    assert read_refusal(500, err(code=edge), DIALECTS["doubao"], secret="").code == AUTH
    assert read_refusal(500, err(code=edge + "x"), DIALECTS["doubao"], secret="").code == BROKEN


def test_a7_marks_of_nothing_but_dots_cost_nothing() -> None:
    failures = tuple(Failure((str(number),)) for number in range(500))
    own = Dialect("own", ask_usage=False, failure=failures)
    payload = {str(number): f"{number}." + "." * (number % 120) for number in range(500)} | err(code="." * 1_000_000)
    begun = time.process_time()
    assert read_refusal(200, payload, own, secret="").code == BROKEN
    assert time.process_time() - begun < 0.5


@pytest.mark.parametrize("word", ["x", "bearer ", "bearer" + " " * 999, "sk-", ".", "好", "\x01"])
def test_a7_a_message_of_a_mebibyte_is_read_in_part(word: str) -> None:
    message = word * (1_000_000 // len(word))
    begun = time.process_time()
    for _ in range(10):
        read_refusal(400, err(message, code=message), DIALECTS["qwen"], secret=SECRET)
        read_error_body(b"data: {\n" * 8000)
    assert time.process_time() - begun < 0.25
    edge = READ_CHARS_MAX - 5
    for at in range(edge - len(SECRET), edge + len(SECRET)):
        assert SECRET[:4] not in read_refusal(400, err("\n" * at + SECRET), DIALECTS["qwen"], secret=SECRET).message


def test_a_402_is_about_money_whatever_else_it_says() -> None:
    for dialect in DIALECTS.values():
        assert read_refusal(402, err(type="authentication_error"), dialect, secret="").code == FUNDS


def test_what_a_failure_of_the_dialects_own_says_is_a_mark_and_its_message_stands_beside_it() -> None:
    rules = (ErrorRule(FUNDS, marks=frozenset({"broke"})), ErrorRule(BAD, statuses=frozenset({200}), text="too odd"))
    own = Dialect("own", ask_usage=False, failure=(Failure(("result", "state")),), errors=rules)
    assert read_refusal(200, {"result": {"state": "broke"}}, own, secret="").code == FUNDS
    odd = read_refusal(200, {"result": {"state": "no", "message": "That is Too Odd."}}, own, secret="")
    assert (odd.code, odd.message) == (BAD, "That is Too Odd.")
    silent: list[Any] = [{"result": {"state": {}}}, {"result": 5}, {"result": {"state": True}}, None, [], "x"]
    for payload in silent:
        assert read_refusal(200, payload, own, secret="").code == BROKEN


@pytest.mark.parametrize(
    ("body", "found"),
    [
        (b'{"error":{"code":"Arrearage"}}', {"error": {"code": "Arrearage"}}),
        (b'  \n{"code":1}', {"code": 1}),
        (b'data: {"error":{"code":"Arrearage"}}\n\n', {"error": {"code": "Arrearage"}}),
        (b'id:1\nevent:error\n:HTTP_STATUS/400\ndata:{"code":"Arrearage","message":"m"}\n\n',
         {"code": "Arrearage", "message": "m"}),
        (b"data: x\r\ndata:{}\r\n", {}),
        (b'"System is really busy"', "System is really busy"),
        (b"System is really busy\n", "System is really busy"),
        (b"<html><body>nginx</body></html>", None),
        (b"", None),
        (b" \n", None),
        (b"\xff\xfe", "\ufffd\ufffd"),
        # what does not parse may hold a secret in escapes
        (b'{"error":{"message":"bad key sk\\u002dcanary"', None),
        (b' \n[{"message":"sk\\u002dcanary"', None),
        (b'"bad key sk\\u002dcanary', None),
        (b'\xef\xbb\xbf{"message":"sk\\u002dcanary"', None),
        (b'data: {"message":"sk\\u002dcanary"\n\n', None),
        (b'event: error\ndata:busy\ndata:  "sk\\u002dcanary\n\n', None),
        (b"data: busy\n\n", "data: busy"),
        (b"busy: {}", "busy: {}"),
    ],
)  # fmt: skip
def test_the_body_of_an_error_is_read_in_whatever_clothes(body: bytes, found: Any) -> None:
    assert read_error_body(body) == found


@given(st.binary(max_size=60) | st.lists(st.sampled_from([b"data:", b"{}", b"\n", b'"', b"<", b"["])).map(b"".join))
def test_any_body_is_read(body: bytes) -> None:
    found = read_error_body(body)
    assert read_refusal(429, found, DIALECTS["openai"], secret="").code == RATE


HIDDEN = ["sk-abcdef123456", "ak-abcdef", "tp-abcdef", "bce-v3/ALTAK-abc/def", SECRET]
HIDDEN += ["Bearer abcdef.ghijkl", "bearer  x/y/z/1/2/3/4", "密钥sk-abcdef123456", "key=sk-abcdef123456"]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_f6_what_looks_like_a_secret_is_taken_out(hidden: str) -> None:
    found = read_refusal(400, err(f"bad key {hidden}, really"), DIALECTS["openai"], secret=SECRET)
    assert hidden not in found.message
    assert hidden.split()[-1] not in found.message
    assert "abcdef" not in found.message
    assert "[removed]" in found.message
    assert found.message.startswith("bad key")


@pytest.mark.parametrize(
    "message",
    [
        "task-force is unknown",
        "disk-space is low",
        "ask http/2.0-only servers",
        "risk-averse mode is not supported",
        "Bearer tokens are expected",
        "the bearer of news, forbearer unheard",
    ],
)
def test_words_that_only_end_like_a_secret_stay(message: str) -> None:
    assert read_refusal(400, err(message), DIALECTS["openai"], secret=SECRET).message == message


def marked(payload: Any) -> Any:
    """Return the payload with a word at the end of every message."""
    if not isinstance(payload, dict):
        return payload
    names = ("message", "status_msg", "error_msg", "msg", "detail", "Message")
    return {k: f"{v} canary" if k in names else marked(v) for k, v in payload.items()}


@pytest.mark.parametrize(("dialect", "status", "payload", "code"), DISGUISES)
def test_b10_b11_only_what_is_said_about_the_request_is_repeated(
    dialect: str, status: int, payload: Any, code: str
) -> None:
    found = read_refusal(status, marked(payload), DIALECTS[dialect], secret=SECRET)
    assert found.code == code
    assert ("canary" in found.message) is (code == BAD and payload is not None)


@given(st.text(max_size=2000), st.sampled_from(["", SECRET]))
def test_f11_a_message_is_one_bounded_line_without_the_secret(text: str, secret: str) -> None:
    found = read_refusal(400, {"error": {"message": text + SECRET + text}}, DIALECTS["openai"], secret=secret)
    assert 0 < len(found.message) <= MESSAGE_CHARS_MAX
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in found.message)
    assert not secret or secret not in found.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
        st.sampled_from(["error", "code", "type", "message", "base_resp", "status_code", "detail"]), inner, max_size=4
    ),
    max_leaves=8,
)  # fmt: skip


@given(st.integers(100, 599), JSON, st.sampled_from(sorted(DIALECTS)))
def test_whatever_comes_has_an_answer(status: int, payload: Any, dialect: str) -> None:
    found = read_refusal(status, payload, DIALECTS[dialect], secret=SECRET)
    assert found.message
    assert found.status in (400, 429, 502, 503, 504)
