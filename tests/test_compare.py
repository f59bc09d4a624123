"""The four comparators, against a slow and obvious model of each."""

from __future__ import annotations

import random
import time
import tracemalloc
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import chain, combinations, count, permutations, repeat

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from excot.execution.compare import RULES, GoldRows, Matches, Row, compare

NOTHING = Matches()
ALL = Matches(True, True, True, True)

# ------------------------------------------------------------------------------------------------ the model


def model(gold: list[Row], rows: list[Row], ordered: bool, suite_ordered: bool) -> Matches:
    """Each rule as its definition says it, with everything in memory and every permutation tried."""
    multiset = Counter(gold) == Counter(rows)
    return Matches(
        set=set(gold) == set(rows),
        multiset=multiset,
        ordered=multiset and (gold == rows or not ordered),
        test_suite=model_of_test_suite(gold, rows, suite_ordered),
    )


def model_of_test_suite(gold: list[Row], rows: list[Row], ordered: bool) -> bool:
    if not gold and not rows:
        return True
    if len(gold) != len(rows) or {len(row) for row in gold} != {len(row) for row in rows}:
        return False
    for order in permutations(range(len(gold[0]))):
        permuted = [tuple(row[index] for index in order) for row in rows]
        if permuted == gold if ordered else Counter(permuted) == Counter(gold):
            return True
    return False


# ------------------------------------------------------------------------------------------------ pairs of results

# Equal across types (1, 1.0), equal to the eye only ("1", b"1"), and unequal with one hash (-1, -2).
VALUES = st.sampled_from([None, 0, 1, 1.0, "1", b"1", -1, -2, 0.5])
FEW_VALUES = st.sampled_from([0, 1, None])


def tables(width: int, values: st.SearchStrategy) -> st.SearchStrategy[list[Row]]:
    return st.lists(st.tuples(*[values] * width), max_size=6)


@st.composite
def pairs(draw: st.DrawFn) -> tuple[list[Row], list[Row]]:
    """A gold and a candidate: unrelated, or the candidate made from the gold by moving and changing a little."""
    values = draw(st.sampled_from([VALUES, FEW_VALUES]))
    width = draw(st.integers(1, 5))
    gold = draw(tables(width, values))
    if draw(st.integers(0, 3)) == 0:
        return gold, draw(tables(draw(st.integers(1, 5)), values))
    rows = list(draw(st.permutations(gold))) if draw(st.booleans()) else list(gold)
    columns = draw(st.permutations(range(width))) if draw(st.booleans()) else range(width)
    rows = [tuple(row[index] for index in columns) for row in rows]
    if rows and draw(st.booleans()):
        place = draw(st.integers(0, len(rows) - 1))
        change = draw(st.sampled_from(["drop", "repeat", "replace", "overwrite"]))
        if change == "drop":
            del rows[place]
        elif change == "repeat":
            rows.append(rows[place])
        elif change == "replace":  # the same number of rows, other duplicates
            rows[place] = draw(st.sampled_from(rows))
        else:
            column = draw(st.integers(0, width - 1))
            rows[place] = (*rows[place][:column], draw(values), *rows[place][column + 1 :])
    return gold, rows


@settings(max_examples=1500)
@given(pairs(), st.booleans(), st.booleans())
@example(([(0, 1), (1, 0)], [(1, 0), (0, 1)]), True, True)
@example(([(1, 2), (1, 3)], [(3, 1), (2, 1)]), False, False)
@example(([(-1, 0)], [(-2, 0)]), False, False)
@example(([(-1, -2), (-2, -1)], [(-1, -1), (-2, -2)]), False, False)
@example(([(None,), (None,)], [(None,)]), False, False)
@example(([(-1, -1, -2)], [(-1, -2, -2)]), False, True)
def test_every_rule_decides_as_its_definition_says(pair, ordered, suite_ordered):
    gold, rows = pair
    matches, read = compare(GoldRows(gold), iter(rows), ordered=ordered, suite_ordered=suite_ordered)
    assert matches == model(gold, rows, ordered, suite_ordered)
    assert read <= len(rows)
    if any(matches):
        assert read == len(rows)


@settings(max_examples=200)
@given(pairs(), pairs(), st.booleans())
def test_a_gold_that_has_been_compared_before_decides_as_a_fresh_one(first, second, ordered):
    gold = GoldRows(first[0])
    for rows in (first[1], second[1], first[1]):
        matches, _ = compare(gold, iter(rows), ordered=ordered, suite_ordered=ordered)
        assert matches == model(first[0], rows, ordered, ordered)


def test_the_rules_are_the_fields_of_matches():
    assert RULES == Matches._fields
    assert NOTHING == Matches(False, False, False, False)


