"""The gold of one question, executed once, and the judge of its candidates: what happened, and what was equal."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import chain
from typing import Any

from .compare import GoldRows, Matches, Row, compare, equal_under_permutation
from .measure import Measured, Measures, Reading, fingerprint, row_size, seconds_by_turns, soft_f1, time_ratio
from .packing import WORTH_KEEPING, pack, unpack
from .preview import preview
from .sandbox import Execution, Limits, Sandbox, TooLarge
from .sqltext import (
    loses_duplicates_only,
    mentions_order_by,
    orders_its_result,
    statement_key,
    without_distinct,
)
from .stability import causes
from .task import GOLD, GoldOutcome, Known, Lasts, Outcome, Task

TIMING_BUDGET = 2.0
"""How long a candidate and its gold are timed in all, in time limits of one statement."""


class Judge:
    """Executes a task's gold, and judges candidates by it.

    Args:
        task: the question.
        sandboxes: its databases, opened.
        on_statement: called with a statement's place before each execution.
        known: what need not be executed.

    Attributes:
        outcome: what became of the gold.
    """

    def __init__(self, task: Task, sandboxes: list[Sandbox], on_statement: Callable[[int], None], known: Known):
        self._sql = statement_key(task.gold)
        self._suite_sql = without_distinct(self._sql)
        self._sandboxes = sandboxes
        self._limits, self._measures = task.limits, task.measures
        self._on_statement = on_statement
        self._ordered = orders_its_result(self._sql)
        self._suite_ordered = mentions_order_by(self._sql)
        self._first: Row | None = None  # of the candidate that was read last
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
        """What becomes of the candidate at this place."""
        if sql == self._sql:
            return self._judge_itself(place)
        self._on_statement(place)
        suite_sql = without_distinct(sql)
        decides_all = suite_sql == sql and len(self._sandboxes) == 1
        read = self._read_for_both if decides_all and self._suite_sql != self._sql else self._read
        reading = Reading(read, self._limits, to_the_end=self._measures.need_all_rows)
        execution = self._sandboxes[0].run(sql, reading)
        lasts = _shortest(_lasts(execution), self.outcome.lasts)
        if reading.found is None:
            return Outcome(execution.status, error=execution.error, seconds=execution.seconds, lasts=lasts)
        matches, rows = reading.found
        if self._rows is not None and not decides_all:
            test_suite, suite_lasts = self._suite_matches(place, sql, suite_sql)
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

    def _suite_matches(self, place: int, sql: str, suite_sql: str) -> tuple[bool, Lasts]:
        """Whether `test_suite` matches, by executing the candidate without DISTINCT on every instance."""
        lasts: Lasts = "always"
        if None in self._suite_rows or (loses_duplicates_only(sql) and not self._may_match_suite()):
            return False, lasts
        for sandbox, gold in zip(self._sandboxes, self._suite_rows, strict=True):
            self._on_statement(place)
            execution = sandbox.run(suite_sql, partial(self._compare, gold, only_suite=True))
            lasts = _shortest(lasts, _lasts(execution))
            if execution.value is None or not execution.value[0].test_suite:
                return False, lasts
        return True, lasts

    def _may_match_suite(self) -> bool:
        """Whether the last candidate's first row can be one of the gold's, in some order of columns.

        It saves the second execution of most wrong statements with DISTINCT: a fifth of all time on real answers.
        """
        gold = self._suite_rows[0]
        if self._first is None:
            return not gold.rows
        return gold.signature(self._first) in gold.signatures

    def _read(self, rows: Iterator[Row]) -> tuple[Matches, int]:
        if self._rows is None:  # no gold to compare with; what happens to the candidate is still worth knowing
            return Matches(), sum(1 for _ in rows)
        self._first = next(rows, None)
        return self._compare(self._rows, rows if self._first is None else chain((self._first,), rows))

    def _read_for_both(self, rows: Iterator[Row]) -> tuple[Matches, int]:
        """One reading for two golds, with DISTINCT and without, of a candidate that has none."""
        suite = self._suite_rows[0] if self._rows is not None else None
        if suite is None:
            matches, read = self._read(rows)
            return matches._replace(test_suite=False), read
        passed: list[Row] = []
        most = len(suite.rows)  # with more rows there is no match

        def noted() -> Iterator[Row]:
            for row in rows:
                if len(passed) <= most:
                    passed.append(row)
                yield row

        matches, read = self._compare(self._rows, noted())
        if len(passed) > most:
            return matches._replace(test_suite=False), read
        again, more = self._compare(suite, chain(passed, rows), only_suite=True)
        return matches._replace(test_suite=again.test_suite), max(read, more)

    def _compare(self, gold: GoldRows, rows: Iterator[Row], only_suite: bool = False) -> tuple[Matches, int]:
        return compare(gold, rows, ordered=self._ordered, suite_ordered=self._suite_ordered, only_suite=only_suite)

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


def _shortest(one: Lasts, other: Lasts) -> Lasts:
    return one if one == other else min(one, other, key=_BY_LENGTH.index)


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
