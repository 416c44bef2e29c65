"""A busy minute: a door, its provider, clients of every kind, and a Prometheus that watches.

Strategy: nothing is made up. Each kind of client is a coroutine that asks, waits a little and asks again; a program
locks the ledger for a while, and the door is killed and started again. At the end three streams stay open, so that what
shows what is open has something to show.
"""

import asyncio
import contextlib
import signal
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final

import orjson

from tests.grafana.prometheus import Prometheus, prometheus
from tests.rig.answers import SHAPES, Answer
from tests.rig.door import DoorProcess, door_process
from tests.rig.eventually import eventually
from tests.rig.fault_upstream import FaultUpstream
from tests.rig.raw_client import Connection
from tests.rig.settings import PRICES
from tests.rig.steps import Chunk, Delay, Received, Reset, Script, Stall, Step, error, sse_head, whole

LOCKED_S: Final = 1.6  # longer than an answer waits for the ledger
LONG_RUN_S: Final = 60.0
STREAMS_LEFT_OPEN: Final = 3

# Two billing currencies, so that costs have two as well.
OVERRIDES: Final[dict[str, Any]] = {
    "billing": {"fx": {"CNY": "0.1389"}},
    "models": {"m-qwen": {"price": PRICES["qwen"] | {"currency": "CNY"}}},
}


@dataclass(slots=True)
class Scene:
    """A door that has been busy since `began`, and who watched; instants are Unix seconds. `keys` are by account."""

    door: DoorProcess
    fu: FaultUpstream
    prometheus: Prometheus
    began: float
    restarted: float = 0.0
    ended: float = 0.0
    keys: dict[str, str] = field(default_factory=dict)
    asked: int = 0
    open: list[Connection] = field(default_factory=list)

    async def ask(self, script: Script | Callable[[Received], Script], **options: Any) -> None:
        """Ask for a completion that the provider answers by the script, and read what comes."""
        tag = self.tag(script)
        with contextlib.suppress(ConnectionError, TimeoutError):
            await self.door.chat(tag, timeout_s=10, **options)

    def tag(self, script: Script | Callable[[Received], Script]) -> str:
        """Return a new tag whose requests the provider answers by the script."""
        self.asked += 1
        tag = f"scene-{self.asked}"
        self.fu.scripts[tag] = script
        return tag


Client = Callable[[Scene, Random], Awaitable[None]]


def _answer(chance: Random, **changes: Any) -> Answer:
    prompt = chance.randint(20, 300)
    shape = chance.choice(SHAPES)
    given = {"shape": shape, "prompt": prompt, "cached": chance.randint(0, prompt), "words": chance.randint(2, 12)}
    return Answer(**{**given, "completion": chance.randint(10, 200), "reasoning": chance.randint(0, 9), **changes})


def _slowly(answer: Answer, chance: Random) -> Callable[[Received], Script]:
    def script(received: Received) -> Script:
        steps: list[Step] = [Delay(chance.expovariate(12))]
        for step in answer.script(received):
            steps += (step, Delay(chance.random() * 0.02))
        return steps

    return script


async def _content(scene: Scene, chance: Random) -> None:
    answer = _answer(chance)
    await scene.ask(_slowly(answer, chance), model=f"m-{answer.shape}", stream=chance.random() < 0.7)


async def _unlucky(scene: Scene, chance: Random) -> None:
    """The provider fails, in one of its ways."""
    statuses = (429, "slow down"), (500, "broken"), (503, "overloaded"), (402, "Insufficient Balance"), (401, "no")
    status, message = chance.choice(statuses)
    ways: tuple[Script, ...] = (error(status, message=message), [Reset()], [sse_head(), Reset()])
    script = chance.choice(ways)
    await scene.ask(script, model="m-deepseek", stream=True)


async def _forgotten(scene: Scene, chance: Random) -> None:
    """The provider forgets to report, or contradicts itself."""
    answer = _answer(chance, shape="openai", usage=False)
    wrong = {"prompt_tokens": 20, "completion_tokens": 10, "total_tokens": 99}
    if chance.random() < 0.5:
        await scene.ask(answer.script, model="m-openai", stream=True)
    else:
        document = orjson.loads(answer.document({})) | {"usage": wrong}
        await scene.ask(whole(200, orjson.dumps(document)), model="m-openai")


