"""pass@k, intervals of scores from several samples, and whether two systems differ."""

from __future__ import annotations

import math
import random
from fractions import Fraction
from itertools import combinations
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from excot.metrics.statistics import (
    clustered_interval,
    mcnemar,
    paired_bootstrap_interval,
    pass_at_k,
    wilson_interval,
)

ZERO_OR_ONE = st.lists(st.sampled_from([0.0, 1.0]), min_size=1, max_size=200)

# ------------------------------------------------------------------------------------------------ pass@k


@given(st.lists(st.booleans(), min_size=1, max_size=9), st.integers(1, 9))
def test_pass_at_k_is_the_share_of_all_draws_that_hold_a_right_one(samples, k):
    k = min(k, len(samples))
    draws = list(combinations(samples, k))
    assert pass_at_k(len(samples), sum(samples), k) == sum(map(any, draws)) / len(draws)


@pytest.mark.parametrize("samples", [1, 2, 32, 1000])
def test_pass_at_one_is_the_share_of_right_samples_and_at_n_whether_there_is_one(samples):
    for right in {0, 1, samples // 3, samples}:
        assert pass_at_k(samples, right, 1) == right / samples
        assert pass_at_k(samples, right, samples) == (right > 0)


@pytest.mark.parametrize(("samples", "right", "k"), [(3, 1, 4), (3, 1, 0), (3, 4, 1), (3, -1, 1), (0, 0, 1)])
def test_pass_at_k_of_what_cannot_be_drawn_is_refused(samples, right, k):
    with pytest.raises(ValueError, match="no pass@"):
        pass_at_k(samples, right, k)


# ------------------------------------------------------------------------------------------------ several samples


@given(ZERO_OR_ONE)
def test_one_sample_of_each_question_has_wilsons_interval(shares):
    expected = wilson_interval(sum(shares), len(shares))
    assert clustered_interval(shares, len(shares)) == pytest.approx(expected)


@given(ZERO_OR_ONE, st.integers(2, 32))
def test_samples_that_all_agree_are_worth_no_more_than_one(shares, n):
    expected = wilson_interval(sum(shares), len(shares))
    assert clustered_interval(shares, n * len(shares)) == pytest.approx(expected)


@given(st.lists(st.integers(0, 8), min_size=1, max_size=60))
def test_the_interval_is_between_that_of_the_questions_and_that_of_independent_samples(rights):
    shares = [right / 8 for right in rights]
    low, high = clustered_interval(shares, 8 * len(shares))
    assert 0 <= low <= fmean(shares) <= high <= 1
    widest = wilson_interval(sum(shares), len(shares))
    narrowest = wilson_interval(sum(rights), 8 * len(rights))
    assert narrowest[1] - narrowest[0] - 1e-9 <= high - low <= widest[1] - widest[0] + 1e-9


def test_the_interval_holds_the_true_score_as_often_as_it_says():
    """Questions of all difficulties, eight samples each: an interval that took them for independent would fail."""
    chance = random.Random(0)
    held = held_naively = 0
    for _ in range(1000):
        shares = []
        for _ in range(80):
            difficulty = chance.betavariate(0.4, 0.3)
            shares.append(sum(chance.random() < difficulty for _ in range(8)) / 8)
        low, high = clustered_interval(shares, 8 * 80)
        held += low <= 0.4 / 0.7 <= high
        low, high = wilson_interval(8 * sum(shares), 8 * 80)
        held_naively += low <= 0.4 / 0.7 <= high
    assert held / 1000 == pytest.approx(0.95, abs=0.02)
    assert held_naively / 1000 < 0.8


def test_nothing_sampled_says_nothing():
    assert clustered_interval([], 0) == (0.0, 1.0)
    assert clustered_interval([0.0] * 4, 0) == pytest.approx(wilson_interval(0, 4))


# ------------------------------------------------------------------------------------------------ two systems


@given(st.integers(0, 60), st.integers(0, 60))
def test_mcnemars_p_value_is_that_of_tossing_coins(first, second):
    tosses = first + second
    likely = [Fraction(math.comb(tosses, heads), 2**tosses) for heads in range(tosses + 1)]
    as_extreme = [share for heads, share in enumerate(likely) if abs(2 * heads - tosses) >= abs(first - second)]
    assert mcnemar(first, second) == pytest.approx(float(sum(as_extreme)))
    assert mcnemar(first, second) == mcnemar(second, first)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [(0, 0, 1.0), (1, 0, 1.0), (5, 5, 1.0), (1, 8, 20 / 512), (0, 10, 2 / 1024), (10_000, 10_000, 1.0)],
)
def test_known_p_values(first, second, expected):
    assert mcnemar(first, second) == pytest.approx(expected)


