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
from .packing import WORTH_KEEPING, pack, unpack
from .preview import preview
from .sandbox import Execution, Limits, Sandbox, TooLarge
from .sqltext import mentions_order_by, orders_its_result, statement_key, without_distinct
from .stability import causes

Status = Literal["ok", "error", "timeout", "too_large", "refused"]
GoldStatus = Literal["ok", "empty", "error", "timeout", "too_large"]
GOLD = -1
"""The place of the gold among a task's statements."""

Lasts = Literal["always", "under this limit", "once"]
"""How far an outcome can be relied on later, with the same files: under any longer time limit, too; only where the
time limit is the same, since it had a say; or not at all, since the statement asks for the clock or for chance."""

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
        lasts: when the same statement would have the same outcome again.
    """

    status: Status
    matches: Matches = Matches()
    error: str | None = None
    seconds: float | None = None
    rows: int | None = None
    measured: Measured | None = None
    lasts: Lasts = "always"


@dataclass(frozen=True)
class GoldOutcome:
    """What became of the gold: ``empty`` ran and returned no row; every other status but ``ok`` has an ``error``."""

    status: GoldStatus
    error: str | None = None
    seconds: float | None = None
    rows: int | None = None
    lasts: Lasts = "always"

    @property
    def ran(self) -> bool:
        """Whether there is a result to compare with."""
        return self.status in ("ok", "empty")


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


@dataclass(frozen=True)
class Known:
    """What is known of a task before it is executed, from an earlier process or run.

    Attributes:
        outcomes: the outcomes of candidates by place; these are not executed again.
        gold: the gold's outcome, which counts where it did not run or its rows are given.
        gold_rows: the gold's results, as `Verifier.gold_rows` gave them.
    """

    outcomes: Mapping[int, Outcome] = field(default_factory=dict)
    gold: GoldOutcome | None = None
    gold_rows: bytes | None = None


class Verifier:
    """Verifies tasks one after another in this process, keeping the current question's databases open.

    Args:
        on_statement: called with the candidate's place (`GOLD` for the gold) before each execution, so that a watcher
            outside can tell which statement a stuck process is at, and since when.
    """

    def __init__(self, on_statement: Callable[[int], None] = lambda place: None):
        self._place = GOLD
        self._watcher = on_statement
        self._sandboxes: list[Sandbox] = []
        self._open_for: tuple[tuple[Path, ...], Limits] | None = None
        self._gold: _Gold | None = None

    def verify(self, task: Task, known: Known = Known()) -> Iterator[tuple[int, Outcome | GoldOutcome]]:
        """Yield ``(GOLD, GoldOutcome)`` first, then ``(place, Outcome)`` of every candidate that is not known yet.

        Raises:
            DatabaseError: a database of the task is missing or damaged.
        """
        self._open(task)
        self._gold = gold = _Gold(task, self._sandboxes, self._on_statement, known)
        yield GOLD, gold.outcome
        judged = {statement_key(task.candidates[place]): outcome for place, outcome in known.outcomes.items()}
        for place, candidate in enumerate(task.candidates):
            if place in known.outcomes:
                continue
            sql = statement_key(candidate)
            if sql not in judged:
                judged[sql] = gold.judge(place, sql)
            yield place, judged[sql]
        self._gold = None  # its rows may be many, and the next task may be long in coming

    def gold_rows(self) -> bytes | None:
        """The results of this task's gold, for `Known`; ``None`` where executing it again is as good."""
        return self._gold and self._gold.packed()

    def close(self) -> None:
        for sandbox in self._sandboxes:
            sandbox.close()
        self._sandboxes, self._open_for, self._gold = [], None, None

    def _on_statement(self, place: int) -> None:
        self._place = place
        self._watcher(place)

    def _open(self, task: Task) -> None:
        # Nothing that a statement may do outlives it in a connection, so questions on one database share theirs.
        wanted = (task.databases, task.limits)
        if wanted != self._open_for:
            self.close()
            for path in task.databases:
                self._sandboxes.append(Sandbox(path, task.limits, lambda: self._watcher(self._place)))
            self._open_for = wanted


