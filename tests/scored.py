"""Answers to the small benchmark of `chain`, scored through the command, for tests of scoring."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from chain import rows_of
from command import done, excot

GOLDS = ["SELECT name FROM item WHERE price > 0", "SELECT count(*) FROM animal WHERE weight > 1"]
GOLDS += ["SELECT kind, price FROM item WHERE id <> 2 ORDER BY price", "SELECT name FROM item WHERE price > 3"]
SQL = [
    GOLDS[0],
    "SELECT 3 -- bird",
    "SELECT price, kind FROM item WHERE id <> 2 ORDER BY price",
    "SELECT nome FROM item",
]
"""Answers to the four questions of the small benchmark: right, right, right by test_suite only, an error."""


def lines(answers: list[str | None]) -> str:
    return "".join(f"{sql or ''}\n" for sql in answers)


def jsonl(answers: list[str | None], name: str = "sql") -> str:
    return "".join(json.dumps({"question_id": k, name: sql}) + "\n\n" for k, sql in enumerate(answers))


def file_of(run: str, text: str, name: str = "mine.txt") -> Path:
    path = Path(run).parent / name
    path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return path


def score(run: str, *options: object) -> str:
    return done("score", "--out", run, "--processes", 1, *options)


def refused(run: str, *options: object, code: int = 1) -> str:
    found = excot("score", "--out", run, "--processes", 1, *options)
    assert (found.code, found.out) == (code, "")
    return found.error()


def details(run: str, system: str | None = None) -> list[dict[str, Any]]:
    return [row for row in rows_of(run, "details") if system in (None, row["system"])]


def rights(run: str, system: str | None = None) -> list[float]:
    return [row["right"] for row in details(run, system)]
