"""Score answers by executing them: the one function behind the `evaluate` metric, ``excot score`` and training.

The verdicts are those of `excot.execution`, as for labels and rewards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..execution import RULES, Cache, Databases, Limits, Measured, Measures, Outcome, Task, Verdict, verify_all
from . import efficiency
from .checks import Answer, Prediction, Question, check_options, read_questions
from .summary import EXTRAS, summarize
from .vote import vote

__all__ = ["Answer", "Extra", "Prediction", "Scores", "score"]

Extra = Literal["soft_f1", "ves", "r_ves"]


@dataclass(frozen=True)
class Scores:
    """What became of every question.

    Attributes:
        rule: the comparator asked for.
        details: one row a question, in order: ``id``, ``db_id``, ``difficulty``, ``gold_sql``, ``gold`` (``status``,
            ``rows``, ``seconds``, ``error``), ``samples`` (a list of ``sql``, ``status``, ``matches`` by rule,
            ``error``, ``seconds``, ``rows``, and the extras asked for), ``right`` (the share of its samples that are
            right by ``rule``), the mean of each of the extras asked for, and for n samples ``vote`` (the place of the
            sample that the vote chooses). A sample's ``ves`` and ``r_ves`` come with its ``time_ratio`` and the
            ``repetitions`` that this was measured in, ``None`` where it was not.
    """

    rule: str
    details: list[dict[str, Any]]

    def summary(self) -> dict[str, Any]:
        """One flat mapping of everything that can be said of the scores; see the metric card for its keys."""
        return summarize(self.rule, self.details)


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
    cache: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> Scores:
    """Execute every answer and its gold, and compare.

    Args:
        predictions: one for each reference: SQL, a model's whole answer (its last block marked sql counts), ``None``
            where there is no answer, or a list of n such samples, of which a question may also have none at all.
        references: with ``gold_sql`` and ``db_id``, and optionally ``id`` (its place by default) and ``difficulty``.
        databases: the folder that holds ``<db_id>/<db_id>.sqlite``.
        rule: ``set``, ``multiset``, ``ordered`` or ``test_suite``.
        extras: what else to measure: ``soft_f1``, ``ves``, ``r_ves``.
        timeout: seconds for one statement; an answer and its gold have as much each.
        repetitions: how often ``ves`` and ``r_ves`` time each statement; less where that would take more than
            ``excot.execution.judge.TIMING_BUDGET`` times ``timeout``.
        processes: worker processes; one for each core by default. Times are steadier with fewer than there are cores.
        cache: whether outcomes are taken from earlier runs, and kept for later ones (``excot.execution.cache``).
        on_progress: called with the questions done and the questions there are.

    Raises:
        ExcotError: the input is wrong; the first offender and how many there are.
    """
    extras = (extras,) if isinstance(extras, str) else tuple(extras or ())
    check_options(rule, extras, timeout, repetitions, processes)
    questions = read_questions(predictions, references, databases)
    sampled = any(question.sampled for question in questions)
    limits = Limits(seconds=timeout)
    tasks = (
        Task(
            str(place),
            question.paths,
            question.gold_sql,
            _statements(question),
            limits,
            _measures(question, extras, repetitions),
        )
        for place, question in enumerate(questions)
    )
    details: list[dict[str, Any]] = [{}] * len(questions)
    for done, (place, verdict) in enumerate(verify_all(tasks, processes, Cache() if cache else None), 1):
        question = questions[int(place)]
        details[int(place)] = _detail(question, verdict, rule, extras, sampled)
        if on_progress is not None:
            on_progress(done, len(questions))
    return Scores(rule, details)


def _statements(question: Question) -> tuple[str, ...]:
    return tuple(sql for sql in question.answers if sql is not None)


def _measures(question: Question, extras: Sequence[str], repetitions: int) -> Measures:
    return Measures(
        fingerprint=len(question.answers) > 1,  # one alone wins every vote
        soft_f1="soft_f1" in extras,
        repetitions=repetitions if {"ves", "r_ves"} & {*extras} else 0,
    )


def _detail(question: Question, verdict: Verdict, rule: str, extras: Sequence[str], sampled: bool) -> dict[str, Any]:
    outcomes = iter(verdict.candidates)
    found = [None if sql is None else next(outcomes) for sql in question.answers]
    samples = [_sample(sql, outcome, extras) for sql, outcome in zip(question.answers, found, strict=True)]
    detail = {
        "id": question.id,
        "db_id": question.db_id,
        "difficulty": question.difficulty,
        "gold_sql": question.gold_sql,
        "gold": verdict.gold.as_row(),
        "samples": samples,
        "right": _mean([sample["matches"][rule] for sample in samples]),
    }
    detail |= {name: _mean([sample[name] for sample in samples]) for name in EXTRAS if name in extras}
    if sampled:
        detail["vote"] = vote([_fingerprint(outcome) for outcome in found])
    return detail


def _sample(sql: str | None, outcome: Outcome | None, extras: Sequence[str]) -> dict[str, Any]:
    if outcome is None:
        matches = dict.fromkeys(RULES, False)
        sample = {"sql": None, "status": "no_sql", "matches": matches, "error": None, "seconds": None, "rows": None}
    else:
        sample = {"sql": sql, **outcome.as_row()}
    measured = (outcome and outcome.measured) or Measured()
    if "soft_f1" in extras:
        sample["soft_f1"] = measured.soft_f1 or 0.0
    ratio = measured.time_ratio
    if "ves" in extras:
        sample["ves"] = 0.0 if ratio is None else efficiency.ves(ratio)
    if "r_ves" in extras:
        sample["r_ves"] = 0.0 if ratio is None else efficiency.r_ves(ratio)
    if "ves" in extras or "r_ves" in extras:
        sample |= {"time_ratio": ratio, "repetitions": measured.repetitions}
    return sample


def _fingerprint(outcome: Outcome | None) -> str | None:
    """By which a sample votes; one that failed does not."""
    if outcome is None or outcome.measured is None:
        return None
    return outcome.measured.fingerprint


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
