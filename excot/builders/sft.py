"""SFT data: right answers to learn from, as TRL's prompt-completion conversations."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

from ..config import SftConfig
from ..run import Run
from .columns import SFT
from .training import right_answers, said, student_prompts, usable_rows, write_training_data


def make_sft(config: SftConfig) -> str:
    """The stage ``sft``: choose right answers. Returns the lines to show.

    Raises:
        ExcotError: there is no verified data, or the run folder holds something else.
    """
    made = write_training_data("sft", config, sft_rows, SFT)
    return f"{made} right answers, in {config.out}\nnext: {Run(config.out, config.round).command('pairs')}"


def sft_rows(run: Run, config: SftConfig, excluded: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    """The rows of the dataset: at most ``max_per_question`` of a question, in order, of the excluded ones none."""
    prompt = student_prompts(run)

    def rows() -> Iterator[dict[str, Any]]:
        for row in usable_rows(run, excluded):
            for candidate in choose(right_answers(row, config.rule), config):
                yield {
                    "prompt": prompt(row),
                    "completion": said(candidate["text"]),
                    "id": row["id"],
                    "db_id": row["db_id"],
                    "sql": candidate["sql"],
                }

    return islice(rows(), config.limit)


def choose(right: list[dict[str, Any]], config: SftConfig) -> list[dict[str, Any]]:
    """Which of a question's right answers to take: the first, the shortest (the first of equals), or all of them."""
    most = config.max_per_question or (None if config.choose == "all" else 1)
    if config.choose == "shortest":
        right = sorted(right, key=lambda candidate: len(candidate["text"]))
    return right[:most]
