"""Candidates that already exist: a file of predictions, or the results of an OpenAI or Azure batch."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .base import Candidate, Completion, FatalBackendError, Message, Sampling

_PLACE = re.compile(r"(?:^|[^0-9A-Za-z])[A-Za-z]*(\d{1,9})$", re.ASCII)
"""``request-12``, ``dev_12``, ``q12``, ``12``; but not the digits that a UUID happens to end in."""

_OUR_ID = re.compile(r"(.+-(?:train|dev|test|val|validation|mini_dev))-\d+", re.ASCII)


class Replay:
    """Answers from a JSONL file instead of a model.

    Each line is an object of one of two forms, which may be mixed:

    - ``{"question_id": 12, "candidates": ["SELECT ...", null, ...]}``, where ``question_id`` is the question's place
      in its benchmark's file, or instead ``"id": "spider-dev-0012"``. ``db_id`` and ``question``, where the line has
      them, must agree with the question of that place (white space aside).
    - a line of a batch's results: ``{"custom_id": "...-12", "response": {"status_code": 200, "body": {...}}, "error":
      null}``. A custom id that is one of the questions' ids, or has their form, is taken whole; of any other the
      number at its end is the place. Several lines for one question add their choices up in the file's order.

    A candidate is SQL or a whole answer; its text is left as it is. The file is checked from end to end when the
    object is made, and read again a question at a time: only the places of its lines are kept in memory.

    Args:
        file: the JSONL file.
        questions: rows with ``id``, ``db_id`` and ``question``; the trailing number of ``id`` is the place.
        model: the name of the model that wrote the answers, where the file does not say.

    Attributes:
        failed: batch lines without an answer (an error, or a status other than 200), skipped.
        not_in_run: lines for questions that are not among ``questions``, skipped.
        answered: how many of ``questions`` have at least one candidate here.

    Raises:
        FatalBackendError: the file cannot be read, a line has another form, or a line contradicts its question.
    """

    def __init__(self, file: str | Path, questions: Iterable[dict[str, Any]], model: str | None = None):
        self.file = Path(file)
        self.model = model or f"replay:{self.file.name}"
        self.failed = 0
        self.not_in_run = 0
        self._given_model = model
        self._lines: dict[str, list[tuple[int, int]]] = {}
        self._questions = _Questions(questions)
        try:
            self._stream = self.file.open("rb")
        except OSError as error:
            raise FatalBackendError(
                f"cannot read {self.file} ({error.strerror})", "give --from a JSONL file of candidates"
            ) from None
        try:
            self._index()
        except BaseException:
            self._stream.close()
            raise
        self.answered = len(self._lines)

    async def complete(
        self, messages: list[Message], n: int, sampling: Sampling, question: dict[str, Any]
    ) -> Completion:
        """The first ``n`` candidates of the question, or as many as there are; ``n = 0`` gives all.

        A question that the file does not hold gets a ``Completion`` without candidates. The prompt and the sampling
        settings are not looked at.
        """
        candidates: list[Candidate] = []
        prompt_tokens, model = None, self._given_model
        for offset, number in self._lines.get(question["id"], ()):
            self._stream.seek(offset)
            line = self._parse(self._stream.readline(), number)
            candidates += line.candidates
            prompt_tokens = line.prompt_tokens if prompt_tokens is None else prompt_tokens
            model = model or line.model
            if 0 < n <= len(candidates):
                break
        return Completion(tuple(candidates[: n or None]), prompt_tokens, model or self.model)

    async def close(self) -> None:
        """Close the file."""
        self._stream.close()

    def _index(self) -> None:
        """Check every line and note where each question's lines begin."""
        whole_rows: dict[str, int] = {}
        lines = offset = 0
        for number, raw in enumerate(self._stream, start=1):
            begin, offset = offset, offset + len(raw)
            if not raw.strip():
                continue
            lines += 1
            line = self._parse(raw, number)
            if line.candidates is None:
                self.failed += 1
                continue
            question = self._question(line, number)
            if question is None:
                self.not_in_run += 1
                continue
            if not line.batch:
                first = whole_rows.setdefault(question["id"], number)
                if first != number:
                    raise self._error(number, f"a second row for question {question['id']}; line {first} is the first")
            if line.candidates:
                self._lines.setdefault(question["id"], []).append((begin, number))
        if not lines:
            raise FatalBackendError(f"{self.file} is empty", "give --from a file with one JSON object a line")

    def _question(self, line: _Line, number: int) -> dict[str, Any] | None:
        if isinstance(line.key, str):
            question = self._questions.by_id(line.key)
        else:
            question = self._questions.by_place(line.key)
            if question is _AMBIGUOUS:
                remedy = "give each row an id, or run the benchmarks one at a time"
                raise self._error(number, f"question {line.key} could be of more than one benchmark or split", remedy)
        for name, seen in line.checks.items() if question else ():
            if _squeeze(seen) != _squeeze(question[name]):
                problem = f"{name} is {_show(seen)}, but that of question {question['id']} is {_show(question[name])}"
                raise self._error(number, problem, "the file seems made for another split or benchmark: check --from")
        return question

    def _parse(self, raw: bytes, number: int) -> _Line:
        try:
            text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            seen = f"byte 0x{raw[error.start]:02x} at place {error.start + 1} is not UTF-8"
            raise self._error(number, seen, "convert the file to UTF-8") from None
        try:
            row = json.loads(text)
        except ValueError as error:
            problem = f"not JSON ({error}), it begins {_show(text)}"
            raise self._error(number, problem, "give one JSON object a line") from None
        if not isinstance(row, dict):
            raise self._error(number, f"not a JSON object but {_show(row)}", "give one JSON object a line")
        try:
            return _batch_line(row, self._questions) if "custom_id" in row else _plain_line(row)
        except _FormError as error:
            raise self._error(number, str(error)) from None

    def _error(self, number: int, problem: str, remedy: str = "mend or remove that line") -> FatalBackendError:
        return FatalBackendError(f"{self.file} line {number}: {problem}", remedy)


