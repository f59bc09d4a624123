"""End with the process that started this one, even where that is killed and can say nothing.

The loop starts its steps with a pipe for their standard input, into which it never writes. The pipe ends when the
loop does, whatever ended it. Launchers hand their standard input down, so that the processes which train see it too.
"""

from __future__ import annotations

import fcntl
import os
import select
import signal
import threading
import time
from pathlib import Path
from typing import IO

from .errors import ExcotError

VARIABLE = "EXCOT_ENDS_WITH_STDIN"
"""Set by the loop: its own process group, and the file by which it knows whether a step of an earlier start lives."""

_held: list[IO[str]] = []  # open until this process ends, and with it the lock on it


def end_with_parent() -> None:
    """Where the loop has started this process: end, with all that it has started, as soon as the loop has ended."""
    group, _, path = os.environ.get(VARIABLE, "").partition(":")
    if not path or _held:
        return
    try:
        _held.append(open(path))
        fcntl.flock(_held[0], fcntl.LOCK_SH)
    except OSError:
        pass  # the folder is gone: then so is the loop, which the pipe tells
    if select.select([0], [], [], 0)[0]:  # it has ended already: not a single step shall be made
        _end(int(group))
    threading.Thread(target=_wait, args=(int(group),), name="excot-parent", daemon=True).start()


def wait_for_orphans(path: Path, patience: float = 30.0) -> None:
    """Wait until no process is left that an earlier start of the loop has started.

    Args:
        path: the file whose name they were given.
        patience: seconds.

    Raises:
        ExcotError: one of them is still there.
    """
    with open(path, "w") as file:
        end = time.monotonic() + patience
        while True:
            try:
                return fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > end:
                    raise ExcotError(
                        f"a step of an earlier start is still at work ({path} is locked)", "wait for it, or end it"
                    ) from None
                time.sleep(0.05)


def environment(path: Path) -> dict[str, str]:
    """What a process that shall end with this one finds in its environment.

    Args:
        path: a file that it locks as long as it lives, for `wait_for_orphans`.
    """
    return {VARIABLE: f"{os.getpgrp()}:{path.absolute()}"}


def _wait(group: int) -> None:
    try:
        while os.read(0, 4096):
            pass
    except OSError:
        pass
    _end(group)


def _end(group: int) -> None:
    own = os.getpgrp()
    if own != group:  # ours alone, with the engines and workers that this process has started
        os.killpg(own, signal.SIGKILL)
    os._exit(1)
