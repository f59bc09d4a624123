"""The teacher's answers: deterministic, well formed, right where they are meant to be, wrong where they are not."""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import sqlite3
import subprocess
import sys
from pathlib import Path
from random import Random
from typing import Any

import pytest
import sqlglot
from hypothesis import given, settings
from hypothesis import strategies as st

from excot.llm.base import BackendError, FatalBackendError, Sampling
from excot.llm.teacher import Teacher, answer
from excot.llm.teacher.mistakes import MISTAKES, apply, make_mistake
from excot.llm.teacher.rendering import render, same_tokens
from excot.llm.teacher.schema import read_schema
from excot.prompts.extract import extract_sql

SCHEMA = """Table singer
  singer_id (INTEGER), primary key, e.g. 1, 2, 3
  name (TEXT), e.g. 'Joe Sharp', 'Rose White'
  country (VARCHAR(20)), e.g. 'France', 'Japan', 'It''s'
  age (INTEGER), e.g. 25, 31
  `Net Worth (US$)` (REAL), e.g. 1.5, 20.25
  agency_id (INTEGER), references agency.agency_id, e.g. 1, 2

Table agency
  agency_id (INTEGER), primary key, e.g. 1, 2
  name (TEXT), e.g. 'North', 'South'
  city (TEXT), e.g. 'Oslo', 'Rome'

Table concert
  concert_id (INTEGER), primary key, e.g. 1, 2, 3
  singer_id (INTEGER), references singer.singer_id, e.g. 1, 2, 3
  year (INTEGER), e.g. 2014, 2015
  place (TEXT), e.g. 'Oslo', 'Kyoto'
"""

GOLDS = [
    "SELECT count(*) FROM singer",
    "SELECT name ,  country FROM singer WHERE age  >  30 AND country = 'France' ORDER BY age DESC",
    'select name, age from singer where country = "France" or country != "Japan"',
    "SELECT avg(age), min(age), max(age) FROM singer WHERE country  =  'Japan';",
    "SELECT country, count(*) FROM singer GROUP BY country HAVING count(*) >= 3",
    "SELECT T2.name, count(*) FROM singer AS T1 JOIN agency AS T2 ON T1.agency_id = T2.agency_id GROUP BY T2.name",
    "SELECT DISTINCT T1.name FROM singer AS T1 JOIN concert AS T2 ON T1.singer_id = T2.singer_id"
    " WHERE T2.year >= 2015",
    "SELECT T1.name FROM singer AS T1 JOIN concert AS T2 ON T1.singer_id = T2.singer_id GROUP BY T1.singer_id"
    " ORDER BY count(*) DESC, T1.name LIMIT 1",
    "SELECT name FROM singer WHERE singer_id NOT IN (SELECT singer_id FROM concert WHERE year = 2014)",
    "SELECT name FROM singer WHERE age > (SELECT avg(age) FROM singer) AND name NOT LIKE 'J%'",
    "SELECT country FROM singer WHERE age > 40 INTERSECT SELECT country FROM singer WHERE age < 30",
    "SELECT place FROM concert UNION SELECT city FROM agency EXCEPT SELECT city FROM agency WHERE name = 'North'",
    "SELECT count(DISTINCT place), sum(year) FROM concert WHERE year BETWEEN 2013 AND 2015",
    "SELECT name FROM singer ORDER BY age ASC LIMIT 3",
    "SELECT `Net Worth (US$)` * 2, name FROM singer WHERE `Net Worth (US$)` IS NOT NULL ORDER BY name LIMIT 4",
    "WITH busy AS (SELECT singer_id, count(*) AS n FROM concert GROUP BY singer_id)"
    " SELECT T1.name FROM singer AS T1 JOIN busy AS T2 ON T1.singer_id = T2.singer_id WHERE T2.n > 4",
    "SELECT T.place, T.n FROM (SELECT place, count(*) AS n FROM concert GROUP BY place) AS T"
    " ORDER BY T.n DESC LIMIT 2",
    "SELECT T2.city FROM concert AS T3 JOIN singer AS T1 ON T3.singer_id = T1.singer_id"
    " JOIN agency AS T2 ON T1.agency_id = T2.agency_id WHERE T3.year = 2014 AND T1.age < 50",
    "SELECT count(*) FROM singer AS T1 JOIN concert AS T2 ON T1.singer_id = T2.singer_id",
    "SELECT country, agency_id, avg(age) FROM singer GROUP BY country, agency_id",
]