@dataclass
class _Line:
    """One line understood. ``key`` is an id (str) or a place (int); ``candidates`` is ``None`` where it failed."""

    key: str | int
    candidates: list[Candidate] | None
    batch: bool = False
    checks: dict[str, Any] = field(default_factory=dict)
    prompt_tokens: int | None = None
    model: str | None = None


class _FormError(Exception):
    """A line is JSON, but of none of the forms."""


_AMBIGUOUS: dict[str, Any] = {}
"""Stands in for the question of a place that several benchmarks or splits of the run have."""


class _Questions:
    """The questions of the run, found by id or by their place in the benchmark's file."""

    def __init__(self, rows: Iterable[dict[str, Any]]):
        self._ids: dict[str, dict[str, Any]] = {}
        self._places: dict[int, dict[str, Any]] = {}
        self._splits: set[str] = set()
        for row in rows:
            question = {name: row[name] for name in ("id", "db_id", "question")}
            self._ids[question["id"]] = question
            place = _PLACE.search(question["id"])
            if place:
                self._splits.add(question["id"][: place.start(1)].rstrip("-"))
                known = int(place[1]) in self._places
                self._places[int(place[1])] = _AMBIGUOUS if known else question

    def by_id(self, key: str) -> dict[str, Any] | None:
        return self._ids.get(key)

    def by_place(self, place: int) -> dict[str, Any] | None:
        return self._places.get(place)

    def key(self, custom_id: str) -> str | int | None:
        """What a batch's custom id stands for: an id as a whole, else the place at its end, else nothing."""
        ours = _OUR_ID.fullmatch(custom_id)
        if custom_id in self._ids or (ours and ours[1] not in self._splits):
            return custom_id
        place = _PLACE.search(custom_id)
        return int(place[1]) if place else None


def _plain_line(row: dict[str, Any]) -> _Line:
    key = row.get("question_id", row.get("id"))
    if key is None:
        raise _FormError(f"no question_id, id or custom_id among the keys {_show(list(row))}")
    if isinstance(key, bool) or not isinstance(key, int if "question_id" in row else str):
        kind = "question_id is not a whole number" if "question_id" in row else "id is not text"
        raise _FormError(f"{kind} but {_show(key)}")
    texts = row.get("candidates")
    if not isinstance(texts, list):
        raise _FormError(f"candidates is not a list but {_show(texts)}" if "candidates" in row else "no candidates")
    for place, text in enumerate(texts, start=1):
        if not (text is None or isinstance(text, str)):
            raise _FormError(f"candidate {place} is neither text nor null but {_show(text)}")
    checks = {name: row[name] for name in ("db_id", "question") if row.get(name) is not None}
    return _Line(key, [Candidate(text) for text in texts], checks=checks)


def _batch_line(row: dict[str, Any], questions: _Questions) -> _Line:
    custom_id = row["custom_id"]
    key = questions.key(custom_id) if isinstance(custom_id, str) else None
    if key is None:
        raise _FormError(f"custom_id {_show(custom_id)} does not end in the question's number")
    response = row.get("response") or {}
    if row.get("error") or not isinstance(response, dict) or response.get("status_code") != 200:
        return _Line(key, None, batch=True)
    body = response.get("body")
    try:
        usage = body.get("usage") or {}
        choices = [(choice["message"].get("content"), choice.get("finish_reason")) for choice in body["choices"]]
    except (AttributeError, KeyError, TypeError):
        raise _FormError(f"response.body is not a chat completion but {_show(body)}") from None
    for text, _ in choices:
        if not (text is None or isinstance(text, str)):
            raise _FormError(f"a choice's content is neither text nor null but {_show(text)}")
    tokens = usage.get("completion_tokens") if len(choices) == 1 else None  # usage counts all choices together
    candidates = [Candidate(text, reason, tokens) for text, reason in choices]
    return _Line(key, candidates, batch=True, prompt_tokens=usage.get("prompt_tokens"), model=body.get("model"))


def _squeeze(text: Any) -> str:
    return " ".join(str(text).split())


def _show(value: Any, length: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= length else text[:length] + "..."
