"""Which statements may come out otherwise at any time on the same file: those that ask for the clock or for chance."""

from __future__ import annotations

import re
from collections.abc import Collection

CHANCE = {"random", "randomblob"}
CLOCK = {"current_date", "current_time", "current_timestamp"}
DATES = {"date", "time", "datetime", "julianday", "unixepoch", "strftime", "timediff"}

VOLATILE_FUNCTIONS = CHANCE | CLOCK | DATES
"""Functions after whose mention, which SQLite reports, a statement must be looked at."""

# A date function asks for the clock where it is told to, or is told no time at all.
_ASKS_FOR_THE_CLOCK = re.compile(
    r"""\b(?:now|subsec|subsecond)\b
      | \b(?:date|time|datetime|julianday|unixepoch)\s*\(\s*\)
      | \bstrftime\s*\(\s*[^,()]*\)""",
    re.VERBOSE | re.IGNORECASE,
)


def is_volatile(functions: Collection[str], sql: str) -> bool:
    """Whether a statement asks for the clock or for chance; of what is unclear, yes.

    This is asked of every statement, and must cost nothing; `stability.causes` finds out.

    Args:
        functions: those of `VOLATILE_FUNCTIONS` that it calls, by itself or through a view.
        sql: its text.
    """
    if any(function not in DATES for function in functions):
        return True
    text = sql.lower()
    # What is not in the text is in a view, whose text is not at hand.
    return _ASKS_FOR_THE_CLOCK.search(sql) is not None or any(function not in text for function in functions)
