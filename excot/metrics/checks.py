"""What `score` is given, checked before anything is executed: the first offender and how many there are."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ExcotError
from ..execution import RULES, Databases, MissingDatabase
from ..prompts import extract_sql
from .summary import EXTRAS

Answer = str | None
Prediction = Answer | Sequence[Answer]
"""One answer to a question (SQL, or a model's whole answer; ``None`` where there is none), or n samples."""


@dataclass(frozen=True)
class Question:
    """One question as it is executed.

    Attributes:
        answers: the SQL of each of its samples, ``None`` where one holds none.
        sampled: whether the prediction was a list of samples, however many.
    """

    id: str
    db_id: str
    difficulty: str | None
    gold_sql: str
    paths: tuple[Path, ...]
    answers: tuple[str | None, ...]
    sampled: bool


def check_options(rule: str, extras: Sequence[str], timeout: float, repetitions: int, processes: int | None) -> None:
    """See that every option makes sense.

    Raises:
        ExcotError: in one line, which one does not.
    """
    if rule not in RULES:
        raise ExcotError(f"there is no rule {rule!r}", f"give one of {', '.join(RULES)}")
    for extra in extras:
        if extra not in EXTRAS:
            raise ExcotError(f"there is no extra {extra!r}", f"give some of {', '.join(EXTRAS)}, in a list")
    if not (isinstance(timeout, (int, float)) and timeout > 0):
        raise ExcotError(f"timeout is {timeout}", "give the seconds that a statement may take, such as 30")
    if repetitions < 1:
        raise ExcotError(f"repetitions is {repetitions}", "give at least 1")
    if processes is not None and processes < 1:
        raise ExcotError(f"processes is {processes}", "give at least 1")


def read_questions(
    predictions: Iterable[Prediction], references: Iterable[Mapping[str, Any]], databases: str | Path | Databases
) -> list[Question]:
    """Predictions and references, joined by their places.

    Raises:
        ExcotError: in one line, what is wrong.
    """
    answers = _listed("predictions", predictions)
    rows = _listed("references", references)
    if len(answers) != len(rows):
        raise ExcotError(
            f"there are {len(answers):,} predictions and {len(rows):,} references",
            "give one of each for each question",
        )
    if not rows:
        raise ExcotError("there is nothing to score: no predictions and no references")
    _refuse("prediction", answers, _fault_of_prediction, "give text, None, or a list of them for several samples")
    _refuse("reference", rows, _fault_of_reference, "give each its gold_sql and db_id")
    paths = _find(rows, databases)
    return [
        Question(
            id=str(place if _is_missing(row.get("id")) else row["id"]),
            db_id=row["db_id"],
            difficulty=None if _is_missing(row.get("difficulty")) else str(row["difficulty"]),
            gold_sql=row["gold_sql"],
            paths=paths[row["db_id"]],
            answers=tuple(extract_sql(sample).sql for sample in (answer if _is_list(answer) else [answer])),
            sampled=_is_list(answer),
        )
        for place, (answer, row) in enumerate(zip(answers, rows, strict=True))
    ]


def _listed(name: str, values: Any) -> list[Any]:
    if isinstance(values, (str, bytes, Mapping)) or not isinstance(values, Iterable):
        raise ExcotError(f"{name} are of type {type(values).__name__}", "give a list with one for each question")
    return list(values)


def _refuse(what: str, values: Sequence[Any], fault: Callable[[Any], str | None], remedy: str) -> None:
    """Raise where values have a fault, naming the first of them."""
    faults = [(place, found) for place, value in enumerate(values) if (found := fault(value)) is not None]
    if faults:
        place, found = faults[0]
        raise ExcotError(f"{what} {place} {found} ({len(faults):,} of {len(values):,} are like this)", remedy)


def _fault_of_prediction(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return None
    if not _is_list(value):
        return f"is of type {type(value).__name__}"
    for place, sample in enumerate(value):
        if not (sample is None or isinstance(sample, str)):
            return f"has a sample {place} of type {type(sample).__name__}"
    return None


def _fault_of_reference(value: Any) -> str | None:
    if not isinstance(value, Mapping):
        return f"is of type {type(value).__name__}"
    for name in ("gold_sql", "db_id"):
        content = value.get(name)
        if _is_missing(content):
            return f"has no {name}"
        if not isinstance(content, str):
            return f"has a {name} of type {type(content).__name__}"
    return None


def _is_missing(value: Any) -> bool:
    """Whether there is no value; a table's empty cell arrives as a float that is not a number."""
    return value is None or value == "" or (isinstance(value, float) and math.isnan(value))


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple))


def _find(rows: Sequence[Mapping[str, Any]], databases: str | Path | Databases) -> dict[str, tuple[Path, ...]]:
    """The files of every database that is asked for."""
    if not isinstance(databases, (str, os.PathLike, Databases)):
        raise ExcotError(
            f"databases is of type {type(databases).__name__}", "give the folder that holds <db_id>/<db_id>.sqlite"
        )
    folder = databases if isinstance(databases, Databases) else Databases(databases)
    paths: dict[str, tuple[Path, ...]] = {}
    missing: dict[str, int] = {}
    for place, row in enumerate(rows):
        db_id = row["db_id"]
        if db_id in paths or db_id in missing:
            continue
        try:
            paths[db_id] = folder.paths(db_id)
        except MissingDatabase:
            missing[db_id] = place
    if missing:
        db_id, place = next(iter(missing.items()))
        raise MissingDatabase(
            f"no database {db_id!r} of reference {place} in {folder.folder} "
            f"({len(missing):,} of {len(paths) + len(missing):,} databases are missing)",
            "put each at <db_id>/<db_id>.sqlite in that folder",
        )
    return paths
