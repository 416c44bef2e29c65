"""One statement for many rows, in as many sizes as batches usually have.

Strategy: a statement costs more than a row, and each of them lets the interpreter's lock go and waits for it again. So
rows are gathered as one flat list of values and written by as few statements as there can be. What is the same in all
rows stands in the text: what is not bound costs nothing, and NULL is the dearest of all to bind.
"""

import sqlite3
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, Final

COUNTS: Final = (*range(1, 17), 24, 32, 48, 64)  # of rows, in one statement
_MOST: Final = COUNTS[-1]
_FITTING: Final = tuple(accumulate((n if n in COUNTS else 0 for n in range(_MOST + 1)), max))


class Statement:
    """SQL in which ROWS stands for rows such as `(?, 'x', ?)`."""

    def __init__(self, sql: str, row: str) -> None:
        self.texts = {count: sql.replace("ROWS", ", ".join([row] * count)) for count in COUNTS}
        self._columns = row.count("?")

    def write(self, cursor: sqlite3.Cursor, values: Sequence[Any]) -> None:
        """Write rows, given as one flat list of their values."""
        left, begin = len(values) // self._columns, 0
        if left in self.texts:  # nearly always
            cursor.execute(self.texts[left], values)
            return
        while left:
            count = _FITTING[min(left, _MOST)]
            end = begin + count * self._columns
            cursor.execute(self.texts[count], values[begin:end])
            begin, left = end, left - count


class Selection:
    """A query in which IDS stands for the ids of an IN."""

    def __init__(self, sql: str) -> None:
        self._texts = {count: sql.replace("IDS", ", ".join("?" * count)) for count in COUNTS}

    def read(self, cursor: sqlite3.Cursor, ids: Sequence[int]) -> list[Any]:
        """Return the rows."""
        if len(ids) in self._texts:
            return cursor.execute(self._texts[len(ids)], ids).fetchall()
        found: list[Any] = []
        begin = 0
        while begin < len(ids):
            count = _FITTING[min(len(ids) - begin, _MOST)]
            found += cursor.execute(self._texts[count], ids[begin : begin + count]).fetchall()
            begin += count
        return found
