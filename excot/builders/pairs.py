"""Preference pairs: a right answer and a wrong one to the same question, chosen by how far apart their texts are."""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator
from itertools import islice
from typing import Any, NamedTuple

from ..config import PairsConfig
from ..run import Run
from ..stages import dataset_name
from .columns import PAIRS
from .training import right_answers, said, student_prompts, usable_rows, write_training_data, wrong_answers


class Pair(NamedTuple):
    """A chosen and a rejected candidate by their places in their lists, and their texts' Levenshtein distance."""

    distance: int
    chosen: int
    rejected: int


def make_pairs(config: PairsConfig) -> str:
    """The stage ``pairs``: pair right answers with wrong ones. Returns the lines to show.

    Raises:
        ExcotError: there is no verified data, or the run folder holds something else.
    """
    made = write_training_data("pairs", config, pair_rows, PAIRS)
    name = dataset_name("pairs", config.round)
    return f'{made} {config.strategy} pairs, in {config.out}\nnext: load_dataset("{config.out}", "{name}")'


def pair_rows(run: Run, config: PairsConfig, excluded: frozenset[str] = frozenset()) -> Iterator[dict[str, Any]]:
    """The rows of the dataset: at most ``max_per_question`` of a question, in order, of the excluded ones none."""
    prompt = student_prompts(run)

    def rows() -> Iterator[dict[str, Any]]:
        for row in usable_rows(run, excluded):
            right = right_answers(row, config.rule)
            wrong = wrong_answers(row, config.rule, config.rejected)
            for pair in choose_pairs(right, wrong, config, row["id"]):
                chosen, rejected = right[pair.chosen], wrong[pair.rejected]
                yield {
                    "prompt": prompt(row),
                    "chosen": said(chosen["text"]),
                    "rejected": said(rejected["text"]),
                    "id": row["id"],
                    "db_id": row["db_id"],
                    "chosen_sql": chosen["sql"],
                    "rejected_sql": rejected["sql"],
                    "rejected_status": rejected["status"],
                    "distance": pair.distance,
                    "strategy": config.strategy,
                }

    return islice(rows(), config.limit)


def choose_pairs(right: list[dict[str, Any]], wrong: list[dict[str, Any]], config: PairsConfig, id: str) -> list[Pair]:
    """The pairs of one question.

    ``nearest`` takes the smallest distance between the whole answers, ``farthest`` the largest; among equal distances
    the first chosen candidate wins, and then the first rejected one. ``random`` draws evenly from all pairs, by a
    generator that depends on the seed and the question's id alone. Two answers with the same SQL or the same text (one
    of them cut off right at its end, say) are never a pair.

    Args:
        right: the right candidates (``text``, ``sql``), no text twice.
        wrong: the wrong candidates, no text twice.
        config: strategy, how many pairs, seed.
        id: the question's id.
    """
    if config.strategy == "random":
        return _random(right, wrong, config.max_per_question, random.Random(f"{config.seed}:{id}"))
    if config.strategy == "farthest":
        return _farthest(right, wrong, config.max_per_question)
    return _nearest(right, wrong, config.max_per_question)


def _nearest(right: list[dict[str, Any]], wrong: list[dict[str, Any]], most: int) -> list[Pair]:
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    best: list[Pair] = []
    for place, chosen in enumerate(right):
        # What is no nearer than the worst pair kept so far is not measured to the end: a later equal one loses anyway.
        cutoff = best[-1].distance - 1 if len(best) == most else None
        if cutoff is not None and cutoff < 0:
            break
        texts = {number: other["text"] for number, other in enumerate(wrong) if _differ(chosen, other)}
        found = process.extract(chosen["text"], texts, scorer=Levenshtein.distance, limit=most, score_cutoff=cutoff)
        best = sorted([*best, *(Pair(distance, place, number) for _, distance, number in found)])[:most]
    return best


def _farthest(right: list[dict[str, Any]], wrong: list[dict[str, Any]], most: int) -> list[Pair]:
    import numpy as np
    from rapidfuzz import process
    from rapidfuzz.distance import Levenshtein

    if not right or not wrong:
        return []
    texts = [[candidate["text"] for candidate in side] for side in (right, wrong)]
    # A large distance has no cutoff to stop at; all are measured in one call, on all cores.
    distances = process.cdist(*texts, scorer=Levenshtein.distance, dtype=np.int64, workers=-1)
    pairs = (
        Pair(int(distances[place, number]), place, number)
        for place, chosen in enumerate(right)
        for number, rejected in enumerate(wrong)
        if _differ(chosen, rejected)
    )
    return heapq.nsmallest(most, pairs, key=lambda pair: (-pair.distance, pair.chosen, pair.rejected))


def _random(
    right: list[dict[str, Any]], wrong: list[dict[str, Any]], most: int, generator: random.Random
) -> list[Pair]:
    from rapidfuzz.distance import Levenshtein

    places = [
        (place, number)
        for place, chosen in enumerate(right)
        for number, rejected in enumerate(wrong)
        if _differ(chosen, rejected)
    ]
    drawn = generator.sample(places, min(most, len(places)))
    return [Pair(Levenshtein.distance(right[p]["text"], wrong[n]["text"]), p, n) for p, n in drawn]


def _differ(chosen: dict[str, Any], rejected: dict[str, Any]) -> bool:
    return chosen["sql"] != rejected["sql"] and chosen["text"] != rejected["text"]
