"""A provider that nobody has heard of, added by a configuration file alone, and metered to the last nano-unit.

Strategy: it counts under names of its own in a place of its own, hides its errors under a 200 in a way of its own,
renames a parameter, thinks under another word, and charges by the hour of its own clock. The door is real, and so are
the sockets; the expected charge is worked out here, in fractions, from what the provider sent.
"""

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import ceil
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pytest

from tests.rig import reckon
from tests.rig.answers import DONE
from tests.rig.door import DoorInside
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.raw_client import Response
from tests.rig.settings import settings
from tests.rig.steps import LAST_CHUNK, Chunk, Received, Script, Step, sse_head, whole

# Its clock is that of Kathmandu. Around today every day is a working day for the one, and a holiday for the other.
TODAY = datetime.now(UTC).date()
AROUND = [str(TODAY + timedelta(days)) for days in (-2, -1, 0, 1, 2)]

TOML = f"""
[server]
listen = "127.0.0.1:0"
admin_listen = "127.0.0.1:0"

[billing]
fx = {{ XAU = "3.21" }}
markup = "1.1"

[plans.free]
rung = true
rpm = 10

[plans.wide]
rpm = 1000000

[dialects.martian]
based_on = "openai"
ask_usage = true
reasoning = ["murmur"]
renamed_parameters = {{ seed = "chance" }}
refused_parameters = ["oracle"]

[dialects.martian.usage]
at = ["bill.of.tokens"]
prompt = ["heard"]
completion = ["said.all"]
cached = ["remembered"]
cache_write = ["learnt"]
reasoning = ["said.murmured"]
total = ["both"]

[[dialects.martian.failure]]
path = "mood.now"
ok = ["calm", 0]

[[dialects.martian.errors]]
code = "upstream_no_funds"
marks = ["hungry"]

[[dialects.martian.errors]]
code = "upstream_rate_limited"
marks = [17]
statuses = [200]

[[dialects.martian.errors]]
code = "invalid_parameter"
text = "cannot be said"

[providers.day]
dialect = "martian"
base_url = "URL/day"
allow_private = true
api_key_env = "FU_KEY"
schedule = {{ offset = "+05:45", peak = [["00:00", "24:00"]], working_days = {AROUND} }}

[providers.night]
dialect = "martian"
base_url = "URL/night"
allow_private = true
api_key_env = "FU_KEY"
schedule = {{ offset_s = 20700, peak = [["00:00", "24:00"]], holidays = [["{AROUND[0]}", "{AROUND[-1]}"]] }}

[models.day]
provider = "day"
context = 100000
max_output = 5000

[models.day.price]
currency = "XAU"
input = "2.000001"
cached_input = "0.5"
cache_write = "3"
output = "8"
thinking = "16.7"
off_peak = {{ input = "1", output = "3", thinking = "5" }}

[models.night]
provider = "night"
context = 100000
max_output = 5000

[models.night.price]
currency = "XAU"
input = "2.000001"
cached_input = "0.5"
cache_write = "3"
output = "8"
thinking = "16.7"
off_peak = {{ input = "1", output = "3", thinking = "5" }}
"""
DEAR = {"input": "2.000001", "cached": "0.5", "write": "3", "output": "8", "thinking": "16.7"}
# What off-peak lacks is scaled by the ratio of the input prices.
HALF = Fraction(1) / Fraction("2.000001")
CHEAP = {"input": "1", "cached": HALF * Fraction("0.5"), "write": HALF * 3, "output": "3", "thinking": "5"}

BILL = {"heard": 1000, "remembered": 300, "learnt": 50, "said": {"all": 41}, "both": 1041}
THOUGHT = {**BILL, "said": {"all": 41, "murmured": 12}}


class Outpost(NamedTuple):
    """The provider and the door before it."""

    fu: FaultUpstream
    door: DoorInside

    async def ask(self, tag: str, script: Script, **members: Any) -> Response:
        """Ask for a completion that is answered so."""
        self.fu.scripts[tag] = script
        return await self.door.chat(tag, model=members.pop("model", "day"), **members)

    def received(self, tag: str) -> Received:
        """Return what the provider saw of it."""
        return self.fu.one(tag)


@pytest.fixture
async def outpost(tmp_path: Path) -> AsyncIterator[Outpost]:
    async with FaultUpstream() as fu:
        door = DoorInside(tmp_path, settings(fu.url))
        door.config_path.write_text(TOML.replace("URL", fu.url))
        await door.start()
        try:
            door.key = await door.mint("acme", topup="100.00")
            yield Outpost(fu, door)
        finally:
            await door.stop()


def charge_nano(bill: dict[str, Any], prices: dict[str, Any]) -> int:
    """Work out a charge as its price list says, in the deployment's currency."""
    factor = Fraction("3.21") * Fraction("1.1")
    # Each rate is rounded up once, to a micro-unit per million tokens, when the file is read.
    rates = {kind: Fraction(ceil(Fraction(price) * factor * 10**6), 10**6) for kind, price in prices.items()}
    output = rates["thinking" if bill["said"].get("murmured") else "output"]
    fresh = bill["heard"] - bill["remembered"] - bill["learnt"]
    total = fresh * rates["input"] + bill["remembered"] * rates["cached"] + bill["learnt"] * rates["write"]
    exact: Fraction = (total + bill["said"]["all"] * output) / 10**6 * 10**9
    return ceil(exact)


