"""A hundred thousand statements that nobody would write, on real databases: nothing may fail, hang or be left behind.

Alone: ``python -m benchmarks.fuzzing [count] [seed]``.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from excot.execution import Limits, available_cores

from .checks import Findings, check, empty_place, spider, tasks

COUNT, SEED, CHUNK = 100_000, 0, 2_500
LIMITS = Limits(seconds=0.2)
DATABASES = "concert_singer pets_1 car_1 flight_2 world_1 dog_kennels tvshow student_transcripts_tracking".split()


def run(data: Path, count: int = COUNT, seed: int = SEED) -> list[dict[str, Any]]:
    """The row of the table; its note says what became of the statements. Progress goes to stderr.

    Args:
        data: the folder with Spider's databases and real candidates.
        count: how many tasks; one in twenty has several statements.
        seed: where all of them come from.

    Raises:
        RuntimeError: something happened that must not; the statements are named.
    """
    found, place = Findings(), Path.cwd()
    variables = {name: os.environ.get(name) for name in ("TMPDIR", "SQLITE_TMPDIR")}
    with tempfile.TemporaryDirectory() as folder:
        databases = spider(data.absolute(), Path(folder) / "databases", DATABASES)
        try:
            empty = empty_place(Path(folder) / "empty")
            for begin in range(0, count, CHUNK):
                numbers = range(begin, min(begin + CHUNK, count))
                chunk = check(tasks(databases, numbers, seed, LIMITS), available_cores(), [empty.parent])
                _add(found, chunk)
                print(f"{numbers.stop:,} of {count:,}: {found}", file=sys.stderr, flush=True)
                for fault in chunk.faults:
                    print(f"FAULT {fault[:2_000]}", file=sys.stderr, flush=True)
        finally:
            os.chdir(place)
            for name, value in variables.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
    if found.faults:
        raise RuntimeError(f"{len(found.faults)} faults with seed {seed}, the first: {found.faults[0][:2_000]}")
    what = f"fuzzing: {found.statements:,} statements, limit {LIMITS.seconds:g} s"
    return [{"what": what, "seconds": found.seconds, "ratio": 1.0, "note": str(found)}]


def _add(found: Findings, chunk: Findings) -> None:
    found.statements += chunk.statements
    found.seconds += chunk.seconds
    found.slowest = max(found.slowest, chunk.slowest)
    found.peak = max(found.peak, chunk.peak)
    found.counts += chunk.counts
    found.faults += chunk.faults
