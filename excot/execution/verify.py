"""One question's candidates against its gold: every different statement executed once, each with a typed outcome."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

from .compare import GoldRows, Matches, Row, compare, equal_under_permutation
from .measure import Measured, Measures, Reading, fingerprint, row_size, seconds_by_turns, soft_f1, time_ratio
from .preview import preview
from .sandbox import Execution, Limits, Sandbox, TooLarge
from .sqltext import mentions_order_by, orders_its_result, statement_key, without_distinct
from .stability import causes

Status = Literal["ok", "error", "timeout", "too_large", "refused"]
GoldStatus = Literal["ok", "empty", "error", "timeout", "too_large"]
GOLD = -1
"""The place of the gold among a task's statements."""

TIMING_BUDGET = 2.0
"""How long a candidate and its gold are timed in all, in time limits of one statement."""


@dataclass(frozen=True)
class Outcome:
    """What became of one candidate.

    Attributes:
        status: what happened; a match is possible only where it is ``ok``.
        matches: which comparators call its result equal to the gold's.
        error: SQLite's message, or what else stopped it; ``None`` where the status is ``ok``.
        seconds: wall time of its execution, or ``None`` where it was not executed.
        rows: rows that were read: all of them, or as many as it took to see that nothing can match.
        measured: what the task asked to measure; ``None`` where it asked for nothing or the status is not ``ok``.
    """

    status: Status
    matches: Matches = Matches()
    error: str | None = None
    seconds: float | None = None
    rows: int | None = None
    measured: Measured | None = None


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
        measures: what to find out about the candidates' results beyond whether they match.
    """

    id: str
    databases: tuple[Path, ...]
    gold: str
    candidates: tuple[str, ...]
    limits: Limits = field(default_factory=Limits)
    measures: Measures = Measures()


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
        self._limits, self._measures = task.limits, task.measures
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
            return self._judge_itself(place)
        self._on_statement(place)
        reading = Reading(self._read, self._limits, to_the_end=self._measures.need_all_rows)
        execution = self._sandboxes[0].run(sql, reading)
        if reading.found is None:
            return Outcome(execution.status, error=execution.error, seconds=execution.seconds)
        matches, rows = reading.found
        suite_sql = without_distinct(sql)
        one_execution_tells = suite_sql == sql and self._suite_sql == self._sql and len(self._sandboxes) == 1
        if self._rows is not None and not one_execution_tells:
            matches = matches._replace(test_suite=self._suite_matches(place, suite_sql))
        measured = None
        if self._measures != Measures():
            self._on_statement(place)  # the statement is over: what follows does not count as its time
            measured = self._measure(place, sql, matches, reading.rows, execution.seconds)
        return Outcome("ok", matches, None, execution.seconds, rows, measured)

    def _judge_itself(self, place: int) -> Outcome:
        """A candidate that is the gold, to the letter: its outcome is the gold's."""
        gold = self.outcome
        if gold.rows is None:
            return Outcome(gold.status, error=gold.error, seconds=gold.seconds)
        matches = Matches(True, True, True, None not in self._suite_rows)
        measured = None if self._measures == Measures() else self._measure_itself(place)
        return Outcome("ok", matches, None, gold.seconds, gold.rows, measured)

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

    def _measure(self, place: int, sql: str, matches: Matches, rows: list[Row] | None, seconds: float) -> Measured:
        """Measure a candidate that ran; ``rows`` are its different rows, if they are known, ``seconds`` its time."""
        measured = {}
        try:
            if self._measures.fingerprint and rows is not None:
                measured["fingerprint"] = self._fingerprint if matches.set else fingerprint(rows)
                self._on_statement(place)
            if self._measures.soft_f1 and rows is not None and self._rows is not None:
                measured["soft_f1"] = soft_f1(self._rows.in_order, rows)
            if self._measures.permuted and rows is not None and self._rows is not None and not matches.set:
                gold = self._rows.in_order
                measured["permuted"] = len(rows) == len(gold) > 0 and equal_under_permutation(
                    gold, rows, ordered=False
                )
            if self._measures.preview and rows is not None:
                if self._rows is not None:  # what the gold has not comes first: it is what there is to see
                    rows = sorted(rows, key=self._rows.distinct.__contains__)
                measured["preview"] = preview(rows, self._measures.preview)
        except MemoryError:
            pass  # the verdict stands
        if self._measures.repetitions and matches.set:
            measured |= self._compare_times(place, sql, seconds)
        return Measured(**measured)

    def _measure_itself(self, place: int) -> Measured:
        """A candidate that is the gold, to the letter: as fast as the gold, whatever a clock would say."""
        measures = self._measures
        look = preview(self._rows.in_order, measures.preview) if measures.preview else None
        unstable = None
        if measures.stability:
            path, next_one = self._sandboxes[0].path, partial(self._on_statement, place)
            unstable = causes(path, self._sql, self._rows, self._limits, next_one)
        return Measured(
            fingerprint=self._fingerprint if measures.fingerprint else None,
            soft_f1=1.0 if measures.soft_f1 else None,
            time_ratio=1.0 if measures.repetitions else None,
            preview=look,
            unstable=unstable,
        )

    def _compare_times(self, place: int, sql: str, seconds: float) -> dict[str, Any]:
        def execute(statement: str) -> float | None:
            self._on_statement(place)
            execution = self._sandboxes[0].run(statement, lambda rows: deque(rows, maxlen=0))
            return execution.seconds if execution.status == "ok" else None

        budget = TIMING_BUDGET * self._limits.seconds
        golds, own = seconds_by_turns(execute, self._sql, sql, self._measures.repetitions, budget)
        repetitions = len(own)
        if not repetitions:  # too slow just now: what the verification took is all there is
            golds, own = [self.outcome.seconds], [seconds]
        return {"time_ratio": time_ratio(golds, own), "repetitions": repetitions}

    @cached_property
    def _fingerprint(self) -> str:
        return fingerprint(self._rows.in_order)


def _keep(rows: Iterator[Row], limits: Limits) -> list[Row]:
    """All rows of a gold result, as long as they stay within the limits."""
    kept: list[Row] = []
    size = 0
    for row in rows:
        kept.append(row)
        size += row_size(row)
        if len(kept) > limits.rows or size > limits.result_bytes:
            raise TooLarge(f"the result is over {limits.rows:,} rows or {limits.result_bytes:,} bytes")
    return kept