@pytest.mark.parametrize(
    ("gold", "rows", "expected"),
    [
        ([], [], ALL),
        ([(1,)], [(1.0,)], ALL),
        ([(None,)], [(None,)], ALL),
        ([("1",)], [(1,)], NOTHING),
        ([("1",)], [(b"1",)], NOTHING),
        ([(0.3,)], [(0.1 + 0.2,)], NOTHING),
        ([(1, 2)], [(2, 1)], Matches(test_suite=True)),
        ([(1,), (1,)], [(1,)], Matches(set=True)),
        ([(1,)], [(1, 1)], NOTHING),
    ],
)
def test_what_equality_means(gold, rows, expected):
    assert compare(GoldRows(gold), iter(rows), ordered=True, suite_ordered=True)[0] == expected


def test_a_column_order_that_fits_every_row_alone_but_not_all_of_them_together_is_no_match():
    gold = [(0, 1), (0, 1)]
    assert compare(GoldRows(gold), iter([(0, 1), (1, 0)]), ordered=False, suite_ordered=False)[0] == NOTHING


# ------------------------------------------------------------------------------------------------ reading no more


class Reader(Iterator[Row]):
    """Rows that count how many of them were taken."""

    def __init__(self, rows: Iterator[Row]):
        self._rows, self.taken = rows, 0

    def __next__(self) -> Row:
        row = next(self._rows)
        self.taken += 1
        return row


@pytest.mark.parametrize("gold", [[], [(1, "a"), (2, "b")]])
@pytest.mark.parametrize("impossible", [(1, "c"), (1,), (1, "a", None), (None, None)])
@pytest.mark.parametrize("before", [0, 1, 2])
def test_reading_ends_at_the_first_row_that_no_rule_can_forgive(gold, impossible, before):
    reader = Reader(chain(gold[:before], [impossible], repeat((1, "a"))))
    matches, read = compare(GoldRows(gold), reader, ordered=False, suite_ordered=False)
    assert matches == NOTHING
    assert read == reader.taken == min(before, len(gold)) + 1


def test_rows_that_only_the_column_order_can_forgive_are_read_no_longer_than_the_gold():
    gold = [(number, "x") for number in range(10)]
    reader = Reader(("x", number) for number in count())
    assert compare(GoldRows(gold), reader, ordered=False, suite_ordered=False) == (NOTHING, 11)
    assert reader.taken == 11


@pytest.mark.parametrize("first", [0, 1])  # the gold's own first row, or another of its rows
def test_never_more_rows_are_kept_than_the_gold_has(first):
    gold = GoldRows([(number, "x" * 100) for number in range(20)])
    rows = ((number % 20, "x" * 100) for number in range(200_000 + first, first, -1))
    tracemalloc.start()
    try:
        matches, read = compare(gold, rows, ordered=False, suite_ordered=False)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (matches, read) == (Matches(set=True), 200_000)
    assert peak < 100_000


# ------------------------------------------------------------------------------------------------ many columns


def shuffled(rows: list[Row], seed: int) -> list[Row]:
    """The rows and the columns, each in another order."""
    chance = random.Random(seed)
    order = chance.sample(range(len(rows[0])), len(rows[0]))
    return [tuple(row[index] for index in order) for row in chance.sample(rows, len(rows))]


@pytest.mark.parametrize("height", [4, 12, 60, 1000])
def test_twelve_columns_of_truth_values_are_compared_at_once(height):
    chance = random.Random(height)
    columns = [chance.sample([0, 1] * (height // 2), height) for _ in range(12)]  # the same contents everywhere
    gold = list(zip(*columns, strict=True))
    started = time.perf_counter()
    for seed in range(5):
        assert compare(GoldRows(gold), shuffled(gold, seed), ordered=False, suite_ordered=False)[0].test_suite
    broken = [list(row) for row in shuffled(gold, 9)]
    trade(broken)
    assert contents_of_column_pairs(broken) != contents_of_column_pairs(gold)  # so no permutation can help
    assert not compare(GoldRows(gold), map(tuple, broken), ordered=False, suite_ordered=False)[0].test_suite
    assert time.perf_counter() - started < 5


def trade(rows: list[list[int]]) -> None:
    """Exchange two unequal values crosswise, so that every row and every column keeps its contents."""
    for first, second in permutations(rows, 2):
        for i, j in combinations(range(len(first)), 2):
            if first[i] == second[j] != first[j] == second[i]:
                first[i], first[j], second[i], second[j] = first[j], first[i], second[j], second[i]
                return
    raise AssertionError("no such values")


def contents_of_column_pairs(rows: Sequence[Sequence[int]]) -> Counter:
    columns = list(zip(*rows, strict=True))
    return Counter(frozenset(Counter(zip(one, other, strict=True)).items()) for one, other in permutations(columns, 2))


@pytest.mark.parametrize("suite_ordered", [False, True])
def test_thirty_equal_columns_are_interchangeable(suite_ordered):
    gold = [(0,) * 30] * 20
    rows = [(0,) * 29 + (1,)] * 20
    started = time.perf_counter()
    assert compare(GoldRows(gold), iter(gold[::-1]), ordered=False, suite_ordered=suite_ordered)[0] == ALL
    assert compare(GoldRows(gold), iter(rows), ordered=False, suite_ordered=suite_ordered)[0] == NOTHING
    assert time.perf_counter() - started < 2
