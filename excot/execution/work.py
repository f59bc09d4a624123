"""What is to be executed, and in which order: tasks drawn ahead, equal statements put together, large data first."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import named
from .compare import Matches
from .database import DatabaseError
from .files import Signature, known_hash, logs, signature
from .measure import Measures
from .sandbox import Limits
from .sqltext import statement_key
from .task import GoldOutcome, Known, Outcome, Task, Verdict

if TYPE_CHECKING:
    from .cache import Cache

AHEAD_TASKS = 10_000
AHEAD_BYTES = 64_000_000
"""How far tasks are drawn ahead of the workers: so many, or so much text of statements."""

_Databases = tuple[Path, ...]


@dataclass(frozen=True)
class Question:
    """What the outcome of a statement depends on beside its text; tasks that have it in common share their work."""

    databases: _Databases
    gold: str
    limits: Limits
    measures: Measures


@dataclass
class Job:
    """The statements that several tasks have to one gold, each once.

    Attributes:
        question: the gold, and all else that the statements have in common.
        recalled: outcomes by statement that were known before.
        gold: the gold's outcome, once it is known.
        gold_rows: its results, if they are worth being sent to other processes.
        statements: what is to be executed.
        found: the outcomes, by the statements' places.
        pieces: how many runs of the statements are with workers.
        failed: whether its database cannot be used.
        doubtful: whether the gold has run in one process and failed in another; nothing of it is kept for later.
    """

    question: Question
    recalled: Mapping[str, Outcome] = field(default_factory=dict)
    gold: GoldOutcome | None = None
    gold_rows: bytes | None = None
    statements: list[str] = field(default_factory=list)
    found: dict[int, Outcome] = field(default_factory=dict)
    pieces: int = 0
    failed: bool = False
    doubtful: bool = False
    _places: dict[str, int] = field(default_factory=dict)
    _members: list[tuple[str, list[str]]] = field(default_factory=list)

    @classmethod
    def of(cls, task: Task, known: Known) -> Piece:
        """One task with different statements, as a piece of work of its own."""
        question = Question(task.databases, task.gold, task.limits, task.measures)
        job = cls(question, gold=known.gold, gold_rows=known.gold_rows, found=dict(known.outcomes))
        job.join(task.id, list(task.candidates))
        job.pieces = 1
        return Piece(job, 0, len(job.statements))

    def join(self, id: str, statements: list[str]) -> None:
        """Add a task; what it asks for and the others did not is to be executed too."""
        self._members.append((id, statements))
        for sql in statements:
            if sql not in self.recalled and sql not in self._places:
                self._places[sql] = len(self.statements)
                self.statements.append(sql)

    @property
    def id(self) -> str:
        """Of its first task."""
        return self._members[0][0]

    @property
    def finished(self) -> bool:
        return self.gold is not None and len(self.found) == len(self.statements)

    def add_gold(self, outcome: GoldOutcome, rows: bytes | None = None) -> None:
        """Take in what became of the gold, which several workers may have executed."""
        if self.gold is None:
            self.gold = outcome
        elif self.gold.ran != outcome.ran:
            # It runs in one process and not in another. What cannot be relied on makes nothing right.
            self.doubtful = True
            self.gold = outcome if self.gold.ran else self.gold
        self.gold_rows = self.gold_rows or rows

    def new(self) -> dict[str, Outcome]:
        """The outcomes that were not known before, by statement."""
        return {sql: self._outcome(sql) for sql in self.statements}

    def verdicts(self) -> Iterator[tuple[str, Verdict]]:
        """Every task's id and verdict."""
        assert self.gold is not None
        for id, statements in self._members:
            yield id, Verdict(self.gold, tuple(self._outcome(sql) for sql in statements))

    def _outcome(self, sql: str) -> Outcome:
        outcome = self.recalled.get(sql) or self.found[self._places[sql]]
        return replace(outcome, matches=Matches()) if self.doubtful else outcome


@dataclass
class Piece:
    """The statements of a job from place ``begin`` to ``end``, which one worker executes in order."""

    job: Job
    begin: int
    end: int

    @property
    def task(self) -> Task:
        """What the worker is given."""
        question = self.job.question
        statements = tuple(self.job.statements[self.begin : self.end])
        return Task(self.job.id, question.databases, question.gold, statements, question.limits, question.measures)

    @property
    def known(self) -> Known:
        """What the worker need not execute."""
        found = self.job.found
        outcomes = {place - self.begin: found[place] for place in range(self.begin, self.end) if place in found}
        return Known(outcomes, self.job.gold, self.job.gold_rows)

    @property
    def size(self) -> int:
        """How many statements it has."""
        return self.end - self.begin

    @property
    def seconds_to_begin(self) -> float:
        """How long it takes until another worker has the gold's result too."""
        gold = self.job.gold
        return 0.0 if gold is None or self.job.gold_rows else gold.seconds or 0.0

    @property
    def finished(self) -> bool:
        return self.job.gold is not None and all(place in self.job.found for place in range(self.begin, self.end))

    def add(self, place: int, outcome: Outcome) -> None:
        """Take in an outcome by its place in the worker's task."""
        self.job.found.setdefault(self.begin + place, outcome)

    def split(self, done: int) -> Piece:
        """Give half of what comes after the first ``done`` statements away."""
        middle = self.begin + done + (self.end - self.begin - done) // 2
        rest = Piece(self.job, middle, self.end)
        self.end = middle
        self.job.pieces += 1
        return rest


