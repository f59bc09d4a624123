"""The schema text, exactly as a model reads it."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from chain import make_database
from hypothesis import assume, given
from hypothesis import strategies as st

from excot.builders.schema import column_descriptions, schema_text
from excot.execution import Column, Table, describe

ODD = """
    CREATE TABLE "order" (
        id INTEGER PRIMARY KEY,
        "group" TEXT,
        "unit price" DECIMAL(5, 2),
        "a`b" TEXT,
        größe REAL,
        photo BLOB,
        "Charter School (Y/N)" INT,
        note,
        "nothing" TEXT
    );
    INSERT INTO "order" VALUES
        (1, 'it''s', 9.5, 'x', 1e20, x'00ff', 1, NULL, NULL),
        (2, 'it''s', 10, 'line one
line   two', 0.1, x'000102030405060708090a', 0, '', NULL),
        (3,
         '3333333333333333333333333333333333333333', -1, '33333333333333333333333333333333333333333',
         2, x'', 1, 5, NULL),
        (4, 'fourth', 4, 'fourth', 4, NULL, 1, 'fourth', NULL);
    CREATE TABLE line (
        order_id INTEGER REFERENCES "order"(id),
        nr INTEGER,
        parent INTEGER REFERENCES "order",
        counter INTEGER PRIMARY KEY AUTOINCREMENT
    );
    CREATE VIEW cheap AS SELECT id, "unit price" FROM "order" WHERE "unit price" < 5;
"""

ODD_TEXT = """\
Table `order`
  id (INTEGER), primary key, e.g. 1, 2, 3
  `group` (TEXT), e.g. 'it''s', '3333333333333333333333333333333333333333', 'fourth'
  `unit price` (DECIMAL(5, 2)), e.g. 9.5, 10, -1
  `a``b` (TEXT), e.g. 'x', 'line one line two', '333333333333333333333333333333333333333…'
  `größe` (REAL), e.g. 1e+20, 0.1, 2.0
  photo (BLOB), e.g. x'00ff', x'0001020304050607…', x''
  `Charter School (Y/N)` (INT), e.g. 1, 0
  note, e.g. '', 5, 'fourth'
  `nothing` (TEXT)

Table line
  order_id (INTEGER), references `order`.id
  nr (INTEGER)
  parent (INTEGER), references `order`.id
  counter (INTEGER), primary key

Table cheap
  id (INTEGER)
  `unit price` (DECIMAL(5, 2))"""


def test_the_schema_text_is_exactly_this(tmp_path):
    path = tmp_path / "odd.sqlite"
    make_database(path, ODD)
    assert schema_text(describe(path)) == ODD_TEXT


KEYWORDS = """ABORT ADD ALL ALTER AND AS ASC BETWEEN BY CASE CAST CHECK COLLATE COLUMN COMMIT CONSTRAINT CREATE CROSS
    CURRENT_DATE CURRENT_TIME CURRENT_TIMESTAMP DEFAULT DELETE DESC DISTINCT DROP ELSE END ESCAPE EXCEPT EXISTS FOREIGN
    FROM FULL GLOB GROUP HAVING IF IN INDEX INNER INSERT INTERSECT INTO IS ISNULL JOIN KEY LAST LEFT LIKE LIMIT MATCH
    NATURAL NO NOT NOTNULL NULL OF OFFSET ON OR ORDER OUTER OVER PLAN PRIMARY QUERY RAISE RANGE REFERENCES REPLACE
    RIGHT ROW ROWS SELECT SET TABLE TEMP THEN TO TRANSACTION UNION UNIQUE UPDATE USING VALUES VIEW WHEN WHERE WITH"""
WORDS = st.from_regex(r"[A-Za-z_0-9]{1,4}", fullmatch=True)
ANY_TEXT = st.text(st.characters(exclude_characters="\0\n", exclude_categories=["Cs"]), min_size=1, max_size=6)


def can_stand_in_a_query(name: str) -> None:
    table, column = schema_text([Table(name, (Column(name),))]).removeprefix("Table ").split("\n  ")
    quoted = name.replace('"', '""')
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute(f'CREATE TABLE "{quoted}" ("{quoted}" TEXT)')
        connection.execute(f"INSERT INTO \"{quoted}\" VALUES ('mine')")
        assert connection.execute(f"SELECT {column} FROM {table} GROUP BY {column}").fetchall() == [("mine",)]


def test_a_keyword_as_a_name_can_stand_in_a_query():
    for name in KEYWORDS.split():
        can_stand_in_a_query(name)
        can_stand_in_a_query(name.lower())


@given(WORDS | ANY_TEXT)
def test_every_name_in_the_schema_text_can_stand_in_a_query(name):
    assume(not name.lower().startswith("sqlite_"))
    can_stand_in_a_query(name)


def test_descriptions_of_any_encoding_and_spacing_are_read(tmp_path):
    (tmp_path / "Item.csv").write_bytes(
        b"\xef\xbb\xbforiginal_column_name , column_name,column_description,data_format,value_description\r\n"
        b' Kind ,kind," what it\r\n  is ",text,\x93one\x94 of two\r\n'
        b"price,,,,\r\n"
        b"name,,the name,,\r\nname2,,,,only values\r\n"
        b"long,," + b"w " * 300 + b",,\r\n"
    )
    found = column_descriptions(tmp_path)
    assert found["item", "kind"] == "what it is; \ufffdone\ufffd of two"
    assert found["item", "name"] == "the name" and found["item", "name2"] == "only values"
    assert ("item", "price") not in found and len(found["item", "long"]) == 200
    assert column_descriptions(tmp_path / "none") == {}
