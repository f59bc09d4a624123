"""How the teacher reads schema texts, and when it may print a gold instead of quoting it."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from random import Random

import pytest
import sqlglot

from excot.builders.schema import schema_text
from excot.execution import describe
from excot.llm.teacher.mistakes import make_mistake
from excot.llm.teacher.rendering import as_written, in_backticks, render, same_tokens
from excot.llm.teacher.schema import Column, Schema, read_schema

SCHEMA = """Table singer
  singer_id (INTEGER), primary key, e.g. 1, 2, 3
  country (VARCHAR(20)), e.g. 'France', 'Japan', 'It''s'
  `Net Worth (US$)` (REAL), e.g. 1.5, -20.25
  agency_id (INTEGER), references agency.agency_id, e.g. 1, 2
  notes, e.g. x'00ff', 'cut o…', 'it''s, e.g. 5', 7: a description, with 'words' in it
  `odd``name` (TEXT): no samples

Table `talent agency`
  agency_id (INTEGER), primary key
  name (TEXT)
"""

GOLDS = [
    "SELECT name ,  country FROM singer WHERE age  >  30 AND country = 'France' ORDER BY age DESC",
    'select name, age from singer where country = "France" or country != "Japan" ;',
    "SELECT `Net Worth (US$)` * 2, name FROM singer WHERE `Net Worth (US$)` IS NOT NULL ORDER BY name LIMIT 4",
    "SELECT name FROM singer WHERE singer_id NOT IN (SELECT singer_id FROM concert WHERE substr(day, 1, 4) = '2014')",
    "SELECT country FROM singer WHERE age > 40\nINTERSECT\nSELECT country FROM singer WHERE age NOT BETWEEN 3 AND 30",
]


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("select a  from t;", "SELECT a\nFROM t", True),
        ("SELECT `a b` FROM [t]", 'SELECT "a b" FROM "t"', True),
        ("SELECT a FROM t WHERE b != 1", "SELECT a FROM t WHERE b <> 1", True),
        ('SELECT a FROM t WHERE b = "France"', "SELECT a FROM t WHERE b = 'France'", False),
        ("SELECT a FROM t WHERE b = 'x'", "SELECT a FROM t WHERE b = 'X'", False),
        ("SELECT a FROM t", 'SELECT "a" FROM t', False),
        ("SELECT CAST(a AS FLOAT) FROM t", "SELECT CAST(a AS REAL) FROM t", False),
        ("SELECT a FROM t -- x", "SELECT a FROM t -- x", False),
        ("SELECT a b FROM t", "SELECT a AS b FROM t", False),
    ],
)
def test_same_tokens_means_the_same_to_sqlite(one: str, other: str, same: bool):
    assert same_tokens(one, other) is same


@pytest.mark.parametrize("gold", GOLDS)
def test_an_edited_query_keeps_the_hand_of_the_gold(gold: str):
    tree = sqlglot.parse_one(gold, read="sqlite")
    plain = in_backticks(render(tree.copy()), gold)
    assert same_tokens(gold, plain)
    assert as_written(gold, plain) == gold.rstrip("; ")
    wrong = in_backticks(render(make_mistake(tree, Schema(), Random(1))[0]), gold)
    assert same_tokens(as_written(gold, wrong), wrong)


def test_keywords_are_added_in_the_case_of_the_gold():
    gold = "select name from singer order by age"
    assert as_written(gold, "SELECT name FROM singer ORDER BY age DESC LIMIT 3").endswith("order by age desc limit 3")


def test_the_schema_text_is_read_back():
    schema = read_schema(SCHEMA)
    assert list(schema.columns) == ["singer", "talent agency"]
    assert schema.find("SINGER", "net worth (us$)") == Column("Net Worth (US$)", "REAL", ("1.5", "-20.25"))
    assert schema.find("singer", "country") == Column("country", "VARCHAR(20)", ("'France'", "'Japan'", "'It''s'"))
    assert schema.find("singer", "notes") == Column("notes", "", ("'it''s, e.g. 5'", "7"))
    assert schema.find("singer", "odd`name") == Column("odd`name", "TEXT")
    assert [column.name for column in schema.of("Talent Agency")] == ["agency_id", "name"]
    assert read_schema(None) == Schema() == read_schema("CREATE TABLE t (a TEXT)")


def test_the_schema_text_of_a_real_database_is_read_back(tmp_path: Path):
    path = tmp_path / "toy.sqlite"
    with sqlite3.connect(path) as connection:
        connection.executescript(
            "CREATE TABLE `the Table` (id INTEGER PRIMARY KEY, `a (b), c` REAL, note);"
            "INSERT INTO `the Table` VALUES (1, -0.5, 'x, y'), (2, 2.25, 'it''s');"
        )
    connection.close()
    schema = read_schema(schema_text(describe(path)))
    assert schema.names == {"the table": "the Table"}
    assert [column.name for column in schema.of("the Table")] == ["id", "a (b), c", "note"]
    assert set(schema.find("the Table", "a (b), c").samples) == {"-0.5", "2.25"}
    assert set(schema.find("the Table", "note").samples) == {"'x, y'", "'it''s'"}
