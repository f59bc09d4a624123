"""What can be found out about a candidate's result beyond whether it matches; only where a task asks for it.

Nothing here decides: a result that is too large or too slow to be read to its end is as right or wrong as it would be
without, and only has no measures. (Keeping rows takes some microseconds each, which do count as the statement's time.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from sys import getsizeof
from typing import Any, Generic, TypeVar

from .compare import Row
from .preview import Preview
from .sandbox import Limits
from .stability import Cause

Found = TypeVar("Found")

SHORTEST = 1e-9
"""Seconds: what a statement takes at least, where a clock shows no difference."""


@dataclass(frozen=True)
class Measures:
    """What to measure.

    Attributes:
        fingerprint: a short text for each result, by which candidates with equal results are recognised.
        soft_f1: how much of the gold's result is in the candidate's.
        repetitions: how often to time gold and candidate, by turns, where the candidate is right by ``set``; 0 for not
            at all.
        preview: how many rows of a result to keep for showing, first those that the gold has not; 0 for none.
        permuted: whether a wrong result is the gold's with its columns in another order.
        stability: why the gold may give another result the next time; found for a candidate that is the gold itself.
    """

    fingerprint: bool = False
    soft_f1: bool = False
    repetitions: int = 0
    preview: int = 0
    permuted: bool = False
    stability: bool = False

    @property
    def need_all_rows(self) -> bool:
        """Whether a result is read to its end even where it is clear that nothing matches."""
        return self.fingerprint or self.soft_f1 or self.preview > 0 or self.permuted


@dataclass(frozen=True)
class Measured:
    """What was found; ``None`` where it was not asked for or could not be found.

    Attributes:
        fingerprint: two results have the same one where they are equal by ``set``, and only there.
        soft_f1: from 0 to 1; see the function `soft_f1`.
        time_ratio: the gold's time to the candidate's; see the function `time_ratio`.
        repetitions: over how many repetitions: fewer than asked for where they took too long, and 0 where not one was
            complete, so that the times are those of the verification itself. ``None`` also where gold and candidate
            are one statement, whose ratio is 1.
        preview: some of the result's rows, and how many there are.
        permuted: whether it is the gold's set of rows with the columns in another order.
        unstable: why the gold may give another result the next time, empty where it seems not to; see `causes`.
    """

    fingerprint: str | None = None
    soft_f1: float | None = None
    time_ratio: float | None = None
    repetitions: int | None = None
    preview: Preview | None = None
    permuted: bool | None = None
    unstable: tuple[Cause, ...] | None = None

    @classmethod
    def of(cls, values: Sequence[Any]) -> Measured:
        """What `dataclasses.astuple` has taken apart."""
        found = cls(*values)
        return found if found.preview is None else replace(found, preview=Preview(*found.preview))


class Reading(Generic[Found]):
    """One reading of a candidate's rows: by the comparison, and then to the end where measures need all of them.

    Args:
        compare: reads rows until it is sure.
        limits: how many different rows are kept, and how many bytes of them.
        to_the_end: whether to keep the rows and to read on.

    Attributes:
        found: what the comparison returned. It stands even where reading on fails.
        rows: the different rows, in order; ``None`` where they are not known to be all.
    """

    def __init__(self, compare: Callable[[Iterator[Row]], Found], limits: Limits, *, to_the_end: bool):
        self._compare, self._limits, self._to_the_end = compare, limits, to_the_end
        self._begin()

    def _begin(self) -> None:
        self._kept: dict[Row, None] = {}
        self._over_limits = False
        self.found: Found | None = None
        self.rows: list[Row] | None = None

    def __call__(self, rows: Iterator[Row]) -> None:
        self._begin()  # a statement may be executed a second time
        if not self._to_the_end:
            self.found = self._compare(rows)
            return
        rows = self._keep(rows)
        self.found = self._compare(rows)
        for _ in rows:
            if self._over_limits:
                break  # nothing is gained by reading on
        if not self._over_limits:
            self.rows = list(self._kept)

    def _keep(self, rows: Iterator[Row]) -> Iterator[Row]:
        """The same rows, kept as they pass, as long as they are within the limits."""
        count = size = 0
        for row in rows:
            if not self._over_limits:
                self._kept[row] = None
                if len(self._kept) > count:
                    count += 1
                    size += row_size(row)
                    if count > self._limits.rows or size > self._limits.result_bytes:
                        self._over_limits = True
                        self._kept.clear()
            yield row


def row_size(row: Row) -> int:
    """Bytes of memory that a row takes, estimated: a text with one rare character takes four for each of its own."""
    return 64 + sum(map(getsizeof, row))


def fingerprint(rows: Iterable[Row]) -> str:
    """A text that is the same for results that are equal by ``set``, and another for others.

    Args:
        rows: different rows, in any order.
    """
    # Within one type of SQLite's, different values have different representations.
    digests = sorted(blake2b(repr(_plain(row)).encode(), digest_size=16).digest() for row in rows)
    return blake2b(b"".join(digests), digest_size=16).hexdigest()


def _plain(row: Row) -> Row:
    """The row with whole floats as integers, which they are equal to."""
    if float not in map(type, row):
        return row
    return tuple(int(value) if isinstance(value, float) and value.is_integer() else value for value in row)


def soft_f1(gold: Sequence[Row], rows: Sequence[Row]) -> float:
    """BIRD's Soft F1 (bird-bench/mini_dev, ``evaluation_f1.py``): a value for what a wrong result has right.

    Rows are paired by their places. In a pair, each cell of the candidate's row counts as matched where it stands
    anywhere in the gold's row, and as too much otherwise; each cell of the gold's that is nowhere in the candidate's
    is missing; all as shares of the gold's columns. A row without a partner counts as one too much or one missing.

    Args:
        gold: the gold's different rows, in order.
        rows: the candidate's different rows, in order.

    Returns:
        The F1 of the sums: 1 where both are empty, 0 where nothing is matched.
    """
    if not gold and not rows:
        return 1.0
    matched, too_much, missing = 0.0, float(max(0, len(rows) - len(gold))), float(max(0, len(gold) - len(rows)))
    for expected, row in zip(gold, rows, strict=False):
        hits = sum(value in expected for value in row)
        matched += hits / len(expected)
        too_much += (len(row) - hits) / len(expected)
        missing += sum(value not in row for value in expected) / len(expected)
    return 2 * matched / (2 * matched + too_much + missing) if matched else 0.0


def time_ratio(gold_seconds: Sequence[float], seconds: Sequence[float]) -> float:
    """How much faster than its gold a statement is, as BIRD's VES has it (bird-bench/mini_dev, ``evaluation_ves.py``).

    The mean of the ratios of a gold's time to the statement's, without those that are three standard deviations or
    more from their mean. Where all are the same none is left out; the official code fails there and gives 0.

    Args:
        gold_seconds: the gold's times; at least one.
        seconds: the statement's times, measured by turns with the gold's.
    """
    ratios = [gold / max(own, SHORTEST) for gold, own in zip(gold_seconds, seconds, strict=True)]
    mean = math.fsum(ratios) / len(ratios)
    deviation = math.sqrt(math.fsum((ratio - mean) ** 2 for ratio in ratios) / len(ratios))
    usual = [ratio for ratio in ratios if mean - 3 * deviation < ratio < mean + 3 * deviation]
    return math.fsum(usual) / len(usual) if usual else mean


def seconds_by_turns(
    execute: Callable[[str], float | None], gold: str, sql: str, repetitions: int, budget: float
) -> tuple[list[float], list[float]]:
    """Execute a statement and its gold by turns, so that what else the machine does meets both alike.

    Args:
        execute: executes one of them and returns its seconds; ``None`` where it failed, which ends the repetitions.
        gold: the gold.
        sql: the statement.
        repetitions: how many at most.
        budget: seconds after which no other repetition is begun.

    Returns:
        The gold's seconds and the statement's, of as many repetitions as were complete.
    """
    times: list[tuple[float, float]] = []
    spent = 0.0
    while len(times) < repetitions and spent <= budget:
        own = execute(sql)
        golds = None if own is None else execute(gold)
        if own is None or golds is None:
            break
        times.append((golds, own))
        spent += golds + own
    return [golds for golds, _ in times], [own for _, own in times]
