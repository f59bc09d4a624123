"""Real statements, spoilt: what a model writes when it slips, and what it would never write."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random

_TOKEN = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\w+|\s+|.", re.DOTALL)
_STRANGE = "\0 \ud800 \udcff \ufeff \u200b \u202e \u00a0 \uffff \x1b \x7f é 漢 🦆 ’ “ ；".split(" ")
_NUMBERS = ["9" * 30, "-9223372036854775809", "1e999", "0x8000000000000000", "1" + "0" * 400, "-0", ".5.5", "1_000"]
_TRICKS = [";", "; ;", "; DROP TABLE x", "--", "/*", "*/", "'", '"', "`", "[", "?", ":a", "```", "\\", "#", "$$", "@@"]


class Mutations:
    """Makes statements out of others.

    Args:
        random: where all choices come from.
        statements: what it begins with; at least one.
    """

    def __init__(self, random: Random, statements: Sequence[str]):
        self._random, self._statements = random, statements

    def statement(self) -> str:
        text = self._any()
        for _ in range(self._random.choice((1, 1, 2, 3))):
            text = self._random.choice(_CHANGES)(self, text)
        return text

    def _any(self) -> str:
        return self._statements[self._random.randrange(len(self._statements))]

    def _tokens(self, text: str) -> list[str]:
        return _TOKEN.findall(text) or [" "]

    def _delete(self, text: str) -> str:
        tokens = self._tokens(text)
        del tokens[self._random.randrange(len(tokens))]
        return "".join(tokens)

    def _duplicate(self, text: str) -> str:
        tokens = self._tokens(text)
        place = self._random.randrange(len(tokens))
        return "".join([*tokens[:place], tokens[place], " ", *tokens[place:]])

    def _swap(self, text: str) -> str:
        tokens = self._tokens(text)
        first, second = (self._random.randrange(len(tokens)) for _ in range(2))
        tokens[first], tokens[second] = tokens[second], tokens[first]
        return "".join(tokens)

    def _splice(self, text: str) -> str:
        ours, theirs = self._tokens(text), self._tokens(self._any())
        return "".join(ours[: self._random.randrange(len(ours)) + 1] + theirs[self._random.randrange(len(theirs)) :])

    def _borrow(self, text: str) -> str:
        tokens, others = self._tokens(text), self._tokens(self._any())
        tokens[self._random.randrange(len(tokens))] = self._random.choice(others)
        return "".join(tokens)

    def _truncate(self, text: str) -> str:
        return text[: self._random.randrange(len(text) + 1)]

    def _insert(self, text: str) -> str:
        place = self._random.randrange(len(text) + 1)
        return text[:place] + self._random.choice(_STRANGE + _TRICKS) + text[place:]

    def _repeat(self, text: str) -> str:
        begin, end = sorted(self._random.randrange(len(text) + 1) for _ in range(2))
        return (
            text[:end]
            + text[begin:end] * min(self._random.choice((2, 10, 300)), 50_000 // (end - begin + 1))
            + text[end:]
        )

    def _enlarge(self, text: str) -> str:
        return re.sub(r"\b\d+\b", lambda _: self._random.choice(_NUMBERS), text)

    def _combine(self, text: str) -> str:
        other = self._any().rstrip("; ")
        joint = self._random.choice((" UNION ", " UNION ALL ", " EXCEPT ", "; ", ";", " -- ", " JOIN ", ", ", " AND "))
        return text.rstrip("; ") + joint + other

    def _wrap(self, text: str) -> str:
        form = self._random.choice(
            (
                "SELECT * FROM ({}) a, ({}) b, ({}) c",
                "SELECT ({})",
                "WITH x AS ({}) SELECT * FROM x, x AS y",
                "EXPLAIN {}",
                "SELECT count(*) FROM ({}) WHERE 1 IN ({})",
                "CREATE TABLE x AS {}",
                "({})",
                "{} LIMIT -1 OFFSET 9223372036854775807",
            )
        )
        return form.replace("{}", text.rstrip("; "))


_CHANGES: list[Callable[[Mutations, str], str]] = [
    Mutations._delete,
    Mutations._duplicate,
    Mutations._swap,
    Mutations._splice,
    Mutations._borrow,
    Mutations._borrow,
    Mutations._truncate,
    Mutations._insert,
    Mutations._repeat,
    Mutations._enlarge,
    Mutations._combine,
    Mutations._wrap,
]
