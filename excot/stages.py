"""The names of a run folder's datasets, which are its configs on the Hub: stages, and the rounds some are made in.

Round 0 learns from a teacher's answers, each later one from those of the model before it. Its datasets stand beside
those of the other rounds under names of their own: ``pairs``, ``pairs_round1``, ``pairs_round2``.
"""

from __future__ import annotations

import re

STAGES = ("questions", "generations", "verified", "audit", "sft", "pairs", "details", "scores")
ROUNDED = ("generations", "verified", "audit", "sft", "pairs")
"""What every round makes anew; the other stages are common to all rounds."""
JOURNALED = ("generations", "verified")
VERBS = {
    "questions": "questions",
    "generations": "generate",
    "verified": "verify",
    "audit": "audit",
    "sft": "sft",
    "pairs": "pairs",
    "details": "score",
    "scores": "score",
}
"""The verb of the command that makes each stage."""


def dataset_name(stage: str, round: int = 0) -> str:
    """What a stage's dataset is called in a round."""
    return f"{stage}_round{round}" if round and stage in ROUNDED else stage


def parse_name(name: str) -> tuple[str, int] | None:
    """The stage and the round of a dataset's name; ``None`` where it is no name of ours."""
    found = re.fullmatch(r"(\w+?)(?:_round([1-9]\d*))?", name, re.ASCII)
    if not found or found[1] not in (ROUNDED if found[2] else STAGES):
        return None
    return found[1], int(found[2] or 0)


def in_order(names: list[str]) -> list[str]:
    """Datasets as they are made: round by round, and in each the stages one after the other; scores come last."""

    def place(name: str) -> tuple[int, int, int]:
        stage, round = parse_name(name) or ("scores", 0)
        return ({"questions": 0, "details": 2, "scores": 2}.get(stage, 1), round, STAGES.index(stage))

    return sorted(names, key=place)