def test_ten_thousand_disagreements_are_no_overflow():
    assert 0 < mcnemar(5_200, 4_800) < 1e-4


def drawn_one_by_one(first: list[float], second: list[float], resamples: int) -> tuple[float, float]:
    chance = random.Random(1)
    differences = [after - before for before, after in zip(first, second, strict=True)]
    means = sorted(fmean(chance.choices(differences, k=len(differences))) for _ in range(resamples))
    return means[round(0.025 * resamples)], means[round(0.975 * resamples)]


def two_systems(questions: int, seed: int, samples: int = 1) -> tuple[list[float], list[float]]:
    chance = random.Random(seed)
    first = [sum(chance.random() < 0.6 for _ in range(samples)) / samples for _ in range(questions)]
    second = [sum(chance.random() < 0.7 for _ in range(samples)) / samples for _ in range(questions)]
    return first, second


@pytest.mark.parametrize("samples", [1, 7])
def test_the_bootstrap_is_that_of_drawing_questions_one_by_one(samples):
    first, second = two_systems(200, 3, samples)
    assert paired_bootstrap_interval(first, second) == pytest.approx(drawn_one_by_one(first, second, 4000), abs=0.01)


def test_the_bootstrap_is_the_same_for_the_same_seed_and_mirrored_for_the_other_direction():
    first, second = two_systems(300, 4)
    low, high = paired_bootstrap_interval(first, second, seed=5)
    assert (low, high) == paired_bootstrap_interval(first, second, seed=5)
    assert (low, high) == pytest.approx(paired_bootstrap_interval(first, second, seed=6), abs=0.01)
    assert low < fmean(second) - fmean(first) < high
    assert (-high, -low) == pytest.approx(paired_bootstrap_interval(second, first), abs=0.01)
    wide = paired_bootstrap_interval(first, second, level=0.99)
    assert wide[0] < low and high < wide[1]


def test_pairs_tell_more_than_two_scores_apart():
    """Two systems that differ on a few questions only: each score is unsure, their difference is not."""
    first, _ = two_systems(400, 5)
    second = [1.0 if place % 20 == 0 else value for place, value in enumerate(first)]
    low, high = paired_bootstrap_interval(first, second)
    single = wilson_interval(sum(first), 400)
    assert 0 < low and high - low < (single[1] - single[0]) / 2


def test_systems_that_are_equal_everywhere_do_not_differ():
    assert paired_bootstrap_interval([0.0, 1.0, 0.5], [0.0, 1.0, 0.5]) == (0.0, 0.0)


def test_many_different_values_need_no_more_memory():
    chance = random.Random(6)
    first, second = ([chance.random() for _ in range(20_000)] for _ in range(2))
    low, high = paired_bootstrap_interval(first, second, resamples=500)
    assert high - low == pytest.approx(2 * 1.96 * math.sqrt(1 / 6 / 20_000), rel=0.25)


@pytest.mark.parametrize(("first", "second"), [([], []), ([1.0], []), ([1.0, 0.0], [1.0])])
def test_what_are_no_pairs_is_refused(first, second):
    with pytest.raises(ValueError, match="no pairs"):
        paired_bootstrap_interval(first, second)