class Work:
    """Tasks on their way to workers and back.

    Args:
        tasks: the questions, drawn some thousands ahead.
        cache: outcomes of earlier runs.
        hashed: whether the databases' hashes are asked for even without a cache.
    """

    def __init__(self, tasks: Iterable[Task], cache: Cache | None = None, *, hashed: bool = False):
        self._tasks = iter(tasks)
        self._cache = cache
        self._hashed = hashed or cache is not None
        self._waiting: dict[_Databases, dict[Question, Job]] = {}
        self._signatures: dict[Path, Signature | None] = {}
        self._hashes: dict[_Databases, list[str] | None] = {}
        self._held = self._held_bytes = 0
        self._failure: Exception | None = None
        self._unusable: dict[_Databases, DatabaseError] = {}
        self.exhausted = False

    @property
    def wants_more(self) -> bool:
        """Whether tasks can be drawn now."""
        return not self.exhausted and self._held < AHEAD_TASKS and self._held_bytes < AHEAD_BYTES

    def draw(self, seconds: float) -> Iterator[tuple[str, Verdict]]:
        """Draw tasks for some time; yields those of which everything is known."""
        until = time.monotonic() + seconds
        while self.wants_more:
            try:
                task = next(self._tasks, None)
                job = None if task is None else self._enter(task)
            except Exception as error:
                self._failure, job = error, None  # what was drawn before is not lost by it
            if job is None:
                self.exhausted = True
                return
            if job.finished and not job.failed:  # nothing was left to execute
                yield from job.verdicts()
            if time.monotonic() > until:
                return

    def check(self) -> None:
        """Raise what went wrong, once all is done that could be."""
        if self._failure is not None:
            raise self._failure
        if self._unusable:
            first, *others = self._unusable.values()
            more = f" (and {len(others)} more databases: {named([str(key[0]) for key in [*self._unusable][1:]])})"
            raise type(first)(first.problem + (more if others else ""), first.remedy)

    def _enter(self, task: Task) -> Job:
        question = Question(task.databases, statement_key(task.gold), task.limits, task.measures)
        statements = [statement_key(candidate) for candidate in task.candidates]
        if task.databases in self._unusable:
            return Job(question, failed=True)
        waiting = self._waiting.get(task.databases, {})
        job = waiting.get(question)
        if job is None:
            job = self._begin(question)
        before = len(job.statements)
        job.join(task.id, statements)
        if not job.finished:
            self._waiting.setdefault(task.databases, {})[question] = job
            self._held += 1
            self._held_bytes += sum(map(len, job.statements[before:]))
        return job

    def _begin(self, question: Question) -> Job:
        """A new job, with what the cache knows of it."""
        self._look_at(question.databases)
        hashes = self._hashes.get(question.databases)
        recalled = self._cache.recall(question, hashes) if self._cache is not None and hashes else None
        return Job(question, recalled.outcomes, recalled.gold, recalled.gold_rows) if recalled else Job(question)

    def hashes(self, databases: _Databases) -> list[str] | None:
        """The SHA-256 of each file of a database; ``None`` where that does not say what is in it."""
        return self._hashes.get(databases)

    def _look_at(self, databases: _Databases) -> None:
        """Note what the files of a database are like, when they are seen for the first time."""
        for path in databases:
            if path not in self._signatures:
                self._signatures[path] = signature(path)
        if self._hashed and databases not in self._hashes:
            # With a log beside it, a file does not say what is in the database; one that cannot be read is no
            # matter of the cache.
            readable = all(self._signatures[path] and not logs(path) for path in databases)
            try:
                self._hashes[databases] = [known_hash(path) for path in databases] if readable else None
            except OSError:
                self._hashes[databases] = None

    def next(self, near: _Databases | None, taken: Iterable[_Databases]) -> Piece | None:
        """The next piece of work for a worker; ``None`` where none is waiting.

        A worker stays on a database, whose pages are in memory. One that is done with it begins the largest that no
        other is at: large ones take longest, and what takes long must not be left for the end.

        Args:
            near: the database that the worker has open.
            taken: those that the other workers are at.
        """
        if not self._waiting:
            return None
        if near not in self._waiting:
            taken = set(taken)
            near = max(self._waiting, key=lambda databases: (databases not in taken, self._size(databases)))
        jobs = self._waiting[near]
        question = next(iter(jobs))
        job = jobs.pop(question)
        if not jobs:
            del self._waiting[near]
        self._release(job)
        job.pieces = 1
        return Piece(job, 0, len(job.statements))

    def give_up(self, piece: Piece, error: DatabaseError) -> None:
        """Take back a piece whose database cannot be used, with all that waits for it; `check` raises the error."""
        databases = piece.job.question.databases
        piece.job.failed = True
        self._unusable.setdefault(databases, error)
        for job in self._waiting.pop(databases, {}).values():
            self._release(job)

    def done(self, piece: Piece) -> list[tuple[str, Verdict]]:
        """Take a finished piece back.

        Returns:
            The verdicts of its job's tasks where it was the last one.

        Raises:
            DatabaseError: the database is no longer what it was when its first task was drawn.
        """
        job = piece.job
        job.pieces -= 1
        if job.pieces or job.failed:
            return []
        for path in job.question.databases:
            if signature(path) != self._signatures[path]:
                state = "changed" if path.exists() else "disappeared"
                raise DatabaseError(
                    f"database {path} has {state} while statements were executed on it",
                    "restore it, then start the same command again; what was finished before is kept",
                )
        hashes = self._hashes.get(job.question.databases)
        if self._cache is not None and hashes and job.gold is not None and not job.doubtful:
            self._cache.remember(job.question, hashes, job.gold, job.gold_rows, job.new())
        return list(job.verdicts())

    def _release(self, job: Job) -> None:
        """A job waits no longer."""
        self._held -= len(job._members)
        self._held_bytes -= sum(map(len, job.statements))

    def _size(self, databases: _Databases) -> int:
        return sum(sizes[0] for path in databases if (sizes := self._signatures[path]))
