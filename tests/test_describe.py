"""What a database says of itself: tables, types, keys and sample values."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from test_database import MANY_ROWS, make

from excot.execution import file_hash
from excot.execution.database import Column, DatabaseError, Table, describe


def columns(path: Path, table: str) -> dict[str, Column]:
    (found,) = [found for found in describe(path) if found.name == table]
    return {column.name: column for column in found.columns}


def samples(path: Path, table: str) -> dict[str, tuple]:
    return {name: column.samples for name, column in columns(path, table).items()}


def test_tables_and_views_are_described_in_creation_order(tmp_path):
    path = make(
        tmp_path / "x.sqlite",
        """
        CREATE TABLE zebra (id INTEGER PRIMARY KEY AUTOINCREMENT, name VARCHAR(20) NOT NULL, weight REAL, anything);
        INSERT INTO zebra (name, weight) VALUES ('Zoe', 1.5), ('Zack', 2);
        CREATE VIEW heavy AS SELECT name, weight FROM zebra WHERE weight > 1;
        CREATE TABLE ant (a INT);
        CREATE INDEX by_name ON zebra (name);
        CREATE TRIGGER gone AFTER DELETE ON zebra BEGIN DELETE FROM ant; END;
        """,
    )
    assert describe(path) == [
        Table(
            "zebra",
            (
                Column("id", "INTEGER", primary_key=True, samples=(1, 2)),
                Column("name", "VARCHAR(20)", samples=("Zoe", "Zack")),
                Column("weight", "REAL", samples=(1.5, 2.0)),
                Column("anything"),
            ),
        ),
        Table("heavy", (Column("name", "VARCHAR(20)"), Column("weight", "REAL"))),
        Table("ant", (Column("a", "INT"),)),
    ]


def test_keys_are_described_as_they_are_declared(tmp_path):
    path = make(
        tmp_path / "x.sqlite",
        """
        CREATE TABLE country (code TEXT PRIMARY KEY);
        CREATE TABLE city (
            name, country REFERENCES country, region REFERENCES Region (Id), PRIMARY KEY (country, name)
        );
        CREATE TABLE region (id INTEGER PRIMARY KEY, twin REFERENCES region);
        CREATE TABLE street (
            country REFERENCES country (code), town,
            FOREIGN KEY (town, country) REFERENCES city (name, country)
        );
        CREATE TABLE house (c, n, FOREIGN KEY (c, n) REFERENCES city);
        CREATE TABLE lost (a REFERENCES nowhere, b REFERENCES nowhere (x), c REFERENCES keyless);
        CREATE TABLE keyless (a);
        CREATE TABLE pair (a, b, PRIMARY KEY (a, b)) WITHOUT ROWID;
        """,
    )

    def references(table: str) -> dict[str, tuple]:
        return {name: column.references for name, column in columns(path, table).items() if column.references}

    def keys(table: str) -> list[str]:
        return [name for name, column in columns(path, table).items() if column.primary_key]

    assert keys("country") == ["code"]
    assert keys("city") == ["name", "country"]
    assert keys("pair") == ["a", "b"]
    assert keys("lost") == []
    assert references("city") == {"country": (("country", "code"),), "region": (("Region", "Id"),)}
    assert references("region") == {"twin": (("region", "id"),)}
    assert references("street") == {
        "country": (("country", "code"), ("city", "country")),
        "town": (("city", "name"),),
    }
    assert references("house") == {"c": (("city", "country"),), "n": (("city", "name"),)}  # the order of city's key
    assert references("lost") == {"a": (("nowhere", "rowid"),), "b": (("nowhere", "x"),), "c": (("keyless", "rowid"),)}


def test_sample_values_are_the_first_three_that_differ_and_are_not_null(tmp_path):
    path = make(
        tmp_path / "x.sqlite",
        """
        CREATE TABLE t (a, b TEXT COLLATE NOCASE, c, d);
        INSERT INTO t VALUES (NULL, 'x', 3, NULL), (2, 'X', 3, NULL), (2, 'y', 2, NULL), (2.5, 'z', 1, NULL);
        CREATE INDEX sorted ON t (c);
        """,
    )
    assert samples(path, "t") == {"a": (2, 2.5), "b": ("x", "X", "y"), "c": (3, 2, 1), "d": ()}
    assert samples(path, "t") == samples(path, "t")


def test_sample_values_come_as_they_are_stored(tmp_path):
    path = make(
        tmp_path / "x.sqlite",
        """
        CREATE TABLE t (blob, long, mixed, bad, empty);
        INSERT INTO t VALUES (x'00ff', hex(zeroblob(50000)), 1, CAST(x'63616fe9' AS TEXT), '');
        INSERT INTO t VALUES (zeroblob(100000), 'short', '1', 'fine', x'');
        """,
    )
    found = samples(path, "t")
    assert found["blob"] == (b"\x00\xff", bytes(100_000))
    assert found["long"] == ("0" * 100_000, "short")
    assert found["mixed"] == (1, "1")
    assert found["bad"] == ("cao\ufffd", "fine")
    assert found["empty"] == ("", b"")


def test_samples_of_a_large_table_come_from_its_first_rows_only(tmp_path):
    path = make(
        tmp_path / "x.sqlite",
        """
        CREATE TABLE t (a);
        WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 20000)
        INSERT INTO t SELECT CASE WHEN n > 15000 THEN 'late' WHEN n > 9000 THEN 'early' END FROM c;
        """,
    )
    assert samples(path, "t") == {"a": ("early",)}


def test_names_are_taken_as_they_are(tmp_path):
    path = make(
        tmp_path / "x.sqlite",
        """
        CREATE TABLE "order" (
            "select" INT, [two words] TEXT, `back``tick` TEXT, "quo""te" INT, "it's" INT, "per%cent" INT
        );
        INSERT INTO "order" VALUES (1, 'b', 'c', 4, 5, 6);
        CREATE TABLE "a""b c" (ä INT);
        INSERT INTO "a""b c" VALUES (7);
        CREATE TABLE sqliteish (a);
        """,
    )
    assert [table.name for table in describe(path)] == ["order", 'a"b c', "sqliteish"]
    assert samples(path, "order") == {
        "select": (1,),
        "two words": ("b",),
        "back`tick": ("c",),
        'quo"te': (4,),
        "it's": (5,),
        "per%cent": (6,),
    }
    assert samples(path, 'a"b c') == {"ä": (7,)}


def test_a_database_in_another_encoding_is_described_alike(tmp_path):
    path = make(tmp_path / "x.sqlite", "PRAGMA encoding = 'UTF-16'; CREATE TABLE té (ö); INSERT INTO té VALUES ('ß')")
    assert describe(path) == [Table("té", (Column("ö", samples=("ß",)),))]


def test_generated_columns_are_columns(tmp_path):
    path = make(tmp_path / "x.sqlite", "CREATE TABLE t (a INT, b INT AS (a + 1)); INSERT INTO t VALUES (1)")
    assert samples(path, "t") == {"a": (1,), "b": (2,)}


@pytest.mark.parametrize("module", ["fts3", "fts4", "fts5"])
def test_a_full_text_table_is_described_and_its_own_store_is_hidden(tmp_path, module):
    path = make(
        tmp_path / "x.sqlite",
        f"""
        CREATE VIRTUAL TABLE movie USING {module} (title, plot);
        INSERT INTO movie VALUES ('Alien', 'in space');
        CREATE TABLE movie_cast (name);
        CREATE TABLE plain (a);
        """,
    )
    assert [table.name for table in describe(path)] == ["movie", "movie_cast", "plain"]
    assert list(columns(path, "movie")) == ["title", "plot"]


def test_what_cannot_be_read_by_any_query_is_left_out_and_the_rest_is_described(tmp_path):
    path = make(
        tmp_path / "x.sqlite",
        """
        CREATE TABLE t (a);
        CREATE TABLE gone (a);
        CREATE VIEW broken AS SELECT a FROM gone;
        CREATE VIEW whole AS SELECT a FROM t;
        PRAGMA writable_schema = 1;
        DELETE FROM sqlite_master WHERE name = 'gone';
        INSERT INTO sqlite_master VALUES ('table', 'far', 'far', 0, 'CREATE VIRTUAL TABLE far USING nomodule (x)');
        """,
    )
    assert [table.name for table in describe(path)] == ["t", "whole"]


def test_a_table_that_cannot_be_read_is_an_error_and_never_left_out(tmp_path):
    connection = sqlite3.connect(tmp_path / "x.sqlite")
    connection.create_function("private", 1, lambda value: value, deterministic=True)
    connection.executescript("CREATE TABLE t (a, b AS (private(a))); INSERT INTO t VALUES (1)")
    connection.commit()
    connection.close()
    with pytest.raises(DatabaseError, match=r"private\(\)"):
        describe(tmp_path / "x.sqlite")


def test_a_column_with_a_collation_of_its_own_program_is_described(tmp_path):
    connection = sqlite3.connect(tmp_path / "x.sqlite")
    connection.create_collation("PHONE", lambda one, other: (one > other) - (one < other))
    connection.executescript("CREATE TABLE t (a TEXT COLLATE PHONE); INSERT INTO t VALUES ('x'), ('y')")
    connection.commit()
    connection.close()
    assert samples(tmp_path / "x.sqlite", "t") == {"a": ("x", "y")}


def test_a_database_without_tables_has_an_empty_description(tmp_path):
    assert describe(make(tmp_path / "x.sqlite", "CREATE TABLE t (a); DROP TABLE t")) == []


def test_describing_leaves_the_file_as_it_is(tmp_path):
    path = make(tmp_path / "x.sqlite", MANY_ROWS)
    before = file_hash(path)
    describe(path)
    assert file_hash(path) == before
    assert [found.name for found in tmp_path.iterdir()] == ["x.sqlite"]


def test_real_databases_are_described(shared_data):
    described = 0
    for path in sorted((shared_data / "spider" / "database").glob("*/*.sqlite")):
        tables = describe(path)
        assert tables and all(table.columns for table in tables)
        assert tables == describe(path)
        described += 1
    assert described >= 20
    path = shared_data / "bird" / "dev_20240627" / "dev_databases" / "superhero" / "superhero.sqlite"
    assert columns(path, "superhero")["gender_id"].references == (("gender", "id"),)
    assert columns(path, "gender")["gender"].samples == ("Male", "Female", "N/A")
