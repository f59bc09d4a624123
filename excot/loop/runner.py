"""A step as a child process: it ends when the loop does, and says in the terminal what a user wants to see of it."""

from __future__ import annotations

import ast
import os
import queue
import re
import resource
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ..errors import ExcotError
from ..parent import environment
from ..training.launch import LAUNCH
from .steps import Step

_GRACE = 10.0  # s for a child to end once its pipe has, and for its last lines to arrive
_LOSS_EVERY = 15.0  # s
_SHOWN_AT_FAILURE = 15  # lines
_OURS = re.compile(r"warning: |(generate|verify|score): \d|going on from |[\d,]+ rows of |[\d,]+ steps; |pushed to ")


@dataclass(frozen=True)
class Taken:
    """The time that a step took: seconds by the clock, and of CPUs in all its processes together."""

    seconds: float
    cpu_seconds: float


def run_step(step: Step, words: list[str], private: Path) -> Taken:
    """Run a step's command and wait for it.

    Its whole output goes to a log; shown are its summary, its warnings and now and then how far it is.

    Args:
        step: the step.
        words: what to type.
        private: the run folder's ``.excot``.

    Raises:
        ExcotError: it failed; with what it said, and where the log is.
    """
    log = private / "logs" / f"{step.name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    started, cpu_before = time.monotonic(), _cpu_of_children()
    with open(log, "a", encoding="utf-8") as file:
        file.write(f"$ {shown(step, words)}\n")
        file.flush()
        child = subprocess.Popen(
            _program(step, words),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            env={**os.environ, **environment(private / "children"), "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # Ctrl-C reaches the loop alone, and all of a child can be ended at once
        )
        try:
            said = _listen(step, child, file)
        finally:
            _end(child)
    if child.returncode:
        raise _failure(step, child.returncode, said, log)
    return Taken(time.monotonic() - started, _cpu_of_children() - cpu_before)


def _cpu_of_children() -> float:
    """CPU seconds of all children that have ended, and of theirs."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def shown(step: Step, words: list[str]) -> str:
    """A step's command as one would type it."""
    import shlex

    return shlex.join(["accelerate", "launch", *words] if step.kind == "train" else words)


def _program(step: Step, words: list[str]) -> list[str]:
    """The same, by this interpreter, whatever the PATH says."""
    return [*LAUNCH, *words] if step.kind == "train" else [sys.executable, "-m", "excot.cli", *words[1:]]


def _listen(step: Step, child: subprocess.Popen[str], log: IO[str]) -> deque[tuple[str, str]]:
    """Show and log what a child says until it ends; its last lines, each with where it was said."""
    lines: queue.Queue[tuple[str, str] | None] = queue.Queue()

    def read(name: str, pipe: IO[str]) -> None:
        for line in pipe:
            lines.put((name, line.rstrip("\n")))
        lines.put(None)

    for name in ("stdout", "stderr"):
        threading.Thread(target=read, args=(name, getattr(child, name)), daemon=True).start()
    last: deque[tuple[str, str]] = deque(maxlen=200)
    view, open_pipes, ended = _View(step), 2, None
    while open_pipes:
        try:
            item = lines.get(timeout=1.0)
        except queue.Empty:
            if child.poll() is not None:  # what it has left running may hold its pipes open for good
                ended = ended or time.monotonic()
                if time.monotonic() - ended > _GRACE:
                    break
            continue
        if item is None:
            open_pipes -= 1
            continue
        last.append(item)
        log.write(item[1] + "\n")
        log.flush()
        view.show(*item)
    child.wait()
    return last


class _View:
    """What of a step's output a user wants to see."""

    def __init__(self, step: Step):
        self._kind = step.kind
        self._lines = 0
        self._spoken = time.monotonic()

    def show(self, pipe: str, line: str) -> None:
        if not line.strip():
            return
        if self._kind == "train" or pipe == "stderr":
            if _OURS.match(line):
                self._say(line)
            elif line.startswith("{'loss'"):
                self._loss(line)
        elif not line.startswith("next: "):
            self._lines += 1
            # Of a score its first line says what the table does; the table is in the log.
            if self._kind != "score" or self._lines == 1:
                self._say(line)

    def _loss(self, line: str) -> None:
        if time.monotonic() - self._spoken < _LOSS_EVERY:
            return
        try:
            values = ast.literal_eval(line)
            self._say(f"epoch {float(values['epoch']):.2f}, loss {float(values['loss']):.4f}")
        except (ValueError, SyntaxError, KeyError, TypeError):
            return

    def _say(self, line: str) -> None:
        self._spoken = time.monotonic()
        print(f"  {line}", flush=True)


def _end(child: subprocess.Popen[str]) -> None:
    """End a child that still runs: its pipe ends, and what does not heed that is killed."""
    if child.stdin:
        child.stdin.close()
    try:
        child.wait(_GRACE)
    except subprocess.TimeoutExpired:
        pass
    try:
        os.killpg(child.pid, signal.SIGKILL)  # also what it has started and left behind
    except (ProcessLookupError, PermissionError):
        pass
    child.wait()


def _failure(step: Step, code: int, said: deque[tuple[str, str]], log: Path) -> ExcotError:
    errors = [line.removeprefix("excot: ") for pipe, line in said if pipe == "stderr" and line.startswith("excot: ")]
    if errors:
        return ExcotError(f"{step.title}: {errors[-1]}", f"all that it said is in {log}")
    for _, line in [*said][-_SHOWN_AT_FAILURE:]:
        print(f"  {line}", file=sys.stderr, flush=True)
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    return ExcotError(f"{step.title} {how}", f"all that it said is in {log}")
