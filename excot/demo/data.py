"""A small world of our own: three databases with seeded contents, and questions from templates with their gold SQL."""

from __future__ import annotations

import json
import random
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path


@dataclass(frozen=True)
class Entity:
    """A table that questions are about: how it is called, and which of its columns are of which kind."""

    table: str
    one: str
    many: str
    name: str
    category: str
    number: str


@dataclass(frozen=True)
class World:
    """One database: a table of parents, one of children that refer to them, and the words their rows are made of."""

    db_id: str
    parent: Entity
    child: Entity
    key: str
    """The parent's key, of the same name in both tables."""
    belongs: str
    """How a child relates to its parent, in words."""
    names: tuple[tuple[str, ...], tuple[str, ...]]
    """First and second words of the children's names."""
    parents: tuple[tuple[str, str], ...]
    """Names and categories of the parents."""
    categories: tuple[str, ...]
    """Categories of the children."""
    range: tuple[int, int]
    """From and to of the children's numbers."""


WORLDS = (
    World(
        "library",
        Entity("author", "author", "authors", "name", "country", "birth_year"),
        Entity("book", "book", "books", "title", "genre", "pages"),
        "author_id",
        "written by",
        (("Silent", "Golden", "Lost", "Winter", "Paper"), ("Harbour", "Garden", "Letters", "Mountain", "Clock")),
        (("Ada Moreau", "France"), ("Ben Okafor", "Nigeria"), ("Carla Ruiz", "Spain"), ("Dan Meyer", "Germany"),
         ("Ella Novak", "Spain"), ("Finn Larsen", "Norway"), ("Grace Lindt", "Germany")),
        ("novel", "poetry", "history", "crime"),
        (80, 900),
    ),
    World(
        "shop",
        Entity("supplier", "supplier", "suppliers", "name", "city", "since_year"),
        Entity("product", "product", "products", "label", "category", "price"),
        "supplier_id",
        "delivered by",
        (("Blue", "Large", "Folding", "Oak", "Travel"), ("Chair", "Lamp", "Kettle", "Basket", "Mirror")),
        (("Northwood", "Oslo"), ("Brightline", "Lyon"), ("Casa Verde", "Porto"), ("Delta Goods", "Lyon"),
         ("Eastgate", "Riga"), ("Fernhill", "Porto")),
        ("kitchen", "garden", "office", "bath"),
        (5, 400),
    ),
    World(
        "league",
        Entity("club", "club", "clubs", "name", "region", "founded_year"),
        Entity("player", "player", "players", "full_name", "position", "goals"),
        "club_id",
        "playing for",
        (("Ana", "Bo", "Chris", "Dana", "Eli", "Fay"), ("Adams", "Berg", "Costa", "Dietz", "Evans")),
        (("River Town", "north"), ("Old Harbour", "west"), ("Hill United", "north"), ("Valley Stars", "south"),
         ("Iron Bridge", "east"), ("Lakeside", "south"), ("Green Park", "west")),
        ("keeper", "defender", "midfielder", "forward"),
        (0, 40),
    ),
)  # fmt: skip


