"""Group E of the failure catalogue: money, through a whole door.

Strategy: the upstream withholds its answers until all is decided, so that races are as tight as they can be.
"""

import asyncio
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from tests.rig import reckon
from tests.rig.answers import SHAPES, Answer, Shape, chunks
from tests.rig.door import CHAT
from tests.rig.eventually import eventually
from tests.rig.house import House, open_house
from tests.rig.raw_client import get, post
from tests.rig.steps import LAST_CHUNK, Chunk, Pause, sse_head

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def hold_of(house: House, key: str) -> int:
    """Return what a plain request holds, in nano-units."""
    answer = await house.door.chat("size", key=key)
    return reckon.nano((await house.door.row(answer))["hold"])


def decimal(nano: int) -> str:
    """Write nano-units as an admin does."""
    return f"{nano // 10**9}.{nano % 10**9:09d}"


async def burst(house: House, count: int, key: str, tag: str) -> list[Any]:
    """Ask so many times at once; answers are withheld until every request is decided."""
    go, decided, answers = asyncio.Event(), 0, []
    house.fu.scripts[tag] = lambda received: [Pause(go), *Answer().script(received)]

    async def one() -> None:
        nonlocal decided
        async with house.door.connect() as connection:
            await connection.send(house.door.request(tag, key=key))
            answer = await connection.read_response(timeout_s=60)
            answers.append(answer)
            if answer.status != 200:
                decided += 1

    async def release() -> None:
        await eventually(lambda: decided + len(house.fu.of(tag)) >= count, timeout_s=60)
        go.set()

    await asyncio.gather(release(), *(one() for _ in range(count)))
    return answers


async def test_e1_a_balance_for_137_holds_admits_exactly_137_of_1000(tmp_path: Path) -> None:
    timeouts = {"first_byte_s": 60.0, "client_headers_s": 30.0}
    async with open_house(tmp_path, {"server": {"timeouts": timeouts}}) as house:
        size = await hold_of(house, house.door.key)
        key = await house.door.mint("crowd", topup=decimal(137 * size + size - 1))
        answers = await burst(house, 1000, key, "size")
        statuses = [answer.status for answer in answers]
        assert (statuses.count(200), statuses.count(402)) == (137, 863)
        refused = [answer for answer in answers if answer.status == 402]
        assert {answer.code for answer in refused} == {"balance_held"}
        assert {answer.header("retry-after") for answer in refused} == {"1"}
        assert len(await house.door.closed_rows("crowd", 137)) == 137
        assert house.door.account("crowd")["balance"] >= 0
        assert house.door.account("crowd")["held"] == 0


async def test_e1_a_plan_of_10_a_minute_admits_exactly_10_of_1000(tmp_path: Path) -> None:
    timeouts = {"first_byte_s": 60.0, "client_headers_s": 30.0}
    async with open_house(tmp_path, {"server": {"timeouts": timeouts}}) as house:
        key = await house.door.mint("narrow", plan="free")
        answers = await burst(house, 1000, key, "narrow")
        statuses = [answer.status for answer in answers]
        assert (statuses.count(200), statuses.count(429)) == (10, 990)
        refused = [answer for answer in answers if answer.status == 429]
        assert {answer.code for answer in refused} == {"rate_limit_exceeded"}
        for answer in refused:
            assert 0 < int(answer.header("retry-after") or 0) <= 60
            assert 0 < int(answer.header("retry-after-ms") or 0) <= 60_000
            assert answer.header("x-ratelimit-limit-requests") == "10"
            assert answer.header("x-ratelimit-remaining-requests") == "0"
        look = await house.door.raw(get("/v1/balance", key))
        assert (look.status, look.header("x-ratelimit-remaining-requests")) == (200, "0")


@pytest.mark.parametrize("missing", [0, 1])
async def test_e2_a_balance_of_a_hold_is_enough_and_one_unit_less_is_402(shared_house: House, missing: int) -> None:
    size = await hold_of(shared_house, shared_house.door.key)
    key = await shared_house.door.mint(f"edge{missing}", topup=decimal(size - missing))
    answer = await shared_house.door.chat("size", key=key)
    if not missing:
        assert answer.status == 200
        return
    assert (answer.status, answer.code) == (402, "insufficient_balance")
    assert answer.header("x-should-retry") == "false"
    message = answer.error["message"]
    assert decimal(size).rstrip("0") in message
    assert decimal(size - 1).rstrip("0") in message


