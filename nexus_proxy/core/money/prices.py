"""What tokens cost.

Strategy: a price is a table of tiers; the length of the input (and, where a provider says so, of the output) picks
one tier, and that tier prices the whole request. A tariff chooses between prices by the time of day. All of it is
integers: rates are pico-units per token, one sum, one division rounded up.
"""

from dataclasses import dataclass
from typing import Any, Final

from nexus_proxy.core.money.amounts import PICO_PER_NANO, ceil_div
from nexus_proxy.core.wire.usage import Usage

DAY_S: Final = 86_400


@dataclass(frozen=True, slots=True)
class Rates:
    """Pico-units per token, by kind (the same number as micro-units per million tokens)."""

    input: int
    cached: int
    cache_write: int
    output: int
    thinking: int  # the rate of the *whole* output once any reasoning token is in it


@dataclass(frozen=True, slots=True)
class Tier:
    """Rates up to `input_max` tokens of input and `output_max` of output, both inclusive; None is no bound."""

    input_max: int | None
    output_max: int | None
    rates: Rates


@dataclass(frozen=True, slots=True)
class Price:
    """One immutable price version. `tiers` is ordered and its last tier is unbounded.

    `tiers` are in the deployment's currency (what the account pays), `cost_tiers` in the source's (what we pay).
    """

    price_id: str
    tiers: tuple[Tier, ...]
    cost_tiers: tuple[Tier, ...]
    cost_currency: str


@dataclass(frozen=True, slots=True)
class PriceVersion:
    """A price and where it came from. `source` is what the catalogue or the configuration said, ready for JSON:
    the source's price, currency, fx and mark-up, its period (`peak`, `off_peak`), its address and date."""

    price: Price
    model: str
    provider: str
    source: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Schedule:
    """When the dear price holds. Times are seconds of the local day at a fixed offset from UTC.

    `holidays` and `working_days` are day numbers since 1970-01-01, local. A day that the calendar does not know is a
    working day from Monday to Friday, which is the dear side.
    """

    offset_s: int
    peak: tuple[tuple[int, int], ...]  # half-open [from, until)
    holidays: frozenset[int]
    working_days: frozenset[int]  # Saturdays and Sundays that are worked

    def is_peak(self, at_ms: int) -> bool:
        """Tell whether the instant is in a dear window of a working day."""
        day, second = divmod(at_ms // 1000 + self.offset_s, DAY_S)
        weekday = (day + 3) % 7  # 1970-01-01 was a Thursday; 0 is Monday
        working = day in self.working_days or (weekday < 5 and day not in self.holidays)
        return working and any(start <= second < end for start, end in self.peak)


@dataclass(frozen=True, slots=True)
class Tariff:
    """The price of a model over time: `peak` always, unless there is a schedule and it says off-peak."""

    peak: Price
    off_peak: Price | None = None
    schedule: Schedule | None = None

    def price_at(self, at_ms: int) -> Price:
        """Return the price in force at an instant (the instant of the hold)."""
        if self.off_peak is None or self.schedule is None or self.schedule.is_peak(at_ms):
            return self.peak
        return self.off_peak

    def prices(self) -> tuple[Price, ...]:
        """Every price version in here."""
        return (self.peak,) if self.off_peak is None else (self.peak, self.off_peak)


def pick_tier(tiers: tuple[Tier, ...], prompt: int, completion: int) -> Tier:
    """Return the first tier whose bounds hold both counts."""
    for tier in tiers:
        if (tier.input_max is None or prompt <= tier.input_max) and (
            tier.output_max is None or completion <= tier.output_max
        ):
            return tier
    raise AssertionError("the last tier of a price is unbounded")


def amount_nano(tiers: tuple[Tier, ...], usage: Usage) -> int:
    """Return what the usage costs, in nano-units, rounded up once."""
    prompt, completion, cached, written, reasoning, _ = usage
    rates = pick_tier(tiers, prompt, completion).rates
    pico = (prompt - cached - written) * rates.input + cached * rates.cached + written * rates.cache_write
    pico += completion * (rates.thinking if reasoning else rates.output)
    return -(-pico // PICO_PER_NANO)  # `ceil_div`, without the call: every charge comes here


@dataclass(frozen=True, slots=True)
class Line:
    """One kind of token in a charge: `tokens` × `rate` = `pico`."""

    kind: str  # a field of `Rates`
    tokens: int
    rate: int
    pico: int


@dataclass(frozen=True, slots=True)
class Itemized:
    """A charge and its arithmetic. `nano` is `pico`, divided by 1,000 and rounded up once."""

    tier_index: int
    tier: Tier
    lines: tuple[Line, ...]
    pico: int
    nano: int


def itemize(tiers: tuple[Tier, ...], usage: Usage) -> Itemized:
    """Break down what the usage costs. `nano` is what `amount_nano` charges; kinds without tokens have no line."""
    tier = pick_tier(tiers, usage.prompt, usage.completion)
    rates = tier.rates
    kind, rate = ("thinking", rates.thinking) if usage.reasoning else ("output", rates.output)
    counted = (
        ("input", usage.prompt - usage.cached - usage.cache_write, rates.input),
        ("cached", usage.cached, rates.cached),
        ("cache_write", usage.cache_write, rates.cache_write),
        (kind, usage.completion, rate),
    )
    lines = tuple(Line(name, tokens, each, tokens * each) for name, tokens, each in counted if tokens)
    pico = sum(line.pico for line in lines)
    nano = amount_nano(tiers, usage)
    assert nano == ceil_div(pico, PICO_PER_NANO), "the lines are the charge"
    return Itemized(tiers.index(tier), tier, lines, pico, nano)


def bound_nano(tiers: tuple[Tier, ...], input_bound: int, output_bound: int) -> int:
    """Return the most that any usage within the bounds can cost, in nano-units.

    `output_bound` is the sum over all choices. Looks at every tier that the bounds can reach.
    """
    dearest_input = dearest_output = 0
    for tier in tiers:
        rates = tier.rates
        for rate in (rates.input, rates.cached, rates.cache_write):  # `max` of so many costs more than all the rest
            if rate > dearest_input:
                dearest_input = rate
        for rate in (rates.output, rates.thinking):
            if rate > dearest_output:
                dearest_output = rate
        if (tier.input_max is None or input_bound <= tier.input_max) and (
            tier.output_max is None or output_bound <= tier.output_max
        ):
            break  # whatever is within the bounds is priced by now
    pico = input_bound * dearest_input + output_bound * dearest_output
    return -(-pico // PICO_PER_NANO)
