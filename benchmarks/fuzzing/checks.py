"""What must hold whatever the statements are: the same checks for a short test and for a long run."""

from __future__ import annotations

import json
import os
import resource
import shutil
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from excot.execution import Limits, Measures, Task, Verdict, describe, file_hash, verify_all, work

from .grammar import Grammar
from .mutations import Mutations

STATUSES = {"ok", "error", "timeout", "too_large", "refused"}
GOLD_STATUSES = {"ok", "empty", "error", "timeout", "too_large"}
SLACK = 2.0
"""Seconds past its limit after which every statement must be over."""

START = 5.0
"""Seconds that starting a worker may take."""


@dataclass(frozen=True)
class Database:
    """A database with real statements on it, if there are any."""

    path: Path
    statements: tuple[str, ...] = ()


@dataclass
class Findings:
    """What was seen: ``faults`` are what must not happen, each with the statement it happened at."""

    statements: int = 0
    seconds: float = 0.0
    slowest: float = 0.0  # seconds past the limit
    peak: int = 0  # MB, of the largest worker
    counts: Counter[str] = field(default_factory=Counter)
    statuses: dict[str, tuple[str, ...]] = field(default_factory=dict)  # of each task's candidates
    faults: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        counts = ", ".join(f"{count:,} {status}" for status, count in self.counts.most_common())
        return (
            f"{counts}; at most {self.slowest:+.2f} s past the limit; workers up to {self.peak} MB; "
            f"{len(self.faults)} faults"
        )


def spider(data: Path, folder: Path, names: Iterable[str]) -> list[Database]:
    """Copies of Spider's databases, with the candidates that real models wrote on them."""
    statements: dict[str, list[str]] = {}
    with open(data / "candidates" / "spider_dev.jsonl") as file:
        for question in map(json.loads, file):
            statements.setdefault(question["db_id"], []).extend(dict.fromkeys(question["candidates"]))
    databases = []
    for name in names:
        path = folder / name / f"{name}.sqlite"
        path.parent.mkdir(parents=True)
        shutil.copyfile(data / "spider" / "database" / name / f"{name}.sqlite", path)
        databases.append(Database(path, tuple(statements.get(name, ()))))
    return databases


def tasks(databases: list[Database], numbers: Iterable[int], seed: int, limits: Limits) -> Iterator[Task]:
    """The tasks with these numbers: each made from the seed and its number alone, and named after both.

    Most have one candidate, so that the time until their verdict is that of one statement.
    """
    tables = [describe(database.path) for database in databases]
    for number in numbers:
        random = Random(f"{seed}/{number}")
        place = random.randrange(len(databases))
        grammar = Grammar(random, tables[place])
        mutations = Mutations(random, databases[place].statements or [grammar.query(1) for _ in range(20)])
        makers = (grammar, grammar, mutations)
        candidates = [random.choice(makers).statement() for _ in range(6 if random.random() < 0.05 else 1)]
        # A gold that fails lets candidates be read to their end; another fuzzed statement is as good a gold as any.
        gold = random.choice(("SELECT 1", "SELECT 1", "SELECT 1 WHERE 0", "SELECT nothing", candidates[0] + " "))
        if random.random() < 0.05:
            gold = grammar.statement()
        measures = Measures(fingerprint=random.random() < 0.2, soft_f1=random.random() < 0.1)
        yield Task(f"{seed}/{number}", (databases[place].path,), gold, tuple(candidates), limits, measures)


def check(tasks: Iterable[Task], processes: int, folders: list[Path]) -> Findings:
    """Verify tasks and look at everything that they must leave as it is.

    Args:
        tasks: as `tasks` gives them.
        processes: how many workers.
        folders: those of the databases, and those in which nothing may appear: where the process works, where
            temporary files go.
    """
    findings = Findings()
    before = _contents(folders)
    drawn: dict[str, tuple[Task, float]] = {}

    def note() -> Iterator[Task]:
        for task in tasks:
            # A task that is drawn waits for one of those that are with the workers.
            patience = _patience(task) + max((_patience(other) for other, _ in drawn.values()), default=0.0)
            drawn[task.id] = task, time.monotonic() + patience
            yield task

    began = time.monotonic()
    try:
        late = []
        for id, verdict in _without_looking_ahead(note(), processes):
            task, until = drawn.pop(id)
            if time.monotonic() > until or _slowest(task, verdict) > SLACK:
                late.append(task)
            else:
                findings.slowest = max(findings.slowest, _slowest(task, verdict))
            _look_at(task, verdict, findings)
        # A busy machine may let any process wait for seconds: what is late for a reason of its own is so again.
        for task in late:
            since = time.monotonic()
            ((_, verdict),) = verify_all([task], 1)
            wall, over = time.monotonic() - since, _slowest(task, verdict)
            findings.slowest = max(findings.slowest, over)
            if wall > _patience(task) + START or over > SLACK:
                findings.faults.append(f"{task.id}: {over:.2f} s over its limit, verdict after {wall:.2f} s: {task!r}")
    except Exception as error:
        at = [(task.id, task.gold, task.candidates) for task, _ in drawn.values()]
        findings.faults.append(f"verify_all failed: {error!r} while it was at {at!r}")
    findings.seconds = time.monotonic() - began
    findings.peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // 1000
    after = _contents(folders)
    for name in sorted(before.keys() | after.keys()):
        if before.get(name) != after.get(name):
            findings.faults.append(f"{name} has changed: {before.get(name)} before, {after.get(name)} after")
    return findings


