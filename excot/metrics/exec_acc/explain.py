"""Two queries on one database, for people to read: what both return, and why each rule calls them equal or not.

The verdicts are the metric's; only the words for them are found here.
"""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from excot.errors import ExcotError
from excot.execution import RULES, Databases, GoldOutcome, Limits, Matches, Outcome, Sandbox, Task, verify_all
from excot.execution.sqltext import mentions_order_by, orders_its_result, statement_key, without_distinct
from excot.prompts import extract_sql

Row = tuple
MOST_ROWS, MOST_BYTES = 1_000, 1_000_000
"""Up to where a result is read: further than anybody looks."""


@dataclass(frozen=True)
class Result:
    """What a query returned: its first rows (``complete`` where there are no more), or the ``problem`` in words."""

    columns: tuple[str, ...] = ()
    rows: tuple[Row, ...] = ()
    complete: bool = True
    problem: str | None = None


@dataclass(frozen=True)
class Judgement:
    """What one rule says, and why."""

    rule: str
    right: bool
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Both results and the judgement under every rule; ``sql`` is what was found in the prediction."""

    sql: str | None
    gold: Result
    prediction: Result
    judgements: tuple[Judgement, ...]


def compare_queries(databases: Databases, db_id: str, gold: str, prediction: str, seconds: float = 5.0) -> Comparison:
    """Execute both and say how they compare.

    Args:
        databases: where the database is.
        db_id: its name.
        gold: the gold query.
        prediction: a query, or a model's whole answer.
        seconds: what each statement may take.

    Raises:
        ExcotError: there is no such database, or it is damaged.
    """
    files = databases.paths(db_id)
    sql = extract_sql(prediction).sql
    task = Task(db_id, files, gold, () if sql is None else (sql,), Limits(seconds=seconds))
    ((_, verdict),) = verify_all([task], processes=1)
    outcome = verdict.candidates[0] if sql is not None else None
    matches = outcome.matches if outcome else Matches()

    queries = _Queries(statement_key(gold), statement_key(sql or ""), len(files))
    gold_result, result = Result(problem=_problem(verdict.gold)), Result(problem=_problem(outcome))
    if gold_result.problem is None and result.problem is None:
        gold_result, result, *without = read_results(files[0], [*queries.as_they_are, *queries.without], seconds)
        reasons = _Reasons(queries, matches, gold_result, result, *without)
        judgements = [Judgement(rule, getattr(matches, rule), getattr(reasons, rule)()) for rule in RULES]
    else:
        if gold_result.problem is None:
            (gold_result,) = read_results(files[0], [queries.gold], seconds)
            reason = f"The prediction {result.problem}."
        else:
            if result.problem is None:
                (result,) = read_results(files[0], [queries.prediction], seconds)
            reason = f"The gold {gold_result.problem}, so nothing can match it."
        judgements = [Judgement(rule, False, reason) for rule in RULES]
    return Comparison(sql, gold_result, result, tuple(judgements))


def _problem(outcome: Outcome | GoldOutcome | None) -> str | None:
    """What kept a statement from having a result, as the end of a sentence."""
    if outcome is None:
        return "holds no SQL: no complete block marked sql, and no text that begins like a query"
    words = {
        "error": "does not execute",
        "timeout": "takes too long",
        "too_large": "needs too much memory",
        "refused": "is refused, as only reading is allowed",
    }
    return f"{words[outcome.status]} ({outcome.error})" if outcome.status in words else None


def read_results(path: Path, statements: Sequence[str], seconds: float) -> list[Result]:
    """The results of statements that have executed before, read in a process of its own.

    A row after the one at which their comparison stopped may still be one that SQLite never comes back from.
    """
    program = "from excot.metrics.exec_acc.explain import _answer; _answer()"
    search = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    try:
        reader = subprocess.run(
            [sys.executable, "-c", program],
            input=pickle.dumps((path, statements, seconds)),
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": search, "PYTHONSAFEPATH": "1"},
            timeout=seconds * len(statements) + 30,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return [Result(problem="takes too long to show")] * len(statements)
    if reader.returncode:
        raise ExcotError(f"the results cannot be read (exit status {reader.returncode})", "see the message above")
    return pickle.loads(reader.stdout)


def _answer() -> None:
    path, statements, seconds = pickle.load(sys.stdin.buffer)
    sandbox = Sandbox(path, Limits(seconds=seconds))
    results = []
    for sql in statements:
        execution = sandbox.run(sql, _first_rows)
        results.append(execution.value or Result(problem=f"cannot be shown ({execution.error})"))
    sys.stdout.buffer.write(pickle.dumps(results))


def _first_rows(rows: Iterator[Row]) -> Result:
    columns = tuple(name for name, *_ in getattr(rows, "description", ()))  # it is a cursor
    first: list[Row] = []
    size = 0
    for row in rows:
        if len(first) == MOST_ROWS or size > MOST_BYTES:
            return Result(columns, tuple(first), complete=False)
        first.append(row)
        size += sum(len(value) for value in row if isinstance(value, (str, bytes)))
    return Result(columns, tuple(first))


@dataclass(frozen=True)
class _Queries:
    """Both statements, and on how many databases `test_suite` compares them."""

    gold: str
    prediction: str
    databases: int

    @property
    def as_they_are(self) -> tuple[str, str]:
        return self.gold, self.prediction

    @property
    def without(self) -> tuple[str, str]:
        return without_distinct(self.gold), without_distinct(self.prediction)


class _Reasons:
    """Sentences for the verdicts on two results."""

    def __init__(
        self,
        queries: _Queries,
        matches: Matches,
        gold: Result,
        prediction: Result,
        gold_without: Result,
        prediction_without: Result,
    ):
        self._queries, self._matches = queries, matches
        self._gold, self._rows = gold.rows, prediction.rows
        self._suite = gold_without, prediction_without
        self._columns = len(gold.columns), len(prediction.columns)
        self._known = gold.complete and prediction.complete and not (gold.problem or prediction.problem)

    def set(self) -> str:
        if not self._known:
            return _unknown(self._matches.set)
        expected, found = dict.fromkeys(self._gold), dict.fromkeys(self._rows)
        if self._matches.set:
            return f"{_same(len(found), 'different row')} in both." if found else "No row in both."
        if self._gold and self._rows and self._columns[0] != self._columns[1]:
            return f"The gold has {_count(self._columns[0], 'column')}, the prediction {self._columns[1]}."
        missing = [row for row in expected if row not in found]
        extra = [row for row in found if row not in expected]
        parts = [
            f"{_count(len(rows), 'row')} {words}, such as {_shown(rows[0])}"
            for rows, words in ((missing, "of the gold missing"), (extra, "not in the gold"))
            if rows
        ]
        return "; ".join(parts) + "." if parts else _unknown(False)

    def multiset(self) -> str:
        if not self._matches.set:
            return "The sets of rows differ already."
        if not self._known:
            return _unknown(self._matches.multiset)
        if self._matches.multiset:
            return f"{_same(len(self._rows))}, duplicates counted." if self._rows else "No row in both."
        expected, found = Counter(self._gold), Counter(self._rows)
        row = next((row for row in expected if expected[row] != found[row]), None)
        if row is None:  # read again, the rows are others: the query is not deterministic
            return _unknown(False)
        return f"{_shown(row)} stands {_times(expected[row])} in the gold and {_times(found[row])} in the prediction."

    def ordered(self) -> str:
        if not self._matches.multiset:
            return "The rows differ already, duplicates counted."
        if not orders_its_result(self._queries.gold):
            return "The gold's outermost query has no ORDER BY: any order will do."
        if self._matches.ordered:
            return "The rows come in the order that the gold asks for."
        if not self._known:
            return _unknown(False)
        pairs = enumerate(zip(self._gold, self._rows, strict=False), start=1)
        place, (row, instead) = next((pair for pair in pairs if pair[1][0] != pair[1][1]), (0, ((), ())))
        if not place:
            return _unknown(False)
        return (
            f"The gold asks for an order, and row {place} is {_shown(row)} there "
            f"but {_shown(instead)} in the prediction."
        )

    def test_suite(self) -> str:
        removed = self._queries.without != self._queries.as_they_are
        sentence = self._suite_equal() if self._matches.test_suite else self._suite_unequal()
        return f"Compared without DISTINCT: {sentence[0].lower()}{sentence[1:]}" if removed else sentence

    def _suite_equal(self) -> str:
        gold, prediction = self._suite
        where = f" on all {self._queries.databases} databases" if self._queries.databases > 1 else ""
        if not (gold.complete and prediction.complete):
            return f"The results are equal{where}."
        if not gold.rows:
            return f"No row in both{where}."
        permuted = Counter(gold.rows) != Counter(prediction.rows)
        return _same(len(gold.rows)) + (", with the columns in another order" if permuted else "") + f"{where}."

    def _suite_unequal(self) -> str:
        gold, prediction = self._suite
        if prediction.problem or gold.problem:
            return f"Without DISTINCT a query {prediction.problem or gold.problem}."
        if not (gold.complete and prediction.complete):
            return _unknown(False)
        if len(gold.rows) != len(prediction.rows):
            return f"The gold returns {_count(len(gold.rows), 'row')}, the prediction {len(prediction.rows)}."
        if self._columns[0] != self._columns[1]:
            return f"The gold has {_count(self._columns[0], 'column')}, the prediction {self._columns[1]}."
        if Counter(gold.rows) != Counter(prediction.rows):
            order = ", in the gold's order of rows" if mentions_order_by(self._queries.gold) else ""
            return f"No order of the columns makes the rows equal{order}."
        if gold.rows != prediction.rows and mentions_order_by(self._queries.gold):
            return "The gold says ORDER BY somewhere, and the rows come in another order."
        return f"The results differ on another of the {self._queries.databases} databases in the folder."


def _unknown(right: bool) -> str:
    return "The results are equal." if right else "The results differ; they are too long to say where, or change."


def _count(number: int, word: str) -> str:
    return f"{number:,} {word}{'' if number == 1 else 's'}"


def _same(number: int, word: str = "row") -> str:
    return f"The same {_count(number, word)}" if number > 1 else "The same row"


def _times(number: int) -> str:
    return {0: "never", 1: "once", 2: "twice"}.get(number, f"{number:,} times")


def _shown(row: Row) -> str:
    text = ", ".join(map(literal, row[:6])) + (", …" if len(row) > 6 else "")
    return text if len(row) == 1 else f"({text})"


def literal(value: Any, width: int = 40) -> str:
    """A value as SQL would write it, shortened; text that looks like a number is told apart by its quotes."""
    if value is None:
        return "NULL"
    if isinstance(value, bytes):
        return f"a BLOB of {_count(len(value), 'byte')}"
    text = str(value) if len(str(value)) <= width else str(value)[: width - 1] + "…"
    return f"'{text}'" if isinstance(value, str) else text
