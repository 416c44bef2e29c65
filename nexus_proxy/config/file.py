"""The shape of the configuration file: which keys there are, and what each may hold.

Strategy: types that refuse instead of converting, so that a quoted number or a misspelt key is an error with a path,
never a surprise. What needs more than one value to judge is judged in `config`. Keys and units are those of the
dataclasses that they become, and so are the defaults of timeouts and limits.
"""

from datetime import date
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from nexus_proxy.core.money.amounts import parse_nano
from nexus_proxy.core.money.pricelist import TOKENS_MAX, exact
from nexus_proxy.core.request.parameters import KNOWN_PARAMETERS


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


def _quoted(value: object) -> object:
    if isinstance(value, (int, float)):
        raise ValueError('expected a decimal in quotes, such as "0.10"; a bare number could not be read exactly')
    return value


def _price(text: str) -> str:
    exact(text)
    return text


def _positive(text: str) -> str:
    if not exact(text):
        raise ValueError("expected a decimal above 0")
    return text


def _amount(text: str) -> str:
    if parse_nano(text) < 0:
        raise ValueError("expected an amount that is not negative")
    return text


def _currency(text: str) -> str:
    if not (len(text) == 3 and text.isascii() and text.isalpha() and text.isupper()) or text in ("XXX", "XTS"):
        raise ValueError("expected a currency's three capital letters, such as USD")
    return text


def _listener(text: str) -> str:
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or (":" in bare) != (bare != host) or not (port.isascii() and port.isdigit()):
        raise ValueError('expected "host:port", such as "127.0.0.1:8080" or "[::1]:8080"')
    if int(port) > 65_535:
        raise ValueError("expected a port from 0 to 65535")
    return text


def _ledger_url(text: str) -> str:
    scheme, _, path = text.partition(":")
    if scheme != "sqlite":
        raise ValueError('expected "sqlite:path"; other ledgers are not built yet')
    if not path or path.startswith(("//", ":")) or "?" in path or "\0" in path:
        raise ValueError('expected "sqlite:" and the path of a file, relative to this one or absolute')
    return text


def _day(value: object) -> object:
    text = value.isoformat() if type(value) is date else value  # TOML has dates of its own
    try:
        if isinstance(text, str) and date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise ValueError('expected a day, such as "2026-10-01"')


def _holidays(value: object) -> object:
    """A calendar's name, or days and spans of days; each becomes a pair of days."""
    if isinstance(value, str):
        return value
    if not isinstance(value, list):
        raise ValueError('expected the name of a calendar, such as "china", or a list of days')
    spans = [entry if isinstance(entry, list) else [entry, entry] for entry in value]
    if any(len(span) != 2 for span in spans):
        raise ValueError("expected days, or pairs of a first and a last day")
    found = [[str(_day(first)), str(_day(last))] for first, last in spans]
    if any(first > last or last[:4] > f"{int(first[:4]) + 1:04}" for first, last in found):
        raise ValueError("expected each last day behind its first, by a year at most")
    return found


def _time(text: str) -> str:
    hours, colon, minutes = text.partition(":")
    if not (len(text) == 5 and colon and hours.isdecimal() and minutes.isdecimal() and text.isascii()):
        raise ValueError('expected a time of the day, such as "09:00"')
    if int(minutes) > 59 or text > "24:00":
        raise ValueError('expected a time of the day from "00:00" to "24:00"')
    return text


def _window(times: list[str]) -> list[str]:
    if times[0] >= times[1]:
        raise ValueError("expected an end behind the start; write a window over midnight as two")
    return times


def _place(path: str) -> str:
    if path.split(".")[0] == "choices":
        raise ValueError("expected a place outside of the choices; for usage in these there is in_choice")
    return path


def _rename(ours: str) -> str:
    if ours in ("model", "messages", "stream", "stream_options"):
        raise ValueError("expected a parameter that can be renamed")
    return ours


def _renamed(theirs: str) -> str:
    if theirs.casefold() in KNOWN_PARAMETERS:  # what is checked, or refused, under this name would go out unchecked
        raise ValueError("expected a name that this gateway gives no meaning of its own")
    return theirs


def _budget(name: str) -> str:
    return name if name == "thinking_budget" else _renamed(name)


