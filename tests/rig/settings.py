"""The configuration of a door under test, as a mapping and as a file.

Strategy: one provider for each shape that the scripted upstream speaks, told apart by the path of its base URL, and one
model at each, with prices that make every kind of token show up in the last digits.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from tests.rig.answers import SHAPES

UPSTREAM_KEY = "sk-upstream-canary-7f3a91c2"  # must never be seen by a client, in a log or in the ledger
ENVIRON = {"FU_KEY": UPSTREAM_KEY}

PRICES: dict[str, dict[str, str]] = {
    "openai": {"input": "0.37", "cached_input": "0.031", "output": "1.93"},
    "qwen": {"input": "1.6", "cached_input": "0.16", "output": "6.4"},
    "deepseek": {"input": "0.299999", "cached_input": "0.006001", "output": "1.200007"},
    "moonshot": {"input": "0.95", "cached_input": "0.19", "output": "4"},
}


def settings(upstream_url: str, overrides: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a configuration for a door before that upstream; `overrides` is merged into it, key by key."""
    base: dict[str, Any] = {
        "server": {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0"},
        "ledger": {"url": "sqlite:nexus.db"},
        "plans": {"free": {"rung": True, "rpm": 10}, "wide": {"rpm": 1_000_000}},
        "providers": {
            f"p-{shape}": {
                "dialect": shape,
                "base_url": f"{upstream_url}/{shape}/v1",
                "allow_private": True,
                "api_key_env": "FU_KEY",
                "in_flight_max": 2000,
            }
            for shape in SHAPES
        },
        "models": {
            f"m-{shape}": {
                "provider": f"p-{shape}",
                "upstream": f"real-{shape}",
                "price": PRICES[shape],
                "context": 131072,
                "max_output": 8192,
                "limit_covers_thinking": True,  # so that a row can be told by its output bound
            }
            for shape in SHAPES
        },
    }
    return merged(base, overrides or {})


def merged(base: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with `overrides` put over it, tables key by key; None removes a key."""
    result = dict(base)
    for key, value in overrides.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, Mapping) and isinstance(result.get(key), Mapping):
            result[key] = merged(result[key], value)
        else:
            result[key] = value
    return result


def write(path: Path, values: Mapping[str, Any]) -> None:
    """Write a mapping as TOML."""
    lines: list[str] = []
    _table(lines, (), values)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _table(lines: list[str], name: tuple[str, ...], values: Mapping[str, Any]) -> None:
    if name:
        lines.append(f"[{'.'.join(_quoted(part) for part in name)}]")
    tables = {key: value for key, value in values.items() if isinstance(value, Mapping)}
    lines += [f"{_quoted(key)} = {_quoted(value)}" for key, value in values.items() if key not in tables]
    for key, value in tables.items():
        _table(lines, (*name, key), value)


def _quoted(value: Any) -> str:
    return orjson.dumps(value).decode()  # JSON's strings, numbers, booleans and flat lists are TOML's
