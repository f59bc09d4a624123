"""Questions for the pool and their verdicts, and worker processes as the system sees them."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from excot.execution import pool
from excot.execution.compare import Matches
from excot.execution.pool import verify_all
from excot.execution.sandbox import Limits
from excot.execution.task import GOLD, Task, Verdict
from excot.execution.verify import Verifier

ALL, NOTHING = Matches(True, True, True, True), Matches()
HASTE = Limits(seconds=0.3)
SLOW = "SELECT count(*) FROM number p, number q, number r WHERE p.n < {}"  # 10 ms for every 1 that is added


def make_numbers(folder: Path) -> Path:
    """A database whose one table has 400 rows: long enough for statements that take their time."""
    path = folder / "numbers.sqlite"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE number (n)")
    connection.executemany("INSERT INTO number VALUES (?)", [(number,) for number in range(400)])
    connection.commit()
    connection.close()
    return path


def record_starts(monkeypatch: pytest.MonkeyPatch) -> list[tuple[pool._Worker, subprocess.Popen]]:
    """Every worker at each of its processes' starts: ``(worker, process)`` pairs in the order of starting."""
    pairs = []
    start = pool._Worker._start

    def recorded(worker):
        start(worker)
        pairs.append((worker, worker._process))

    monkeypatch.setattr(pool._Worker, "_start", recorded)
    return pairs


def is_running(pid: int) -> bool:
    """Whether there is such a process; one that has ended and was not yet fetched by its parent does not count."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True).stdout.strip()
    return state != "" and not state.startswith("Z")


def eventually(condition: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.02)
    return condition()


def without_times(verdict: Verdict) -> Verdict:
    return Verdict(
        replace(verdict.gold, seconds=0), tuple(replace(outcome, seconds=0) for outcome in verdict.candidates)
    )


def verdicts(tasks: list[Task], processes: int) -> dict[str, Verdict]:
    return {id: without_times(verdict) for id, verdict in verify_all(tasks, processes)}


def mixed_tasks(database: Path) -> list[Task]:
    """Twenty questions whose candidates are right, wrong, broken, forbidden and too slow."""
    return [
        Task(
            id=f"q{number}",
            databases=(database,),
            gold=f"SELECT n FROM number WHERE n < {number}",
            candidates=(
                f"SELECT n FROM number WHERE NOT n >= {number}",
                f"SELECT n FROM number WHERE n <= {number}",
                f"SELECT n FROM number WHERE n < {number}",
                "SELECT m FROM number",
                "DROP TABLE number",
                "SELECT zeroblob(2000000000)",
                f"SELECT DISTINCT n FROM number WHERE n < {number} ORDER BY n DESC",
                "SELECT m FROM number;",
            ),
            limits=Limits(seconds=30),
        )
        for number in range(20)
    ]


def in_process(tasks: list[Task]) -> dict[str, Verdict]:
    verifier = Verifier()
    found = {}
    for task in tasks:
        outcomes = dict(verifier.verify(task))
        found[task.id] = without_times(
            Verdict(outcomes[GOLD], tuple(outcomes[place] for place in range(len(task.candidates))))
        )
    verifier.close()
    return found
