"""The one exception that users are meant to see: what failed, the value seen, and what to do about it."""


class ExcotError(Exception):
    """A failure that the user can mend. ``str(error)`` is always a single line.

    Args:
        problem: what failed, with the value that was seen.
        remedy: what to do about it, as an instruction; may be empty when the problem says it all.
    """

    def __init__(self, problem: str, remedy: str = ""):
        self.problem = " ".join(problem.split())
        self.remedy = " ".join(remedy.split())
        super().__init__(f"{self.problem}: {self.remedy}" if self.remedy else self.problem)

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        """From one process to another both parts stay what they are."""
        return type(self), (self.problem, self.remedy)


class UsageError(ExcotError):
    """What the user asked for is wrong in itself, whatever the state of data and disk; the exit code is 2."""


def import_error(package: str, extra: str) -> ExcotError:
    """The error for an optional library that is not installed, with the exact line that installs it."""
    return ExcotError(f"{package} is not installed", f"pip install 'excot[{extra}]'")


def named(names: list[str], most: int = 8) -> str:
    """A list for a message, the tail cut off."""
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")


def first_line(error: BaseException) -> str:
    """The first line of a library's message, cut to a length that a terminal can show."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300].rstrip(". ")