TRAPS = [
    'SELECT name "who" FROM singer WHERE country = "France"',
    "SELECT name 'who', [Net Worth (US$)] FROM singer LIMIT 2, 3",
    "SELECT CAST(age AS DATE), CAST(age AS FLOAT) / 2, age / 2, CAST(name AS INT) FROM singer",
    "SELECT IIF(age > 30, 'old', 'young'), SUBSTR(name, 2, 3), ifnull(country, 'x'), length(name) FROM singer",
    "SELECT strftime('%Y', '2014-02-01'), date('2014-02-01', '+1 day'), strftime(\"%m\", '2014-02-01')",
    "SELECT name FROM singer WHERE NOT singer_id IN (1, 2) AND age == 25 AND country <> 'Japan'",
    "SELECT T1.name FROM singer T1 LEFT JOIN concert T2 WHERE T1.age > 30 -- a comment; and more",
    "SELECT 1.50, .5, 0x1F, 1e3, 'it''s'",
]
BROKEN = [
    "SELECT name FROM WHERE ((",
    "SELEC name FORM singer",
    "EXPLAIN what > this DESC LIMIT 3",
    "'unclosed",
    "DROP TABLE t",
]


def row(gold: str, schema: str = SCHEMA, id: str = "toy-0001", **more: Any) -> dict[str, Any]:
    return {"id": id, "db_id": "toy", "question": "Which ones are they?", "gold_sql": gold, "schema": schema, **more}


def steps(text: str) -> list[str]:
    """The SQL of the second part, before the final query."""
    return re.findall(r"```pseudo\n(.*?)\n```", text.split("## Assembling SQL")[1], re.DOTALL)


def rows_of(connection: sqlite3.Connection, sql: str) -> set[tuple[Any, ...]] | None:
    try:
        return set(connection.execute(sql).fetchall())
    except sqlite3.Error:
        return None


@pytest.fixture(scope="module")
def toy() -> sqlite3.Connection:
    rng = Random(0)
    connection = sqlite3.connect(":memory:")
    connection.executescript(
        "CREATE TABLE agency (agency_id INTEGER PRIMARY KEY, name TEXT, city TEXT);"
        "CREATE TABLE singer (singer_id INTEGER PRIMARY KEY, name TEXT, country VARCHAR(20), age INTEGER,"
        ' "Net Worth (US$)" REAL, agency_id INTEGER REFERENCES agency);'
        "CREATE TABLE concert (concert_id INTEGER PRIMARY KEY, singer_id INTEGER, year INTEGER, place TEXT);"
    )
    agencies = [(1, "North", "Oslo"), (2, "South", "Rome"), (3, "East", "Kyoto")]
    connection.executemany("INSERT INTO agency VALUES (?, ?, ?)", agencies)
    for n in range(1, 31):
        name = rng.choice(("Joe", "Rose", "Jun", "Ann")) + f" {n}"
        country = rng.choice(("France", "Japan", "Norway", "Chile"))
        singer = (n, name, country, rng.randint(19, 60), rng.randint(1, 90) / 4, rng.randint(1, 3))
        connection.execute("INSERT INTO singer VALUES (?, ?, ?, ?, ?, ?)", singer)
    for n in range(1, 81):
        concert = (n, rng.randint(1, 25), rng.randint(2012, 2016), rng.choice(("Oslo", "Kyoto", "Rome", "Lima")))
        connection.execute("INSERT INTO concert VALUES (?, ?, ?, ?)", concert)
    return connection


