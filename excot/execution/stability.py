"""Whether a statement's result is the statement's own, or also the clock's, a random number's or the scan's.

SQLite decides, no text is parsed: its authorizer tells which functions a statement uses, the date functions tell
whether they were asked for the current time, and a second execution under ``PRAGMA reverse_unordered_selects`` shows
what hangs on an order that nobody asked for: LIMIT without ORDER BY, ``group_concat``, columns beside an aggregate.

What it does not show: ties under ORDER BY with LIMIT, and the row that GROUP BY or DISTINCT takes for a group; these
SQLite does not read in another order.
"""

from __future__ import annotations

import math
import sqlite3
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

from .compare import GoldRows, Row
from .sandbox import Limits, Sandbox
from .volatile import CHANCE, CLOCK, DATES

Cause = Literal["random", "clock", "unordered"]

_CALLS: dict[Cause, set[str]] = {"random": CHANCE, "clock": CLOCK}
_NOW = {"now", "subsec", "subsecond"}
"""Time values that stand for the current time (lang_datefunc.html); no time value at all does so too."""

TOLERANCE = 1e-9
"""Relative, and near zero absolute: floats that are added in another order give a sum with other last digits."""


def causes(
    path: Path, sql: str, rows: GoldRows, limits: Limits, on_statement: Callable[[], None] = lambda: None
) -> tuple[Cause, ...] | None:
    """Why a statement may give another result the next time.

    Args:
        path: the database.
        sql: a statement that has been executed there.
        rows: its result.
        limits: what one more execution of it may use.
        on_statement: called before each execution.

    Returns:
        ``random``: it calls ``random`` or ``randomblob``. ``clock``: it asks for the current date or time.
        ``unordered``: only where it does neither; read in another order, the set of its rows is another. Empty where
        nothing was found, and ``None`` where that could not be found out within the limits.
    """
    with closing(_Reversed(path, limits)) as sandbox:
        on_statement()
        used = sandbox.functions(sql)
        if used is None:
            return None
        found: list[Cause] = [cause for cause, names in _CALLS.items() if used & names]
        may_ask_for_now = bool(used & DATES) and "clock" not in found
        if may_ask_for_now:
            sandbox.watch_dates()
        elif found:
            return tuple(found)  # it will differ anyway: another order has nothing to show
        on_statement()
        execution = sandbox.run(sql, lambda again: same_rows(rows, again))
        if sandbox.asked_for_now:
            found.append("clock")
        if not found and execution.value is None:
            return None
        return tuple(found) if found or execution.value else ("unordered",)


def same_rows(rows: GoldRows, again: Iterable[Row]) -> bool:
    """Whether two results are one set of rows but for the last digits of floats; reads no more than it takes."""
    known, seen = rows.counts.keys(), set()
    for row in again:
        seen.add(row)
        if len(seen) > len(known):
            return False
    mine, others = (sorted(left, key=_place) for left in (known - seen, seen - known))
    return len(mine) == len(others) and all(map(_close, mine, others))


def _place(row: Row) -> tuple[Any, ...]:
    """By which rows are paired: first by what must be equal, then by their floats."""
    firm = ((type(value).__name__, 0 if value is None else value) for value in row if not isinstance(value, float))
    return tuple(firm), tuple(value for value in row if isinstance(value, float))


def _close(row: Row, other: Row) -> bool:
    return len(row) == len(other) and all(
        math.isclose(a, b, rel_tol=TOLERANCE, abs_tol=TOLERANCE)
        if isinstance(a, float) and isinstance(b, float)
        else a == b
        for a, b in zip(row, other, strict=True)
    )


class _Reversed(Sandbox):
    """A sandbox that reads tables backwards where nobody asked for an order, and notes what a statement uses."""

    def __init__(self, path: Path, limits: Limits):
        self.asked_for_now = False
        self._used: set[str] = set()
        self._clock: sqlite3.Connection | None = None
        self._setting_up = True
        super().__init__(path, limits)
        self._connection.execute("PRAGMA reverse_unordered_selects = ON").close()
        self._setting_up = False

    def functions(self, sql: str) -> set[str] | None:
        """The functions that a statement, and the views that it reads, use; ``None`` where it cannot be prepared."""
        execution = self.run(f"EXPLAIN {sql}", lambda rows: deque(rows, maxlen=0))
        return self._used if execution.status == "ok" else None

    def watch_dates(self) -> None:
        """From now on, notice when a date function is asked for the current time. It answers as it always does."""
        self._clock = clock = sqlite3.connect(":memory:", check_same_thread=False)

        def watched(name: str) -> Callable[..., Any]:
            def function(*arguments: Any) -> Any:
                self.asked_for_now = self.asked_for_now or _asks_for_now(name, arguments)
                return clock.execute(f"SELECT {name}({', '.join('?' * len(arguments))})", arguments).fetchone()[0]

            return function

        for name in DATES:
            # Deterministic, as the functions of this name are to SQLite: indices and views with them stay valid.
            self._connection.create_function(name, -1, watched(name), deterministic=True)

    def close(self) -> None:
        super().close()
        if self._clock is not None:
            self._clock.close()

    def _authorize(self, action: int, first: str | None, second: str | None, *rest: Any) -> int:
        if self._setting_up:
            return sqlite3.SQLITE_OK
        if action == sqlite3.SQLITE_FUNCTION and second is not None:
            self._used.add(second.lower())
        return super()._authorize(action, first, second, *rest)


def _asks_for_now(name: str, arguments: tuple[Any, ...]) -> bool:
    times = arguments[1:2] if name == "strftime" else arguments[:2] if name == "timediff" else arguments[:1]
    return not times or any(_text(value) in _NOW for value in times)


def _text(value: Any) -> str:
    return (value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)).lower()
