"""How sure a score is, and whether two scores differ."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

Z95 = 1.959963984540054
"""The normal distribution's 97.5th percentile: what makes an interval a 95% one."""


def wilson_interval(right: float, total: float, z: float = Z95) -> tuple[float, float]:
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


def clustered_interval(shares: Sequence[float], samples: int, z: float = Z95) -> tuple[float, float]:
    """The interval of a mean share, where each question was sampled several times.

    Samples of one question are more alike than samples of different questions, so they must not be counted as if they
    were independent. This is Wilson's interval for the effective number of samples (Kish, 1965; Korn and Graubard,
    1998): as many independent ones as would give a mean of the same variance, which is estimated from the shares of
    the questions. That is at least the number of questions (one sample of each: Wilson's interval itself) and at
    most the number of samples.

    Args:
        shares: each question's share of right samples.
        samples: how many samples there are of all questions together.
        z: how many standard errors wide on each side.
    """
    questions = len(shares)
    if questions == 0:
        return 0.0, 1.0
    mean = math.fsum(shares) / questions
    variance = math.fsum((share - mean) ** 2 for share in shares) / questions
    most = max(samples, questions)
    effective = mean * (1 - mean) / variance * questions if variance > 0 else most if 0 < mean < 1 else questions
    effective = min(max(effective, questions), most)
    return wilson_interval(mean * effective, effective, z)


def pass_at_k(samples: int, right: int, k: int) -> float:
    """The chance that at least one of ``k`` samples is right (Chen et al., 2021), estimated without bias.

    Args:
        samples: how many samples there are of the question.
        right: how many of them are right.
        k: how many would be drawn; at most ``samples``.

    Raises:
        ValueError: the numbers make no sense together.
    """
    if not (0 <= right <= samples and 1 <= k <= samples):
        raise ValueError(f"no pass@{k} of {right} right among {samples} samples")
    draws = math.comb(samples, k)
    return (draws - math.comb(samples - right, k)) / draws


def mcnemar(first_only: int, second_only: int) -> float:
    """The exact two-sided p-value of McNemar's test (1947): do two systems differ on the same questions?

    Under the hypothesis that they do not, each question on which one of them only is right is a fair coin's toss.

    Args:
        first_only: questions that the first only has right.
        second_only: questions that the second only has right.
    """
    tosses, fewer = first_only + second_only, min(first_only, second_only)
    ways = term = 1
    for heads in range(fewer):
        term = term * (tosses - heads) // (heads + 1)
        ways += term
    return min(1.0, 2 * ways / 2**tosses)  # of whole numbers, so that nothing is lost however many tosses


def paired_bootstrap_interval(
    first: Sequence[float],
    second: Sequence[float],
    *,
    resamples: int = 10_000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of the mean difference ``second - first`` (Efron, 1979), questions drawn in pairs.

    Args:
        first: the first system's value of each question: 0 or 1, or a share of right samples.
        second: the second's, in the same order.
        resamples: how many times the questions are drawn with replacement.
        level: how much of the resampled means lies within.
        seed: of the drawing; the same seed gives the same interval.

    Raises:
        ValueError: there are no values, or not as many of each.
    """
    import numpy as np

    if len(first) != len(second) or not first:
        raise ValueError(f"{len(first)} and {len(second)} values are no pairs")
    counts = Counter(after - before for before, after in zip(first, second, strict=True))
    # Drawing questions one by one would only tell how often each difference comes, which is a multinomial number.
    differences = sorted(counts)
    shares = np.array([counts[difference] for difference in differences]) / len(first)
    generator = np.random.default_rng(seed)
    block = max(1, 1_000_000 // len(differences))  # a bounded matrix, however many values differ
    means = np.concatenate(
        [
            generator.multinomial(len(first), shares, size=min(block, resamples - start)) @ np.array(differences)
            for start in range(0, resamples, block)
        ]
    ) / len(first)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
