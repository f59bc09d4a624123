"""One question's candidates against its gold: every different statement executed once, each with a typed outcome."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal

from .compare import GoldRows, Matches, Row, compare
from .sandbox import Execution, Limits, Sandbox, TooLarge
from .sqltext import mentions_order_by, orders_its_result, statement_key, without_distinct

Status = Literal["ok", "error", "timeout", "too_large", "refused"]
GoldStatus = Literal["ok", "empty", "error", "timeout", "too_large"]
GOLD = -1
"""The place of the gold among a task's statements."""


@dataclass(frozen=True)
class Outcome:
    """What became of one candidate.

    Attributes:
        status: what happened; a match is possible only where it is ``ok``.
        matches: which comparators call its result equal to the gold's.
        error: SQLite's message, or what else stopped it; ``None`` where the status is ``ok``.
        seconds: wall time of its execution, or ``None`` where it was not executed.
        rows: rows that were read: all of them, or as many as it took to see that nothing can match.
    """

    status: Status
    matches: Matches = Matches()
    error: str | None = None
    seconds: float | None = None
    rows: int | None = None


@dataclass(frozen=True)
class GoldOutcome:
    """What became of the gold: ``empty`` ran and returned no row; every other status but ``ok`` has an ``error``."""

    status: GoldStatus
    error: str | None = None
    seconds: float | None = None
    rows: int | None = None


@dataclass(frozen=True)
class Task:
    """One question to verify.

    Attributes:
        id: the question's id.
        databases: its SQLite files, the main one first; further ones count for ``test_suite`` only.
        gold: the gold statement.
        candidates: the candidates' statements.
        limits: what each statement may use.
    """

    id: str
    databases: tuple[Path, ...]
    gold: str
    candidates: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True)
class Verdict:
    """A verified question: the gold's outcome, and the candidates' in their order."""

    gold: GoldOutcome
    candidates: tuple[Outcome, ...]


Known = Mapping[int, "Outcome | GoldOutcome"]
"""Outcomes by place (the gold's under `GOLD`): what is known is not executed again, and a known gold has no rows."""


class Verifier:
    """Verifies tasks one after another in this process, keeping the current question's databases open.

    Args:
        on_statement: called with the candidate's place (`GOLD` for the gold) before each execution, so that a watcher
            outside can tell which statement a stuck process is at, and since when.
    """

    def __init__(self, on_statement: Callable[[int], None] = lambda place: None):
        self._on_statement = on_statement
        self._sandboxes: list[Sandbox] = []
        self._open_for: tuple[tuple[Path, ...], Limits] | None = None

    def verify(self, task: Task, known: Known | None = None) -> Iterator[tuple[int, Outcome | GoldOutcome]]:
        """Yield ``(GOLD, GoldOutcome)`` first, then ``(place, Outcome)`` of every candidate that is not known yet.

        Raises:
            DatabaseError: a database of the task is missing or damaged.
        """
        known = known or {}
        self._open(task)
        gold = _Gold(task, self._sandboxes, self._on_statement, given_up=known.get(GOLD))
        yield GOLD, gold.outcome
        judged = {statement_key(task.candidates[place]): known[place] for place in known if place != GOLD}
        for place, candidate in enumerate(task.candidates):
            if place in known:
                continue
            sql = statement_key(candidate)
            if sql not in judged:
                judged[sql] = gold.judge(place, sql)
            yield place, judged[sql]

    def close(self) -> None:
        for sandbox in self._sandboxes:
            sandbox.close()
        self._sandboxes, self._open_for = [], None

    def _open(self, task: Task) -> None:
        # Nothing that a statement may do outlives it in a connection, so questions on one database share theirs.
        wanted = (task.databases, task.limits)
        if wanted != self._open_for:
            self.close()
            for path in task.databases:
                self._sandboxes.append(Sandbox(path, task.limits))
            self._open_for = wanted


