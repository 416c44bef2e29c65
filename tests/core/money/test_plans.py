"""The ladder of plans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.money.plans import Plan, plan_of

PLANS = {
    plan.name: plan
    for plan in (
        Plan("gold", 6000, True, 5, 1000),
        Plan("free", 10, True),
        Plan("paid", 60, True, 5),
        Plan("silver", 600, True, 5, 100),
        Plan("dedicated", 9000, False),
    )
}


@pytest.mark.parametrize(
    ("paid", "spent", "name"),
    [
        (0, 0, "free"),
        (4, 0, "free"),
        (5, 0, "paid"),
        (5, 99, "paid"),
        (5, 100, "silver"),
        (9999, 999, "silver"),
        (5, 1000, "gold"),
        (0, 1000, "free"),
    ],
)
def test_an_account_stands_on_the_highest_rung_it_has_reached(paid: int, spent: int, name: str) -> None:
    assert plan_of(PLANS, None, paid, spent).name == name


def test_an_assigned_plan_goes_before_the_ladder_and_a_forgotten_one_falls_back_to_it() -> None:
    assert plan_of(PLANS, "dedicated", 0, 0).name == "dedicated"
    assert plan_of(PLANS, "free", 5, 1000).name == "free"
    assert plan_of(PLANS, "gone", 5, 0).name == "paid"


@given(st.integers(0, 20), st.integers(0, 2000), st.integers(0, 20), st.integers(0, 2000))
def test_paying_and_spending_never_lower_the_limit(paid: int, spent: int, more_paid: int, more_spent: int) -> None:
    before = plan_of(PLANS, None, paid, spent)
    after = plan_of(PLANS, None, paid + more_paid, spent + more_spent)
    assert before.rpm <= after.rpm
    assert before.rung
    assert after.rung
