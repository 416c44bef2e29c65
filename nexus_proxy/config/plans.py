"""Plans: the ladder that accounts climb, and those that are assigned by hand."""

from itertools import pairwise

from nexus_proxy.config.reading import Reading
from nexus_proxy.core.money.amounts import parse_nano
from nexus_proxy.core.money.plans import Plan


def resolve_plans(reading: Reading) -> dict[str, Plan]:
    """Return the plans; their rungs must make one ladder."""
    plans = {
        name: Plan(name, entry.rpm, entry.rung, parse_nano(entry.min_paid), parse_nano(entry.min_spent))
        for name, entry in reading.file.plans.items()
    }
    for plan in plans.values():
        if not plan.rung and plan.rank != (0, 0):
            reading.wrong("expected rung = true beside min_paid or min_spent", "plans", plan.name)
    if ("plans",) in reading.broken:
        return plans  # a rung may be missing because of its mistake
    ladder = sorted((plan for plan in plans.values() if plan.rung), key=lambda plan: plan.rank)
    entries = [plan.name for plan in ladder if plan.rank == (0, 0)]
    if len(entries) != 1:
        found = " and ".join(entries) or "none"
        reading.wrong(f"expected exactly one rung without a threshold, the entry plan; found {found}", "plans")
    for below, above in pairwise(ladder):
        if below.rank == above.rank != (0, 0):
            reading.wrong(f"expected other thresholds than those of {below.name}", "plans", above.name)
        if above.rpm < below.rpm:
            reading.wrong(f"expected at least {below.rpm}, as {below.name} below it", "plans", above.name, "rpm")
    return plans
