"""The first rows of a result as evidence: short whatever a database holds."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .compare import Row

MOST_CELLS = 12
"""Cells of a row that are shown; one more says how many are not."""

MOST_CHARACTERS = 60
"""Characters of one value that are shown."""


@dataclass(frozen=True)
class Preview:
    """A look at a result.

    Attributes:
        text: JSON: a list of its first different rows, each a list of cells. A BLOB is shown as SQLite writes it, a
            number that JSON has no way to write as text.
        rows: how many different rows it has.
        only_nulls: whether there is nothing in it but NULLs; so it is where there is no row.
        finds_nothing: whether there is nothing in it but NULLs and zeros: nothing was found, or counted.
    """

    text: str
    rows: int
    only_nulls: bool
    finds_nothing: bool


def preview(rows: Sequence[Row], most: int) -> Preview:
    """Look at a result.

    Args:
        rows: its different rows, in order.
        most: how many to show.
    """
    text = json.dumps([_cells(row) for row in rows[:most]], ensure_ascii=False)
    return Preview(
        text,
        len(rows),
        only_nulls=all(value is None for row in rows for value in row),
        finds_nothing=all(value in (None, 0) for row in rows for value in row),
    )


def _cells(row: Row) -> list[Any]:
    cells = [_cell(value) for value in row[:MOST_CELLS]]
    more = len(row) - MOST_CELLS
    return [*cells, f"... {more:,} more"] if more > 0 else cells


def _cell(value: Any) -> Any:
    if isinstance(value, bytes):
        most = (MOST_CHARACTERS - len("x''...")) // 2
        return f"x'{value[:most].hex()}{'...' if len(value) > most else ''}'"
    if isinstance(value, str) and len(value) > MOST_CHARACTERS:
        return value[: MOST_CHARACTERS - 3] + "..."
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
