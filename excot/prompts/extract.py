"""Find the SQL in a model's answer: the last complete fenced block that is marked sql."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Extraction:
    """What was found in one answer.

    Attributes:
        sql: the SQL without the white space around it, or ``None``. It is not parsed here: it may hold a mistake or a
            second statement, which execution reports.
        status: ``"ok"`` where there is SQL; ``"truncated"`` where the answer was cut off before its SQL was complete;
            ``"no_sql"`` where a finished answer holds none.
    """

    sql: str | None
    status: Literal["ok", "no_sql", "truncated"]


def extract_sql(text: str | None, finish_reason: str | None = None) -> Extraction:
    """Extract the answer's SQL: the last complete, non-empty fenced block marked ``sql`` or ``sqlite`` (any case).

    No other fence is ever the answer: pseudo SQL and unmarked fences are walked over. A text without any fence that
    begins like a query is itself the SQL, as in files of predictions. Takes linear time whatever the text.

    Args:
        text: the model's answer; ``None`` where the endpoint gave no content.
        finish_reason: ``"length"`` says that the answer was cut off; every other value, that it ended by itself.

    Returns:
        The SQL and a status. A cut-off answer is ``"truncated"`` when it holds no complete block, when an sql fence
        stands open at its end, and when it is bare SQL: there is no telling how the query would have gone on.
    """
    text = text or ""
    cut_off = finish_reason == "length"
    missing = Extraction(None, "truncated" if cut_off else "no_sql")

    if "```" not in text:
        return missing if cut_off or not _begins_like_a_query(text) else Extraction(text.strip(), "ok")

    sql, open_tag = _last_sql_block(text)
    # The cut may also have gone through the tag itself: "```", "```sq".
    if sql is None or (cut_off and open_tag is not None and "sqlite".startswith(open_tag)):
        return missing
    return Extraction(sql, "ok")


_SQL_TAGS = ("sql", "sqlite")

_FENCE = re.compile(
    r"(?P<indent>^[^\S\n]*)?"  # nothing but white space stands before it on its line
    r"(?P<ticks>`{3,})"
    r"(?P<gap>[^\S\n]*)"
    r"(?:(?P<tag>[A-Za-z][^\s`]*)|(?P<line_end>$))?",
    re.MULTILINE,
)


@dataclass(frozen=True)
class _OpenFence:
    size: int
    tag: str
    content: int  # where its content begins
    line: int  # where its line ends; tells whether the closing fence stands on the same line


def _last_sql_block(text: str) -> tuple[str | None, str | None]:
    """The last complete sql block that is not empty, and the tag of a fence left open at the end of the text.

    The open tag is "" for an unmarked fence at the very end of the text and ``None`` for any other open fence that is
    not marked sql. Models write fences more loosely than Markdown allows; therefore a fence may also open after other
    words of its line, close behind the last words of its block, and open and close on one line.
    """
    last: str | None = None
    current: _OpenFence | None = None
    line = -1
    for fence in _FENCE.finditer(text):
        if fence.start("ticks") > line:  # one search a line, however many fences stand on it
            line = text.find("\n", fence.start("ticks"))
            line = len(text) if line < 0 else line
        size = len(fence["ticks"])
        tag = (fence["tag"] or "").lower()
        if current is not None:
            if size < current.size:
                continue
            # A tag right behind the backticks opens a block: the one that was open has never been closed. Within a
            # line, only an sql tag is trusted to do so.
            at_line_start = fence["indent"] is not None
            if not tag or fence["gap"] or not (at_line_start or tag in _SQL_TAGS):
                if at_line_start or fence["line_end"] is not None or line == current.line:
                    if current.tag in _SQL_TAGS:
                        last = text[current.content : fence.start("ticks")].strip() or last
                    current = None
                continue
        current = _OpenFence(size, tag, fence.end(), line)

    if current is None:
        return last, None
    at_the_end = current.content == len(text)
    return last, current.tag if at_the_end or current.tag in _SQL_TAGS else None


_SKIPPED = re.compile(r"[\s(]+|--[^\n]*|/\*.*?(?:\*/|\Z)", re.DOTALL)
_QUERY = re.compile(r"(?:select|with|values)\b", re.IGNORECASE)


def _begins_like_a_query(text: str) -> bool:
    """Whether SELECT, WITH or VALUES comes first, after white space, SQL comments and opening parentheses."""
    position = 0
    # Token by token: a single pattern of nested repetitions would backtrack for ever on some texts.
    while skipped := _SKIPPED.match(text, position):
        position = skipped.end()
    return _QUERY.match(text, position) is not None
