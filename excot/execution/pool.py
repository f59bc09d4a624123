"""Many questions on several processes, with a hard stop for statements that never come back.

Workers are programs of their own rather than forks: nothing of the caller (threads, CUDA, an unguarded main script)
reaches them, and each can be killed without harm to the others.
"""

from __future__ import annotations

import math
import mmap
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing.connection import Connection, wait
from pathlib import Path

from ..errors import ExcotError
from .cache import Cache
from .database import DatabaseError
from .task import GOLD, GoldOutcome, Known, Outcome, Task, Verdict
from .work import Job, Piece, Work
from .worker import BEACON_SIZE, READY, STARTING, read_beacon, write_beacon, write_end

GRACE = 1.0
"""Seconds past its limit after which a statement is ended from outside."""

_DRAW_FOR = 0.02  # s; then the workers are looked after again
_WORTH_SPLITTING = 0.1  # s; what giving statements to another worker must save at least
_WORTH_STARTING = 0.5  # s; the same where the worker has to be started for it


def verify_all(
    tasks: Iterable[Task], processes: int | None = None, cache: Cache | None = None
) -> Iterator[tuple[str, Verdict]]:
    """Verify questions in parallel.

    Tasks are drawn some thousands ahead of the workers, and verdicts are yielded in the order in which they are ready.
    Statements to one gold are executed together, each once, whatever tasks they come from; what the cache knows is not
    executed at all. A statement that SQLite does not interrupt is ended `GRACE` seconds after its limit and marked
    ``timeout``; a worker that dies is replaced and its unfinished work done again; a statement at which two workers
    died is an ``error``.

    Args:
        tasks: the questions.
        processes: how many workers; by default one for each core this process may use.
        cache: where outcomes of earlier runs are looked for and new ones are kept; by default nowhere.

    Yields:
        The task's id and its verdict.

    Raises:
        DatabaseError: databases are missing or damaged, or have changed meanwhile. It is raised at the end, after the
            verdicts of all tasks on other databases.
        ExcotError: workers cannot be started at all, or die without executing anything.
        ValueError: ``processes`` is less than one.
    """
    with Pool(processes) as pool:
        yield from pool.verify_all(tasks, cache)


class Pool:
    """`verify_all` for many small batches: workers stay from one call to the next.

    Workers are started only as tasks need them, wait without taking a core, and end with `close` or with their parent.
    A call that fails or is given up ends the workers that it kept busy; the pool starts others when it is used again.
    One call at a time: a pool is not for several threads.

    Args:
        processes: how many workers; by default one for each core this process may use.

    Raises:
        ValueError: ``processes`` is less than one.
    """

    def __init__(self, processes: int | None = None):
        if processes is not None and processes < 1:
            raise ValueError(f"processes must be at least 1, not {processes}")
        self._processes = processes or available_cores()
        self._idle: list[_Worker] = []
        self._owner = os.getpid()

    def verify_all(self, tasks: Iterable[Task], cache: Cache | None = None) -> Iterator[tuple[str, Verdict]]:
        """Verify questions in parallel; see the function `verify_all` for what it takes, yields and raises."""
        self._leave_to_parent()
        work = Work(tasks, cache)
        busy: list[_Worker] = []
        try:
            while True:
                yield from work.draw(_DRAW_FOR)
                self._give(work, busy)
                if work.exhausted and not busy:
                    work.check()
                    return
                for worker in _ready(busy, wait_for_them=not work.wants_more):
                    verdicts = []
                    try:
                        if not worker.step():
                            continue
                        verdicts = work.done(worker.piece)
                    except DatabaseError as error:
                        work.give_up(worker.piece, error)
                    busy.remove(worker)
                    self._idle.append(worker)
                    yield from verdicts
        finally:
            for worker in busy:
                worker.close()
            if cache is not None:
                cache.write()

    def execute(self, task: Task, known: Known) -> tuple[GoldOutcome, bytes | None, dict[int, Outcome]]:
        """Execute one task on one worker.

        Returns:
            What became of the gold, its results if they are worth being sent about, and the outcomes by place.

        Raises:
            DatabaseError, ExcotError: as `verify_all`.
        """
        self._leave_to_parent()
        piece = Job.of(task, known)
        worker = self._idle.pop() if self._idle else _Worker()
        try:
            worker.give(piece)
            while not any(ready.step() for ready in _ready([worker], wait_for_them=True)):
                pass
        except BaseException:
            worker.close()
            raise
        self._idle.append(worker)
        return piece.job.gold, piece.job.gold_rows, piece.job.found

    def _give(self, work: Work, busy: list[_Worker]) -> None:
        """Keep as many workers at work as there may be."""
        while len(busy) < self._processes:
            near = self._idle[-1].databases if self._idle else None
            piece = work.next(near, [worker.databases for worker in busy])
            if piece is None:
                piece = _split(busy, work, _WORTH_SPLITTING if self._idle else _WORTH_STARTING)
            if piece is None:
                return
            if not self._idle:
                self._idle.append(_Worker())
            busy.append(self._idle.pop())
            busy[-1].give(piece)

    def close(self) -> None:
        """End the workers. A pool that is used again starts others."""
        self._leave_to_parent()
        while self._idle:
            self._idle.pop().close()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _leave_to_parent(self) -> None:
        # In a fork of the process that started them (a notebook's launcher makes such), the workers are not ours:
        # two that talk to one worker would get each other's verdicts.
        if self._owner != os.getpid():
            self._idle, self._owner = [], os.getpid()