class _Gold:
    """The gold of one question, executed once, and the judge of its candidates."""

    def __init__(
        self,
        task: Task,
        sandboxes: list[Sandbox],
        on_statement: Callable[[int], None],
        given_up: GoldOutcome | None,
    ):
        self._sql = statement_key(task.gold)
        self._suite_sql = without_distinct(self._sql)
        self._sandboxes = sandboxes
        self._limits = task.limits
        self._on_statement = on_statement
        self._ordered = orders_its_result(self._sql)
        self._suite_ordered = mentions_order_by(self._sql)
        self._rows: GoldRows | None = None
        self._suite_rows: list[GoldRows | None] = []
        self.outcome = given_up or self._execute_gold()

    def _execute_gold(self) -> GoldOutcome:
        execution = self._gold_rows(self._sandboxes[0], self._sql)
        if execution.value is None:
            status = "error" if execution.status == "refused" else execution.status
            return GoldOutcome(status, execution.error, execution.seconds)
        self._rows = GoldRows(execution.value)
        # `test_suite` compares what both return without DISTINCT, on every instance of the database.
        for sandbox in self._sandboxes:
            if sandbox is self._sandboxes[0] and self._suite_sql == self._sql:
                self._suite_rows.append(self._rows)
            else:
                suite = self._gold_rows(sandbox, self._suite_sql)
                self._suite_rows.append(None if suite.value is None else GoldRows(suite.value))
        rows = len(execution.value)
        return GoldOutcome("ok" if rows else "empty", None, execution.seconds, rows)

    def _gold_rows(self, sandbox: Sandbox, sql: str) -> Execution[list[Row]]:
        self._on_statement(GOLD)
        return sandbox.run(sql, lambda rows: _keep(rows, self._limits))

    def judge(self, place: int, sql: str) -> Outcome:
        if sql == self._sql:
            return self._judge_itself()
        self._on_statement(place)
        execution = self._sandboxes[0].run(sql, self._read)
        if execution.value is None:
            return Outcome(execution.status, error=execution.error, seconds=execution.seconds)
        matches, rows = execution.value
        suite_sql = without_distinct(sql)
        one_execution_tells = suite_sql == sql and self._suite_sql == self._sql and len(self._sandboxes) == 1
        if self._rows is not None and not one_execution_tells:
            matches = matches._replace(test_suite=self._suite_matches(place, suite_sql))
        return Outcome("ok", matches, seconds=execution.seconds, rows=rows)

    def _judge_itself(self) -> Outcome:
        """A candidate that is the gold, to the letter: its outcome is the gold's."""
        gold = self.outcome
        if gold.rows is None:
            return Outcome(gold.status, error=gold.error, seconds=gold.seconds)
        return Outcome("ok", Matches(True, True, True, None not in self._suite_rows), None, gold.seconds, gold.rows)

    def _suite_matches(self, place: int, sql: str) -> bool:
        for sandbox, gold in zip(self._sandboxes, self._suite_rows, strict=True):
            if gold is None:
                return False
            self._on_statement(place)
            execution = sandbox.run(sql, partial(self._compare, gold))
            if execution.value is None or not execution.value[0].test_suite:
                return False
        return True

    def _read(self, rows: Iterator[Row]) -> tuple[Matches, int]:
        if self._rows is None:  # no gold to compare with; what happens to the candidate is still worth knowing
            return Matches(), sum(1 for _ in rows)
        return self._compare(self._rows, rows)

    def _compare(self, gold: GoldRows, rows: Iterator[Row]) -> tuple[Matches, int]:
        return compare(gold, rows, ordered=self._ordered, suite_ordered=self._suite_ordered)


def _keep(rows: Iterator[Row], limits: Limits) -> list[Row]:
    """All rows of a gold result, as long as they stay within the limits."""
    kept: list[Row] = []
    size = 0
    for row in rows:
        kept.append(row)
        size += 64 + sum(64 + len(value) if isinstance(value, (str, bytes)) else 32 for value in row)
        if len(kept) > limits.rows or size > limits.result_bytes:
            raise TooLarge(f"the result is over {limits.rows:,} rows or {limits.result_bytes:,} bytes")
    return kept
