"""What each provider says instead of an answer, in its own disguise, and what the `openai` SDK makes of ours.

Strategy: the built-in provider fails on demand: with a status of its own, under a 200, or after content. Its words
repeat the door's credential and tell of the operator's account with it; nothing of that may leave the door.
"""

import asyncio
from typing import Any

import openai
import pytest

from nexus_proxy.demo.failures import ACCOUNT, KINDS
from nexus_proxy.demo.shapes import SHAPES, Where
from tests.dialects.stage import Stage
from tests.rig import reckon
from tests.rig.door import CHAT
from tests.rig.raw_client import Response, post

pytestmark = pytest.mark.asyncio(loop_scope="module")
DIALECTS = pytest.mark.parametrize("dialect", sorted(SHAPES))
WAYS = [(place, streamed) for place in ("", " hidden") for streamed in (False, True)]
# kind: the status, the code, whether a retry helps, and the SDK's class.
EXPECTED: dict[str, tuple[int, str, bool, type[openai.APIStatusError]]] = {
    "no_money": (503, "upstream_no_funds", False, openai.InternalServerError),
    "rate_limit": (429, "upstream_rate_limited", True, openai.RateLimitError),
    "auth": (502, "upstream_auth", False, openai.InternalServerError),
    "bad_request": (400, "invalid_parameter", False, openai.BadRequestError),
    "content": (400, "invalid_parameter", False, openai.BadRequestError),
    "overloaded": (503, "upstream_overloaded", True, openai.InternalServerError),
    "unknown_model": (502, "upstream_model", False, openai.InternalServerError),
}


async def raw(stage: Stage, dialect: str, prompt: str, *, streamed: bool) -> Response:
    messages = [{"role": "user", "content": prompt}]
    return await stage.door.raw(
        post(CHAT, {"model": f"d-{dialect}", "stream": streamed, "messages": messages}, stage.door.key)
    )


def tells_nothing(stage: Stage, dialect: str, answer: Response) -> None:
    """Neither the credential nor anything of the operator's account is in the answer."""
    said = answer.body.decode() + str(answer.headers)
    assert stage.providers[dialect].api_key not in said
    assert ACCOUNT not in said
    for word in ("balance", "recharge", "arrears"):
        assert word not in said.casefold()


async def test_every_kind_is_expected() -> None:
    assert EXPECTED.keys() == KINDS


@DIALECTS
@pytest.mark.parametrize("kind", sorted(KINDS))
async def test_b16_a_failure_is_the_clients_in_our_words(stage: Stage, dialect: str, kind: str) -> None:
    status, code, retry, _ = EXPECTED[kind]
    asked = (raw(stage, dialect, f"/fail {kind}{place}", streamed=streamed) for place, streamed in WAYS)
    for answer, way in zip(await asyncio.gather(*asked), WAYS, strict=True):
        assert (answer.status, answer.json["error"]["code"]) == (status, code), way
        assert answer.header("x-should-retry") == (None if retry else "false"), way
        tells_nothing(stage, dialect, answer)
        row = await stage.door.row(answer)
        assert reckon.nano(row["hold"]) > 0
        assert (reckon.nano(row["charge"]), row["usage_source"], row["state"]) == (0, "none", "voided"), way
        assert row["status"] == status


@DIALECTS
async def test_the_sdk_raises_its_own_errors(stage: Stage, dialect: str) -> None:
    for kind, (_, code, _, raised) in EXPECTED.items():
        for place in ("", " hidden"):
            for streamed in (False, True):
                with pytest.raises(raised) as caught:
                    await stage.ask(dialect, f"/fail {kind}{place}", stream=streamed)
                assert caught.value.code == code


@DIALECTS
async def test_no_money_at_the_provider_is_ours_to_mend(stage: Stage, dialect: str) -> None:
    labels = {"provider": f"d-{dialect}", "code": "upstream_no_funds"}
    for place, streamed in WAYS:
        before = await stage.door.metric("nexus_upstream_errors_total", **labels)
        account = stage.door.account()
        answer = await raw(stage, dialect, f"/fail no_money{place}", streamed=streamed)
        assert answer.status == 503
        assert answer.header("x-should-retry") == "false"
        assert answer.json["error"]["code"] == "upstream_no_funds"
        tells_nothing(stage, dialect, answer)
        row = await stage.door.row(answer)
        assert (row["state"], reckon.nano(row["charge"])) == ("voided", 0)
        assert stage.door.account() == account
        assert await stage.door.metric("nexus_upstream_errors_total", **labels) == before + 1


@DIALECTS
async def test_the_sdk_does_not_try_again_where_money_is_missing(stage: Stage, dialect: str) -> None:
    count = len(stage.door.rows())
    with pytest.raises(openai.InternalServerError):
        await stage.client.with_options(max_retries=2).chat.completions.create(
            model=f"d-{dialect}", messages=[{"role": "user", "content": "/fail no_money"}]
        )
    assert len(await stage.door.closed_rows(count=count + 1)) == count + 1


@DIALECTS
async def test_b17_a_failure_after_content_is_settled_by_what_was_seen(stage: Stage, dialect: str) -> None:
    for kind in sorted(KINDS - {"no_money", "rate_limit", "unknown_model"}):
        answer = await raw(stage, dialect, f"/fail {kind} late", streamed=True)
        assert answer.status == 200
        sent = stage.sent(dialect)
        assert stage.providers[dialect].api_key.encode() not in answer.body
        if stage.providers[dialect].api_key.encode() not in sent.body:
            assert bytes(answer.body) == sent.body  # relayed as it is
            assert answer.saw_last_chunk
        else:
            assert not answer.saw_last_chunk
        row = await stage.door.row(answer)
        assert row["end_state"] != "complete"
        if SHAPES[dialect].where is Where.EVERY:
            assert (row["usage_source"], row["prompt_tokens"]) == (
                "cumulative",
                sent.usage and sent.usage["prompt_tokens"],
            )
        else:
            assert row["usage_source"] == "estimated"
        assert 0 < reckon.nano(row["charge"]) <= reckon.nano(row["hold"])


@DIALECTS
async def test_b17_the_sdk_raises_in_the_middle_of_a_stream(stage: Stage, dialect: str) -> None:
    stream: Any = await stage.ask(dialect, "/fail overloaded late", stream=True)
    if b'"error":' not in stage.sent(dialect).body:
        return  # the SDK does not know these words; that the answer is incomplete it can see by its finish reason
    with pytest.raises(openai.APIError):
        async for _ in stream:
            pass
