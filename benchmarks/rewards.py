"""Rewards of real answers, ten steps of 64 prompts x 16 completions: a plain reward function, and ours."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from excot.prompts import extract_sql
from excot.rewards import ExecutionReward

from .plain import TIMEOUT, connect, execute

STEPS, PROMPTS, COMPLETIONS = 10, 64, 16

Batch = dict[str, list[str]]
Reward = Callable[..., list[float | None]]


def run(data: Path) -> list[dict[str, Any]]:
    """The rows of the table; the ratio is the plain function's time over each one's."""
    databases = data / "spider" / "database"
    steps = _steps(data)
    expected, plain = _timed(_plain_reward(databases), steps)
    results = [_row("plain function, one process", plain, plain, "")]
    with ExecutionReward(databases, timeout=TIMEOUT) as reward:
        for what in ("caches empty", "caches full"):
            found, seconds = _timed(reward, steps)
            note = f", equal rewards: {'all' if found == expected else 'NOT ALL'}"
            results.append(_row(what, seconds, plain, note))
    started = time.perf_counter()
    for step in steps:
        with ExecutionReward(databases, timeout=TIMEOUT) as reward:
            reward(**step)
    results.append(_row("workers started anew in each step", time.perf_counter() - started, plain, ""))
    return results


def _row(what: str, seconds: float, plain: float, note: str) -> dict[str, Any]:
    note = f"{STEPS * PROMPTS * COMPLETIONS / seconds:,.0f} answers/s{note}"
    return {"what": f"reward: {what}", "seconds": seconds, "ratio": plain / seconds, "note": note}


def _steps(data: Path) -> list[Batch]:
    """What a trainer hands over in each step: other questions every time, with real answers to each."""
    questions = [json.loads(line) for line in (data / "candidates" / "spider_dev.jsonl").open()]
    steps = []
    for step in range(STEPS):
        chosen = questions[step : PROMPTS * STEPS : STEPS]  # every tenth, so that a step meets many databases
        batch: Batch = {"completions": [], "db_id": [], "gold_sql": []}
        for question in chosen:
            for candidate in question["candidates"][:COMPLETIONS]:
                batch["completions"].append(f"The answer:\n```sql\n{candidate}\n```")
                batch["db_id"].append(question["db_id"])
                batch["gold_sql"].append(question["gold_sql"])
        steps.append(batch)
    return steps


def _timed(reward: Reward, steps: list[Batch]) -> tuple[list[list[float | None]], float]:
    started = time.perf_counter()
    rewards = [reward(**step) for step in steps]
    return rewards, time.perf_counter() - started


def _plain_reward(databases: Path) -> Reward:
    """What one would write in an afternoon: for each answer connect, ``fetchall`` twice, compare the sets."""

    def reward(completions: list[str], db_id: list[str], gold_sql: list[str]) -> list[float | None]:
        rewards: list[float | None] = []
        for completion, name, gold in zip(completions, db_id, gold_sql, strict=True):
            connection = connect(databases / name / f"{name}.sqlite")
            wanted, sql = execute(connection, gold), extract_sql(completion).sql
            rows = None if sql is None else execute(connection, sql)
            connection.close()
            rewards.append((1.0 if rows == wanted else 0.0 if rows is None else 0.1) if wanted else None)
        return rewards

    return reward
