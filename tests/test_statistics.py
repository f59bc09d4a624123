"""Intervals of scores."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from excot.metrics.statistics import wilson_interval


@pytest.mark.parametrize(
    ("right", "total", "low", "high"),
    [  # computed by hand from Wilson's formula, to four places
        (0, 10, 0.0, 0.2775),
        (10, 10, 0.7225, 1.0),
        (5, 10, 0.2366, 0.7634),
        (1, 1, 0.2065, 1.0),
        (664, 1000, 0.6341, 0.6926),
    ],
)
def test_known_intervals(right, total, low, high):
    assert wilson_interval(right, total) == pytest.approx((low, high), abs=1e-4)


@given(st.integers(0, 500), st.integers(1, 500))
def test_the_interval_holds_the_share_and_is_mirrored_and_narrows(right, total):
    right = min(right, total)
    low, high = wilson_interval(right, total)
    assert 0 <= low <= right / total <= high <= 1
    mirrored = wilson_interval(total - right, total)
    assert (1 - high, 1 - low) == pytest.approx(mirrored)
    wide, narrow = high - low, wilson_interval(4 * right, 4 * total)
    assert narrow[1] - narrow[0] < wide


def test_nothing_judged_says_nothing():
    assert wilson_interval(0, 0) == (0.0, 1.0)
