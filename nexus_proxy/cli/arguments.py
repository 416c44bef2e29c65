"""What a verb's arguments look like: amounts, times, lists.

Strategy: a wrong shape is wrong usage and ends here with exit code 2; whether a well-shaped value can be done is the
admin's to say.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import click

from nexus_proxy.admin.values import amount_nano
from nexus_proxy.catalogue import load_catalogue
from nexus_proxy.core.wire.usage import COUNT_MAX
from nexus_proxy.runtime.clock import EPOCH

_DURATION = re.compile(r"(\d{1,6})([smhdw])", re.ASCII)
_DIGITS_MAX = 30  # of a number of tokens: Python refuses to read very long ones
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}


class Amount(click.ParamType[str]):
    """An exact decimal of at least 0, or with `above_zero` of more; stays a text."""

    name = "amount"

    def __init__(self, *, above_zero: bool = False) -> None:
        self._least = int(above_zero)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Check the shape."""
        try:
            amount_nano(str(value), least=self._least)
        except ValueError as error:
            self.fail(str(error), param, ctx)
        return str(value)


class KeyId(click.ParamType[int]):
    """The number of a key."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number; a key's name is none, for several keys may share one."""
        text = str(value)
        if not (text.isascii() and text.isdecimal() and 0 < len(text) <= 18 and int(text)):
            self.fail(f"expected the id of a key, a number, not {text!r}; `nexus-proxy key list` shows it", param, ctx)
        return int(text)


class Tokens(click.ParamType[int]):
    """A number of tokens: whole, and none too many to be counted."""

    name = "tokens"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Read the number."""
        text = str(value)
        if not (text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX and int(text) <= COUNT_MAX):
            self.fail(f"expected a whole number of tokens from 0 to {COUNT_MAX}, not {text!r}", param, ctx)
        return int(text)


class DialectName(click.ParamType[str]):
    """A dialect of the catalogue, or one of its providers, which stands for the dialect that it speaks."""

    name = "dialect"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Look it up."""
        catalogue, name = load_catalogue(), str(value)
        if name in catalogue.dialects:
            return name
        if name in catalogue.providers:
            return catalogue.providers[name].dialect.name
        dialects = ", ".join(sorted(catalogue.dialects))
        self.fail(
            f"expected a provider that `nexus-proxy providers` lists, or one of {dialects}, not {name!r}", param, ctx
        )


class Instant(click.ParamType[str]):
    """An ISO date or time, or a duration from now such as 30d; becomes an ISO time in UTC."""

    name = "time"

    def __init__(self, *, ahead: bool) -> None:
        self._sign = 1 if ahead else -1

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Resolve a duration against the clock; a time without an offset is UTC."""
        text = str(value)
        try:
            if (match := _DURATION.fullmatch(text)) is not None:
                instant = datetime.now(UTC) + self._sign * timedelta(**{_UNITS[match[2]]: int(match[1])})
            else:
                instant = datetime.fromisoformat(text)
        except (ValueError, OverflowError):
            self.fail(f"expected a time such as 2030-12-31, 2030-12-31T18:00Z or 30d, not {text!r}", param, ctx)
        return (instant if instant.tzinfo else instant.replace(tzinfo=UTC)).isoformat()


@dataclass(frozen=True, slots=True)
class Moment:
    """One instant; `assumed_utc` where it was written without an offset."""

    at_ms: int
    assumed_utc: bool = False

    def __str__(self) -> str:
        """Write it as ISO 8601 in UTC."""
        instant = EPOCH + timedelta(milliseconds=self.at_ms)
        precision = "milliseconds" if self.at_ms % 1000 else "seconds"
        return f"{instant.replace(tzinfo=None).isoformat(timespec=precision)}Z"


class At(click.ParamType[Moment]):
    """An ISO 8601 date or time, with an offset or without; becomes a Moment."""

    name = "time"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Moment:
        """Resolve against UTC; a time without an offset is UTC."""
        if isinstance(value, Moment):
            return value
        try:
            instant = datetime.fromisoformat(str(value))
            assumed = instant.tzinfo is None
            if assumed:
                instant = instant.replace(tzinfo=UTC)
            return Moment((instant.astimezone(UTC) - EPOCH) // timedelta(milliseconds=1), assumed)
        except (ValueError, OverflowError):
            self.fail(f"expected a time such as 2026-12-31T18:00Z or 2026-12-31T18:00+08:00, not {value!r}", param, ctx)


class Names(click.ParamType[list[str]]):
    """A list with commas between."""

    name = "a,b,…"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> list[str]:
        """Split; at least one name."""
        if isinstance(value, list):
            return value
        names = [name.strip() for name in str(value).split(",") if name.strip()]
        if not names:
            self.fail("expected at least one name", param, ctx)
        return names


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")(command)
