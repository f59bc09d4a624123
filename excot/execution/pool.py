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

from ..errors import ExcotError
from .verify import GOLD, GoldOutcome, Outcome, Task, Verdict
from .worker import BEACON_SIZE, READY, STARTING, read_beacon, write_beacon

GRACE = 1.0
"""Seconds past its limit after which a statement is ended from outside."""


def verify_all(tasks: Iterable[Task], processes: int | None = None) -> Iterator[tuple[str, Verdict]]:
    """Verify questions in parallel.

    Tasks are drawn only as workers come free, and verdicts are yielded in the order in which they are ready. A
    statement that SQLite does not interrupt is ended `GRACE` seconds after its limit and marked ``timeout``; a worker
    that dies is replaced and its unfinished work done again; a statement at which two workers died is an ``error``.

    Args:
        tasks: the questions.
        processes: how many workers; by default one for each core this process may use.

    Yields:
        The task's id and its verdict.

    Raises:
        DatabaseError: a database is missing or damaged. Verdicts yielded before stay valid.
        ExcotError: workers cannot be started at all, or die without executing anything.
        ValueError: ``processes`` is less than one.
    """
    with Pool(processes) as pool:
        yield from pool.verify_all(tasks)


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

    def verify_all(self, tasks: Iterable[Task]) -> Iterator[tuple[str, Verdict]]:
        """Verify questions in parallel; see the function `verify_all` for what it yields and raises."""
        self._leave_to_parent()
        queue = iter(tasks)
        busy: list[_Worker] = []
        try:
            for _ in range(self._processes):
                task = next(queue, None)
                if task is None:
                    break
                if self._idle:
                    busy.append(self._idle.pop())
                    busy[-1].give(task)
                else:
                    busy.append(_Worker(task))
            while busy:
                for worker in _ready(busy):
                    verdict = worker.step()
                    if verdict is None:
                        continue
                    yield worker.task.id, verdict
                    task = next(queue, None)
                    if task is None:
                        busy.remove(worker)
                        self._idle.append(worker)
                    else:
                        worker.give(task)
        finally:
            for worker in busy:
                worker.close()

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


def _ready(workers: list[_Worker]) -> list[_Worker]:
    """Wait until a worker has said something or one is overdue, and return those."""
    overdue = min(worker.overdue_at() for worker in workers)
    patience = None if overdue == math.inf else max(0.0, overdue - time.monotonic())
    heard = set(wait([worker.connection for worker in workers], timeout=patience))
    now = time.monotonic()
    return [worker for worker in workers if worker.connection in heard or worker.overdue_at() <= now]


class _Worker:
    """One process, the task it is at, and what is known of that task so far."""

    def __init__(self, task: Task):
        self._failed_starts = 0
        self._start()
        self.give(task)

    def give(self, task: Task) -> None:
        self.task = task
        self._known: dict[int, Outcome | GoldOutcome] = {}
        self._deaths: Counter[int] = Counter()
        self._send_task()

    def overdue_at(self) -> float:
        """When (``time.monotonic``) the current statement has outlived its limit and the grace."""
        if not self._ready:
            return math.inf  # starting Python can take long on a shared file system; no statement is to blame
        _, started = read_beacon(self._beacon)
        return started + self.task.limits.seconds + GRACE

    def step(self) -> Verdict | None:
        """Take in what the worker has sent, or end it where it is overdue; the verdict once the task is complete."""
        if not self.connection.poll():
            if self.overdue_at() > time.monotonic():
                return None  # it has gone on to another statement since `_ready` looked
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
            return None
        outcomes, complete = message
        self._known.update(outcomes)
        return self._verdict() if complete else None

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self.connection.close()
        self._beacon.close()

    def _bury(self) -> Verdict | None:
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
            raise ExcotError(f"worker processes keep dying at question {self.task.id} (exit status {code})")
        if self._deaths[place] == 2:
            self._give_up(place, "error", f"two worker processes died while executing this (exit status {code})")
        return self._replace()

    def _give_up(self, place: int, status: str, error: str) -> None:
        seconds = time.monotonic() - read_beacon(self._beacon)[1]
        outcome = GoldOutcome if place == GOLD else Outcome
        self._known[place] = outcome(status, error=error, seconds=seconds)

    def _replace(self) -> Verdict | None:
        """A fresh process for what is left of the task."""
        self.close()
        self._start()
        if len(self._known) == len(self.task.candidates) + 1:
            return self._verdict()
        self._send_task()
        return None

    def _verdict(self) -> Verdict:
        return Verdict(self._known[GOLD], tuple(self._known[place] for place in range(len(self.task.candidates))))

    def _send_task(self) -> None:
        if self._ready:
            write_beacon(self._beacon, GOLD)
        # A gold that ran is executed again in a fresh process: its rows were never sent. One that was given up is not.
        known = {
            place: outcome
            for place, outcome in self._known.items()
            if not (isinstance(outcome, GoldOutcome) and outcome.status in ("ok", "empty"))
        }
        # One that died while idle cannot be sent anything; the end of the connection is what `step` sees next.
        with suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send((self.task, known))

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
