"""Plans, and the ladder that an account climbs by itself.

Strategy: the rungs are ordered by their thresholds; an account stands on the highest one whose thresholds it has all
reached, unless an admin assigned a plan by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """Limits that an account is under. Amounts are nano-units of the deployment's currency."""

    name: str
    rpm: int
    rung: bool
    min_paid_nano: int = 0
    min_spent_nano: int = 0

    @property
    def rank(self) -> tuple[int, int]:
        """Where the rung stands on the ladder, lowest first."""
        return (self.min_spent_nano, self.min_paid_nano)


def plan_of(plans: Mapping[str, Plan], assigned: str | None, paid_nano: int, spent_nano: int) -> Plan:
    """Return the plan in force. An assigned plan that is no longer configured falls back to the ladder."""
    if assigned is not None and assigned in plans:
        return plans[assigned]
    highest: Plan | None = None
    for plan in plans.values():  # a loop, as this is asked for every request
        reached = plan.rung and paid_nano >= plan.min_paid_nano and spent_nano >= plan.min_spent_nano
        if reached and (highest is None or plan.rank > highest.rank):
            highest = plan
    assert highest is not None, "one rung has no threshold"
    return highest