async def test_e2_an_empty_account_is_402_and_a_top_up_holds_from_the_next_request_on(shared_house: House) -> None:
    key = await shared_house.door.mint("poor", topup="0")
    assert (await shared_house.door.chat(key=key)).status == 402
    await shared_house.door.admin("topup", account="poor", amount="5.00")
    assert (await shared_house.door.chat(key=key)).status == 200


async def test_e8_a_top_up_sent_100_times_at_once_is_one_credit(shared_house: House) -> None:
    await shared_house.door.mint("paid", topup="0")
    sent = (shared_house.door.admin("topup", account="paid", amount="7.00", external_id="x-1") for _ in range(100))
    answers = await asyncio.gather(*sent)
    assert sum(answer["applied"] for answer in answers) == 1
    assert len({answer["entry"] for answer in answers}) == 1
    assert shared_house.door.account("paid")["balance"] == 7


@pytest.mark.parametrize("how", ["revoke", "suspend"])
async def test_e14_a_key_that_ends_in_the_middle_of_a_stream(shared_house: House, how: str) -> None:
    account, tag = f"ending-{how}", shared_house.tag()
    key = await shared_house.door.mint(account)
    go = asyncio.Event()
    events = Answer().events({"stream_options": {"include_usage": True}})
    shared_house.fu.scripts[tag] = [sse_head(), *chunks(events[:3]), Pause(go), *chunks(events[3:]), LAST_CHUNK]
    async with shared_house.door.connect() as connection:
        await connection.send(shared_house.door.request(tag, key=key, stream=True))
        answer = await connection.read_head()
        await connection.read_events(2)
        if how == "revoke":
            shown = await shared_house.door.admin("account_show", account=account)
            await shared_house.door.admin("key_revoke", key_id=shown["keys"][0]["id"])
        else:
            await shared_house.door.admin("account_set", account=account, suspended=True)
        next_one = await shared_house.door.chat(key=key)
        go.set()
        await connection.read_rest()
    assert (next_one.status, next_one.code) == (
        (401, "invalid_api_key") if how == "revoke" else (403, "account_suspended")
    )
    assert answer.saw_last_chunk
    row = await shared_house.door.row(answer)
    assert (row["usage_source"], row["end_state"]) == ("reported", "complete")


async def test_e15_a_price_of_nothing_still_writes_a_row(tmp_path: Path) -> None:
    model = {"provider": "p-openai", "upstream": "free", "context": 1000, "max_output": 100,
             "price": {"input": "0", "cached_input": "0", "output": "0"}}  # fmt: skip
    async with open_house(tmp_path, {"models": {"m-free": model}}) as house:
        key = await house.door.mint("nobody", topup="0")
        answer = await house.door.chat(key=key, model="m-free", max_tokens=50)
        assert answer.status == 200
        row = await house.door.row(answer)
        assert (reckon.nano(row["charge"]), row["prompt_tokens"], row["completion_tokens"]) == (0, 25, 10)
        assert house.door.account("nobody")["balance"] == 0


async def test_e17_the_table_decides_whatever_is_remembered(shared_house: House) -> None:
    """Concurrent holds against one balance all looked affordable when they were asked for."""
    size = await hold_of(shared_house, shared_house.door.key)
    key = await shared_house.door.mint("stale", topup=decimal(size * 3))
    answers = await burst(shared_house, 20, key, "size")
    assert sum(answer.status == 200 for answer in answers) == 3


