"""The answer that most samples agree on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence


def vote(fingerprints: Sequence[str | None]) -> int | None:
    """The place of the sample that a majority vote by equal results chooses (self-consistency, Wang et al., 2023).

    Args:
        fingerprints: one for each sample: the same text where results are equal; ``None`` for a sample that failed,
            which does not vote.

    Returns:
        The first of the samples with the most frequent result; of several such results, the one that came first. The
        first sample where all failed, ``None`` where there is none.
    """
    votes = Counter(fingerprint for fingerprint in fingerprints if fingerprint is not None)
    if votes:
        ((winner, _),) = votes.most_common(1)  # of equally many the one counted first
        return fingerprints.index(winner)
    return 0 if fingerprints else None