def document(bill: dict[str, Any], text: str = "greetings", **more: Any) -> bytes:
    message = {"role": "assistant", "content": text}
    answer = {"mood": {"now": "calm"}, "choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    # An object that only looks like OpenAI's usage is not what this provider bills by.
    return orjson.dumps({**answer, **more, "usage": {"prompt_tokens": 7}, "bill": {"of": {"tokens": bill}}})


def event(**members: Any) -> bytes:
    return b"data: " + orjson.dumps({"mood": {"now": 0}, **members}) + b"\n\n"


def delta(finish: str | None = None, **said: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": said, "finish_reason": finish}])


BILL_EVENT = event(choices=[], bill={"of": {"tokens": BILL}})
WORDS = [delta(role="assistant", content=""), delta(content="greet"), delta(content="ings"), delta("stop")]


async def is_exact(outpost: Outpost, answer: Response, bill: dict[str, Any], prices: dict[str, Any]) -> None:
    assert answer.status == 200
    row = await outpost.door.row(answer)
    assert reckon.nano(row["charge"]) == charge_nano(bill, prices), row
    assert row["usage_source"] == "reported"
    counted = ("prompt_tokens", "cached_tokens", "completion_tokens")
    assert [row[name] for name in counted] == [bill["heard"], bill["remembered"], bill["said"]["all"]]
    assert row["reasoning_tokens"] == bill["said"].get("murmured", 0)
    assert outpost.door.account()["total_spent"] == Fraction(reckon.nano(row["charge"]), reckon.NANO)


@pytest.mark.parametrize(("model", "prices"), [("day", DEAR), ("night", CHEAP)])
@pytest.mark.parametrize("bill", [BILL, THOUGHT], ids=["plain", "thought"])
@pytest.mark.parametrize("size", [9, 1 << 20], ids=["short", "long"])
async def test_a_document_is_charged_exactly_by_its_hour(
    outpost: Outpost, model: str, prices: dict[str, Any], bill: dict[str, Any], size: int
) -> None:
    body = document(bill, "x" * size)
    answer = await outpost.ask("t", whole(200, body), model=model, seed=5)
    assert answer.body == body
    await is_exact(outpost, answer, bill, prices)
    sent = outpost.received("t")
    assert sent.path == f"/{model}/chat/completions"
    assert (sent.json["chance"], "seed" in sent.json) == (5, False)


@pytest.mark.parametrize(("model", "prices"), [("day", DEAR), ("night", CHEAP)])
@pytest.mark.parametrize("asked", [True, False])
async def test_a_stream_is_charged_exactly_and_its_extra_event_removed(
    outpost: Outpost, model: str, prices: dict[str, Any], asked: bool
) -> None:
    script: list[Step] = [sse_head(), *(Chunk(piece) for piece in (*WORDS, BILL_EVENT, DONE)), LAST_CHUNK]
    options = {"stream_options": {"include_usage": True}} if asked else {}
    answer = await outpost.ask("t", script, model=model, stream=True, **options)
    assert answer.body == b"".join([*WORDS, *([BILL_EVENT] if asked else []), DONE])
    assert outpost.received("t").json["stream_options"] == {"include_usage": True}
    await is_exact(outpost, answer, BILL, prices)


async def test_thinking_under_a_word_of_its_own_has_its_price(outpost: Outpost) -> None:
    script: list[Step] = [
        sse_head(),
        Chunk(delta(murmur="hmm")),
        *map(Chunk, WORDS),
        Chunk(BILL_EVENT),
        Chunk(DONE),
        LAST_CHUNK,
    ]
    answer = await outpost.ask("t", script, stream=True)
    row = await outpost.door.row(answer)
    assert reckon.nano(row["charge"]) == charge_nano({**BILL, "said": {"all": 41, "murmured": 1}}, DEAR)


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("mood", "status", "code"),
    [
        ({"now": "hungry", "message": "canary"}, 503, "upstream_no_funds"),
        ({"now": 17, "message": "canary"}, 429, "upstream_rate_limited"),
        ({"now": "cross", "message": "That CANNOT be said."}, 400, "invalid_parameter"),
        ({"now": "cross"}, 502, "upstream_broken"),
    ],
)
async def test_an_error_that_hides_under_a_200_is_one_and_costs_nothing(
    outpost: Outpost, stream: bool, mood: dict[str, Any], status: int, code: str
) -> None:
    body = orjson.dumps({"choices": [], "mood": mood})
    streamed: list[Step] = [sse_head(), Chunk(b"data: " + body + b"\n\n"), LAST_CHUNK]
    hidden = streamed if stream else whole(200, body)
    answer = await outpost.ask("t", hidden, stream=stream)
    assert (answer.status, answer.json["error"]["code"]) == (status, code)
    assert b"canary" not in answer.body
    row = await outpost.door.row(answer)
    assert (reckon.nano(row["charge"]), row["usage_source"]) == (0, "none")
    assert reckon.nano(row["hold"]) > 0
    assert outpost.door.account()["total_spent"] == 0


async def test_an_error_after_content_is_relayed_and_the_bill_so_far_charged(outpost: Outpost) -> None:
    late = event(choices=[], mood={"now": "hungry"})
    so_far = event(choices=[{"index": 0, "delta": {"content": "x"}}], bill={"of": {"tokens": BILL}})
    answer = await outpost.ask("t", [sse_head(), Chunk(so_far), Chunk(late), LAST_CHUNK], stream=True)
    assert answer.body == so_far + late
    row = await outpost.door.row(answer)
    assert (reckon.nano(row["charge"]), row["usage_source"]) == (charge_nano(BILL, DEAR), "cumulative")


@pytest.mark.parametrize("name", ["oracle", "chance", "Chance"])
async def test_what_it_must_not_be_sent_is_refused_before_it_sees_anything(outpost: Outpost, name: str) -> None:
    answer = await outpost.ask("t", whole(200, document(BILL)), **{name: 1})
    assert (answer.status, answer.json["error"]["code"]) == (400, "unsupported_parameter")
    assert answer.json["error"]["param"] == name
    assert outpost.fu.received == []
    assert outpost.door.rows() == []