def _without_looking_ahead(tasks: Iterable[Task], processes: int) -> Iterator[tuple[str, Verdict]]:
    """`verify_all`, drawing a task only when one has been taken, so that the time since then can be judged."""
    ahead, work.AHEAD_TASKS = work.AHEAD_TASKS, 1
    try:
        yield from verify_all(tasks, processes)
    finally:
        work.AHEAD_TASKS = ahead


def disagreements(first: Findings, second: Findings, tasks: Iterable[Task]) -> list[str]:
    """Where the same statements have other statuses in another run; those that depend on time or chance may."""
    found = []
    for task in tasks:
        pairs = zip(task.candidates, first.statuses[task.id], second.statuses[task.id], strict=True)
        for sql, one, other in pairs:
            by_chance = "random" in sql.lower() or "current_" in sql.lower() or "now" in sql.lower()
            if one != other and "timeout" not in (one, other) and not by_chance:
                found.append(f"{task.id}: {one}, then {other}: {sql!r}")
    return found


def _patience(task: Task) -> float:
    """Seconds until the verdict: each statement may be executed twice, as `test_suite` compares another result."""
    executions = 2 * (len(task.candidates) + (len(task.gold) > 20))
    return executions * (task.limits.seconds + SLACK)


def _slowest(task: Task, verdict: Verdict) -> float:
    """Seconds past the limit of the slowest statement."""
    return max((outcome.seconds or 0.0) - task.limits.seconds for outcome in (verdict.gold, *verdict.candidates))


def _look_at(task: Task, verdict: Verdict, findings: Findings) -> None:
    findings.statements += len(task.candidates)
    findings.counts.update(outcome.status for outcome in verdict.candidates)
    findings.statuses[task.id] = tuple(outcome.status for outcome in verdict.candidates)

    def expect(holds: bool, what: str, sql: str) -> None:
        if not holds:
            findings.faults.append(f"{task.id} on {task.databases[0].name}: {what}: {sql!r} (gold {task.gold!r})")

    gold = verdict.gold
    expect(gold.status in GOLD_STATUSES, f"gold is {gold.status!r}", task.gold)
    expect((gold.error is None) == (gold.status in ("ok", "empty")), f"error {gold.error!r}", task.gold)
    expect((gold.rows or 0) <= task.limits.rows, f"{gold.rows} rows of gold", task.gold)
    expect(len(verdict.candidates) == len(task.candidates), "not an outcome for every candidate", task.gold)
    for sql, outcome in zip(task.candidates, verdict.candidates, strict=False):
        expect(outcome.status in STATUSES, f"status {outcome.status!r}", sql)
        expect((outcome.error is None) == (outcome.status == "ok"), f"{outcome.status}, error {outcome.error!r}", sql)
        expect((outcome.rows is None) == (outcome.status != "ok"), f"{outcome.status} with {outcome.rows} rows", sql)
        expect(outcome.status == "ok" or not any(outcome.matches), f"{outcome.status} and yet it matches", sql)


def _contents(folders: list[Path]) -> dict[str, str]:
    return {
        str(path): file_hash(path) if path.is_file() else "a folder"
        for folder in folders
        for path in [folder, *sorted(folder.rglob("*"))]
    }


def empty_place(folder: Path) -> Path:
    """Work in an empty folder from now on, and make it the one for temporary files too."""
    folder.mkdir(parents=True)
    os.chdir(folder)
    os.environ["TMPDIR"] = os.environ["SQLITE_TMPDIR"] = str(folder)
    return folder
