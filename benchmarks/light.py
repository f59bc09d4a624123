"""31,104 real Spider candidates on small databases, where what surrounds SQLite is what costs."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from excot.execution import available_cores

from .peers import RIGHT, Question
from .plain import TIMEOUT
from .trial import Trial, agreement, row, try_out

ROUNDS = 3


def run(data: Path, rounds: int = ROUNDS, every: int = 1) -> list[dict[str, Any]]:
    """The rows of the table; the ratio is the time of the plain loop over each one's.

    Args:
        data: the folder with the real data.
        rounds: how often everything is measured, by turns; the fastest counts.
        every: 1 for all questions, 20 for every 20th of them.
    """
    lines = [json.loads(line) for line in (data / "candidates" / "spider_dev.jsonl").open(encoding="utf-8")][::every]
    questions = _questions(lines, data / "spider" / "database")
    cores = available_cores()
    with TemporaryDirectory() as folder:
        trials = _fastest([_round(questions, cores, Path(folder) / str(turn)) for turn in range(rounds)])
    loop, ours = trials["plain loop, one process"], trials[f"ours, caches empty, {cores} workers"]
    floor = trials["SQLite alone"].found[0] / cores
    candidates = sum(len(question["candidates"]) for question in questions)
    rows = []
    for what, trial in trials.items():
        if what == "SQLite alone":
            statements = trial.found[2]
            note = (
                f"the floor: {statements:,} different statements (golds too) to their ends, one process, over {cores}"
            )
            trial = trial._replace(seconds=floor)
        elif trial is loop:
            note = "the set rule alone"
        elif what.startswith("ours"):
            note = f"four rules; {agreement(trial.found['verdicts'], loop.found)}, {_expected(trial, lines, data)}"
        else:
            note = agreement(ours.found["verdicts"], trial.found)
        note += f"; {trial.seconds / floor:.2f} of the floor"
        rows.append(row(f"verify light: {what}", trial, loop.seconds, candidates, note))
    return rows


def _round(questions: list[Question], cores: int, cache: Path) -> dict[str, Trial]:
    """Every way once; ``cache`` is a folder that is not there yet."""

    def one(way: str, **options: Any) -> Trial:
        return try_out(way, questions, TIMEOUT, **options)

    return {
        "plain loop, one process": one("loop"),
        "plain loop that parses, one process": one("loop", parse=True),
        f"gold for every candidate, {cores} processes": one("pool", processes=cores),
        "ours, no cache, 1 worker": one("ours", processes=1),
        f"ours, caches empty, {cores} workers": one("ours", processes=cores, cache=str(cache)),
        f"ours, from the cache, {cores} workers": one("ours", processes=cores, cache=str(cache)),
        "SQLite alone": one("floor"),
    }


def _fastest(rounds: list[dict[str, Trial]]) -> dict[str, Trial]:
    def seconds(trial: Trial) -> float:
        return trial.seconds

    return {what: min((trials[what] for trials in rounds), key=seconds) for what in rounds[0]}


def _questions(lines: list[dict[str, Any]], databases: Path) -> list[Question]:
    return [
        {
            "database": str((databases / line["db_id"] / f"{line['db_id']}.sqlite").resolve()),
            "gold": line["gold_sql"],
            "candidates": line["candidates"],
        }
        for line in lines
    ]


def _expected(trial: Trial, lines: list[dict[str, Any]], data: Path) -> str:
    """How many verdicts differ from those that the official comparisons gave, by either rule.

    Of several statements Spider's official script takes the first, while to SQLite they are no query: counted apart.
    """
    names = json.loads((data / "candidates" / "spider_dev.systems.json").read_text())
    expected = json.loads((data / "candidates" / "spider_dev.expected.json").read_text())["systems"]
    differing = several = 0
    for place, name in enumerate(names):
        wrong = {rule: set(expected[name][f"{rule}_wrong"]) for rule in ("set", "test_suite")}
        for line, verdicts, suite in zip(lines, trial.found["verdicts"], trial.found["test_suite"], strict=True):
            id = line["question_id"]
            differing += (verdicts[place] == RIGHT) != (id not in wrong["set"])
            if suite[place] != (id not in wrong["test_suite"]):
                if ";" in line["candidates"][place].rstrip("; \n"):
                    several += 1
                else:
                    differing += 1
    found = f"{differing:,} NOT as expected by two rules" if differing else "two rules as expected"
    return f"{found} ({several} of several statements left out)" if several else found