def make_splits(folder: Path, seed: int, sizes: dict[str, int], instances: int) -> Path:
    """Write the demo's databases and its questions, of which no two splits share one, as `excot.Folder` reads them.

    Args:
        folder: where to; what is there already is overwritten.
        seed: of all contents.
        sizes: how many questions each split has.
        instances: how many files each database has: the same tables with other rows. Labels come from the first one
            alone; the rule ``test_suite`` looks at all of them.

    Returns:
        The folder.
    """
    from .questions import draw_questions

    generator = random.Random(f"demo:{seed}")
    rows = []
    for world in WORLDS:
        world = replace(world, range=(10, 59))  # two digits; and a bound meets a row of about every second database
        for instance in range(instances):
            name = f"{world.db_id}_{instance}" if instance else world.db_id
            _make_database(folder, world, name, generator)
        share = -(-sum(sizes.values()) // len(WORLDS))
        rows += [_row(world, drawn) for drawn in draw_questions(world, share, generator)]
    generator.shuffle(rows)
    start = 0
    for split, size in sizes.items():
        _write(folder / f"{split}.jsonl", rows[start : start + size])
        start += size
    return folder


def make_data(folder: Path, seed: int, questions: int = 150) -> Path:
    """Write databases and ``questions.jsonl`` in the layout that `excot.Folder` reads.

    Args:
        folder: where to; what is there already is overwritten.
        seed: of the contents and of the questions' values.
        questions: how many, drawn from all that the templates give.

    Returns:
        The folder.
    """
    generator = random.Random(f"demo:{seed}")
    rows = []
    for world in WORLDS:
        _make_database(folder, world, world.db_id, generator)
        rows += [_row(world, drawn) for drawn in sorted(set(_questions(world, generator)))]
    generator.shuffle(rows)
    _write(folder / "questions.jsonl", rows[:questions])
    return folder


def _row(world: World, drawn: tuple[str, str, str]) -> dict[str, str]:
    question, sql, difficulty = drawn
    return {"db_id": world.db_id, "question": question, "gold_sql": sql, "difficulty": difficulty}


def _write(path: Path, rows: list[dict[str, str]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")


def _make_database(folder: Path, world: World, name: str, generator: random.Random) -> None:
    path = folder / "database" / world.db_id / f"{name}.sqlite"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    _fill(path, world, generator)


def _fill(path: Path, world: World, generator: random.Random) -> None:
    parent, child, key = world.parent, world.child, world.key
    connection = sqlite3.connect(path)
    with connection:
        connection.execute(
            f"CREATE TABLE {parent.table} ({key} INTEGER PRIMARY KEY, {parent.name} TEXT, {parent.category} TEXT, "
            f"{parent.number} INTEGER)"
        )
        connection.execute(
            f"CREATE TABLE {child.table} ({child.table}_id INTEGER PRIMARY KEY, {child.name} TEXT, "
            f"{child.category} TEXT, {child.number} INTEGER, {key} INTEGER REFERENCES {parent.table}({key}))"
        )
        for number, (name, category) in enumerate(world.parents, start=1):
            row = (number, name, category, generator.randint(1900, 2000))
            connection.execute(f"INSERT INTO {parent.table} VALUES (?, ?, ?, ?)", row)
        names = [f"{first} {second}" for first in world.names[0] for second in world.names[1]]
        generator.shuffle(names)
        for number, name in enumerate(names, start=1):
            # The last parent stays without children, so that questions about such parents have an answer.
            owner = generator.randint(1, len(world.parents) - 1)
            row = (number, name, generator.choice(world.categories), generator.randint(*world.range), owner)
            connection.execute(f"INSERT INTO {child.table} VALUES (?, ?, ?, ?, ?)", row)
    connection.close()


def _questions(world: World, generator: random.Random) -> Iterator[tuple[str, str, str]]:
    """Question, gold SQL and difficulty; each template several times with other values."""
    for template in _TEMPLATES:
        for _ in range(8):
            yield template(world, generator)


def _count(world: World, generator: random.Random) -> tuple[str, str, str]:
    category = generator.choice(world.categories)
    e = world.child
    return (
        f"How many {e.many} have the {e.category} {category}?",
        f"SELECT COUNT(*) FROM {e.table} WHERE {e.category} = '{category}'",
        "simple",
    )


def _aggregate(world: World, generator: random.Random) -> tuple[str, str, str]:
    word, function = generator.choice([("average", "AVG"), ("highest", "MAX"), ("lowest", "MIN"), ("total", "SUM")])
    e = generator.choice([world.child, world.parent])
    return (
        f"What is the {word} {e.number.replace('_', ' ')} of all {e.many}?",
        f"SELECT {function}({e.number}) FROM {e.table}",
        "simple",
    )


def _threshold(world: World, generator: random.Random) -> tuple[str, str, str]:
    words, operator = generator.choice([("more than", ">"), ("at least", ">="), ("less than", "<"), ("at most", "<=")])
    value, e = generator.randint(*world.range), world.child
    return (
        f"List the {e.name.replace('_', ' ')} of every {e.one} with {words} {value} {e.number}.",
        f"SELECT {e.name} FROM {e.table} WHERE {e.number} {operator} {value}",
        "simple",
    )


def _top(world: World, generator: random.Random) -> tuple[str, str, str]:
    word, order = generator.choice([("most", "DESC"), ("fewest", "ASC")])
    count, e = generator.randint(2, 5), world.child
    return (
        f"Which {count} {e.many} have the {word} {e.number}? Give {e.name.replace('_', ' ')} and {e.number}.",
        f"SELECT {e.name}, {e.number} FROM {e.table} ORDER BY {e.number} {order}, {e.name} LIMIT {count}",
        "moderate",
    )


def _per_category(world: World, generator: random.Random) -> tuple[str, str, str]:
    count, e = generator.randint(2, 7), world.child
    return (
        f"Which {e.category} have at least {count} {e.many}, and how many are there of each?",
        f"SELECT {e.category}, COUNT(*) FROM {e.table} GROUP BY {e.category} HAVING COUNT(*) >= {count}",
        "moderate",
    )


def _joined(world: World, generator: random.Random) -> tuple[str, str, str]:
    name, _ = generator.choice(world.parents[:-1])  # the last one has no children: its result would be empty
    p, c = world.parent, world.child
    return (
        f"What are the {c.name.replace('_', ' ')} and {c.number} of the {c.many} {world.belongs} {name}?",
        f"SELECT T2.{c.name}, T2.{c.number} FROM {p.table} AS T1 JOIN {c.table} AS T2 "
        f"ON T1.{world.key} = T2.{world.key} WHERE T1.{p.name} = '{name}'",
        "moderate",
    )


def _joined_group(world: World, generator: random.Random) -> tuple[str, str, str]:
    category = generator.choice(world.categories)
    p, c = world.parent, world.child
    return (
        f"For each {p.one}, how many {c.many} with the {c.category} {category} are there? Begin with its name.",
        f"SELECT T1.{p.name}, COUNT(*) FROM {p.table} AS T1 JOIN {c.table} AS T2 ON T1.{world.key} = T2.{world.key} "
        f"WHERE T2.{c.category} = '{category}' GROUP BY T1.{world.key}",
        "challenging",
    )


def _above_average(world: World, generator: random.Random) -> tuple[str, str, str]:
    category, e = generator.choice(world.categories), world.child
    return (
        f"Which {e.many} with the {e.category} {category} have more {e.number} than the average of all {e.many}?",
        f"SELECT {e.name} FROM {e.table} WHERE {e.category} = '{category}' AND {e.number} > "
        f"(SELECT AVG({e.number}) FROM {e.table})",
        "challenging",
    )


def _without(world: World, generator: random.Random) -> tuple[str, str, str]:
    category, p, c = generator.choice(world.categories), world.parent, world.child
    return (
        f"Name the {p.many} without any {c.one} of the {c.category} {category}.",
        f"SELECT {p.name} FROM {p.table} WHERE {world.key} NOT IN "
        f"(SELECT {world.key} FROM {c.table} WHERE {c.category} = '{category}')",
        "challenging",
    )


def _distinct(world: World, generator: random.Random) -> tuple[str, str, str]:
    value, p, c = generator.randint(*world.range), world.parent, world.child
    return (
        f"How many different {p.many} have a {c.one} with more than {value} {c.number}?",
        f"SELECT COUNT(DISTINCT {world.key}) FROM {c.table} WHERE {c.number} > {value}",
        "moderate",
    )


_Template = Callable[[World, random.Random], tuple[str, str, str]]
_TEMPLATES: tuple[_Template, ...] = (
    _count,
    _aggregate,
    _threshold,
    _top,
    _per_category,
    _joined,
    _joined_group,
    _above_average,
    _without,
    _distinct,
)
