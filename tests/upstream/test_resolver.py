"""Look-ups of names: one at a time, kept for a while, and nobody else's business when they hang.

Strategy: the system's resolver is a function that waits for the test.
"""

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from nexus_proxy.upstream.resolver import ANSWER_KEPT_S, Resolver


def row(address: str) -> tuple[Any, ...]:
    return (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443))


class System:
    """What getaddrinfo does, by host: an address, an exception, or an event to wait for first."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.answers: dict[str, list[str] | Exception] = {}
        self.hangs: dict[str, threading.Event] = {}

    def __call__(self, host: str, port: int, **options: Any) -> list[tuple[Any, ...]]:
        self.asked.append(host)
        if (event := self.hangs.get(host)) is not None:
            assert event.wait(10)
        found = self.answers[host]
        if isinstance(found, Exception):
            raise found
        return [row(address) for address in found]


@pytest.fixture
def system(monkeypatch: pytest.MonkeyPatch) -> Iterator[System]:
    fake = System()
    monkeypatch.setattr(socket, "getaddrinfo", fake)
    yield fake
    for event in fake.hangs.values():
        event.set()


async def test_addresses_come_once_each_in_the_systems_order(system: System) -> None:
    system.answers["a.test"] = ["192.0.2.9", "192.0.2.1", "192.0.2.9"]
    assert await Resolver("a.test", 443).addresses() == ["192.0.2.9", "192.0.2.1"]


async def test_whoever_asks_meanwhile_waits_for_the_same_look_up(system: System) -> None:
    system.answers["a.test"] = ["192.0.2.1"]
    system.hangs["a.test"] = threading.Event()
    resolver = Resolver("a.test", 443)
    waiting = [asyncio.create_task(resolver.addresses()) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()  # who gives up does not take the look-up from the others
    await asyncio.sleep(0)
    system.hangs["a.test"].set()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [["192.0.2.1"]] * 49
    assert system.asked == ["a.test"]


async def test_b2_a_look_up_that_hangs_holds_up_no_other_name(system: System) -> None:
    system.answers |= {f"dead{i}.test": ["192.0.2.1"] for i in range(64)} | {"good.test": ["192.0.2.2"]}
    system.hangs = {host: threading.Event() for host in system.answers if host != "good.test"}
    dead = [asyncio.create_task(Resolver(host, 443).addresses()) for host in system.hangs]
    async with asyncio.timeout(5):
        assert await Resolver("good.test", 443).addresses() == ["192.0.2.2"]
    assert not any(task.done() for task in dead)
    for event in system.hangs.values():
        event.set()
    await asyncio.gather(*dead)


async def test_b2_giving_up_starts_no_second_look_up_while_the_first_hangs(system: System) -> None:
    system.answers["a.test"] = ["192.0.2.1"]
    system.hangs["a.test"] = threading.Event()
    resolver = Resolver("a.test", 443)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await resolver.addresses()
    assert system.asked == ["a.test"]
    system.hangs["a.test"].set()
    assert await resolver.addresses() == ["192.0.2.1"]
    assert system.asked == ["a.test"]


async def test_an_answer_is_kept_for_a_while(system: System, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = asyncio.get_running_loop()
    system.answers["a.test"] = ["192.0.2.1"]
    resolver = Resolver("a.test", 443)
    await resolver.addresses()
    system.answers["a.test"] = ["192.0.2.2"]
    now = loop.time()
    monkeypatch.setattr(loop, "time", lambda: now + ANSWER_KEPT_S - 1)
    assert await resolver.addresses() == ["192.0.2.1"]
    monkeypatch.setattr(loop, "time", lambda: now + ANSWER_KEPT_S + 1)
    assert await resolver.addresses() == ["192.0.2.2"]
    assert len(system.asked) == 2


@pytest.mark.parametrize("fault", [socket.gaierror(-2, "Name or service not known"), UnicodeError("label too long")])
async def test_b2_no_such_name_is_an_oserror_and_is_not_kept(system: System, fault: Exception) -> None:
    system.answers["a.test"] = fault
    resolver = Resolver("a.test", 443)
    with pytest.raises(OSError, match=r"not known|not a host name"):
        await resolver.addresses()
    system.answers["a.test"] = ["192.0.2.1"]
    assert await resolver.addresses() == ["192.0.2.1"]


async def test_a_failure_that_nobody_waits_for_is_no_news(system: System) -> None:
    """An exception that is never fetched would be logged by the loop, and is an error in these tests."""
    system.answers["a.test"] = socket.gaierror(-3, "Temporary failure")
    system.hangs["a.test"] = threading.Event()
    resolver = Resolver("a.test", 443)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await resolver.addresses()
    system.hangs["a.test"].set()
    with pytest.raises(socket.gaierror):
        await resolver.addresses()


def test_an_answer_after_the_loops_end_is_dropped(system: System) -> None:
    system.answers["a.test"] = ["192.0.2.1"]
    event = system.hangs["a.test"] = threading.Event()

    async def give_up() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01):
                await Resolver("a.test", 443).addresses()

    asyncio.run(give_up())
    event.set()
    for thread in threading.enumerate():
        if thread.name == "resolver":
            thread.join(5)  # a fault in a thread is an error in these tests
