"""Reading SQL text as tokens, for the few questions that SQLite itself does not answer.

Nothing here parses or rewrites SQL in general: a statement is cut into strings, names, comments, words and the rest,
so that a rule about a *word* never looks into a string or a comment.
"""

from __future__ import annotations

import re

# An unterminated string, name or comment runs to the end of the text, as it does for SQLite.
_TOKEN = re.compile(
    r"""(?P<quoted> '(?:[^']|'')*(?:'|\Z) | "(?:[^"]|"")*(?:"|\Z) | `(?:[^`]|``)*(?:`|\Z) | \[[^\]]*(?:\]|\Z) )
      | (?P<comment> --[^\n]* | /\*.*?(?:\*/|\Z) )
      | (?P<word> [^\W\d]\w* )
      | (?P<other> \s+ | \d[\w.]* | . )""",
    re.VERBOSE | re.DOTALL,
)


def statement_key(sql: str) -> str:
    """The text under which equal statements are recognised: white space around it and one final ``;`` do not count."""
    sql = sql.strip()
    return sql[:-1].rstrip() if sql.endswith(";") else sql


def orders_its_result(sql: str) -> bool:
    """Whether the outermost query has ORDER BY; one in a subquery, a window or an aggregate does not count."""
    depth, previous = 0, ""
    for token in _TOKEN.finditer(sql):
        kind, text = token.lastgroup, token.group()
        if kind == "comment" or text.isspace():
            continue
        if kind == "word" and depth == 0 and previous == "order" and text.lower() == "by":
            return True
        depth += (text == "(") - (text == ")")
        previous = text.lower() if kind == "word" else ""
    return False


def without_distinct(sql: str) -> str:
    """The statement with the keyword DISTINCT removed everywhere, as Spider's test-suite evaluation runs it."""
    if "distinct" not in sql.lower():
        return sql
    return "".join(
        token.group()
        for token in _TOKEN.finditer(sql)
        if not (token.lastgroup == "word" and token.group().lower() == "distinct")
    )


_SELECT_DISTINCT = re.compile(r"select\s+distinct\b", re.IGNORECASE)


def loses_duplicates_only(sql: str) -> bool:
    """Whether DISTINCT, removed, leaves the result's set of rows as it is: certain only of one in the first SELECT.

    There, only LIMIT comes after it.
    """
    lowered = sql.lower()
    return bool(_SELECT_DISTINCT.match(sql)) and lowered.count("distinct") == 1 and "limit" not in lowered


def mentions_order_by(sql: str) -> bool:
    """Whether ``order by`` occurs anywhere in the text: Spider's official test for a result whose order matters."""
    return "order by" in sql.lower()
