"""What is measured of results beside whether they match: fingerprints and votes, Soft F1, times; never the verdict."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
from chain import make_database
from hypothesis import given
from hypothesis import strategies as st
from singers import SINGERS

from excot.execution import Limits, Measured, Measures, Outcome, Sandbox, Task, Verifier, judge
from excot.execution.measure import fingerprint, seconds_by_turns, soft_f1, time_ratio
from excot.metrics.efficiency import r_ves, reward, ves
from excot.metrics.vote import vote

EVERYTHING = Measures(fingerprint=True, soft_f1=True, repetitions=2)
GOLD = "SELECT name, age FROM singer"

VALUES = st.one_of(
    st.none(),
    st.integers(-2, 2),
    st.floats(allow_nan=False),  # SQLite has none: it makes NULL of it
    st.sampled_from([0.0, -0.0, 1.0, 0.5, 2.0**53, 1e308, math.inf, -math.inf, 2**53, 2**53 + 1, 2**63 - 1]),
    st.text(max_size=2),
    st.sampled_from(["", "1", "1.0", "None", "b'1'", "'", '"', "\\", "\n", "\ufffd", "ä"]),
    st.binary(max_size=2),
)
SMALL = st.sampled_from([None, 0, 1, 1.0, "1", b"1"])
RESULTS = st.integers(1, 3).flatmap(lambda width: st.lists(st.tuples(*[st.one_of(SMALL, VALUES)] * width), max_size=5))


def different(rows: Sequence[tuple]) -> list[tuple]:
    return list(dict.fromkeys(rows))


# ------------------------------------------------------------------------------------------------ fingerprints


@given(RESULTS, RESULTS)
def test_results_have_the_same_fingerprint_where_their_sets_of_rows_are_equal_and_only_there(first, second):
    same = fingerprint(different(first)) == fingerprint(different(second))
    assert same == (set(first) == set(second))


@given(RESULTS, st.randoms(use_true_random=False))
def test_order_duplicates_and_the_way_a_number_is_written_do_not_count(rows, chance):
    def other(value):
        if isinstance(value, int) and float(value) == value and int(float(value)) == value:
            return float(value)
        return value

    copies = [tuple(map(other, row)) for row in rows for _ in range(chance.randint(1, 3))]
    chance.shuffle(copies)
    assert fingerprint(different(copies)) == fingerprint(different(rows))


@given(st.lists(st.one_of(st.none(), st.lists(st.tuples(SMALL), max_size=2)), max_size=8))
def test_the_vote_is_that_of_comparing_every_sample_with_every_other(results):
    """`None` is a sample that failed."""
    chosen, most = (0 if results else None), 0
    for place, rows in enumerate(results):
        agreeing = 0 if rows is None else sum(other is not None and set(other) == set(rows) for other in results)
        if agreeing > most:
            chosen, most = place, agreeing
    assert vote([None if rows is None else fingerprint(different(rows)) for rows in results]) == chosen


# ------------------------------------------------------------------------------------------------ Soft F1


def plain_soft_f1(gold: Sequence[tuple], rows: Sequence[tuple]) -> Fraction:
    """The definition, place by place."""
    gold, rows = different(gold), different(rows)
    if not gold and not rows:
        return Fraction(1)
    true_positive = false_positive = false_negative = Fraction(0)
    for place in range(max(len(gold), len(rows))):
        if place >= len(rows):
            false_negative += 1
        elif place >= len(gold):
            false_positive += 1
        else:
            for cell in rows[place]:
                if cell in gold[place]:
                    true_positive += Fraction(1, len(gold[place]))
                else:
                    false_positive += Fraction(1, len(gold[place]))
            for cell in gold[place]:
                if cell not in rows[place]:
                    false_negative += Fraction(1, len(gold[place]))
    if not true_positive:
        return Fraction(0)
    precision = true_positive / (true_positive + false_positive)
    recall = true_positive / (true_positive + false_negative)
    return 2 * precision * recall / (precision + recall)


@given(RESULTS, RESULTS)
def test_soft_f1_is_as_defined(gold, rows):
    assert soft_f1(different(gold), different(rows)) == pytest.approx(float(plain_soft_f1(gold, rows)))


@given(RESULTS)
def test_soft_f1_of_the_golds_own_rows_is_one(rows):
    assert soft_f1(different(rows), different(rows)) == 1.0


@pytest.mark.parametrize(
    ("gold", "rows", "expected"),
    [  # by hand
        ([], [], 1.0),
        ([], [(1,)], 0.0),
        ([(1,)], [], 0.0),
        ([("a", 1)], [(1, "a")], 1.0),  # anywhere in the row
        ([("a", 1)], [("a", 2)], 0.5),
        ([("a", 1)], [("a",)], 2 / 3),
        ([("a",)], [("a", 1)], 2 / 3),
        ([(1,), (2,)], [(2,), (1,)], 0.0),  # by places: order counts where the sets are equal
        ([(1,), (2,)], [(1,)], 2 / 3),
        ([(1,)], [(1,), (2,)], 2 / 3),
        ([(1,)], [(1.0,)], 1.0),
    ],
)
def test_soft_f1_of_known_results(gold, rows, expected):
    assert soft_f1(gold, rows) == pytest.approx(expected)


# ------------------------------------------------------------------------------------------------ times


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [
        (9.0, 1.25),
        (2.0, 1.25),
        (math.nextafter(2, 0), 1.0),
        (1.0, 1.0),
        (math.nextafter(1, 0), 0.75),
        (0.5, 0.75),
        (math.nextafter(0.5, 0), 0.5),
        (0.25, 0.5),
        (math.nextafter(0.25, 0), 0.25),
        (1e-9, 0.25),
        (0.0, 0.0),
    ],
)
def test_rewards_at_their_thresholds(ratio, expected):
    gold, own = [ratio] * 4, [1.0] * 4  # a power of two, whose sum is exact
    assert time_ratio(gold, own) == ratio
    assert reward(ratio) == expected
    assert r_ves(ratio) == math.sqrt(expected)
    assert ves(ratio) == math.sqrt(ratio)


def test_ratios_three_standard_deviations_off_are_left_out():
    gold, own = [2.0] * 99 + [500.0], [1.0] * 100
    assert time_ratio(gold, own) == 2.0
    assert time_ratio([2.0, 500.0], [1.0, 1.0]) == 251.0  # of few, none is that far off


@given(st.lists(st.tuples(st.floats(1e-6, 1e3), st.floats(1e-6, 1e3)), min_size=1, max_size=60))
def test_the_time_ratio_is_as_defined(pairs):
    ratios = [gold / own for gold, own in pairs]
    mean = sum(ratios) / len(ratios)
    deviation = (sum((ratio - mean) ** 2 for ratio in ratios) / len(ratios)) ** 0.5
    usual = [ratio for ratio in ratios if abs(ratio - mean) < 3 * deviation] or ratios
    expected = sum(usual) / len(usual)
    assert time_ratio(*zip(*pairs, strict=True)) == pytest.approx(expected)


def test_a_clock_that_stands_still_is_no_division_by_zero():
    assert time_ratio([0.0, 1e-9], [0.0, 1e-9]) == 0.5


def test_gold_and_candidate_are_timed_by_turns():
    asked = []

    def execute(sql):
        asked.append(sql)
        return 2.0 if sql == "gold" else 1.0

    assert seconds_by_turns(execute, "gold", "own", 3, math.inf) == ([2.0] * 3, [1.0] * 3)
    assert asked == ["own", "gold"] * 3
    assert seconds_by_turns(execute, "gold", "own", 100, 6.0) == ([2.0] * 3, [1.0] * 3)  # nothing begins after that
    failing = iter([1.0, 2.0, 1.0, None])
    assert seconds_by_turns(lambda sql: next(failing), "gold", "own", 100, math.inf) == ([2.0], [1.0])


# ------------------------------------------------------------------------------------------------ in verification


@pytest.fixture(scope="module")
def database(tmp_path_factory) -> Path:
    return make_database(tmp_path_factory.mktemp("singers") / "singers.sqlite", SINGERS)


def outcomes(path: Path, gold: str, *candidates: str, measures=EVERYTHING, limits: Limits | None = None):
    """What becomes of the candidates, and which places were executed."""
    executed: list[int] = []
    verifier = Verifier(on_statement=executed.append)
    task = Task("1", (path,), gold, candidates, limits or Limits(seconds=30), measures)
    found = [outcome for _, outcome in list(verifier.verify(task))[1:]]
    verifier.close()
    return found, executed


def without_measures(outcome: Outcome) -> Outcome:
    return replace(outcome, seconds=None, measured=None)


STATEMENTS = [
    GOLD,
    f"{GOLD};",
    "SELECT name, age FROM singer WHERE 1",
    "SELECT name, age FROM singer ORDER BY name DESC",
    "SELECT age, name FROM singer",
    "SELECT DISTINCT name, age FROM singer",
    "SELECT name, age FROM singer UNION ALL SELECT name, age FROM singer",
    "SELECT name FROM singer",
    "SELECT name, age FROM singer WHERE age > 99",
    "SELECT name, nowhere FROM singer",
    "DELETE FROM singer",
    # wrong from its first row on, and failing after it: reading stops before
    "SELECT 'x', CASE WHEN id < 3 THEN 0 ELSE abs(-9223372036854775807 - 1) END FROM singer",
    # right so far, and then failing
    "SELECT name, CASE WHEN id < 3 THEN age ELSE abs(-9223372036854775807 - 1) END FROM singer",
]


@pytest.mark.parametrize("gold", [GOLD, "SELECT name, age FROM singer WHERE age > 99", "SELECT nowhere FROM singer"])
@pytest.mark.parametrize("measures", [Measures(fingerprint=True), Measures(soft_f1=True), EVERYTHING])
@pytest.mark.parametrize("limits", [Limits(seconds=30), Limits(seconds=30, rows=3)])
def test_no_measure_changes_a_verdict(database, gold, measures, limits):
    plain, _ = outcomes(database, gold, *STATEMENTS, measures=Measures(), limits=limits)
    measured, _ = outcomes(database, gold, *STATEMENTS, measures=measures, limits=limits)
    assert [outcome.measured for outcome in plain] == [None] * len(STATEMENTS)
    assert list(map(without_measures, measured)) == list(map(without_measures, plain))
    assert all((outcome.measured is None) == (outcome.status != "ok") for outcome in measured)


def test_equal_results_have_equal_fingerprints_whether_right_or_wrong(database):
    found, _ = outcomes(database, GOLD, *STATEMENTS)
    marks = [outcome.measured and outcome.measured.fingerprint for outcome in found]
    assert len({*marks[:4], marks[5], marks[6]}) == 1  # the gold's result
    assert len({marks[0], marks[4], marks[7], marks[8]}) == 4
    assert marks[9] is marks[10] is marks[11] is marks[12] is None
    anew, _ = outcomes(database, "SELECT 1", *STATEMENTS)
    assert [outcome.measured and outcome.measured.fingerprint for outcome in anew] == marks


def test_results_are_read_on_only_where_that_is_asked_for(database):
    counting = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
    for measures in (Measures(), Measures(repetitions=3)):
        (endless,), _ = outcomes(database, "SELECT 7", counting, measures=measures, limits=Limits(seconds=5))
        assert (endless.status, endless.rows) == ("ok", 1)
        assert endless.seconds < 1
    measures = Measures(fingerprint=True, soft_f1=True)
    (endless,), _ = outcomes(database, "SELECT 7", counting, measures=measures, limits=Limits(seconds=0.3))
    assert (endless.status, endless.rows, endless.measured) == ("ok", 1, Measured())
    assert endless.seconds >= 0.3


@pytest.mark.parametrize("limits", [Limits(rows=1000), Limits(result_bytes=100_000)])
def test_reading_on_ends_at_the_limits_of_a_result(database, limits):
    counting = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c"
    (outcome,), _ = outcomes(database, "SELECT 7", counting, limits=limits)
    assert (outcome.status, outcome.rows, outcome.measured) == ("ok", 1, Measured())
    assert outcome.seconds < 1
    # Duplicates are not kept, so they may be many.
    (outcome,), _ = outcomes(database, "SELECT 7", f"SELECT x % 900 FROM ({counting} LIMIT 20000)", limits=limits)
    assert outcome.measured.fingerprint == fingerprint([(x,) for x in range(900)])


def test_soft_f1_of_executed_statements(database):
    found, _ = outcomes(database, GOLD, *STATEMENTS, measures=Measures(soft_f1=True))
    values = [outcome.measured and outcome.measured.soft_f1 for outcome in found]
    assert values[:3] == [1.0] * 3
    assert values[3] == pytest.approx(2 / 3)  # in reverse order, Ann and Cid still have the same age
    assert values[4:8] == pytest.approx([1.0, 1.0, 1.0, 2 / 3])
    assert values[8:] == [0.0, None, None, None, None]
    assert outcomes(database, "SELECT nope", "SELECT 1")[0][0].measured.soft_f1 is None


def test_only_right_answers_are_timed_and_the_gold_itself_is_as_fast_as_the_gold(database):
    found, executed = outcomes(database, GOLD, *STATEMENTS[:9], measures=Measures(repetitions=4))
    timed = [outcome.measured.repetitions for outcome in found]
    ratios = [outcome.measured.time_ratio for outcome in found]
    assert timed == [None, None, 4, 4, None, 4, 4, None, None]
    assert ratios[:2] == [1.0, 1.0]
    assert [ratio is None for ratio in ratios[4:]] == [True, False, False, True, True]
    assert all(ratio > 0 for ratio in ratios if ratio is not None)
    assert executed.count(2) >= 8  # a watcher learns of every repetition, by turns the gold's


SLOW = (
    "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {}) "
    "SELECT name, age FROM singer WHERE (SELECT count(*) FROM c) > 0"
)


def test_a_faster_answer_has_a_higher_ratio_and_slow_ones_are_timed_less_often(database):
    measures = Measures(repetitions=1000)
    (fast,), _ = outcomes(database, SLOW.format(100_000), GOLD, measures=measures, limits=Limits(seconds=0.5))
    (slow,), _ = outcomes(database, GOLD, SLOW.format(100_000), measures=measures, limits=Limits(seconds=0.5))
    assert fast.measured.time_ratio > 2 and slow.measured.time_ratio < 0.5
    for outcome in (fast, slow):
        assert 1 <= outcome.measured.repetitions < 1000


def test_an_answer_that_was_just_in_time_once_keeps_the_time_of_its_verification(database, monkeypatch):
    monkeypatch.setattr(judge, "seconds_by_turns", lambda *_: ([], []))
    (outcome,), _ = outcomes(database, GOLD, STATEMENTS[2], measures=Measures(repetitions=9))
    assert outcome.measured.repetitions == 0
    assert outcome.measured.time_ratio > 0


def test_what_is_too_large_to_be_measured_is_still_judged(database, monkeypatch):
    def too_large(*_):
        raise MemoryError

    monkeypatch.setattr(judge, "fingerprint", too_large)
    (outcome,), _ = outcomes(database, GOLD, STATEMENTS[7], measures=Measures(fingerprint=True))
    assert (outcome.status, outcome.measured) == ("ok", Measured())


def test_random_statements_agree_with_plain_comparisons(database):
    chance = random.Random(0)
    columns = ["name", "age", "id", "note", "1.0", "NULL", "age / 2.0"]
    statements = [
        f"SELECT {chance.choice(['', 'DISTINCT '])}{', '.join(chance.choices(columns, k=chance.randint(1, 2)))} "
        f"FROM singer {chance.choice(['', 'WHERE age = 30', 'WHERE 0'])} {chance.choice(['', 'ORDER BY id DESC'])}"
        for _ in range(60)
    ]
    sandbox = Sandbox(database, Limits())
    rows = {sql: sandbox.run(sql, list).value for sql in statements}
    sandbox.close()
    for gold in statements[:10]:
        found, _ = outcomes(database, gold, *statements, measures=Measures(fingerprint=True, soft_f1=True))
        marks = [outcome.measured.fingerprint for outcome in found]
        for sql, outcome in zip(statements, found, strict=True):
            expected = float(plain_soft_f1(rows[gold], rows[sql]))
            assert outcome.measured.soft_f1 == pytest.approx(expected)
            for other, mark in zip(statements, marks, strict=True):
                assert (mark == outcome.measured.fingerprint) == (set(rows[other]) == set(rows[sql]))
