"""Scores as text: aligned tables that say what was measured and how sure it is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ..execution import RULES
from .scoring import Scores
from .statistics import clustered_interval

_HARDER = ("simple", "easy", "moderate", "medium", "challenging", "hard", "extra")
"""The difficulties of BIRD and Spider in their order; any other follows by its name."""

_EXTRAS = {"soft_f1": "soft F1", "ves": "VES", "r_ves": "R-VES"}


def score_table(system: str, benchmark: str, source: str, scores: Scores) -> str:
    """What `excot score` prints of a system's scores.

    Args:
        system: its name.
        benchmark: whose questions these are, in words.
        source: where its answers are from, in words.
        scores: its scores.
    """
    summary = scores.summary()
    several = "vote" in scores.details[0]
    judged = f"{len(scores.details):,} questions"
    if several:
        judged = f"{summary['samples']:,} answers to {judged}"
    parts = [
        f"{system} on {benchmark}: {percent(summary['exec_acc'])} of {judged} right "
        f"(95% interval {interval(summary, 'exec_acc')}), by rule {scores.rule}\n"
        f"answers from {source}",
        _by_rule(scores, several),
    ]
    if several:
        parts.append(_by_samples(summary))
    if difficulties := difficulties_of(summary):
        parts.append(_by_difficulty(summary, difficulties))
    parts.append(_notes(scores, summary))
    return "\n\n".join(parts)


def align(rows: Sequence[Sequence[str]], head: Sequence[str] | None = None, words: int = 1) -> str:
    """Columns two spaces apart, indented by two.

    Args:
        rows: the cells.
        head: what stands above the columns, if anything.
        words: how many columns from the left hold words, which stand to the left; the others stand to the right.
    """
    lines = [head, *rows] if head else rows
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]

    def cell(text: str, place: int) -> str:
        return text.ljust(widths[place]) if place < words else text.rjust(widths[place])

    return "\n".join("  " + "  ".join(cell(text, place) for place, text in enumerate(line)).rstrip() for line in lines)


def percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def span(low: float, high: float) -> str:
    """An interval in percent, of one width whatever its ends."""
    return f"{100 * low:.1f} to {100 * high:>4.1f}"


def interval(summary: Mapping[str, Any], name: str) -> str:
    return f"{100 * summary[f'{name}_low']:.1f} to {100 * summary[f'{name}_high']:.1f}"


def difficulties_of(summary: Mapping[str, Any]) -> list[str]:
    """The difficulties that questions have, the easiest first; none where no question has one."""
    prefix = "questions_difficulty_"
    found = [name.removeprefix(prefix) for name in summary if name.startswith(prefix)]
    return sorted(found, key=difficulty_order)


def difficulty_order(name: str) -> tuple[int, str]:
    return (_HARDER.index(name) if name in _HARDER else len(_HARDER), name)


def _by_rule(scores: Scores, several: bool) -> str:
    """Every rule, though one decides: the same answers, as others would count them."""
    rows = []
    for rule in RULES:
        counts = [sum(sample["matches"][rule] for sample in row["samples"]) for row in scores.details]
        samples = [len(row["samples"]) for row in scores.details]
        shares = [count / number if number else 0.0 for count, number in zip(counts, samples, strict=True)]
        mark = "decides" if rule == scores.rule else ""
        right = f"{sum(counts):,}"
        rows.append(
            [rule, right, percent(sum(shares) / len(shares)), span(*clustered_interval(shares, sum(samples))), mark]
        )
    return align(rows, ["rule", "right answers" if several else "right", "EX", "95% interval", ""])


def _by_samples(summary: Mapping[str, Any]) -> str:
    most = summary["samples_max"]
    names = sorted((name for name in summary if name.startswith("pass_at_")), key=lambda name: (len(name), name))
    rows = [[f"pass@{name.removeprefix('pass_at_')}", percent(summary[name]), ""] for name in names]
    rows.append(["vote", percent(summary["exec_acc_vote"]), interval(summary, "exec_acc_vote")])
    rows.append([f"best of {most}", percent(summary["best_of_n"]), ""])
    return align(rows, [f"of {most} samples", "EX", "95% interval"])


def _by_difficulty(summary: Mapping[str, Any], difficulties: Sequence[str]) -> str:
    rows = []
    for name in difficulties:
        key = f"exec_acc_difficulty_{name}"
        ends = span(summary[f"{key}_low"], summary[f"{key}_high"])
        rows.append([name, f"{summary[f'questions_difficulty_{name}']:,}", percent(summary[key]), ends])
    return align(rows, ["difficulty", "questions", "EX", "95% interval"])


def _notes(scores: Scores, summary: Mapping[str, Any]) -> str:
    """What becomes of answers and golds apart from right and wrong."""
    statuses = Counter(sample["status"] for row in scores.details for sample in row["samples"])
    answers = ", ".join(f"{count:,} {status}" for status, count in statuses.most_common())
    lines = [f"valid rate {percent(summary['valid_rate'])}: answers {answers or 'none'}"]
    golds = [
        f"{summary[name]:,} {words}"
        for name, words in (("gold_failed", "fail"), ("gold_timeout", "time out"), ("gold_empty", "return no row"))
        if summary[name]
    ]
    lines.append(
        f"ceiling {percent(summary['ceiling'])}: golds that run" + (f" ({', '.join(golds)})" if golds else "")
    )
    extras = [f"{words} {100 * summary[name]:.1f}" for name, words in _EXTRAS.items() if name in summary]
    if extras:
        lines.append(", ".join(extras))
    return "\n".join(lines)
