"""The sliding window, against a list that is searched from end to end."""

from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.core.control.window import Window

WIDTH_NS = 60


def admit(window: Window, limit: int, now_ns: int) -> int:
    wait_ns = window.wait_ns(limit, now_ns)
    if wait_ns == 0:
        window.add(now_ns)
    return wait_ns


def test_an_admission_counts_until_just_before_its_minute_is_over() -> None:
    window = Window(WIDTH_NS)
    window.add(0)
    assert window.count(WIDTH_NS - 1) == 1
    assert window.count(WIDTH_NS) == 0


def test_a_plan_that_drops_waits_for_all_that_are_too_many() -> None:
    window = Window(WIDTH_NS)
    for now_ns in (0, 10, 20, 30):
        assert admit(window, 4, now_ns) == 0
    assert window.wait_ns(4, 31) == 29
    assert window.wait_ns(2, 31) == 49  # until the third has left
    assert window.wait_ns(5, 31) == 0


def test_a_limit_of_nothing_is_never_met() -> None:
    assert Window(WIDTH_NS).wait_ns(0, 5) == WIDTH_NS


def test_a_clock_that_goes_back_admits_nobody_early() -> None:
    window = Window(WIDTH_NS)
    window.add(100)
    window.add(50)
    assert window.count(100 + WIDTH_NS - 1) == 2
    assert window.standing(100)[1] == WIDTH_NS


def test_a_seed_joins_what_is_there_and_forgets_what_is_old() -> None:
    window = Window(WIDTH_NS)
    window.add(100)
    window.seed([-500, 40, 41, 70, 999], 100)
    assert window.count(100) == 4  # 41, 70, 100, and 999 taken as now
    assert window.wait_ns(4, 100) == 1
    assert window.standing(100)[1] == WIDTH_NS


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 5)), max_size=60))
def test_i14_it_agrees_with_a_list_and_a_retry_is_admitted_to_the_nanosecond(steps: list[tuple[int, int]]) -> None:
    window, admitted, now_ns = Window(WIDTH_NS), [0 for _ in range(0)], 0
    for pause_ns, limit in steps:
        now_ns += pause_ns
        inside = [time_ns for time_ns in admitted if now_ns - WIDTH_NS < time_ns <= now_ns]
        wait_ns = admit(window, limit, now_ns)
        assert (wait_ns == 0) == (len(inside) < limit)
        if wait_ns == 0:
            admitted.append(now_ns)
        elif limit:

            def fits(at_ns: int, limit: int = limit) -> bool:
                return sum(at_ns - WIDTH_NS < time_ns for time_ns in admitted) < limit

            assert fits(now_ns + wait_ns)
            assert not fits(now_ns + wait_ns - 1)
        assert window.count(now_ns) == sum(now_ns - WIDTH_NS < time_ns for time_ns in admitted)
