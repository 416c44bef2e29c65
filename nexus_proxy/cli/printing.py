"""What a verb prints: tables for people, JSON and CSV for programs.

Strategy: rows are dicts as the admin returned them; a column is a key and a heading. Piped, nothing is coloured,
wrapped or shortened. Values are text, never markup.
"""

import csv
import json
import re
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

_WIDTH_PIPED = 10_000
_TIME = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):[\d.]+Z$")  # in a table, minutes are enough


def console() -> Console:
    """Return a console on stdout as it is now."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDTH_PIPED)


def print_json(value: object) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], *, empty: str) -> None:
    """Print rows under headings; `columns` maps keys to headings, in order. Numbers and amounts stand right."""
    if not rows:
        click.echo(empty)
        return
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, heading in columns.items():
        right = any(_is_number(row[name]) for row in rows)
        table.add_column(heading, justify="right" if right else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(_TIME.sub(r"\1 \2Z", shown(row[name]))) for name in columns))
    console().print(table)


def print_record(record: Mapping[str, Any], names: Sequence[str]) -> None:
    """Print one thing, a line each."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name in names:
        table.add_row(name.replace("_", " "), Text(shown(record[name])))
    console().print(table)


def print_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as CSV with a heading line."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([shown(row[name], nothing="") for name in columns] for row in rows)


def shown(value: Any, *, nothing: str = "–") -> str:
    """Write one value for a person."""
    if value is None or value == "":
        return nothing
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(str(part) for part in value)
    return str(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool):
        return False
    return isinstance(value, int) or (isinstance(value, str) and value.lstrip("-").replace(".", "", 1).isdecimal())
