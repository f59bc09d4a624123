"""Choosing the nearest pair of answers: ours, and a double loop with editdistance, which must pick the same pairs."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import editdistance

from excot.builders.pairs import choose_pairs
from excot.config import PairsConfig
from excot.llm.base import Sampling
from excot.llm.teacher import Teacher

QUESTIONS = 20


def run(data: Path) -> list[dict[str, Any]]:
    """The rows of the table; the ratio is the double loop's time over ours."""
    sides = [_answers(question) for question in _questions(data)]
    started = time.perf_counter()
    expected = [_brute_force(right, wrong) for right, wrong in sides]
    brute = time.perf_counter() - started
    results = [{"what": "pairs: double loop with editdistance", "seconds": brute, "ratio": 1.0, "note": ""}]
    started = time.perf_counter()
    found = [choose_pairs(right, wrong, PairsConfig(out="-"), str(i)) for i, (right, wrong) in enumerate(sides)]
    seconds = time.perf_counter() - started
    same = all(pairs == wanted for pairs, wanted in zip(found, expected, strict=True))
    note = f"{QUESTIONS} questions x 32 answers, pairs {'equal' if same else 'DIFFER'}"
    return [*results, {"what": "pairs: nearest", "seconds": seconds, "ratio": brute / seconds, "note": note}]


def _questions(data: Path) -> list[dict[str, Any]]:
    rows = json.loads((data / "spider" / "dev.json").read_text())[: QUESTIONS * 20 : 20]
    return [
        {"id": str(i), "question": row["question"], "gold_sql": row["query"], "schema": "", "evidence": None}
        for i, row in enumerate(rows)
    ]


def _answers(question: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """32 answers to a question, as the teacher means them: right ones and wrong ones."""
    answers = Teacher(0.5).plan(question, 32, Sampling().seed)
    sides: tuple[list, list] = ([], [])
    for answer in answers:
        sides[answer.mistake is not None].append({"text": answer.text, "sql": answer.sql})
    return sides


def _brute_force(right: list[dict[str, Any]], wrong: list[dict[str, Any]]) -> list[tuple[int, int, int]]:
    pairs = [
        (editdistance.eval(chosen["text"], rejected["text"]), i, j)
        for i, chosen in enumerate(right)
        for j, rejected in enumerate(wrong)
        if chosen["sql"] != rejected["sql"]
    ]
    return [min(pairs)] if pairs else []
