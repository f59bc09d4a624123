"""One way to verify questions, in a process of its own: how long it takes, how much CPU time, how much memory.

A process of its own, because the system keeps the CPU time and the peak of memory of all children together.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from excot.execution import Limits, Task, verify_all
from excot.execution.cache import Cache

from . import peers
from .peers import FAILED, LIMIT, RIGHT, WRONG, Question

ROOT = Path(__file__).resolve().parents[1]


class Trial(NamedTuple):
    """``cpu_seconds`` of the process and its workers together; ``peak_mb`` of the largest one of them."""

    seconds: float
    cpu_seconds: float | None
    peak_mb: float | None
    found: Any


def try_out(way: str, questions: list[Question], limit: float, **options: Any) -> Trial:
    """Verify ``questions`` in one of `WAYS`, each statement for at most ``limit`` seconds.

    Starting Python and reading the questions do not count, starting workers does.
    """
    with TemporaryDirectory() as folder:
        job, trial = Path(folder) / "job.json", Path(folder) / "trial.json"
        job.write_text(json.dumps([way, questions, limit, options]))
        subprocess.run([sys.executable, "-m", "benchmarks.trial", str(job), str(trial)], check=True, cwd=ROOT)
        return Trial(**json.loads(trial.read_text()))


def row(what: str, trial: Trial, base: float, candidates: int, note: str) -> dict[str, Any]:
    """A row of the table, without what is not known; the ratio is ``base`` (seconds) over the trial's time."""
    columns = {
        "what": what,
        "seconds": trial.seconds,
        "ratio": base / trial.seconds,
        "statements_per_s": candidates / trial.seconds,
        "cpu_seconds": trial.cpu_seconds,
        "peak_mb": trial.peak_mb,
        "note": note,
    }
    return {name: value for name, value in columns.items() if value is not None}


def agreement(ours: list[list[str]], theirs: list[list[str]]) -> str:
    """Whether the same candidates are right; where they are not, how often a limit was in play."""
    pairs = [pair for mine, other in zip(ours, theirs, strict=True) for pair in zip(mine, other, strict=True)]
    differing = [pair for pair in pairs if (pair[0] == RIGHT) != (pair[1] == RIGHT)]
    if not differing:
        return "matches equal"
    at_a_limit = sum(LIMIT in pair for pair in differing)
    return f"{len(differing):,} of {len(pairs):,} matches DIFFER ({at_a_limit:,} of them at a limit)"


def ours(questions: list[Question], limit: float, processes: int, cache: str | None = None) -> dict[str, Any]:
    """Our verification; ``cache`` is a folder, empty or of an earlier trial.

    Returns:
        Of each question: verdicts by the rule of sets, matches of the test suite, and how many rows were read of the
        gold and of each candidate.
    """
    limits = Limits(seconds=limit)
    tasks = (
        Task(str(at), (Path(question["database"]),), question["gold"], tuple(question["candidates"]), limits)
        for at, question in enumerate(questions)
    )
    store = None if cache is None else Cache(Path(cache))
    try:
        verified = dict(verify_all(tasks, processes, cache=store))
    finally:
        if store is not None:
            store.close()
    ordered = [verified[str(at)] for at in range(len(questions))]
    return {
        "verdicts": [[_verdict(outcome) for outcome in verdict.candidates] for verdict in ordered],
        "test_suite": [[outcome.matches.test_suite for outcome in verdict.candidates] for verdict in ordered],
        "rows": [[outcome.rows for outcome in (verdict.gold, *verdict.candidates)] for verdict in ordered],
    }


def _verdict(outcome: Any) -> str:
    if outcome.status in ("timeout", "too_large"):
        return LIMIT
    return FAILED if outcome.status != "ok" else RIGHT if outcome.matches.set else WRONG


WAYS: dict[str, Callable[..., Any]] = {"ours": ours, "loop": peers.loop, "pool": peers.pool, "floor": peers.floor}


def _main(job: str, trial: str) -> None:
    way, questions, limit, options = json.loads(Path(job).read_text())
    cpu, started = _cpu_seconds(), time.perf_counter()
    found = WAYS[way](questions, limit, **options)
    seconds = time.perf_counter() - started
    result = Trial(seconds, _cpu_seconds() - cpu, _peak_mb(), found)
    Path(trial).write_text(json.dumps(result._asdict()))


def _cpu_seconds() -> float:
    usages = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak_mb() -> float:
    """Of the largest process. A child's peak begins with what its parent held when it was started, so it is never less
    than a part of ours, which is among those compared; our own comes from where a parent's does not count."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    status = Path("/proc/self/status")
    if status.exists():
        own = next(int(line.split()[1]) * 1024 for line in status.open() if line.startswith("VmHWM"))
    else:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(peak, own) / 1e6


if __name__ == "__main__":
    _main(*sys.argv[1:])