async def _leaving(scene: Scene, chance: Random) -> None:
    """The client hangs up in the middle of a stream."""
    answer = _answer(chance, shape="openai", words=20, usage=chance.random() < 0.7)
    tag = scene.tag(_slowly(answer, chance))
    with contextlib.suppress(ConnectionError, TimeoutError):
        async with scene.door.connect() as connection:
            await connection.send(scene.door.request(tag, model="m-openai", stream=True))
            await connection.read_head()


async def _hasty(scene: Scene, chance: Random) -> None:
    """Its plan is too small for it."""
    await scene.ask(_answer(chance).script, key=scene.keys["hasty"])


async def _wrong(scene: Scene, chance: Random) -> None:
    """No money, no such key, no such model, no such parameter."""
    ways: tuple[dict[str, Any], ...] = (
        {"key": scene.keys["unpaid"]},
        {"key": "sk-ai-nexus-wrong"},
        {"model": "no-such-model"},
        {"temperature": 99},
    )
    await scene.ask((), **chance.choice(ways))


async def _overrunning(scene: Scene, chance: Random) -> None:
    """It has hardly more than the hold, and the provider reports more than that."""
    await scene.ask(Answer(prompt=1500, completion=1000).script, key=scene.keys["poor"])


# Clients, how many of each there are, and the mean of their pause in seconds.
CLIENTS: Final[tuple[tuple[Client, int, float], ...]] = (
    (_content, 8, 0.25),
    (_unlucky, 1, 0.7),
    (_forgotten, 1, 1.5),
    (_leaving, 2, 1.0),
    (_hasty, 1, 1.5),
    (_wrong, 1, 0.8),
    (_overrunning, 1, 5.0),
)


@contextlib.asynccontextmanager
async def busy(directory: Path, seconds: float = LONG_RUN_S) -> AsyncIterator[Scene]:
    """Let it all happen for so long, and yield while three streams are still open."""
    async with (
        FaultUpstream() as fu,
        door_process(directory, fu.url, OVERRIDES) as door,
        prometheus(directory, door.admin_port) as watching,
    ):
        scene = Scene(door, fu, watching, time.time())
        await eventually(lambda: watching.value("nexus_holds_open") == 0, timeout_s=20)
        accounts = {"unpaid": "0", "hasty": "1.00", "poor": "0.0020"}
        for account, topup in accounts.items():
            scene.keys[account] = await door.mint(account, topup=topup, plan="free" if account == "hasty" else "wide")
        load = [
            asyncio.create_task(_repeat(client, scene, Random(f"{client.__name__}{number}"), pause_s))
            for client, count, pause_s in CLIENTS
            for number in range(count)
        ]
        try:
            await asyncio.sleep(seconds * 0.3)
            await asyncio.to_thread(_lock, door.ledger_path)
            await asyncio.sleep(seconds * 0.3)
            await door.stop(signal.SIGKILL)
            await eventually(lambda: watching.value("up") == 0)
            scene.restarted = time.time()
            await door.start()
            await asyncio.sleep(max(0.0, scene.began + seconds - time.time()))
        finally:
            for task in load:
                task.cancel()
            ended = await asyncio.gather(*load, return_exceptions=True)
        faults = [fault for fault in ended if isinstance(fault, Exception)]
        assert faults == []
        await _leave_open(scene)
        await eventually(lambda: watching.value("nexus_holds_open") == STREAMS_LEFT_OPEN)
        scene.ended = time.time()
        yield scene
        for connection in scene.open:
            connection.reset()


async def _repeat(client: Client, scene: Scene, chance: Random, pause_s: float) -> None:
    while True:
        await client(scene, chance)
        await asyncio.sleep(chance.expovariate(1 / pause_s))


def _lock(path: Path) -> None:
    """Hold the ledger as a shell does that was left in a transaction."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as other:
        other.execute("BEGIN IMMEDIATE")
        time.sleep(LOCKED_S)
        other.execute("ROLLBACK")


async def _leave_open(scene: Scene) -> None:
    for _ in range(STREAMS_LEFT_OPEN):
        began = Answer().events({})[0].data
        tag = scene.tag((sse_head(), Chunk(began), Stall()))
        connection = await scene.door.connect().__aenter__()
        scene.open.append(connection)
        await connection.send(scene.door.request(tag, stream=True))
        await connection.read_head()
