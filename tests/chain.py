"""A small benchmark on disk, and short ways through the chain, for tests of the stages."""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from servers import ChatServer, Request

from excot.builders.generations import generate
from excot.builders.questions import make_questions
from excot.builders.verified import verify
from excot.config import GenerateConfig, QuestionsConfig, VerifyConfig
from excot.run import Run

SHOP = """
    CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, kind TEXT);
    INSERT INTO item VALUES (1, 'lamp', 20.0, 'home'), (2, 'desk', 90.0, 'home'), (3, 'pen', 1.5, 'office'),
                            (4, 'cup', 4.0, 'home'), (5, 'fan', 20.0, 'office');
"""
ZOO = """
    CREATE TABLE animal (id INTEGER PRIMARY KEY, name TEXT, weight INTEGER);
    INSERT INTO animal VALUES (1, 'emu', 40), (2, 'yak', 400), (3, 'owl', 2), (4, 'bat', 1);
"""
_GOLDS = (
    ("shop", "SELECT name FROM item WHERE price > {}"),
    ("zoo", "SELECT count(*) FROM animal WHERE weight > {}"),
    ("shop", "SELECT kind, price FROM item WHERE id <> {} ORDER BY price"),
)

Answer = str | None | tuple[str | None, str | None]
"""An answer's text, or its text and finish reason."""


def make_data(folder: Path, count: int = 12) -> Path:
    """A benchmark in `Folder`'s layout: two databases, and ``count`` questions whose golds all return rows."""
    make_databases(folder / "database")
    rows = []
    for k in range(count):
        db_id, gold = _GOLDS[k % 3]
        rows.append({"question": f"What about number {k:03d}?", "db_id": db_id, "gold_sql": gold.format(k)})
    write_questions(folder, rows)
    return folder


def make_databases(folder: Path) -> Path:
    for name, script in (("shop", SHOP), ("zoo", ZOO)):
        make_database(folder / name / f"{name}.sqlite", script)
    return folder


def make_database(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(script)
    return path


def write_questions(folder: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def make_run(folder: Path, count: int = 12) -> str:
    """A run folder with the questions of `make_data`, which lies beside it."""
    return read_data(make_data(folder / "data", count), folder / "run")


def read_data(data: Path, out: Path, **options: Any) -> str:
    make_questions(QuestionsConfig(benchmark="folder", data=str(data), out=str(out), **options))
    return str(out)


def rows_of(out: str | Path, stage: str) -> list[dict[str, Any]]:
    return list(Run(out).read(stage))


def cot(sql: str, thought: str = "Let me think.") -> str:
    """An answer as a model writes it."""
    return f"{thought}\n```sql\n{sql}\n```"


def replay(out: str, answers: Mapping[int, list[Answer]], **options: Any) -> None:
    """Put these answers, by the question's place, into the run as its generations, with their finish reasons."""
    file = Path(out).parent / "answers.jsonl"
    lines = []
    for place, texts in answers.items():
        for answer in texts:
            text, reason = answer if isinstance(answer, tuple) else (answer, "stop")
            body = {"model": "by-hand", "choices": [{"message": {"content": text}, "finish_reason": reason}]}
            lines.append({"custom_id": f"q-{place}", "error": None, "response": {"status_code": 200, "body": body}})
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    generate(GenerateConfig(out=out, backend="replay", replay_from=str(file), **options))


def judge(out: str, **options: Any) -> list[dict[str, Any]]:
    """Verify, and give the verified rows."""
    verify(VerifyConfig(out=out, **{"processes": 1, **options}))
    return rows_of(out, "verified")


def ask(out: str, server: ChatServer, **options: Any) -> str:
    """Generate with the model behind a test's server."""
    return generate(GenerateConfig(out=out, base_url=server.url, **{"model": "tiny", "n": 3, **options}))


def place(request: Request) -> int:
    """Which question a request asks."""
    return int(re.findall(r"number (\d+)\?", request.json["messages"][-1]["content"])[-1])


def answers(row: dict[str, Any]) -> list[str]:
    """The texts of a row's candidates."""
    return [candidate["text"] for candidate in row["candidates"]]


def finished(out: str) -> set[int]:
    """The places of the questions that the journal of the generations holds."""
    lines = (Path(out) / ".excot" / "generations.jsonl").read_bytes().split(b"\n")[1:-1]
    return {int(json.loads(line)["id"][-4:]) for line in lines}