Price = Annotated[str, BeforeValidator(_quoted), AfterValidator(_price)]
Positive = Annotated[str, BeforeValidator(_quoted), AfterValidator(_positive)]
Amount = Annotated[str, BeforeValidator(_quoted), AfterValidator(_amount)]
Listener = Annotated[str, AfterValidator(_listener)]
Seconds = Annotated[float, Field(gt=0, le=86_400, allow_inf_nan=False)]
Bytes = Annotated[int, Field(ge=1024, le=1 << 40)]
Tokens = Annotated[int, Field(ge=1, le=TOKENS_MAX)]
TokensOrNone = Annotated[int, Field(ge=0, le=TOKENS_MAX)]
Currency = Annotated[str, AfterValidator(_currency)]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}$")]
ModelId = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@+-]{0,255}$")]
Time = Annotated[str, AfterValidator(_time)]
Window = Annotated[list[Time], Field(min_length=2, max_length=2), AfterValidator(_window)]
Day = Annotated[str, BeforeValidator(_day)]
Key = Annotated[str, Field(pattern=r"^[^.\s]{1,64}$")]
Dotted = Annotated[str, Field(pattern=r"^[^.\s]{1,64}(\.[^.\s]{1,64}){0,7}$")]
Dotteds = Annotated[list[Dotted], Field(max_length=16)]
Parameter = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_-]{0,63}$")]
LimitParameter = Literal["max_tokens", "max_completion_tokens"]
FilePath = Annotated[str, Field(min_length=1)]


class Timeouts(_Shape):
    connect_s: Seconds | None = None
    first_byte_s: Seconds | None = None
    silence_s: Seconds | None = None
    exchange_s: Seconds | None = None
    client_headers_s: Seconds | None = None
    client_body_s: Seconds | None = None
    client_idle_s: Seconds | None = None
    client_stalled_s: Seconds | None = None
    commit_s: Seconds | None = None
    shutdown_s: Seconds | None = None


class Limits(_Shape):
    body_bytes: Bytes | None = None
    bodies_bytes: Bytes | None = None
    answer_bytes: Bytes | None = None
    drain_s: Seconds | None = None
    drain_bytes: Bytes | None = None
    drains: Annotated[int, Field(ge=0, le=1_000_000)] | None = None


class Server(_Shape):
    listen: Listener = "127.0.0.1:8080"
    admin_listen: Listener = "127.0.0.1:9090"
    timeouts: Timeouts = Timeouts()
    limits: Limits = Limits()


class Ledger(_Shape):
    url: Annotated[str, AfterValidator(_ledger_url)] = "sqlite:nexus.db"


class Limiter(_Shape):
    url: Literal["memory:"] = "memory:"


class Billing(_Shape):
    currency: Currency = "USD"
    fx: dict[Currency, Positive] = {}
    markup: Positive = "1.0"


class Plan(_Shape):
    rung: bool = False
    rpm: Annotated[int, Field(ge=1, le=1_000_000)]
    min_paid: Amount = "0"
    min_spent: Amount = "0"


class UsageShape(_Shape):
    in_choice: bool | None = None
    at: Annotated[list[Annotated[Dotted, AfterValidator(_place)]], Field(max_length=16)] = []
    prompt: Dotteds = []
    completion: Dotteds = []
    cached: Dotteds = []
    cache_write: Dotteds = []
    reasoning: Dotteds = []
    total: Dotteds = []


class Failure(_Shape):
    path: Dotted
    ok: Annotated[list[bool | int | float | str], Field(max_length=64)] = []


class ErrorRule(_Shape):
    code: Literal[
        "upstream_no_funds",
        "upstream_rate_limited",
        "upstream_overloaded",
        "upstream_auth",
        "upstream_model",
        "upstream_timeout",
        "upstream_broken",
        "invalid_parameter",
    ]
    statuses: Annotated[list[Annotated[int, Field(ge=100, le=599)]], Field(max_length=64)] = []
    marks: Annotated[list[int | str], Field(max_length=256)] = []
    text: Annotated[str, Field(max_length=256)] = ""

    @model_validator(mode="after")
    def _has_a_condition(self) -> Self:
        if not (self.statuses or self.marks or self.text):
            raise ValueError("expected statuses, marks or text: without them it would fit every error")
        return self


class Dialect(_Shape):
    based_on: Name | None = None
    ask_usage: bool | None = None
    usage: UsageShape = UsageShape()
    reasoning: Annotated[list[Key], Field(max_length=16)] = []
    failure: Annotated[list[Failure], Field(max_length=16)] = []
    errors: Annotated[list[ErrorRule], Field(max_length=256)] = []
    limit_parameter: LimitParameter | None = None
    limit_covers_thinking: bool | None = None
    budget_parameter: Annotated[Parameter, AfterValidator(_budget)] | None = None
    refused_parameters: Annotated[list[Annotated[Parameter, AfterValidator(_rename)]], Field(max_length=256)] = []
    renamed_parameters: dict[
        Annotated[Parameter, AfterValidator(_rename)], Annotated[Parameter, AfterValidator(_renamed)]
    ] = {}
    certainty: Literal["captured", "documented", "reported", "assumed"] | None = None
    matters: str | None = None
    notes: str | None = None

    @model_validator(mode="after")
    def _renames_each_to_another(self) -> Self:
        names = [name.casefold() for name in (*self.renamed_parameters, *self.renamed_parameters.values())]
        if len(names) != len(set(names)):
            raise ValueError("expected renamed_parameters to name each parameter once")
        return self


