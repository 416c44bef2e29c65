"""What each provider's error is to a client: every disguise of a dialect, by its code.

Sources of the shapes: the providers' pages and captured answers, as the catalogue's dialects have them.
"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.core.refusal import COMMON_RULES, MESSAGE_CHARS_MAX, read_refusal

DIALECTS = load_catalogue().dialects
SECRET = "9f8e7d6c5b4a.provider"
FUNDS, RATE, AUTH, BUSY = "upstream_no_funds", "upstream_rate_limited", "upstream_auth", "upstream_overloaded"
BAD, BROKEN, MODEL = "invalid_parameter", "upstream_broken", "upstream_model"


def err(message: str = "m", **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, **more}}


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


HIDDEN = ["sk-abcdef123456", "ak-abcdef", "tp-abcdef", "bce-v3/ALTAK-abc/def", "Bearer abc.def", "bearer  x/y", SECRET]


@pytest.mark.parametrize("hidden", HIDDEN)
def test_f6_what_looks_like_a_secret_is_taken_out(hidden: str) -> None:
    found = read_refusal(400, err(f"bad key {hidden}, really"), DIALECTS["openai"], secret=SECRET)
    assert hidden not in found.message
    assert hidden.split()[-1] not in found.message
    assert "[removed]" in found.message
    assert found.message.startswith("bad key")


def marked(payload: Any) -> Any:
    """Return the payload with a word at the end of every message."""
    if not isinstance(payload, dict):
        return payload
    names = ("message", "status_msg", "detail")
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
