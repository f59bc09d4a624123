"""When two results match: four comparators, decided together in one reading of the candidate's rows.

Rows are tuples as sqlite3 gives them and are compared by Python's equality: ``1 == 1.0``, ``None == None``, text never
equals a BLOB, and there is no tolerance for floats. That is what both official evaluators do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from itertools import chain
from typing import NamedTuple

Row = tuple
RULES = ("set", "multiset", "ordered", "test_suite")

_SIGNED_ROWS = 100_000
"""Rows of a gold up to which each has a signature, by which the reading of a wrong result ends early."""


class Matches(NamedTuple):
    """Which comparators call two results equal.

    Attributes:
        set: the sets of rows are equal; column order matters (BIRD's official execution accuracy, ``evaluation.py``).
        multiset: as ``set``, with duplicates counted (BIRD-Platinum's strict score).
        ordered: ``multiset``, and the same order where the gold's outermost query has ORDER BY.
        test_suite: equal bags under some permutation of the columns; equal lists where ``order by`` stands anywhere in
            the gold; DISTINCT ignored (Spider's official rule, github.com/taoyds/test-suite-sql-eval).
    """

    set: bool = False
    multiset: bool = False
    ordered: bool = False
    test_suite: bool = False


class GoldRows:
    """The gold result, with the forms of it that comparisons need, each made once and only when asked for."""

    def __init__(self, rows: Sequence[Row]):
        self.rows = rows

    @cached_property
    def counts(self) -> Counter[Row]:
        """How often each different row is there."""
        return Counter(self.rows)

    @cached_property
    def in_order(self) -> tuple[Row, ...]:
        """The different rows, each at its first place."""
        return tuple(dict.fromkeys(self.rows))

    @cached_property
    def signature(self) -> Callable[[Row], int]:
        """What no permutation of the columns changes: rows with unequal signatures match under none."""
        # Of a large result the number of columns must do: a signature for each row takes some 100 bytes of memory.
        return _sum_of_hashes if len(self.rows) <= _SIGNED_ROWS else len

    @cached_property
    def signatures(self) -> Counter[int]:
        """How often each signature is there."""
        return Counter(map(self.signature, self.rows))


def compare(
    gold: GoldRows, rows: Iterable[Row], *, ordered: bool, suite_ordered: bool, only_suite: bool = False
) -> tuple[Matches, int]:
    """Read a candidate's rows until it is sure which comparators match.

    Never more rows are kept than the gold has, and reading stops at the first row that no comparator can forgive.

    Args:
        gold: the gold result.
        rows: the candidate's rows, in its order; read lazily.
        ordered: whether row order matters to ``ordered``.
        suite_ordered: whether row order matters to ``test_suite``.
        only_suite: whether ``test_suite`` is all that is asked for; then the others may be false where they match.

    Returns:
        The matches, and how many rows were read.
    """
    rows = iter(rows)
    expected = gold.rows
    position = 0
    # Most candidates that are right give the gold's rows in the gold's order: nothing needs keeping until one differs.
    for row in rows:
        if position == len(expected) or row != expected[position]:
            break
        position += 1
    else:
        if position == len(expected):
            return Matches(True, True, True, True), position
        return Matches(set=len(set(expected[:position])) == len(gold.counts)), position
    # And most that are wrong differ in their first row already, which is none of the gold's in any order of columns.
    if row not in gold.counts and gold.signature(row) not in gold.signatures:
        return Matches(), position + 1
    return _compare_from(gold, position, chain((row,), rows), ordered, suite_ordered, only_suite)


def _compare_from(
    gold: GoldRows, position: int, rows: Iterator[Row], ordered: bool, suite_ordered: bool, only_suite: bool
) -> tuple[Matches, int]:
    """Go on where the first ``position`` rows were the gold's own and the next one is not."""
    expected, counts, signature, signatures = gold.rows, gold.counts, gold.signature, gold.signatures
    set_alive = bag_alive = not only_suite
    suite_alive = True
    kept = list(expected[:position])
    seen, seen_signatures = Counter(kept), Counter(map(signature, kept))
    read = position
    for row in rows:
        read += 1
        if set_alive:
            set_alive = row in counts
            seen[row] += set_alive
            bag_alive = bag_alive and set_alive and seen[row] <= counts[row]
        if suite_alive:
            own = signature(row)
            seen_signatures[own] += 1
            suite_alive = seen_signatures[own] <= signatures[own]
            kept.append(row) if suite_alive else kept.clear()
        if not (bag_alive or suite_alive):
            return _covers(gold, seen, rows, read) if set_alive else (Matches(), read)
    complete = read == len(expected)
    multiset = bag_alive and complete
    # An equal bag needs no search where order does not matter: its columns fit as they stand.
    test_suite = (
        suite_alive
        and complete
        and ((multiset and not suite_ordered) or equal_under_permutation(expected, kept, suite_ordered))
    )
    return (
        Matches(
            set=set_alive and len(seen) == len(counts),
            multiset=multiset,
            ordered=multiset and not ordered,  # the rows differ at `position`, so the order does
            test_suite=test_suite,
        ),
        read,
    )


def _covers(gold: GoldRows, seen: Iterable[Row], rows: Iterator[Row], read: int) -> tuple[Matches, int]:
    """Where only ``set`` can still match: a few nanoseconds a row, as a result may go on for millions of them."""
    counts = gold.counts
    missing = counts.keys() - seen
    more = 0
    for more, row in enumerate(rows, 1):
        if row not in counts:
            return Matches(), read + more
        if missing:
            missing.discard(row)
    return Matches(set=not missing), read + more


def _sum_of_hashes(row: Row) -> int:
    return hash((len(row), sum(map(hash, row))))


def equal_under_permutation(gold: Sequence[Row], rows: Sequence[Row], ordered: bool) -> bool:
    """Whether some permutation of the columns of ``rows`` gives the gold's list (``ordered``) or bag of rows.

    Both have the same, non-zero number of rows, and each row the same number of columns.
    """
    gold_columns, columns = list(zip(*gold, strict=True)), list(zip(*rows, strict=True))
    if len(gold_columns) != len(columns):
        return False
    if ordered:
        return Counter(gold_columns) == Counter(columns)
    return _bags_equal(gold, gold_columns, columns)


def _bags_equal(gold: Sequence[Row], gold_columns: list[tuple], columns: list[tuple]) -> bool:
    """Search a column of the candidate for each of the gold's, left to right.

    Where there is a choice, only columns with which the bags of partial rows stay equal are followed further.
    """
    wanted = [Counter(column) for column in gold_columns]
    contents = [Counter(column) for column in columns]

    def extend(width: int, partial: list[Row], free: list[int]) -> bool:
        if width == len(gold_columns):
            return Counter(partial) == Counter(gold)
        # Columns with the same content in the same order are interchangeable: one of them is enough.
        choices = {columns[index]: index for index in free if contents[index] == wanted[width]}
        target = Counter(row[: width + 1] for row in gold) if len(choices) > 1 else None
        for column, chosen in choices.items():
            longer = [(*row, value) for row, value in zip(partial, column, strict=True)]
            fits = target is None or Counter(longer) == target
            if fits and extend(width + 1, longer, [index for index in free if index != chosen]):
                return True
        return False

    return extend(0, [()] * len(gold), list(range(len(columns))))
