"""Answers to one question and what the execution reward gives for them."""

from __future__ import annotations

from typing import Any

from excot.rewards import ExecutionReward

GOLD = "SELECT name FROM item WHERE price > 10"


def worth(reward: ExecutionReward, *answers: Any, gold: str | None = GOLD, db_id: str = "shop") -> list[float | None]:
    """The rewards of answers to one question."""
    return reward(list(answers), [db_id] * len(answers), [gold] * len(answers))
