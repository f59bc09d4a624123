"""Scores in numbers."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import ExcotError
from ..execution import RULES
from .statistics import clustered_interval, pass_at_k, wilson_interval

Row = Mapping[str, Any]

EXTRAS = ("soft_f1", "ves", "r_ves")
"""What can be measured beside right and wrong."""


def summarize(rule: str, details: Sequence[Row]) -> dict[str, float | int]:
    """One flat mapping of numbers: shares from 0 to 1 (efficiency scores can be above), and counts.

    Args:
        rule: the comparator that ``exec_acc`` goes by.
        details: the rows of `Scores.details`.

    Raises:
        ExcotError: there is no row.
    """
    if not details:
        raise ExcotError("there is nothing to sum up: no question was scored")
    samples = [sample for row in details for sample in row["samples"]]
    counts = [len(row["samples"]) for row in details]
    statuses = Counter(sample["status"] for sample in samples)
    found = {
        **_accuracy("exec_acc", details),
        **{f"exec_acc_{name}": _mean(_share(row, name) for row in details) for name in RULES},
        "valid_rate": statuses["ok"] / max(1, len(samples)),
        "timeout_rate": statuses["timeout"] / max(1, len(samples)),
        "questions": len(details),
        "samples": len(samples),
        "samples_min": min(counts),
        "samples_max": max(counts),
        **_golds(details),
    }
    if "vote" in details[0]:
        found |= _of_samples(rule, details)
    for name in EXTRAS:
        if name in details[0]:
            found[name] = _mean(row[name] for row in details)
    if "ves" in found or "r_ves" in found:
        repetitions = [sample["repetitions"] for sample in samples if sample["repetitions"] is not None]
        found["ves_repetitions"] = _mean(repetitions)
        found["ves_repetitions_min"] = min(repetitions, default=0)
    for name, rows in _groups(details, "difficulty").items():
        found |= _accuracy(f"exec_acc_difficulty_{name}", rows)
        found[f"questions_difficulty_{name}"] = len(rows)
    for name, rows in _groups(details, "db_id").items():
        found[f"exec_acc_db_{name}"] = _mean(row["right"] for row in rows)
        found[f"questions_db_{name}"] = len(rows)
    return found


def _accuracy(name: str, rows: Sequence[Row]) -> dict[str, float]:
    """The mean over questions of the share of right samples, with its interval."""
    shares = [row["right"] for row in rows]
    low, high = clustered_interval(shares, sum(len(row["samples"]) for row in rows))
    return {name: _mean(shares), f"{name}_low": low, f"{name}_high": high}


def _golds(details: Sequence[Row]) -> dict[str, float | int]:
    """What no answer can change: the share of the golds that run, and how many do not."""
    statuses = Counter(row["gold"]["status"] for row in details)
    failed = statuses["error"] + statuses["too_large"]
    return {
        "ceiling": (statuses["ok"] + statuses["empty"]) / len(details),
        "gold_failed": failed,
        "gold_timeout": statuses["timeout"],
        "gold_empty": statuses["empty"],
    }


def _of_samples(rule: str, details: Sequence[Row]) -> dict[str, float]:
    """What several samples of each question tell."""
    rights = [[sample["matches"][rule] for sample in row["samples"]] for row in details]
    # More samples than a question has cannot be drawn from it, so its number bounds k; one without any stays wrong.
    most = min((len(right) for right in rights if right), default=0)
    found = {
        f"pass_at_{k}": _mean(pass_at_k(len(right), sum(right), k) if right else 0.0 for right in rights)
        for k in sorted({*_powers_of_two(most), *([most] if most else [])})
    }
    voted = sum(row["vote"] is not None and right[row["vote"]] for row, right in zip(details, rights, strict=True))
    found["exec_acc_vote"] = voted / len(details)
    found["exec_acc_vote_low"], found["exec_acc_vote_high"] = wilson_interval(voted, len(details))
    found["best_of_n"] = _mean(any(right) for right in rights)
    return found


def _powers_of_two(most: int) -> list[int]:
    return [2**exponent for exponent in range(most.bit_length())]


def _share(row: Row, rule: str) -> float:
    return sum(sample["matches"][rule] for sample in row["samples"]) / max(1, len(row["samples"]))


def _groups(details: Sequence[Row], column: str) -> dict[str, list[Row]]:
    """The rows by the value of a column, sorted; those without one are in no group."""
    groups = defaultdict(list)
    for row in details:
        if row[column] is not None:
            groups[row[column]].append(row)
    return dict(sorted(groups.items()))


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values) if values else 0.0
