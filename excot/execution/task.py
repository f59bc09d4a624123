"""A question to verify, and what becomes of it: the data that goes to workers and comes back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from .compare import Matches
from .measure import Measured, Measures
from .sandbox import Limits

Status = Literal["ok", "error", "timeout", "too_large", "refused"]
GoldStatus = Literal["ok", "empty", "error", "timeout", "too_large"]
GOLD = -1
"""The place of the gold among a task's statements."""

Lasts = Literal["always", "under this limit", "once"]
"""How far an outcome can be relied on later, with the same files: under any longer time limit, too; only where the
time limit is the same, since it had a say; or not at all, since the statement asks for the clock or for chance."""


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

    def as_row(self) -> dict[str, Any]:
        """What datasets say of it: ``status``, ``matches`` by rule, ``error``, ``seconds``, ``rows``."""
        return {
            "status": self.status,
            "matches": self.matches._asdict(),
            "error": self.error,
            "seconds": self.seconds,
            "rows": self.rows,
        }


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

    def as_row(self) -> dict[str, Any]:
        """What datasets say of it: ``status``, ``rows``, ``seconds``, ``error``."""
        return {"status": self.status, "rows": self.rows, "seconds": self.seconds, "error": self.error}


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
