"""SQL text from syntax trees, and when a rendering may stand in for the text it came from.

sqlglot is not a faithful printer: it rewrites casts, functions and missing join conditions. A re-rendered gold is
therefore used only where it has the very tokens of the original, so that SQLite reads both alike.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher

from sqlglot import ErrorLevel, exp
from sqlglot.dialects.dialect import rename_func
from sqlglot.dialects.sqlite import SQLite

_TOKEN = re.compile(
    r"""'(?:[^']|'')*'|"(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\]]*\]"""  # strings and quoted names
    r"""|\d+(?:\.\d*)?(?:[eE][+-]?\d+)?|\.\d+|\w+"""  # numbers and words
    r"""|--|/\*|<>|!=|<=|>=|==|\|\||->>|->|<<|>>|\S"""
)
_SAME_OPERATOR = {"!=": "<>", "==": "="}
_COMMENTS = {"--", "/*"}


class _Writer(SQLite.Generator):
    """sqlglot's SQLite text, with negations where people put them: ``a NOT IN (...)``, ``a IS NOT NULL``."""

    TRANSFORMS = {**SQLite.Generator.TRANSFORMS, exp.Substring: rename_func("SUBSTR")}

    def not_sql(self, expression: exp.Not) -> str:
        inner = expression.this
        if not isinstance(inner, (exp.In, exp.Is, exp.Between)):
            return super().not_sql(expression)
        text, left = self.sql(inner), self.sql(inner, "this")
        if isinstance(inner, exp.Is):
            return f"{left} IS NOT{text[len(left) + len(' IS') :]}"
        return f"{left} NOT{text[len(left) :]}"


_WRITERS = {
    pretty: _Writer(dialect="sqlite", pretty=pretty, unsupported_level=ErrorLevel.IGNORE) for pretty in (False, True)
}


def render(node: exp.Expression, pretty: bool = False) -> str:
    """The SQLite text of a tree or of a part of one, on one line unless ``pretty``. May tidy the tree in place."""
    return _WRITERS[pretty].generate(node, copy=False)


def in_backticks(sql: str, original: str) -> str:
    """Put the quoted names of ``sql`` in backticks (sqlglot writes double quotes), as the prompts ask for.

    Nothing is done where the original has double quotes: they may be strings.
    """
    if '"' in original or '"' not in sql:
        return sql
    return _TOKEN.sub(lambda token: _backticked(token.group()), sql)


def same_tokens(one: str, other: str) -> bool:
    """Whether two statements differ only in spacing, in the case of bare words and in how names are quoted.

    SQLite cannot tell such statements apart. ``"France"`` stays apart from ``'France'``, and so do a word and the
    same word in quotes: SQLite may take a double-quoted name for a string, a bare one never. (A name in backticks
    that resolves at all resolves to the same column in double quotes.) Statements with comments are never the same.
    """
    tokens = _canonical(one)
    return not _COMMENTS & set(tokens) and tokens == _canonical(other)


def as_written(original: str, edited: str) -> str:
    """Write ``edited`` in the hand of ``original``: wherever their tokens agree, the original's spelling and spacing.

    Wrong answers are edits of a tree, right ones often the gold's own text. Were the two told apart by their spelling
    (``count(*)`` or ``COUNT(*)``), preference training would learn the spelling.
    """
    ours, theirs = _spelled(original), _spelled(edited)
    small = original.lstrip()[:6] == "select"
    matcher = SequenceMatcher(None, _canonical(original), _canonical(edited), autojunk=False)
    pieces: list[str] = []
    for tag, i1, i2, j1, j2 in matcher.get_opcodes():
        if tag == "equal":
            pieces += [space + token for space, token in ours[i1:i2]]
        else:
            pieces += [space + (_lowered(token) if small else token) for space, token in theirs[j1:j2]]
    return "".join(pieces).strip()


def _lowered(token: str) -> str:
    """Keywords and functions in small letters; names with a small letter or a digit are left as they are."""
    return token.lower() if len(token) > 1 and token.isalpha() and token.isupper() else token


def _backticked(token: str) -> str:
    if token[0] != '"' or len(token) < 2:
        return token
    return "`" + token[1:-1].replace('""', '"').replace("`", "``") + "`"


def _canonical(sql: str) -> list[str]:
    return [_canonical_token(token) for token in _TOKEN.findall(sql.rstrip().rstrip(";"))]


def _canonical_token(token: str) -> str:
    if token[0] == "`" and len(token) > 1:
        return '"' + token[1:-1].replace("``", "`").replace('"', '""') + '"'
    if token[0] == "[" and len(token) > 1:
        return '"' + token[1:-1].replace('"', '""') + '"'
    if token[0] in "'\"":
        return token
    return _SAME_OPERATOR.get(token, token.upper())


def _spelled(sql: str) -> list[tuple[str, str]]:
    """Every token with the white space before it."""
    text, end, out = sql.rstrip().rstrip(";"), 0, []
    for match in _TOKEN.finditer(text):
        out.append((text[end : match.start()], match.group()))
        end = match.end()
    return out
