"""A large database, 200 questions with 32 candidates each, some of which never end: there SQLite is what costs."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from excot.execution import available_cores

from .heavy_data import make_database
from .heavy_questions import QUESTIONS, make_questions
from .trial import Trial, agreement, row, try_out

LIMIT = 2.0
"""Seconds for one statement."""

EVERY = 10
"""The peers, which execute again what they have executed before, get every 10th question; ours is timed on it too."""

DATABASE = Path("runs/bench/heavy.sqlite")


def run(
    database: Path = DATABASE, scale: float = 1.0, count: int = QUESTIONS, every: int = EVERY, limit: float = LIMIT
) -> list[dict[str, Any]]:
    """The rows of the table; the ratio is the floor's time over each one's, and of every 10th the plain loop's.

    Args:
        database: where it is, or is made; it is kept for the next time.
        scale: its size; 1 is about 500 MB.
        count: how many questions.
        every: which of them the peers get too.
        limit: seconds for one statement.
    """
    path = str(_database(database, scale))
    questions = [
        {"database": path, "gold": question.gold, "candidates": question.candidates}
        for question in make_questions(count, scale)
    ]
    cores = available_cores()
    with TemporaryDirectory() as folder:
        cache = str(Path(folder) / "cache")
        cold = try_out("ours", questions, limit, processes=cores, cache=cache)
        warm = try_out("ours", questions, limit, processes=cores, cache=cache)
    floor = try_out("floor", questions, limit, needed=cold.found["rows"])
    some = questions[::every]
    ours = try_out("ours", some, limit, processes=cores)
    loop = try_out("loop", some, limit)
    pool = try_out("pool", some, limit, processes=cores)
    return [*_all(cold, warm, floor, questions, cores), *_some(ours, loop, pool, some, every, cores)]


def _database(path: Path, scale: float) -> Path:
    started = time.perf_counter()
    make_database(path, scale)
    with open(path, "rb") as file:  # read once: whoever is measured first must not wait for the disk
        while file.read(1 << 24):
            pass
    print(f"{path}: {path.stat().st_size / 1e6:,.0f} MB, ready after {time.perf_counter() - started:.0f} s")
    return path.resolve()


def _all(cold: Trial, warm: Trial, floor: Trial, questions: list[Any], cores: int) -> list[dict[str, Any]]:
    to_the_end, as_far_as_needed, statements = floor.found
    ends, needed = to_the_end / cores, as_far_as_needed / cores
    notes = {
        "end": f"the floor: {statements:,} different statements (golds too) in one process, over {cores}",
        "part": "the same, each until the rows were read that told ours its verdict",
        "cold": f"{cold.seconds / ends:.2f} of the floor, {cold.seconds / needed:.2f} of the stricter one",
        "warm": agreement(warm.found["verdicts"], cold.found["verdicts"]),
    }
    rows = [
        ("SQLite alone, to the ends", floor._replace(seconds=ends), notes["end"]),
        ("SQLite alone, as far as needed", Trial(needed, None, None, None), notes["part"]),
        (f"ours, caches empty, {cores} workers", cold, notes["cold"]),
        (f"ours, from the cache, {cores} workers", warm, notes["warm"]),
    ]
    candidates = sum(len(question["candidates"]) for question in questions)
    what = f"verify heavy, {len(questions)} questions"
    return [row(f"{what}: {which}", trial, ends, candidates, note) for which, trial, note in rows]


def _some(ours: Trial, loop: Trial, pool: Trial, questions: list[Any], every: int, cores: int) -> list[dict[str, Any]]:
    verdicts = ours.found["verdicts"]
    rows = [
        ("plain loop, one process", loop, f"the set rule alone; {agreement(verdicts, loop.found)}"),
        (
            f"gold for every candidate, {cores} processes",
            pool,
            f"one limit for candidate and gold together; {agreement(verdicts, pool.found)}",
        ),
        (f"ours, no cache, {cores} workers", ours, "four rules"),
    ]
    candidates = sum(len(question["candidates"]) for question in questions)
    what = f"verify heavy, every {every}th of them"
    return [row(f"{what}: {which}", trial, loop.seconds, candidates, note) for which, trial, note in rows]