def available_cores() -> int:
    """Cores that this process may run on; fewer than the machine's under a job scheduler."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _ready(workers: list[_Worker], wait_for_them: bool) -> list[_Worker]:
    """The workers that have said something or are overdue; waits for one where there is nothing else to do."""
    if not workers:
        return []
    overdue = min(worker.overdue_at() for worker in workers)
    patience = None if overdue == math.inf else max(0.0, overdue - time.monotonic())
    heard = set(wait([worker.connection for worker in workers], timeout=patience if wait_for_them else 0))
    now = time.monotonic()
    return [worker for worker in workers if worker.connection in heard or worker.overdue_at() <= now]


def _split(workers: list[_Worker], work: Work, least: float) -> Piece | None:
    """Half of what the worker with the most before it has left, where nothing else is to be had and it pays."""
    if not work.exhausted or not workers:
        return None
    slowest = max(workers, key=_Worker.seconds_left)
    gain = slowest.seconds_left() / 2 - slowest.piece.seconds_to_begin
    return slowest.split() if gain > least else None


class _Worker:
    """One process, the piece of work it is at, and how often it has died of it."""

    def __init__(self) -> None:
        self._failed_starts = 0
        self.databases: tuple[Path, ...] | None = None
        self._start()

    def give(self, piece: Piece) -> None:
        self.piece = piece
        self.databases = piece.job.question.databases
        self._deaths: Counter[int] = Counter()
        self._given = time.monotonic()
        self._send_task()

    def overdue_at(self) -> float:
        """When (``time.monotonic``) the current statement has outlived its limit and the grace."""
        if not self._ready:
            return math.inf  # starting Python can take long on a shared file system; no statement is to blame
        _, started = read_beacon(self._beacon)
        return started + self.task.limits.seconds + GRACE

    def seconds_left(self) -> float:
        """How long this piece will take from here, by how long its statements took so far."""
        done, _ = read_beacon(self._beacon)
        left = self.piece.size - done - 1
        return 0.0 if done < 1 or left < 2 else left * (time.monotonic() - self._given) / (done + 1)

    def split(self) -> Piece:
        """Give up half of the statements that were not begun yet."""
        done, _ = read_beacon(self._beacon)
        rest = self.piece.split(done + 1)
        # The worker may have gone further meanwhile; then some statements are executed twice, to the same end.
        write_end(self._beacon, self.piece.size)
        return rest

    def step(self) -> bool:
        """Take in what the worker has sent, or end it where it is overdue; whether its piece is finished."""
        if not self.connection.poll():
            if self.overdue_at() > time.monotonic():
                return False  # it has gone on to another statement since `_ready` looked
            place, _ = read_beacon(self._beacon)
            self._give_up(
                place, "timeout", f"more than {self.task.limits.seconds:g} s, and SQLite could not interrupt it"
            )
            return self._replace()
        try:
            message = self.connection.recv()
        except (EOFError, OSError):
            return self._bury()
        if isinstance(message, Exception):
            raise message
        if message == READY:
            self._ready, self._failed_starts = True, 0
            return False
        outcomes, gold_rows, complete = message
        for place, outcome in outcomes:
            self._take_in(place, outcome, gold_rows)
        return complete

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._beacon.close()

    def _bury(self) -> bool:
        code = self._process.wait()
        if not self._ready:  # what cannot even start must not look like a bad statement
            self._failed_starts += 1
            if self._failed_starts > 2:
                raise ExcotError(
                    f"a worker process could not be started (exit status {code})",
                    "see its message above; is memory or the process limit exhausted?",
                )
            return self._replace()
        place, _ = read_beacon(self._beacon)
        self._deaths[place] += 1
        if self._deaths[place] > 2:  # given up before, so it was not being executed
            raise ExcotError(
                f"worker processes keep dying at question {self.task.id} (exit status {code})",
                "is memory exhausted? start the same command again with fewer --processes",
            )
        if self._deaths[place] == 2:
            self._give_up(place, "error", f"two worker processes died while executing this (exit status {code})")
        return self._replace()

    def _give_up(self, place: int, status: str, error: str) -> None:
        seconds = time.monotonic() - read_beacon(self._beacon)[1]
        # A death says more of the machine than of the statement: on another day it may live.
        lasts = "under this limit" if status == "timeout" else "once"
        outcome = GoldOutcome if place == GOLD else Outcome
        self._take_in(place, outcome(status, error=error, seconds=seconds, lasts=lasts))

    def _take_in(self, place: int, outcome: Outcome | GoldOutcome, gold_rows: bytes | None = None) -> None:
        if place == GOLD:
            self.piece.job.add_gold(outcome, gold_rows)
        else:
            self.piece.add(place, outcome)

    def _replace(self) -> bool:
        """A fresh process for what is left of the piece."""
        self.close()
        self._start()
        if self.piece.finished:
            return True
        self._send_task()
        return False

    def _send_task(self) -> None:
        self.task = self.piece.task  # which is less than before, where others have taken over a part
        if self._ready:
            write_beacon(self._beacon, GOLD)
        write_end(self._beacon, self.piece.size)
        # One that died while idle cannot be sent anything; the end of the connection is what `step` sees next.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send((self.task, self.piece.known))

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs, tempfile.TemporaryFile() as file:
            file.truncate(BEACON_SIZE)
            self._beacon = mmap.mmap(file.fileno(), BEACON_SIZE)
            self._ready = False
            write_beacon(self._beacon, STARTING)
            program = f"from excot.execution import worker; worker.main({theirs.fileno()}, {file.fileno()})"
            path = os.pathsep.join(path or os.getcwd() for path in sys.path)
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", program],
                    pass_fds=(theirs.fileno(), file.fileno()),
                    stdin=subprocess.DEVNULL,
                    # What is importable here is so there, and no more: not what lies in the working directory.
                    env={**os.environ, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"},
                )
            except OSError as error:
                raise ExcotError(
                    f"a worker process could not be started ({error.strerror})",
                    "is memory or the process limit exhausted?",
                ) from None
        self.connection = Connection(ours.detach())
