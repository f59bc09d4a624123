"""A small table of singers, and one question's candidates verified on it in this process."""

from __future__ import annotations

from pathlib import Path

from excot.execution.compare import Matches
from excot.execution.sandbox import Limits
from excot.execution.task import GOLD, GoldOutcome, Outcome, Task
from excot.execution.verify import Verifier

NOTHING = Matches()
ALL = Matches(True, True, True, True)

SINGERS = """
    CREATE TABLE singer (id INTEGER PRIMARY KEY, name TEXT, age INT, "birth place" TEXT, note TEXT);
    INSERT INTO singer VALUES
        (1, 'Ann', 30, 'Rome', CAST(x'63616fe9' AS TEXT)), (2, 'Bob', 40, 'Oslo', NULL), (3, 'Cid', 30, 'Rome', '');
"""


class Verified:
    """The outcomes of one task, in this process."""

    def __init__(self, databases: Path | tuple[Path, ...], gold: str, *candidates: str, limits: Limits | None = None):
        paths = databases if isinstance(databases, tuple) else (databases,)
        self.executed: list[int] = []
        verifier = Verifier(on_statement=self.executed.append)
        outcomes = list(verifier.verify(Task("1", paths, gold, candidates, limits or Limits(seconds=30))))
        verifier.close()
        assert [place for place, _ in outcomes] == [GOLD, *range(len(candidates))]
        self.gold: GoldOutcome = outcomes[0][1]
        self.candidates: list[Outcome] = [outcome for _, outcome in outcomes[1:]]

    @property
    def statuses(self) -> list[str]:
        return [outcome.status for outcome in self.candidates]

    @property
    def matches(self) -> list[Matches]:
        return [outcome.matches for outcome in self.candidates]
