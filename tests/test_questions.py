"""Questions: the benchmarks as they unpack, your own folder, and the schema text exactly as a model reads it."""

from __future__ import annotations

import csv
import json
import sqlite3
from collections import Counter
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from chain import SHOP, make_data, make_database, rows_of
from command import excot

from excot import Bird, ExcotError, Folder, Spider
from excot.builders.columns import QUESTIONS
from excot.builders.questions import Benchmark
from excot.execution import describe


def read(tmp_path: Path, *arguments: object) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows and the warnings of the stage."""
    code, _, err = excot("questions", *arguments, "--out", tmp_path / "run")
    assert code == 0, err
    return rows_of(tmp_path / "run", "questions"), err.splitlines()


def with_schema(rows: Iterable[dict[str, Any]]) -> int:
    return sum(row["schema"] is not None for row in rows)


# Spider and BIRD as they are


def test_spider_dev_has_1034_questions_972_of_them_with_a_database(shared_data, tmp_path):
    rows, warnings = read(tmp_path, "spider", "--data", shared_data / "spider", "--split", "dev")
    assert warnings == ["warning: 62 of 1034 questions have no database file: wta_1 (62)"]
    assert len(rows) == 1034 and with_schema(rows) == 1034, "wta_1 is described in tables.json"
    assert [row["id"] for row in rows] == [f"spider-dev-{place:04d}" for place in range(1034)]
    raw = json.loads((shared_data / "spider" / "dev.json").read_text())
    for row, line in zip(rows, raw, strict=True):
        assert (row["question"], row["gold_sql"], row["db_id"]) == (line["question"], line["query"], line["db_id"])
        assert (row["benchmark"], row["split"], row["evidence"], row["difficulty"]) == ("spider", "dev", None, None)


def test_spider_train_says_which_file_is_missing(shared_data, tmp_path):
    rows, warnings = read(tmp_path, "spider", "--data", shared_data / "spider")
    assert len(rows) == 7000 and rows[6999]["id"] == "spider-train-6999"
    missing, without = warnings
    assert missing == f"warning: {shared_data}/spider/train_others.json is missing: its questions are left out"
    assert without.startswith("warning: 392 of 7000 questions have no database file: baseball_1 (82), ")


@pytest.mark.parametrize(
    ("split", "folder", "count", "with_database", "difficulties"),
    [
        ("dev", "", 1534, 129, {"simple", "moderate", "challenging"}),
        ("dev", "dev_20240627", 1534, 129, {"simple", "moderate", "challenging"}),
        ("mini_dev", "", 500, 52, {"simple", "moderate", "challenging"}),
        ("mini_dev", "mini_dev", 500, 0, {"simple", "moderate", "challenging"}),
        ("train", "", 6601, 0, {None}),
        ("train", "train", 6601, 0, {None}),
    ],
)
def test_bird_is_found_in_a_releases_folder_and_in_one_that_holds_several(
    shared_data, split, folder, count, with_database, difficulties
):
    builder = Bird(shared_data / "bird" / folder)
    rows = list(builder.questions(split))
    assert len(rows) == count and rows[-1]["id"] == f"bird-{split}-{count - 1:04d}"
    assert sum(bool(builder.database_files(split, row["db_id"])) for row in rows) == with_database
    assert {row["difficulty"] for row in rows} == difficulties
    assert any(row["evidence"] for row in rows) and "" not in {row["evidence"] for row in rows}
    assert bool(builder.notes(split)) == (split == "train")
    described_elsewhere = split == "mini_dev" and folder == "mini_dev"  # mini-dev brings no tables.json of its own
    assert with_schema(rows) == (0 if described_elsewhere else count)


def test_birds_column_descriptions_are_switched_on(shared_data):
    def superhero(descriptions: bool) -> list[str]:
        rows = Bird(shared_data / "bird", descriptions).questions("dev")
        return next(row["schema"] for row in rows if row["db_id"] == "superhero").split("\n")

    plain, described = superhero(False), superhero(True)
    eyes = "  eye_colour_id (INTEGER), references colour.id, e.g. 9, 33, 7"
    assert eyes in plain and f"{eyes}: the id of the superhero's eye color" in described
    assert "Table superhero" in plain
    for without, with_one in zip(plain, described, strict=True):
        assert with_one == without or with_one.startswith(f"{without}: ")


# A layout made up: what the real data here does not hold


def spider_release(folder: Path, **files: list[tuple[str, str]]) -> Path:
    folder.mkdir()
    for name, rows in files.items():
        lines = [{"db_id": db_id, "question": question, "query": "SELECT 1"} for db_id, question in rows]
        (folder / f"{name}.json").write_text(json.dumps(lines))
    return folder


def test_train_others_is_counted_on_after_train_spider(tmp_path):
    data = spider_release(
        tmp_path / "spider", train_others=[("a", "third")], train_spider=[("a", "first"), ("a", "second")]
    )
    builder = Spider(data)
    assert [(row["id"], row["question"]) for row in builder.questions("train")] == [
        ("spider-train-0000", "first"),
        ("spider-train-0001", "second"),
        ("spider-train-0002", "third"),
    ]
    assert builder.notes("train") == []


def test_spiders_test_questions_have_databases_of_their_own(tmp_path):
    data = spider_release(tmp_path / "spider", test=[("shop", "what?")], dev=[("shop", "what?")])
    make_database(data / "database" / "shop" / "shop.sqlite", "CREATE TABLE old (x)")
    make_database(data / "test_database" / "shop" / "shop.sqlite", "CREATE TABLE new (x)")
    builder = Spider(data)
    assert [next(builder.questions(split))["schema"] for split in ("test", "dev")] == [
        "Table new\n  x",
        "Table old\n  x",
    ]


def test_a_database_without_a_file_is_described_by_tables_json_or_not_at_all(tmp_path):
    data = spider_release(tmp_path / "spider", dev=[("gone", "what?"), ("unknown", "what?")])
    (data / "tables.json").write_text(json.dumps([TABLES_JSON]))
    gone, unknown = Spider(data).questions("dev")
    assert gone["schema"] == (
        "Table person\n  id (number), primary key\n  name (text)\n\n"
        "Table `pet of`\n  owner (number), primary key, references person.id\n  nr (number), primary key"
    )
    assert unknown["schema"] is None


TABLES_JSON = {
    "db_id": "gone",
    "table_names_original": ["person", "pet of"],
    "column_names_original": [[-1, "*"], [0, "id"], [0, "name"], [1, "owner"], [1, "nr"]],
    "column_types": ["text", "number", "text", "number", "number"],
    "primary_keys": [1, [3, 4]],
    "foreign_keys": [[3, 1]],
}


def test_keys_that_only_tables_json_knows_are_added(tmp_path):
    data = spider_release(tmp_path / "spider", dev=[("pets", "what?")])
    make_database(
        data / "database" / "pets" / "pets.sqlite",
        'CREATE TABLE Person (ID INT, Name TEXT); CREATE TABLE "pet of" (Owner INT REFERENCES Person(ID), nr INT);',
    )
    names = {"table_names_original": ["person", "pet of", "sqlite_sequence"]}
    columns = {"column_names_original": [*TABLES_JSON["column_names_original"], [2, "name"], [2, "seq"]]}
    types = {"column_types": [*TABLES_JSON["column_types"], "text", "text"]}
    foreign = {"foreign_keys": [[3, 1], [3, 1], [4, 1], [4, 5]]}
    (data / "tables.json").write_text(
        json.dumps([{**TABLES_JSON, "db_id": "pets", **names, **columns, **types, **foreign}])
    )
    (row,) = Spider(data).questions("dev")
    assert row["schema"] == (
        "Table Person\n  ID (INT), primary key\n  Name (TEXT)\n\n"
        "Table `pet of`\n  Owner (INT), primary key, references Person.ID\n"
        "  nr (INT), primary key, references person.id"
    )


def test_each_real_schema_names_every_table_and_column_once(shared_data):
    builder = Spider(shared_data / "spider")
    rows = list(builder.questions("dev"))
    for db_id in {row["db_id"] for row in rows} - {"wta_1"}:
        (text,) = {row["schema"] for row in rows if row["db_id"] == db_id}
        tables = describe(builder.database_files("dev", db_id)[0])
        lines = Counter(line[:2] for line in text.split("\n"))
        assert lines["Ta"] == len(tables) and lines["  "] == sum(len(table.columns) for table in tables)
        assert "sqlite_sequence" not in text


# Your own questions

ROWS = [
    {
        "question": "Which, in “quotes”?",
        "gold_sql": "SELECT name,\nprice FROM item",
        "db_id": "shop",
        "evidence": "a hint",
    },
    {"question": "How\u2028many?", "gold_sql": "SELECT count(*) FROM item", "db_id": "shop", "evidence": ""},
]


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    if path.suffix == ".jsonl":
        path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in rows), "utf-8")
    elif path.suffix == ".csv":
        with open(path, "w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])  # which quotes only what must be
            writer.writeheader()
            writer.writerows(rows)
    else:
        pa.parquet.write_table(pa.Table.from_pylist(rows), path)


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
@pytest.mark.parametrize(
    "database", ["database/shop/shop.sqlite", "database/shop.sqlite", "shop/shop.sqlite", "shop.sqlite"]
)
def test_a_folder_is_read_from_every_file_type_and_layout(tmp_path, suffix, database):
    data = tmp_path / "my data"
    make_database(data / database, SHOP)
    write_rows(data / f"dev{suffix}", ROWS)
    rows = list(Folder(data).questions("dev"))
    assert [{name: row[name] or "" for name in ROWS[0]} for row in rows] == ROWS
    assert [(row["id"], row["benchmark"], row["split"]) for row in rows] == [
        ("my data-dev-0000", "my data", "dev"),
        ("my data-dev-0001", "my data", "dev"),
    ]
    assert [(row["evidence"], row["difficulty"]) for row in rows] == [("a hint", None), (None, None)]
    assert rows[0]["schema"].startswith("Table item\n  id (INTEGER), primary key, e.g. 1, 2, 3\n")


def test_questions_without_a_split_in_their_name_are_train_questions_and_nothing_else(tmp_path):
    data = make_data(tmp_path / "data", 3)
    (data / "train.jsonl").rename(data / "questions.jsonl")
    builder = Folder(data)
    assert len(list(builder.questions("train"))) == 3
    with pytest.raises(ExcotError, match=r"no 'dev' questions of data in .*: --split train"):
        list(builder.questions("dev"))


def test_a_byte_order_mark_and_empty_lines_are_no_part_of_the_questions(tmp_path):
    data = make_data(tmp_path / "data", 2)
    text = (data / "train.jsonl").read_text()
    (data / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n\r\n").encode())
    assert len(list(Folder(data).questions("train"))) == 2


def test_a_folder_takes_its_name_from_where_it_is(tmp_path, monkeypatch):
    data = make_data(tmp_path / "data", 1)
    monkeypatch.chdir(data / "database")
    assert next(Folder("..").questions("train"))["id"] == "data-train-0000"


@pytest.mark.parametrize("db_id", ["../data/shop", "..", ".", "", "/etc/passwd", "a/../shop", "x" * 300, "sh\0op"])
def test_a_database_id_leads_nowhere_but_into_the_databases_folder(tmp_path, db_id):
    data = tmp_path / "data"
    make_database(data / "database" / "shop" / "shop.sqlite", SHOP)
    assert Folder(data).database_files("train", db_id) == ()


# The builder of `datasets`


@pytest.fixture(params=["spider", "folder"])
def builder(request, tmp_path) -> tuple[type[Benchmark], Path]:
    if request.param == "spider":
        return Spider, request.getfixturevalue("shared_data") / "spider"
    data = make_data(tmp_path / "data", 5)
    write_rows(data / "dev.parquet", ROWS)
    return Folder, data


def test_the_builder_gives_every_split_with_the_rows_of_questions(builder, tmp_path):
    cls, data = builder
    made = cls(data, cache_dir=str(tmp_path / "cache"))
    made.download_and_prepare()
    prepared = made.as_dataset()
    assert list(prepared) == ["train", "dev"]
    for split, rows in prepared.items():
        assert rows.features.arrow_schema.names == QUESTIONS.names
        assert list(rows) == list(cls(data).questions(split))


@pytest.mark.parametrize("change", ["questions", "database", "tables", "option", "nothing"])
def test_the_builder_serves_no_cached_rows_once_a_file_has_changed(tmp_path, change):
    data = make_data(tmp_path / "data", 3)

    def prepared(descriptions: bool = False) -> tuple[str, list[dict[str, Any]]]:
        made = Folder(data, descriptions, cache_dir=str(tmp_path / "cache"))
        made.download_and_prepare()
        return made.cache_dir, list(made.as_dataset(split="train"))

    folder, before = prepared()
    if change == "questions":
        path = data / "train.jsonl"
        path.write_text(path.read_text().replace("number 001", "number 00x"))  # as many bytes as before
    elif change == "database":
        with closing(sqlite3.connect(data / "database" / "shop" / "shop.sqlite")) as connection:
            connection.execute("ALTER TABLE item RENAME COLUMN kind TO sort")
    elif change == "tables":
        (data / "tables.json").write_text(
            json.dumps([{**TABLES_JSON, "db_id": "shop", "table_names_original": ["item", "x"]}])
        )
    elif change == "option":
        descriptions = data / "database" / "shop" / "database_description"
        descriptions.mkdir()
        (descriptions / "item.csv").write_text("original_column_name,column_description\nkind,where it stands\n")
        folder, before = prepared()
    again, after = prepared(descriptions=change == "option")
    assert (before == after) == (change in ("nothing", "tables")), "tables.json only adds keys"
    assert (folder == again) == (change == "nothing")
    assert after == list(Folder(data, change == "option").questions("train"))
