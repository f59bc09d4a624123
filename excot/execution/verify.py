"""One question's candidates against its gold, each different statement executed once, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from .judge import Judge
from .sandbox import Limits, Sandbox
from .sqltext import statement_key
from .task import GOLD, GoldOutcome, Known, Outcome, Task


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
        self._judge: Judge | None = None

    def verify(self, task: Task, known: Known | None = None) -> Iterator[tuple[int, Outcome | GoldOutcome]]:
        """Yield ``(GOLD, GoldOutcome)`` first, then ``(place, Outcome)`` of every candidate that is not known yet.

        Raises:
            DatabaseError: a database of the task is missing or damaged.
        """
        known = known or Known()
        self._open(task)
        self._judge = judge = Judge(task, self._sandboxes, self._on_statement, known)
        yield GOLD, judge.outcome
        judged = {statement_key(task.candidates[place]): outcome for place, outcome in known.outcomes.items()}
        for place, candidate in enumerate(task.candidates):
            if place in known.outcomes:
                continue
            sql = statement_key(candidate)
            if sql not in judged:
                judged[sql] = judge.judge(place, sql)
            yield place, judged[sql]
        self._judge = None  # its rows may be many, and the next task may be long in coming

    def gold_rows(self) -> bytes | None:
        """The results of this task's gold, for `Known`; ``None`` where executing it again is as good."""
        return self._judge and self._judge.packed()

    def close(self) -> None:
        for sandbox in self._sandboxes:
            sandbox.close()
        self._sandboxes, self._open_for, self._judge = [], None, None

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
