"""The contract of a limiter, for every store; and what the one in memory forgets."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_proxy.limiter.memory import MemoryLimiter
from nexus_proxy.limiter.protocol import WINDOW_NS, Admitted, Limit, Limiter, Refused, Standing

S = 1_000_000_000
ACCOUNT = Limit("account:7", 3)
KEY = Limit("key:12", 2)


async def memory() -> Limiter:
    return MemoryLimiter()


STORES: list[Callable[[], Awaitable[Limiter]]] = [memory]


@pytest.fixture(params=STORES)
async def limiter(request: pytest.FixtureRequest) -> AsyncIterator[Limiter]:
    store: Limiter = await request.param()
    yield store
    await store.close()


# --- the contract -------------------------------------------------------------------------------------------------


def told(outcome: Standing | Admitted | Refused) -> tuple[int, int, int, int | None]:
    """Return a verdict's limit, remaining and reset, and how long to wait if it is a refusal."""
    standing = outcome if isinstance(outcome, Standing) else outcome.standing
    wait_ns = outcome.retry_after_ns if isinstance(outcome, Refused) else None
    return standing.limit, standing.remaining, standing.reset_ns, wait_ns


async def test_the_tightest_limit_is_reported(limiter: Limiter) -> None:
    assert told(await limiter.look([ACCOUNT, KEY], 0)) == (2, 2, 0, None)
    assert told(await limiter.admit([ACCOUNT, KEY], 0)) == (2, 1, WINDOW_NS, None)
    assert told(await limiter.admit([ACCOUNT], S)) == (3, 1, WINDOW_NS, None)
    # one is left to both: the lower limit is the tighter
    assert told(await limiter.look([ACCOUNT, KEY], S)) == (2, 1, WINDOW_NS - S, None)


async def test_a_look_counts_nothing(limiter: Limiter) -> None:
    for _ in range(5):
        await limiter.look([ACCOUNT], 0)
    assert isinstance(await limiter.admit([ACCOUNT], 0), Admitted)
    assert told(await limiter.look([ACCOUNT], 0)) == (3, 2, WINDOW_NS, None)


async def test_account_and_key_admit_together_or_not_at_all(limiter: Limiter) -> None:
    await limiter.admit([ACCOUNT, KEY], 0)
    await limiter.admit([ACCOUNT, KEY], S)
    assert told(await limiter.admit([ACCOUNT, KEY], 2 * S)) == (2, 0, 59 * S, 58 * S)
    # the refusal took nothing from the account: another key of it is still admitted
    other = Limit("key:13", 2)
    assert isinstance(await limiter.admit([ACCOUNT, other], 2 * S), Admitted)
    # now the account refuses, and that takes nothing from the key
    assert isinstance(await limiter.admit([ACCOUNT, other], 3 * S), Refused)
    assert (await limiter.look([other], 3 * S)).remaining == 1


async def test_the_wait_is_that_of_the_limit_that_is_free_last(limiter: Limiter) -> None:
    await limiter.admit([Limit("account:7", 1)], 0)
    await limiter.admit([Limit("key:12", 1)], 5 * S)
    both = [Limit("account:7", 1), Limit("key:12", 1)]
    refused = await limiter.admit(both, 6 * S)
    assert isinstance(refused, Refused)
    assert refused.retry_after_ns == 59 * S
    assert isinstance(await limiter.admit(both, 65 * S - 1), Refused)
    assert isinstance(await limiter.admit(both, 65 * S), Admitted)


async def test_a_plan_that_climbs_or_drops_holds_at_once(limiter: Limiter) -> None:
    for _ in range(3):
        await limiter.admit([ACCOUNT], 0)
    assert isinstance(await limiter.admit([ACCOUNT], 1), Refused)
    assert isinstance(await limiter.admit([Limit("account:7", 60)], 1), Admitted)
    assert (await limiter.look([ACCOUNT], 1)).remaining == 0


async def test_i14_a_thousand_at_once_on_ten_a_minute_admit_exactly_ten(limiter: Limiter) -> None:
    limits = [Limit("account:1", 10), Limit("key:1", 50)]
    outcomes = await asyncio.gather(*(limiter.admit(limits, 7 * S) for _ in range(1000)))
    assert sum(isinstance(outcome, Admitted) for outcome in outcomes) == 10
    assert (await limiter.look([Limit("key:1", 50)], 7 * S)).remaining == 40


async def test_a_restart_forgives_nothing(limiter: Limiter) -> None:
    await limiter.seed("account:7", [-70 * S, -20 * S, -10 * S], 0)  # before this process began
    assert told(await limiter.look([ACCOUNT], 0)) == (3, 1, 50 * S, None)
    assert isinstance(await limiter.admit([ACCOUNT], 0), Admitted)
    refused = await limiter.admit([ACCOUNT], 0)
    assert isinstance(refused, Refused)
    assert refused.retry_after_ns == 40 * S


@given(
    st.sampled_from(STORES),
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 1), st.integers(0, 2), st.integers(1, 4)), max_size=60),
)
def test_i14_it_agrees_with_a_list_of_all_admissions(
    make: Callable[[], Awaitable[Limiter]], steps: list[tuple[int, int, int, int]]
) -> None:
    async def run() -> None:
        limiter = await make()
        admitted: dict[str, list[int]] = defaultdict(list)
        now_ns = 0
        for pause_s, account, key, rpm in steps:
            now_ns += pause_s * S
            limits = [Limit(f"account:{account}", rpm), Limit(f"key:{key}", 3)]
            used = {
                limit.subject: sum(now_ns - WINDOW_NS < time_ns for time_ns in admitted[limit.subject])
                for limit in limits
            }
            outcome = await limiter.admit(limits, now_ns)
            assert isinstance(outcome, Admitted) == all(used[limit.subject] < limit.rpm for limit in limits)
            if isinstance(outcome, Admitted):
                for limit in limits:
                    admitted[limit.subject].append(now_ns)
                    used[limit.subject] += 1
            remaining, limit_rpm = min((max(limit.rpm - used[limit.subject], 0), limit.rpm) for limit in limits)
            assert (outcome.standing.remaining, outcome.standing.limit) == (remaining, limit_rpm)

    asyncio.run(run())


# --- memory -------------------------------------------------------------------------------------------------------


async def test_subjects_that_are_idle_for_a_minute_are_forgotten() -> None:
    limiter = MemoryLimiter()
    largest = 0
    for number in range(20_000):  # each of its own account and key, 100 in any minute
        now_ns = number * WINDOW_NS // 100
        await limiter.admit([Limit(f"account:{number}", 10), Limit(f"key:{number}", 10)], now_ns)
        largest = max(largest, len(limiter))
    assert largest <= 500


async def test_a_look_at_strangers_remembers_nothing() -> None:
    limiter = MemoryLimiter()
    for number in range(100):
        await limiter.look([Limit(f"account:{number}", 10)], 0)
    assert len(limiter) == 0


async def test_a_refusal_remembers_nothing() -> None:
    limiter = MemoryLimiter()
    for number in range(100):
        assert isinstance(await limiter.admit([Limit(f"account:{number}", 0)], 0), Refused)
    assert len(limiter) == 0
