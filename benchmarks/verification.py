"""31,104 real Spider candidates: a straightforward loop, and the pool with one worker and with one for each core."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from excot.execution import Task, available_cores, verify_all

from .plain import connect, execute


def run(data: Path) -> list[dict[str, Any]]:
    """The rows of the table; the ratio is the plain loop's time over each one's."""
    questions = [json.loads(line) for line in (data / "candidates" / "spider_dev.jsonl").open()]
    databases = data / "spider" / "database"
    started = time.perf_counter()
    expected = _plain_loop(questions, databases)
    plain = time.perf_counter() - started
    total = sum(len(question["candidates"]) for question in questions)
    results = [
        {"what": "verify: plain loop, set rule only", "seconds": plain, "ratio": 1.0, "note": _rate(total, plain)}
    ]
    for processes in sorted({1, available_cores()}):
        started = time.perf_counter()
        found = _pool(questions, databases, processes)
        seconds = time.perf_counter() - started
        note = f"{_rate(total, seconds)}, four rules, matches {'equal' if found == expected else 'DIFFER'}"
        what = f"verify: pool, {processes} process{'es' if processes > 1 else ''}"
        results.append({"what": what, "seconds": seconds, "ratio": plain / seconds, "note": note})
    return results


def _rate(total: int, seconds: float) -> str:
    return f"{total / seconds:,.0f} candidates/s"


def _pool(questions: list[dict[str, Any]], databases: Path, processes: int) -> dict[str, list[bool]]:
    tasks = (
        Task(
            str(question["question_id"]),
            (databases / question["db_id"] / f"{question['db_id']}.sqlite",),
            question["gold_sql"],
            tuple(question["candidates"]),
        )
        for question in questions
    )
    return {
        id: [outcome.matches.set for outcome in verdict.candidates] for id, verdict in verify_all(tasks, processes)
    }


def _plain_loop(questions: list[dict[str, Any]], databases: Path) -> dict[str, list[bool]]:
    """What one would write in an afternoon: one process, ``fetchall``, sets compared, the gold once per question."""
    found = {}
    for question in questions:
        connection = connect(databases, question["db_id"])
        gold = execute(connection, question["gold_sql"])
        rows = [execute(connection, candidate) for candidate in question["candidates"]]
        found[str(question["question_id"])] = [row is not None and row == gold for row in rows]
        connection.close()
    return found
