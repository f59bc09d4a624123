"""What a user sees of a command: the log on stderr, and every failure as one line with an exit code."""

from __future__ import annotations

import errno
import logging
import sys
import traceback

from .errors import ExcotError


def talk_on_stderr(level: int = logging.INFO) -> None:
    """Progress lines and warnings go to stderr, so that stdout holds the summary alone."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    log = logging.getLogger("excot")
    log.handlers = [handler]
    log.setLevel(level)
    log.propagate = False


def fail(error: ExcotError, debug: bool = False, code: int = 1) -> int:
    """Print the error, with its traceback if asked, and give the exit code."""
    if debug:
        traceback.print_exception(error)
    print(f"excot: {error}", file=sys.stderr)
    return code


def explain(error: OSError) -> ExcotError:
    """An operating system's error that nobody has explained: say what and where, and what helps."""
    remedy = {
        errno.ENOSPC: "make room on the disk, then start the same command again; what is finished is kept",
        errno.EACCES: "check the permissions",
        errno.EMFILE: "raise the limit of open files (ulimit -n) or lower --concurrency",
    }.get(error.errno or 0, "see --debug for where")
    where = f" {error.filename}" if error.filename else ""
    return ExcotError(f"{error.strerror or error}{where}", remedy)


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        level = "" if record.levelno <= logging.INFO else f"{record.levelname.lower()}: "
        return level + record.getMessage()
