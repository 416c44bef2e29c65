"""The run: every scenario against every system in turn, round by round.

Strategy: what is compared is measured within seconds of each other, since a machine is not the same all day; each round
begins with another system. Nothing is returned before every system has proved what it served.
"""

import asyncio
import gc
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from tests.bench.scenarios import SCENARIOS, Figures, Scenario, Setting
from tests.bench.systems import Direct, System

WARM = ("json-32", "stream-burst")  # what is run before, and not reported
_WARM_S = 1.0
_COMPARED = ("p50 ms", "p99 ms", "running p50 ms", "running p99 ms")


@dataclass(frozen=True, slots=True)
class Sample:
    """What one scenario found of one system in one round."""

    scenario: str
    system: str
    round: int  # from 1
    figures: Figures


async def measure(
    systems: Sequence[System],
    scenarios: Sequence[Scenario],
    setting: Setting,
    rounds: int,
    say: Callable[[str], None] = lambda _: None,
) -> tuple[list[Sample], list[str]]:
    """Start the systems, run it all, stop them; return the samples, and what each system has proved. Worthless."""
    async with AsyncExitStack() as stack:
        for system in systems:
            say(f"starting {system.name}")
            stack.push_async_callback(system.stop)
            await system.start()
        for system in systems:
            for name in WARM:
                if system.name in SCENARIOS[name].systems:
                    say(f"warming up {system.name}")
                    warm = replace(setting, seconds=min(_WARM_S, setting.seconds))
                    await SCENARIOS[name].run(system, warm)
        samples = []
        for number in range(1, rounds + 1):
            turn = number % len(systems)
            for scenario in scenarios:
                found = []
                for system in [*systems[turn:], *systems[:turn]]:
                    if system.name in scenario.systems:
                        say(f"round {number} of {rounds}: {scenario.name}: {system.name}")
                        found.append(
                            Sample(scenario.name, system.name, number, await _alone(scenario, system, setting))
                        )
                samples += _added(found)
        proofs = []
        for system in systems:
            say(f"proving {system.name}")
            proofs.append(await system.prove())
    return samples, proofs


async def _alone(scenario: Scenario, system: System, setting: Setting) -> Figures:
    """Run it with our own collector out of the way: its pauses would be taken for the system's."""
    gc.collect()
    gc.disable()
    try:
        return await scenario.run(system, setting)
    finally:
        gc.enable()
        await asyncio.sleep(0)  # what was closed is let go


def _added(found: Sequence[Sample]) -> list[Sample]:
    """Put beside each time what is more than without a proxy, in the same round; where that was measured."""
    direct = next((sample.figures for sample in found if sample.system == Direct.name), None)
    if direct is None:
        return list(found)
    samples = []
    for sample in found:
        figures = sample.figures
        if sample.system != Direct.name:
            both = [name for name in _COMPARED if name in direct and name in figures]
            figures = figures | {f"added {name}": figures[name] - direct[name] for name in both}
        samples.append(replace(sample, figures=figures))
    return samples
