"""Score answers by executing them: the one function behind the `evaluate` metric, ``excot score`` and training.

The verdicts are those of `excot.execution`, as for labels and rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..execution import Databases

Answer = str | None
Prediction = Answer | Sequence[Answer]
"""One answer to a question (SQL, or a model's whole answer; ``None`` where there is none), or n samples."""

Extra = Literal["soft_f1", "ves", "r_ves"]


@dataclass(frozen=True)
class Scores:
    """What became of every question.

    Attributes:
        rule: the comparator asked for.
        details: one row a question, in order: ``id``, ``db_id``, ``difficulty``, ``gold_sql``, ``gold`` (``status``,
            ``rows``, ``seconds``, ``error``), ``samples`` (a list of ``sql``, ``status``, ``matches`` by rule,
            ``error``, ``seconds``, ``rows``, and the extras asked for), ``right`` (the share of its samples that are
            right by ``rule``), and for n samples ``vote`` (the place of the sample that the vote chooses).
    """

    rule: str
    details: list[dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """One flat mapping of everything that can be said of the scores; see the metric card for its keys."""
        raise NotImplementedError


def score(
    predictions: Sequence[Prediction],
    references: Sequence[Mapping[str, Any]],
    databases: str | Path | Databases,
    *,
    rule: str = "set",
    extras: Sequence[Extra] = (),
    timeout: float = 30.0,
    repetitions: int = 100,
    processes: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Execute every answer and its gold, and compare.

    Args:
        predictions: one for each reference.
        references: with ``gold_sql`` and ``db_id``, and optionally ``id`` and ``difficulty``.
        databases: the folder that holds ``<db_id>/<db_id>.sqlite``.
        rule: ``set``, ``multiset``, ``ordered`` or ``test_suite``.
        extras: what else to measure.
        timeout: seconds for one statement.
        repetitions: how often ``ves`` and ``r_ves`` time each statement.
        processes: worker processes; one for each core by default.
        on_progress: called with the questions done and the questions there are.

    Raises:
        ExcotError: the input is wrong; the first offender and how many there are.
    """
    raise NotImplementedError
