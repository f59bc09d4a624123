"""Mistakes in SQL that cannot be parsed: edits of its text."""

from __future__ import annotations

import re
from random import Random

_EDITS = (
    ("turned a comparison around", r"(?<![<>=])>(?!=)", "<"),
    ("turned a comparison around", r"(?<![<>])<(?![=>])", ">"),
    ("wrong order direction", r"(?i)\bDESC\b", "ASC"),
    ("wrong order direction", r"(?i)\bASC\b", "DESC"),
    ("AND and OR confused", r"(?i)\bAND\b", "OR"),
    ("wrong aggregate", r"(?i)\bMAX(?=\s*\()", "MIN"),
    ("wrong aggregate", r"(?i)\bMIN(?=\s*\()", "MAX"),
    ("wrong aggregate", r"(?i)\bAVG(?=\s*\()", "SUM"),
    ("dropped a condition", r"(?i)\s+WHERE\b.*?(?=\bGROUP\b|\bORDER\b|\bLIMIT\b|\)|;|$)", " "),
    ("wrong limit", r"(?i)\s+LIMIT\s+\d+", ""),
    ("missing DISTINCT", r"(?i)\bDISTINCT\s+", ""),
)


def make_text_mistake(sql: str, rng: Random) -> tuple[str, str]:
    """A wrong version of ``sql`` and what was done to it. The last resort is to ask for the first row only."""
    edits = [(kind, re.sub(pattern, new, sql, count=1).strip()) for kind, pattern, new in _EDITS]
    edits = [(kind, edited) for kind, edited in edits if edited and edited != sql.strip()]
    if not edits:
        return f"{sql.rstrip().rstrip(';')}\nLIMIT 1", "wrong limit"  # a line of its own: a comment may end the last
    kind, edited = rng.choice(edits)
    return edited, kind
