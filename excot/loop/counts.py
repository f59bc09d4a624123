"""What became of a round's questions: only those with a right and a wrong answer teach anything."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..atomic import replace_text
from ..builders.exclusion import read_exclusion
from ..builders.pairs import pair_rows
from ..config import PairsConfig
from ..run import Run


def round_counts(out: str, round: int, config: PairsConfig) -> dict[str, int]:
    """Count a round's questions.

    Returns:
        ``questions``, and how many of them have answers that are ``all_right``, ``all_wrong`` or ``mixed``; the others
        have no answer, or a gold that fails or is empty. Where the pairs are there, ``with_pair``.
    """
    run = Run(out, round)
    counts = dict.fromkeys(("questions", "all_right", "all_wrong", "mixed"), 0)
    for row in run.read("verified", ["gold", "candidates"]):
        counts["questions"] += 1
        if kind := _kind(row, config.rule):
            counts[kind] += 1
    if run.has("pairs"):
        counts["with_pair"] = len({row["id"] for row in run.read("pairs", ["id"])})
    return counts


def in_words(counts: dict[str, int]) -> str:
    """The counts for people."""
    pairs = f", {counts['with_pair']:,} give a pair" if "with_pair" in counts else ""
    return (
        f"{counts['questions']:,} questions: {counts['all_right']:,} all right, {counts['all_wrong']:,} all wrong, "
        f"{counts['mixed']:,} with both{pairs}"
    )


def has_pair(out: str, round: int, config: PairsConfig) -> bool:
    """Whether any pair comes of a round."""
    run = Run(out, round)
    return next(pair_rows(run, config, read_exclusion(config.exclude, run).ids), None) is not None


def write_all_right(out: str, round: int, rule: str, path: Path) -> tuple[int, int]:
    """Write the list of the questions that were all right in a round; how many there are, and of how many."""
    run = Run(out, round)
    rows = list(run.read("verified", ["id", "gold", "candidates"]))
    right = [row["id"] for row in rows if _kind(row, rule) == "all_right"]
    replace_text(path, "".join(json.dumps({"id": id}) + "\n" for id in right))
    return len(right), len(rows)


def _kind(row: dict[str, Any], rule: str) -> str | None:
    right = [candidate["matches"][rule] for candidate in row["candidates"]]
    if not right or row["gold"]["status"] != "ok":
        return None
    return "all_right" if all(right) else "mixed" if any(right) else "all_wrong"
