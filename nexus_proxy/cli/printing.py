"""What a verb prints: tables for people, JSON and CSV for programs.

Strategy: rows are dicts as the admin returned them; a column is a key and a heading. Piped, nothing is coloured, padded
or shortened, and only a list in a record is wrapped. On a terminal a table that is too wide has its `group` in lines of
their own, then loses its `spare` columns, which is said, then space, and wraps at spaces alone: a name, a number or an
amount is never broken. Values are text, never markup.
"""

import csv
import json
import re
import sys
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import click
from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

_WIDTH_PIPED = 10_000
_LIST_PIPED = 100  # a list of a hundred models is for eyes even where it goes into a file
_TIME = re.compile(r"^(\d{4}-\d\d-\d\d)T(\d\d:\d\d):[\d.]+Z$")  # in a table, minutes are enough


def console() -> Console:
    """Return a console on stdout as it is now."""
    return Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=_WIDTH_PIPED)


def print_json(value: object) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def print_line(text: str, *, err: bool = False) -> None:
    """Print a sentence. A terminal gets it wrapped at spaces."""
    width = console().width
    click.echo(textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False), err=err)


def print_table(
    rows: Sequence[Mapping[str, Any]],
    columns: Mapping[str, str],
    *,
    empty: str,
    spare: Sequence[str] = (),
    group: str = "",
) -> frozenset[str]:
    """Print rows under headings, and return the columns that were shown.

    `columns` maps keys to headings, in order. Numbers and amounts stand right. A terminal that is too narrow gets the
    column `group` as a line above the rows that share it, and does without `spare`, the first to go first.
    """
    if not rows:
        click.echo(empty)
        return frozenset()
    out, kept, grouped = console(), dict(columns), ""
    table = _table(rows, kept)
    if group in kept and _width_least(out, table) > out.width:
        grouped = group
        del kept[group]
        table = _table(rows, kept, grouped)
    for name in spare:
        if name in kept and _width_least(out, table) > out.width:
            del kept[name]
            table = _table(rows, kept, grouped)
    if _width_least(out, table) > out.width:
        table.padding = (0, 0, 0, 0)
    if _width_least(out, table) > out.width:
        out.width = _width_least(out, table)  # the terminal wraps the lines; what is copied from it is whole
    _print(out, table)
    shown_columns = frozenset(kept) | {grouped} - {""}
    left_out = [heading or name for name, heading in columns.items() if name not in shown_columns]
    if left_out:
        print_line(f"Too wide for this terminal: {', '.join(left_out)}. --json has everything.")
    return shown_columns


def _print(out: Console, table: Table) -> None:
    if sys.stdout.isatty():
        out.print(table, crop=False)
        return
    with out.capture() as capture:
        out.print(table, crop=False)
    click.echo("\n".join(line.rstrip() for line in capture.get().splitlines()))


def _table(rows: Sequence[Mapping[str, Any]], columns: Mapping[str, str], group: str = "") -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False, padding=(0, 1, 0, 0))
    groups = _groups(rows, group)
    titles = [Text(f"{group} {shared}:", "bold") for shared in groups]
    for name, heading in columns.items():
        right = any(_is_number(row[name]) for row in rows)
        cells = [_cell(row[name]) for row in rows]
        whole = not any(" " in cell for cell in cells)
        words = [heading, *cells] if whole else " ".join([heading, *cells]).split(" ")
        justify: JustifyMethod = "right" if right else "left"
        table.add_column(heading, justify=justify, no_wrap=whole, min_width=max(map(cell_len, words)))
    if group:
        table.columns[0].min_width = max([table.columns[0].min_width or 0, *(title.cell_len for title in titles)])
    for title, members in zip(titles, groups.values(), strict=True):
        if group:
            table.add_row(title)
        for row in members:
            table.add_row(*(Text(_cell(row[name])) for name in columns))
    return table


def _groups(rows: Sequence[Mapping[str, Any]], group: str) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(_cell(row[group]) if group else "", []).append(row)
    return groups


def _cell(value: Any) -> str:
    return _TIME.sub(r"\1 \2Z", shown(value))


def _width_least(out: Console, table: Table) -> int:
    """Return the width below which a word would be broken."""
    return Measurement.get(out, out.options.update(width=_WIDTH_PIPED), table).minimum


def print_record(record: Mapping[str, Any], names: Sequence[str]) -> None:
    """Print one thing, a line each."""
    out = console()
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="dim")
    table.add_column(overflow="fold")
    for name in names:
        text = shown(record[name])
        if isinstance(record[name], list) and not sys.stdout.isatty():
            text = textwrap.fill(text, _LIST_PIPED, break_long_words=False, break_on_hyphens=False)
        table.add_row(name.replace("_", " "), Text(text))
    _print(out, table)


def print_csv(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> None:
    """Print rows as CSV with a heading line."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([shown(row[name], nothing="") for name in columns] for row in rows)


def counted(number: int, one: str, many: str = "") -> str:
    """Write a number and what is counted: `1 entry`, `2 entries`."""
    return f"{number} {one if number == 1 else many or one + 's'}"


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