class _Gold:
    """The gold of one question, executed once, and the judge of its candidates."""

    def __init__(self, task: Task, sandboxes: list[Sandbox], on_statement: Callable[[int], None], known: Known):
        self._sql = statement_key(task.gold)
        self._suite_sql = without_distinct(self._sql)
        self._sandboxes = sandboxes
        self._limits, self._measures = task.limits, task.measures
        self._on_statement = on_statement
        self._ordered = orders_its_result(self._sql)
        self._suite_ordered = mentions_order_by(self._sql)
        self._rows: GoldRows | None = None
        self._suite_rows: list[GoldRows | None] = []
        if known.gold is not None and not known.gold.ran:
            self.outcome = known.gold
        elif known.gold is not None and known.gold_rows is not None:
            self.outcome = known.gold
            self._rows, *self._suite_rows = self._unpacked(known.gold_rows)
        else:
            self.outcome = self._execute_gold()

    def _execute_gold(self) -> GoldOutcome:
        execution = self._gold_rows(self._sandboxes[0], self._sql)
        if execution.value is None:
            status = "error" if execution.status == "refused" else execution.status
            return GoldOutcome(status, execution.error, execution.seconds, lasts=_lasts(execution))
        self._rows = GoldRows(execution.value)
        lasts = _lasts(execution)
        # `test_suite` compares what both return without DISTINCT, on every instance of the database.
        for sandbox in self._sandboxes:
            if self._same_result_on(sandbox):
                self._suite_rows.append(self._rows)
            else:
                suite = self._gold_rows(sandbox, self._suite_sql)
                self._suite_rows.append(None if suite.value is None else GoldRows(suite.value))
                lasts = _shortest(lasts, _lasts(suite))
        rows = len(execution.value)
        return GoldOutcome("ok" if rows else "empty", None, execution.seconds, rows, lasts)

    def _same_result_on(self, sandbox: Sandbox) -> bool:
        """Whether the gold's result is at once what `test_suite` compares on this instance of the database."""
        return sandbox is self._sandboxes[0] and self._suite_sql == self._sql

    def packed(self) -> bytes | None:
        """The gold's results, unless they are large or cost nothing."""
        if self._rows is None or (self.outcome.seconds or 0) < WORTH_KEEPING:
            return None
        others = [
            suite and suite.rows
            for sandbox, suite in zip(self._sandboxes, self._suite_rows, strict=True)
            if not self._same_result_on(sandbox)
        ]
        return pack([self._rows.rows, *others])

    def _unpacked(self, packed: bytes) -> Iterator[GoldRows | None]:
        """The gold's result, and then one for each instance of the database."""
        main, *others = (None if rows is None else GoldRows(rows) for rows in unpack(packed))
        yield main
        for sandbox in self._sandboxes:
            yield main if self._same_result_on(sandbox) else others.pop(0)

    def _gold_rows(self, sandbox: Sandbox, sql: str) -> Execution[list[Row]]:
        self._on_statement(GOLD)
        return sandbox.run(sql, lambda rows: _keep(rows, self._limits))

    def judge(self, place: int, sql: str) -> Outcome:
        if sql == self._sql:
            return self._judge_itself(place)
        self._on_statement(place)
        reading = Reading(self._read, self._limits, to_the_end=self._measures.need_all_rows)
        execution = self._sandboxes[0].run(sql, reading)
        lasts = _shortest(_lasts(execution), self.outcome.lasts)
        if reading.found is None:
            return Outcome(execution.status, error=execution.error, seconds=execution.seconds, lasts=lasts)
        matches, rows = reading.found
        suite_sql = without_distinct(sql)
        one_execution_tells = suite_sql == sql and self._suite_sql == self._sql and len(self._sandboxes) == 1
        if self._rows is not None and not one_execution_tells:
            test_suite, suite_lasts = self._suite_matches(place, suite_sql)
            matches, lasts = matches._replace(test_suite=test_suite), _shortest(lasts, suite_lasts)
        measured = None
        if self._measures != Measures():
            self._on_statement(place)  # the statement is over: what follows does not count as its time
            measured = self._measure(place, sql, matches, reading.rows, execution.seconds)
        return Outcome("ok", matches, None, execution.seconds, rows, measured, lasts)

    def _judge_itself(self, place: int) -> Outcome:
        """A candidate that is the gold, to the letter: its outcome is the gold's."""
        gold = self.outcome
        if gold.rows is None:
            return Outcome(gold.status, error=gold.error, seconds=gold.seconds, lasts=gold.lasts)
        matches = Matches(True, True, True, None not in self._suite_rows)
        measured = None if self._measures == Measures() else self._measure_itself(place)
        return Outcome("ok", matches, None, gold.seconds, gold.rows, measured, gold.lasts)

    def _suite_matches(self, place: int, sql: str) -> tuple[bool, Lasts]:
        lasts: Lasts = "always"
        for sandbox, gold in zip(self._sandboxes, self._suite_rows, strict=True):
            if gold is None:
                return False, lasts
            self._on_statement(place)
            execution = sandbox.run(sql, partial(self._compare, gold))
            lasts = _shortest(lasts, _lasts(execution))
            if execution.value is None or not execution.value[0].test_suite:
                return False, lasts
        return True, lasts

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
                    rows = sorted(rows, key=self._rows.counts.__contains__)
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


_BY_LENGTH: tuple[Lasts, ...] = ("once", "under this limit", "always")


def _lasts(execution: Execution[Any]) -> Lasts:
    if execution.volatile:
        return "once"
    return "under this limit" if execution.status == "timeout" else "always"


def _shortest(*all: Lasts) -> Lasts:
    return min(all, key=_BY_LENGTH.index)


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
