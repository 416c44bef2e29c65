"""A thousand mixed requests, and every charge agrees with the upstream's own log.

Strategy: kinds are dealt out by a seed: streamed or not, cached tokens, two choices, four shapes, clients that leave in
the middle, upstreams that fail before and after the first byte. Then the ledger is closed, verified, and compared
request by request with fractions computed from what the upstream sent.
"""

import asyncio
import random
from pathlib import Path

from tests.rig import reckon
from tests.rig.answers import SHAPES, Answer
from tests.rig.house import House, open_house
from tests.rig.invariants import copied, violations
from tests.rig.steps import Close, Received, Reset, Script, error

REQUESTS, AT_ONCE = 1000, 50


def planned(dice: random.Random, kind: str) -> Answer:
    """Return an answer of any size."""
    prompt = dice.randint(1, 60)
    return Answer(
        shape=dice.choice(SHAPES),
        words=dice.randint(3, 12),
        prompt=prompt,
        completion=dice.randint(1, 300),
        cached=dice.choice((0, dice.randint(0, prompt))),
        usage=kind != "silent",
    )


KINDS = ("plain",) * 5 + ("two", "left", "left", "refused", "reset", "cut", "silent")


async def one(house: House, number: int, truths: dict[str, reckon.Truth]) -> None:
    """Ask once and write down what the upstream says of it."""
    dice, tag = random.Random(number), f"mix{number}"
    kind = dice.choice(KINDS)
    answer = planned(dice, kind)
    model, stream = f"m-{answer.shape}", kind == "left" or dice.random() < 0.6

    def script(received: Received) -> Script:
        steps = list(answer.script(received))
        if kind == "refused":
            return error(dice.choice((400, 429, 500)), message="no")
        if kind == "reset":
            return [Reset()]
        if kind == "cut" and stream:
            return [*steps[: dice.randrange(2, len(steps))], Close()]
        return steps

    house.fu.scripts[tag] = script
    async with house.door.connect() as connection:
        n = 2 if kind == "two" else 1
        await connection.send(house.door.request(tag, model=model, stream=stream, n=n))
        response = await connection.read_head()
        if kind == "left":
            await connection.read_events(2)
            connection.reset()
        else:
            await connection.read_rest()
    tries = house.fu.of(tag)  # two where a reused connection turned out dead: the last one is what counts
    await house.fu.wait_for(len(tries), tag, ended=True)
    truths[response.request_id] = reckon.Truth(model, tries[-1].usage)


async def test_1000_mixed_requests_agree_with_the_upstreams_log(tmp_path: Path) -> None:
    truths: dict[str, reckon.Truth] = {}
    async with open_house(tmp_path, {"server": {"timeouts": {"first_byte_s": 30.0, "silence_s": 30.0}}}) as house:
        limit = asyncio.Semaphore(AT_ONCE)

        async def limited(number: int) -> None:
            async with limit:
                await one(house, number, truths)

        await asyncio.gather(*(limited(number) for number in range(REQUESTS)))
        rows = {row["request_id"]: row for row in await house.door.closed_rows(count=REQUESTS)}
        values = house.door.values
    assert len(truths) == REQUESTS
    assert sum(truth.usage is not None for truth in truths.values()) > REQUESTS / 2
    assert reckon.differences(rows, truths, values) == []
    with copied(house.door.ledger_path, tmp_path / "copy") as db:
        assert violations(db) == []
        assert db.execute("SELECT count(*) FROM open_holds").fetchone()[0] == 0