def test_a_candidate_depends_on_seed_question_and_place_alone():
    teacher = Teacher(0.5)
    rows = [row(gold, id=f"toy-{n}") for n, gold in enumerate(GOLDS)]
    forwards = [teacher.plan(question, 4, seed=3) for question in rows]
    backwards = [Teacher(0.5).plan(question, 2, seed=3) for question in reversed(rows)]
    assert [answers[:2] for answers in forwards] == backwards[::-1]
    assert teacher.plan(rows[1], 4, seed=4) != forwards[1]
    assert teacher.plan({**rows[1], "id": "toy-other"}, 4, seed=3) != forwards[1]


def test_answers_are_the_same_in_another_process():
    code = (
        "import json, sys; from excot.llm.teacher import Teacher; question = json.load(sys.stdin);"
        "print(json.dumps([a.text for a in Teacher(0.5).plan(question, 6, 1)]))"
    )
    question = row(GOLDS[16])
    for seed in ("1", "2"):
        out = subprocess.run(
            [sys.executable, "-c", code],
            input=json.dumps(question),
            env={**os.environ, "PYTHONHASHSEED": seed},
            cwd=Path(__file__).parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        assert json.loads(out.stdout) == [a.text for a in Teacher(0.5).plan(question, 6, 1)]


def test_complete_gives_the_planned_texts_and_counts_nothing():
    teacher, question = Teacher(0.5), row(GOLDS[1])
    completion = asyncio.run(teacher.complete([], 5, Sampling(seed=9), question))
    assert [candidate.text for candidate in completion.candidates] == [a.text for a in teacher.plan(question, 5, 9)]
    assert {(c.finish_reason, c.completion_tokens) for c in completion.candidates} == {("stop", None)}
    assert completion.prompt_tokens is None and "gold" in completion.model
    asyncio.run(teacher.close())


def test_the_final_query_is_the_only_sql_block():
    for gold in GOLDS + TRAPS + BROKEN:
        for made in Teacher(0.5).plan(row(gold), 6, seed=1):
            marks = re.findall(r"^```(\w+)$", made.text, re.MULTILINE)
            assert marks[-1] == "sql" and set(marks[:-1]) == {"pseudo"}
            assert extract_sql(made.text).sql == made.sql
            assert made.text.index("## Divide and Conquer") < made.text.index("## Assembling SQL")


@given(question=st.text(), evidence=st.none() | st.text(), gold=st.sampled_from(GOLDS + BROKEN), seed=st.integers())
@settings(max_examples=60)
def test_no_question_can_hide_the_answer(question: str, evidence: str | None, gold: str, seed: int):
    tricky = question + " ```sql\nSELECT 9\n``` {what}"
    made = answer(row(gold, question=tricky, evidence=evidence), Random(seed), wrong=seed % 2 == 0)
    assert extract_sql(made.text).sql == made.sql and made.text.count("```sql") == 1


def test_the_error_rate_is_the_share_of_wrong_answers():
    assert all(made.mistake is None for gold in GOLDS for made in Teacher(0).plan(row(gold), 4, 1))
    wrong = [(gold, made) for gold in GOLDS + BROKEN for made in Teacher(1).plan(row(gold), 4, 1)]
    assert all(made.mistake and not same_tokens(made.sql, gold) for gold, made in wrong)
    planned = Teacher(0.3).plan(row(GOLDS[0]), 1000, 1)
    assert 0.25 < sum(made.mistake is not None for made in planned) / 1000 < 0.35


@pytest.mark.parametrize("rate", [-0.1, 1.01, float("nan")])
def test_an_error_rate_that_is_no_probability_is_refused(rate: float):
    with pytest.raises(FatalBackendError, match="probability"):
        Teacher(rate)


@pytest.mark.parametrize("gold", [None, "", " ;\n"])
def test_a_question_without_gold_fails_alone(gold: str | None):
    with pytest.raises(BackendError, match="toy-0001"):
        Teacher().plan(row(gold), 1, 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.kind)
def test_every_mistake_finds_a_place_and_changes_the_query(mistake):
    schema, made = read_schema(SCHEMA), 0
    for gold in GOLDS:
        tree = sqlglot.parse_one(gold, read="sqlite")
        before = tree.copy()
        for seed in range(4):
            wrong = apply(mistake, tree, schema, Random(seed))
            if wrong is not None:
                assert sqlglot.parse_one(render(wrong), read="sqlite") != before
                made += 1
        assert tree == before, "the gold's tree was edited"
    assert made > 0


def test_every_mistake_is_made_sooner_or_later():
    schema, kinds = read_schema(SCHEMA), set()
    for gold in GOLDS:
        tree = sqlglot.parse_one(gold, read="sqlite")
        for seed in range(80):
            kinds |= set(make_mistake(tree, schema, Random(seed))[1].split("; "))
    assert kinds == {mistake.kind for mistake in MISTAKES}


@pytest.mark.parametrize("kind", ["wrong column in a condition", "dropped a join", "wrong table", "wrong join key"])
def test_mistakes_about_names_take_names_that_are_there(kind: str, toy: sqlite3.Connection):
    mistake, schema = next(mistake for mistake in MISTAKES if mistake.kind == kind), read_schema(SCHEMA)
    for gold in GOLDS:
        for seed in range(10):
            if wrong := apply(mistake, sqlglot.parse_one(gold, read="sqlite"), schema, Random(seed)):
                assert ('"France"' in gold) == ('"France"' in render(wrong)), "a string was taken for a column"
                toy.execute(render(wrong))


def test_right_answers_match_and_wrong_ones_seldom_do(toy: sqlite3.Connection):
    wrong, failed, missed = 0, 0, 0
    for n, gold in enumerate(GOLDS):
        expected = rows_of(toy, gold)
        assert expected, gold
        for made in Teacher(0.5).plan(row(gold, id=f"toy-{n}"), 40, seed=5):
            rows = rows_of(toy, made.sql)
            if made.mistake is None:
                assert rows == expected, made.sql
            else:
                wrong += 1
                failed += rows is None
                missed += rows == expected
    assert missed / wrong <= 0.2
    assert 0 < failed / wrong < 0.25, "most wrong queries run, some do not"


@pytest.mark.parametrize("gold", TRAPS)
def test_sql_that_cannot_be_printed_faithfully_is_given_as_it_stands(gold: str, toy: sqlite3.Connection):
    expected = rows_of(toy, gold)
    assert expected is not None
    for seed in range(20):
        made = answer(row(gold), Random(seed), wrong=False)
        assert rows_of(toy, made.sql) == expected
        assert same_tokens(made.sql, gold) or made.sql == gold


def test_every_step_of_the_reasoning_runs(toy: sqlite3.Connection):
    for gold in GOLDS:
        for seed in range(3):
            for sql in steps(answer(row(gold), Random(seed), wrong=False).text):
                if "busy AS T2" not in sql:  # this one needs the WITH clause of the step before
                    toy.execute(sql)


def test_the_reasoning_of_a_wrong_answer_leads_to_its_query():
    gold = "SELECT name FROM singer WHERE country = 'France'"
    seen = 0
    for seed in range(200):
        made = answer(row(gold), Random(seed), wrong=True)
        if made.mistake == "changed a value":
            seen += 1
            value = re.search(r"'([^']*)'", made.sql)[0]
            assert "'France'" not in re.sub(r"holds values such as .*", "", made.text)
            assert value in steps(made.text)[0] and made.text.count(value) >= 4
        if made.mistake == "dropped a condition":
            seen += 1
            assert "WHERE" not in made.text and "country" not in made.text
    assert seen > 10


def test_a_correlated_query_is_said_to_depend_on_the_outer_one():
    gold = "SELECT name FROM singer AS a WHERE EXISTS (SELECT 1 FROM concert AS b WHERE b.singer_id = a.singer_id)"
    text = answer(row(gold), Random(0), wrong=False).text
    assert "`a.singer_id`" in text and "**Sub-question 1.1:**" in text and "EXISTS<1.1>" in text


def test_nested_questions_are_numbered_and_assembled_bottom_up():
    text = answer(row(GOLDS[8]), Random(0), wrong=False).text
    divide, assemble = text.split("## Assembling SQL")
    assert divide.index("question 1:**") < divide.index("question 1.1:**")
    assert assemble.index("question 1.1**") < assemble.index("question 1**")
    assert "singer_id NOT IN <1.1>" in divide


def test_answers_to_one_question_differ_in_wording_and_length():
    made = [answer(row(GOLDS[6]), Random(seed), wrong=False).text for seed in range(40)]
    assert len(set(made)) == 40
    lengths = [len(text.split()) for text in made]
    assert max(lengths) > 1.15 * min(lengths)
    assert max(len(answer(row(GOLDS[0]), Random(s), False).text.split()) for s in range(20)) < min(lengths)


@pytest.mark.parametrize("schema", ["", None, "CREATE TABLE singer (\n  name TEXT\n)", "Table\n  ((\n`"])
@pytest.mark.parametrize("gold", GOLDS + TRAPS + BROKEN + ["SELECT * FROM singer", "VALUES (1)", "(SELECT 1)"])
def test_no_gold_and_no_schema_makes_it_stumble(gold: str, schema: str | None):
    for made in Teacher(0.7).plan(row(gold, schema=schema, question=None), 5, seed=2):
        assert extract_sql(made.text).sql == made.sql
        the_gold = made.sql == gold or same_tokens(made.sql, gold)
        assert the_gold is (made.mistake is None)


def test_very_deep_sql_gets_an_answer():
    deep = "SELECT " + "(" * 3000 + "1" + ")" * 3000
    wide = "SELECT name FROM singer WHERE " + " OR ".join(f"age = {n}" for n in range(1500))
    for gold in (deep, wide):
        assert answer(row(gold), Random(0), wrong=False).sql == gold
        assert answer(row(gold), Random(0), wrong=True).sql != gold


def test_on_spider_the_right_match_and_the_wrong_mostly_do_not(shared_data: Path):
    spider = shared_data / "spider"
    questions = json.loads((spider / "dev.json").read_text("utf-8"))
    present = [(n, q) for n, q in enumerate(questions) if _database(spider, q["db_id"]).exists()]
    wrong = matched = 0
    for n, question in random.Random(0).sample(present, 100):
        path = _database(spider, question["db_id"])
        connection = sqlite3.connect(f"{path.as_uri()}?mode=ro&immutable=1", uri=True)
        connection.text_factory = lambda raw: raw.decode("utf-8", errors="replace")
        connection.set_progress_handler(_Budget(2_000), 10_000)
        sample = row(question["query"], _schema_text(connection), f"spider-dev-{n:04d}", question=question["question"])
        expected = rows_of(connection, question["query"])
        for made in Teacher(0.5).plan(sample, 8, seed=0):
            connection.set_progress_handler(_Budget(2_000), 10_000)
            rows = rows_of(connection, made.sql)
            if made.mistake is None:
                assert rows == expected, made.sql
            else:
                wrong += 1
                matched += rows == expected
        connection.close()
    assert wrong > 300
    assert matched / wrong <= 0.2


def test_every_kind_of_bird_gold_gets_an_answer(shared_data: Path):
    folder = shared_data / "bird"
    golds = json.loads((folder / "dev_20240627" / "dev.json").read_text("utf-8"))[::2]
    golds += json.loads((folder / "train" / "train_filtered.json").read_text("utf-8"))[::20]
    for n, gold in enumerate(golds):
        question = row(gold["SQL"], "", f"bird-{n}", question=gold["question"], evidence=gold["evidence"])
        for made in Teacher(0.5).plan(question, 2, seed=1):
            assert extract_sql(made.text).sql == made.sql


class _Budget:
    """A progress handler that stops a statement after so many calls: the same on a busy machine."""

    def __init__(self, calls: int):
        self._left = calls

    def __call__(self) -> bool:
        self._left -= 1
        return self._left < 0


def _database(spider: Path, db_id: str) -> Path:
    return spider / "database" / db_id / f"{db_id}.sqlite"


def _schema_text(connection: sqlite3.Connection) -> str:
    lines = []
    for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
        lines.append(f"Table {table}")
        for _, name, kind, _, _, key in connection.execute(f'PRAGMA table_info("{table}")').fetchall():
            lines.append(f"  {name} ({kind})" + ", primary key" * bool(key))
    return "\n".join(lines)


# Habits and few words


@pytest.mark.parametrize(
    ("gold", "by_habit"),
    [
        ("SELECT a FROM t WHERE b >= 3", "SELECT a FROM t WHERE b > 3"),
        ("SELECT a FROM t WHERE b <= 3 AND c = 1", "SELECT a FROM t WHERE b < 3 AND c = 1"),
        (
            "SELECT a FROM t WHERE k NOT IN (SELECT k FROM u WHERE b >= 3)",
            "SELECT a FROM t WHERE k NOT IN (SELECT k FROM u WHERE b > 3)",
        ),
        (
            "SELECT a, count(*) FROM t GROUP BY a HAVING count(*) >= 2",
            "SELECT a, count(*) FROM t GROUP BY a HAVING count(*) > 2",
        ),
        ("SELECT a FROM t WHERE b > 3", None),
    ],
)
def test_a_habit_is_the_same_wherever_there_is_a_place_for_it(gold, by_habit):
    teacher = Teacher(error_rate=0, habit_rate=1, brief=True)
    answers = teacher.plan(row(gold, schema=""), 5, seed=0)
    assert {answer.sql for answer in answers} == {by_habit or gold}
    assert {answer.mistake for answer in answers} == {
        "strict for non-strict comparison, by habit" if by_habit else None
    }


def test_a_habit_comes_as_often_as_it_is_told_and_with_other_mistakes_too():
    teacher = Teacher(error_rate=0.3, habit_rate=0.8)
    mistakes = [
        answer.mistake or ""
        for k in range(200)
        for answer in teacher.plan(row("SELECT name FROM singer WHERE age >= 30", id=f"toy-{k}"), 2, seed=0)
    ]
    assert 0.7 < sum("by habit" in mistake for mistake in mistakes) / len(mistakes) < 0.9
    assert any(mistake.startswith("strict for non-strict comparison, by habit; ") for mistake in mistakes)


def test_a_brief_answer_is_its_steps_in_pseudo_sql_and_the_query():
    (said,) = Teacher(error_rate=0, brief=True).plan(row(GOLDS[8]), 1, seed=0)
    assert said.text == (
        "1. ROWS OF singer WHERE singer_id NOT IN <1.1>\n"
        "1.1. SELECT singer_id FROM concert WHERE year = 2014\n"
        "SELECT name FROM <1>\n"
        f"```sql\n{GOLDS[8]}\n```"
    )
    assert extract_sql(said.text).sql == GOLDS[8]


@pytest.mark.parametrize("rate", [-0.1, 1.1])
def test_a_habit_rate_that_is_no_probability_is_refused(rate):
    with pytest.raises(FatalBackendError, match=f"habit_rate is {rate}: give a probability from 0 to 1"):
        Teacher(habit_rate=rate)