class Schedule(_Shape):
    offset: Annotated[str, Field(pattern=r"^[+-](0\d|1[0-4]):[0-5]\d$")] | None = None
    offset_s: Annotated[int, Field(ge=-50_400, le=50_400)] | None = None
    peak: Annotated[list[Window], Field(min_length=1, max_length=24)]
    holidays: Annotated[Any, BeforeValidator(_holidays)] = None  # a calendar's name, or pairs of days
    working_days: Annotated[list[Day], Field(max_length=1000)] = []

    @model_validator(mode="after")
    def _has_one_offset(self) -> Self:
        if (self.offset is None) == (self.offset_s is None):
            raise ValueError('expected one of offset, such as "+08:00", and offset_s')
        return self

    @property
    def seconds_east(self) -> int:
        """The offset from UTC."""
        if self.offset is None:
            assert self.offset_s is not None
            return self.offset_s
        hours, minutes = self.offset[1:].split(":")
        return (int(hours) * 3600 + int(minutes) * 60) * (-1 if self.offset[0] == "-" else 1)


class Provider(_Shape):
    dialect: str | None = None
    base_url: str | None = None
    api_key_env: Annotated[str, Field(min_length=1)] | None = None
    api_key_file: FilePath | None = None
    currency: Currency | None = None
    allow_private: bool = False
    ask_usage: bool | None = None
    on_disconnect: Literal["drain", "cancel"] = "drain"
    in_flight_max: Annotated[int, Field(ge=1, le=1_000_000)] = 1000
    retry_stale: bool = True
    ca_file: FilePath | None = None
    schedule: Schedule | None = None


class PriceTier(_Shape):
    input_max: Tokens | None = None
    output_max: Tokens | None = None
    input: Price
    cached_input: Price | None = None
    cache_write: Price | None = None
    output: Price | None = None
    thinking: Price | None = None


class OffPeak(_Shape):
    input: Price
    cached_input: Price | None = None
    cache_write: Price | None = None
    output: Price | None = None
    thinking: Price | None = None


class PriceTable(_Shape):
    currency: Currency | None = None
    input: Price
    cached_input: Price | None = None
    cache_write: Price | None = None
    output: Price
    thinking: Price | None = None
    tiers: Annotated[list[PriceTier], Field(max_length=32)] = []
    off_peak: OffPeak | None = None


class Model(_Shape):
    enabled: bool = True
    provider: Name | None = None
    upstream: Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,256}$")] | None = None
    price: PriceTable | None = None
    created: Annotated[int, Field(ge=0, le=1 << 40)] | None = None
    context: Tokens | None = None
    max_output: Tokens | None = None
    default_output: Tokens | None = None
    limit_parameter: LimitParameter | None = None
    limit_covers_thinking: bool | None = None
    thinking_max: TokensOrNone | None = None
    send_temperature: bool | None = None
    media_tokens: TokensOrNone | None = None
    template_tokens: TokensOrNone | None = None
    allowed_parameters: list[str] | None = None


FREE_AND_PAID = {"free": Plan(rung=True, rpm=10), "paid": Plan(rung=True, rpm=60, min_paid="5.00")}


class File(_Shape):
    """The whole file. A section that is absent has these defaults."""

    server: Server = Server()
    ledger: Ledger = Ledger()
    limiter: Limiter = Limiter()
    billing: Billing = Billing()
    plans: dict[Name, Plan] = FREE_AND_PAID
    dialects: dict[Name, Dialect] = {}
    providers: dict[Name, Provider] = {}
    models: dict[ModelId, Model] = {}


Mistakes = dict[tuple[str, ...], str]  # where → what was expected
_NAMED = {
    "plans",
    "dialects",
    "providers",
    "models",
}  # sections of named tables, of which a wrong one is left out alone;
# of a model only the wrong key, so that the others are still judged


def check_shape(document: dict[str, Any]) -> tuple[File, Mistakes]:
    """Return the file without what is wrong in it, and what is wrong. Values are never quoted: one may be a secret."""
    try:
        return File.model_validate(document), {}
    except ValidationError as error:
        mistakes: Mistakes = {}
        kept = {key: dict(value) if isinstance(value, dict) else value for key, value in document.items()}
        for entry in error.errors(include_url=False, include_input=False):
            where = tuple(str(part) for part in entry["loc"] if part != "[key]")
            mistakes.setdefault(where, _expected(entry["type"], entry["msg"]))
            section = kept.get(where[0])
            if where[0] in _NAMED and len(where) > 1 and isinstance(section, dict):
                table = section.get(where[1])
                if where[0] == "models" and len(where) > 2 and isinstance(table, dict):
                    section[where[1]] = {key: value for key, value in table.items() if key != where[2]}
                else:
                    section.pop(where[1], None)
            else:
                kept.pop(where[0], None)
        return File.model_validate(kept), mistakes


def _expected(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "unknown key"
    if kind == "missing":
        return "missing"
    if kind == "string_pattern_mismatch":
        return message.replace("String should match pattern", "expected text that matches")
    return message.removeprefix("Value error, ").replace("Input should be", "expected")
