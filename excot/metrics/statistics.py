"""How sure a score is."""

from __future__ import annotations

import math

Z95 = 1.959963984540054
"""The normal distribution's 97.5th percentile: what makes an interval a 95% one."""


def wilson_interval(right: int, total: int, z: float = Z95) -> tuple[float, float]:
    """The score interval of a proportion (Wilson, 1927), which holds for few questions and near 0 and 1 as well.

    Args:
        right: how many of them were right.
        total: how many there were.
        z: how many standard errors wide on each side.

    Returns:
        Both ends, from 0 to 1; ``(0, 1)`` where there was nothing to judge.
    """
    if total == 0:
        return 0.0, 1.0
    share = right / total
    weight = z * z / total
    centre = (share + weight / 2) / (1 + weight)
    half = z / (1 + weight) * math.sqrt(share * (1 - share) / total + weight / (4 * total))
    # At 0 and at 1 the ends meet, up to rounding.
    return max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half))
