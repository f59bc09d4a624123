"""Predictions from a file: BIRD's JSON, Spider's one SQL a line, or JSON rows, each joined to its question."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..builders.files import read_text
from ..errors import ExcotError
from .scoring import Prediction

FORMATS = {"bird": "BIRD's JSON", "lines": "one SQL a line", "jsonl": "JSON rows"}
"""The formats, and what they are called."""

_BIRD = "\t----- bird -----\t"  # what BIRD's scripts put between a prediction and the name of its database
_IDS = ("question_id", "id")
_ANSWERS = ("sql", "prediction", "candidates")


def read_predictions(
    path: Path, questions: Sequence[Mapping[str, Any]], format: str | None = None
) -> tuple[str, dict[str, Prediction]]:
    """Read a file of predictions.

    - ``bird``: one JSON object, ``{"0": "SELECT ...\\t----- bird -----\\tdb_id", ...}``. The key is the question's
      place in its benchmark's file, or its id. A number or null instead of text is no answer, as in BIRD's script.
    - ``lines``: one SQL a line in the questions' order; ``\\tdb_id`` may follow it. An empty line is no answer.
    - ``jsonl``: one object a line (or a JSON list of them): ``id``, or ``question_id`` with the place, and ``sql``,
      ``prediction`` or ``candidates`` (a list of samples). ``db_id`` and ``question``, where a row has them, must be
      the question's.

    Args:
        path: the file.
        questions: all questions that it may be about, with ``id``, ``db_id`` and ``question``.
        format: one of `FORMATS`; without it the content tells.

    Returns:
        The format, and the predictions by the questions' ids.

    Raises:
        ExcotError: the file cannot be read or is malformed, or a prediction is for none of the questions, for
            another database, or a question's second one.
    """
    text = read_text(path)
    if not text.strip():
        raise ExcotError(f"{path} is empty", "give a file of predictions")
    format = format or _recognise(text)
    if format == "bird":
        entries = _bird_entries(path, text)
    elif format == "lines":
        entries = _line_entries(path, text, questions)
    else:
        entries = _row_entries(path, text)
    return format, _joined(path, entries, questions)


def _recognise(text: str) -> str:
    text = text.lstrip()
    if text[0] == "[":
        return "jsonl"
    if text[0] != "{":
        return "lines"
    line, _, rest = text.partition("\n")
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return "bird"  # one object over many lines
    return "jsonl" if rest.strip() or not {*_IDS}.isdisjoint(row) else "bird"


@dataclass(frozen=True)
class _Entry:
    """One prediction as it stands in the file: where, whose, what, and what it says of its question."""

    where: str
    key: str | int
    answer: Prediction
    says: Mapping[str, str] = field(default_factory=dict)


def _bird_entries(path: Path, text: str) -> Iterator[_Entry]:
    # Pairs, because a dict would forget the first of two entries for one question.
    pairs = _parse(path, text, object_pairs_hook=lambda pairs: pairs)
    if not isinstance(pairs, list) or not all(isinstance(pair, tuple) for pair in pairs):
        raise ExcotError(
            f"{path} is no JSON object of predictions", 'BIRD\'s form is {"0": "SELECT ...", ...}; or give --format'
        )
    for key, value in pairs:
        where = f"{path}, key {key!r}"
        if isinstance(value, (list, tuple)):
            raise ExcotError(f"{where}: {_shown(value)} is no SQL", "give text, or null for no answer")
        answer, _, db_id = value.rpartition(_BIRD) if isinstance(value, str) and _BIRD in value else (value, "", "")
        says = {"db_id": db_id.strip()} if db_id else {}
        yield _Entry(where, key, answer if isinstance(answer, str) else None, says)


def _line_entries(path: Path, text: str, questions: Sequence[Mapping[str, Any]]) -> Iterator[_Entry]:
    lines = text.removesuffix("\n").split("\n")  # not splitlines(): other line separators may stand in a SQL string
    while len(lines) > len(questions) and not lines[-1].strip():
        lines.pop()
    databases = {question["db_id"] for question in questions}
    for place, line in enumerate(lines):
        sql, _, db_id = line.rpartition("\t")
        named = db_id.strip() in databases  # any other tab is white space in the SQL
        answer = sql if named else line
        yield _Entry(
            f"{path}, line {place + 1}",
            place,
            answer if answer.strip() else None,
            {"db_id": db_id.strip()} if named else {},
        )


def _row_entries(path: Path, text: str) -> Iterator[_Entry]:
    if text.lstrip()[0] == "[":
        rows = ((f"{path}, entry {place}", row) for place, row in enumerate(_parse(path, text)))
    else:
        lines = ((f"{path}, line {number}", line) for number, line in enumerate(text.split("\n"), 1) if line.strip())
        rows = ((where, _parse(where, line)) for where, line in lines)
    for where, row in rows:
        if not isinstance(row, dict):
            raise ExcotError(f"{where}: {_shown(row)} is no JSON object", "give one object a prediction, or --format")
        key = next((row[name] for name in _IDS if row.get(name) is not None), None)
        if isinstance(key, bool) or not isinstance(key, (int, str)):
            raise ExcotError(
                f"{where}: {'no id' if key is None else f'the id {_shown(key)}'} among the keys {', '.join(row)}",
                "give each row an id, or question_id with the question's place",
            )
        name = next((name for name in _ANSWERS if name in row), None)
        if name is None:
            raise ExcotError(f"{where}: no answer among the keys {', '.join(row)}", f"name it {', '.join(_ANSWERS)}")
        answer = row[name]
        several = isinstance(answer, list)
        for sample in answer if several else [answer]:
            if not (sample is None or isinstance(sample, str)):
                raise ExcotError(f"{where}: {name} holds {_shown(sample)}", "an answer is text, or null for none")
        says = {name: row[name] for name in ("db_id", "question") if isinstance(row.get(name), str)}
        yield _Entry(where, key, (answer or None) if several else answer, says)


def _joined(path: Path, entries: Iterable[_Entry], questions: Sequence[Mapping[str, Any]]) -> dict[str, Prediction]:
    by_id = {question["id"]: question for question in questions}
    by_place = {_place(question["id"].rpartition("-")[2]): question for question in questions}
    found: dict[str, Prediction] = {}
    strangers: list[_Entry] = []
    for entry in entries:
        question = by_id.get(entry.key) or by_place.get(_place(entry.key))
        if question is None:
            strangers.append(entry)
            continue
        for name, said in entry.says.items():
            if said.split() != question[name].split():
                raise ExcotError(
                    f"{entry.where}: {name} is {_shown(said)}, but that of question {question['id']} is "
                    f"{_shown(question[name])}",
                    "is the file for another split or benchmark, or out of order?",
                )
        if question["id"] in found:
            raise ExcotError(f"{entry.where}: a second prediction for question {question['id']}", "remove one of them")
        found[question["id"]] = _clean(entry.answer)
    if strangers:
        raise ExcotError(
            f"{path} has {len(found) + len(strangers):,} predictions for {len(questions):,} questions: "
            f"{len(strangers):,} belong to none of them, first {strangers[0].where.removeprefix(f'{path}, ')}",
            "score the file where all of its questions are, or remove them",
        )
    return found


def _place(key: str | int) -> int | None:
    """A question's place by its number; as a string, as the keys of JSON objects have to be."""
    if isinstance(key, str):
        return int(key) if re.fullmatch(r"\d{1,9}", key, re.ASCII) else None
    return key


def _clean(answer: Prediction) -> Prediction:
    """Text without the half characters that JSON can hold and UTF-8 cannot."""
    if answer is None or isinstance(answer, str):
        return answer and answer.encode("utf-8", "replace").decode("utf-8")
    return [_clean(sample) for sample in answer]  # type: ignore[misc]


def _parse(where: str | Path, text: str, **options: Any) -> Any:
    try:
        return json.loads(text, **options)
    except json.JSONDecodeError as error:
        at = f", line {error.lineno}, column {error.colno}" if isinstance(where, Path) else ""
        raise ExcotError(f"{where}{at}: not valid JSON ({error.msg})", "mend it, or give --format") from None
    except RecursionError:
        raise ExcotError(f"{where}: JSON nested too deep", "give one object a prediction") from None


def _shown(value: Any, length: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= length else text[:length] + "..."
