"""BIRD's efficiency scores: a right answer counts by how long it takes, compared with its gold.

Both begin with `time_ratio` of the gold's times and the answer's; an answer that is wrong (by ``set``) gets 0. As
shares, so that 1.0 is as good as the gold; the official scripts print them times 100.
"""

from __future__ import annotations

import math

from ..execution.measure import time_ratio

__all__ = ["r_ves", "reward", "time_ratio", "ves"]

_REWARDS = ((2.0, 1.25), (1.0, 1.0), (0.5, 0.75), (0.25, 0.5), (0.0, 0.25))


def ves(ratio: float) -> float:
    """What an answer adds to BIRD's VES, the valid efficiency score: the root of its time ratio."""
    return math.sqrt(ratio)


def r_ves(ratio: float) -> float:
    """What an answer adds to BIRD's R-VES, the reward-based one: the root of its reward."""
    return math.sqrt(reward(ratio))


def reward(ratio: float) -> float:
    """BIRD's reward of a time ratio: 1.25 from twice as fast as the gold, 1 from as fast, down to 0.25; 0 at 0."""
    return next((value for least, value in _REWARDS if ratio >= least), 0.0) if ratio > 0 else 0.0