@pytest.mark.parametrize("spare", [1000, 10**9], ids=["poor", "rich"])
async def test_e19_a_report_above_the_hold_takes_what_is_there_and_never_more(shared_house: House, spare: int) -> None:
    size = await hold_of(shared_house, shared_house.door.key)
    above = Answer(prompt=1500, completion=1000)
    cost = reckon.charge_nano(above.counts(), shared_house.price("m-openai"))
    assert cost > size + 1000
    tag, account = shared_house.tag(), f"over{spare}"
    shared_house.fu.scripts[tag] = above.script
    key = await shared_house.door.mint(account, topup=decimal(size + spare))
    before = await shared_house.door.metric("nexus_overrun_total")
    answer = await shared_house.door.chat(tag, key=key)
    assert answer.status == 200
    row, money = await shared_house.door.row(answer), shared_house.door.account(account)
    charge = min(cost, size + spare)
    assert (reckon.nano(row["charge"]), reckon.nano(row["overrun"])) == (charge, cost - charge)
    assert reckon.nano(money["balance"]) == size + spare - charge
    assert money["held"] == 0
    assert reckon.nano(money["total_spent"]) == charge
    after = await shared_house.door.metric("nexus_overrun_total")
    assert (after > before) is (cost > charge)


async def test_e19_e16_a_report_that_cannot_be_is_not_believed(shared_house: House) -> None:
    tag = shared_house.tag()
    shared_house.fu.scripts[tag] = Answer(prompt=100_000_000, completion=100_000_000).script
    key = await shared_house.door.mint("absurd", topup="5.00")
    row = await shared_house.door.row(await shared_house.door.chat(tag, key=key))
    assert 0 < reckon.nano(row["charge"]) <= reckon.nano(row["hold"])
    assert row["flags"]


@pytest.mark.parametrize("asked", [True, False, None, ...], ids=["true", "false", "null", "absent"])
@pytest.mark.parametrize("shape", SHAPES)
async def test_e22_only_the_event_that_we_asked_for_is_removed(shared_house: House, shape: Shape, asked: Any) -> None:
    tag = shared_house.tag()
    answer = Answer(shape=shape, prompt=77, completion=33, cached=20, reasoning=4)
    shared_house.fu.scripts[tag] = answer.script
    options = {} if asked is ... else {"stream_options": {"include_usage": asked} if asked is not None else None}
    body = shared_house.door.body(tag, stream=True, model=f"m-{shape}", **options)
    got = await shared_house.door.raw(post(CHAT, body, shared_house.door.key))
    assert got.saw_last_chunk
    sent = shared_house.fu.one(tag)
    assert bytes(got.body) == answer.seen_by_client(sent.json, client_asked=asked is True)
    row = await shared_house.door.row(got)
    assert (row["prompt_tokens"], row["completion_tokens"], row["cached_tokens"], row["reasoning_tokens"]) == (
        77,
        33,
        20,
        4,
    )
    assert reckon.nano(row["charge"]) == reckon.charge_nano(answer.counts(), shared_house.price(f"m-{shape}"))


async def test_e22_a_usage_event_nobody_asked_for_but_the_provider_stays(shared_house: House) -> None:
    """A provider that reports by itself is not asked, and what it sends is not ours to remove."""
    tag = shared_house.tag()
    usage = Answer().counts()
    events = [e.data for e in Answer(shape="openai").events({"stream_options": {"include_usage": True}})]
    shared_house.fu.scripts[tag] = [sse_head(), *(Chunk(e, usage) for e in events), LAST_CHUNK]
    got = await shared_house.door.chat(tag, stream=True, model="m-deepseek")
    assert bytes(got.body) == b"".join(events)
    assert reckon.nano((await shared_house.door.row(got))["charge"]) == reckon.charge_nano(
        usage, shared_house.price("m-deepseek")
    )


async def test_balance_is_exact_and_a_number(shared_house: House) -> None:
    key = await shared_house.door.mint("exact", topup="1.23")
    answer = await shared_house.door.chat(key=key)
    row = await shared_house.door.row(answer)
    assert Fraction(answer.header("x-nexus-charge") or "0") == Fraction(str(row["charge"]))
    assert answer.header("x-nexus-currency") == "USD"
    raw = (await shared_house.door.raw(get("/v1/balance", key))).body.decode()
    text = raw.split('"balance":')[1].split(",")[0].strip()
    assert Fraction(text) == Fraction("1.23") - Fraction(str(row["charge"]))
    assert "e" not in text
    assert 2 <= len(text.partition(".")[2]) <= 9
