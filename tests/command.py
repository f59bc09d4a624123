"""The ``excot`` command for tests: called in this process, or started as a process of its own."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import planted

from excot import cli

ROOT = Path(__file__).resolve().parents[1]


class _Ending(NamedTuple):
    code: int
    out: str
    err: str


class Finished(_Ending):
    """How a command ended: its exit code and what it wrote, in which there is no planted secret."""

    def __new__(cls, code: int, out: str, err: str) -> Finished:
        planted.see_none_in(out, "what a command printed")
        planted.see_none_in(err, "what a command wrote to stderr")
        return super().__new__(cls, code, out, err)

    def error(self) -> str:
        """The one error line, warnings aside; any other line on stderr fails the test."""
        lines = [line for line in self.err.splitlines() if not line.startswith("warning: ")]
        assert len(lines) == 1 and lines[0].startswith("excot: "), self.err
        return lines[0].removeprefix("excot: ")


class Process(subprocess.Popen):
    """A process whose output is searched for planted secrets when it is collected."""

    def communicate(self, *arguments: Any, **options: Any) -> Any:
        out, err = super().communicate(*arguments, **options)
        planted.see_none_in(out, "what a process printed")
        planted.see_none_in(err, "what a process wrote to stderr")
        return out, err


def excot(*arguments: object) -> Finished:
    """Call the command in this process."""
    out, err = io.StringIO(), io.StringIO()
    with log_restored(), redirect_stdout(out), redirect_stderr(err):
        try:
            code = cli.main([str(argument) for argument in arguments])
        except SystemExit as end:  # how argparse leaves
            code = int(end.code or 0)
    return Finished(code, out.getvalue(), err.getvalue())


def done(*arguments: object) -> str:
    """Call the command in this process, see that it succeeds, and give what it printed."""
    code, out, err = excot(*arguments)
    assert code == 0, err
    return out


def start(*arguments: object, environment: Mapping[str, str] | None = None, **options: Any) -> subprocess.Popen[str]:
    """Start the command as a process of its own, with pipes for its output."""
    command = [sys.executable, "-m", "excot.cli", *map(str, arguments)]
    return _start(command, environment, **options)


def python(
    program: str, *arguments: object, environment: Mapping[str, str] | None = None, **options: Any
) -> subprocess.Popen[str]:
    """Start Python on the text of a program that may import excot."""
    return _start([sys.executable, "-c", program, *map(str, arguments)], environment, **options)


def _start(command: list[str], environment: Mapping[str, str] | None, **options: Any) -> subprocess.Popen[str]:
    settings = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, **options}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    return Process(command, env={**os.environ, "PYTHONPATH": path, **(environment or {})}, **settings)


@contextmanager
def log_restored() -> Iterator[None]:
    """The command takes the log over; the tests after this one shall find it as it was."""
    log = logging.getLogger("excot")
    handlers, level, propagate = log.handlers, log.level, log.propagate
    try:
        yield
    finally:
        log.handlers, log.propagate = handlers, propagate
        log.setLevel(level)
