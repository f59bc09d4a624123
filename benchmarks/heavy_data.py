"""A large shop of our own: five tables, millions of rows, wide text, an index on some keys and none on others.

Made from a seed, so that two machines measure the same: about 500 MB at scale 1, where `SIZES` says how many rows.
"""

from __future__ import annotations

import os
import random
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

VERSION = 1
"""To be raised with every change of what the database holds; one that was kept from before is then made anew."""

SIZES = {"customer": 200_000, "product": 50_000, "purchase": 3_000_000, "review": 800_000, "visit": 2_000_000}

REGIONS = ["North", "South", "East", "West", "Centre", "Islands"]
CITIES = [
    f"{start}{end}"
    for start in "Al Ber Cor Dun El Fal Gren Hol Is Kar".split()
    for end in "bury dale ford ham mouth port stead ton wick worth".split()
]
SEGMENTS = ["private", "school", "shop", "factory"]
CATEGORIES = [
    f"{kind} {thing}" for kind in ("small", "large", "spare") for thing in ("tools", "lamps", "books", "toys")
]
CHANNELS = ["web", "phone", "store", "agent"]
STATUSES = ["paid", "open", "returned", "lost"]
WORDS = (
    "after again always around because before better blue box broke bought came cheap colour day delivery difficult "
    "easy even excellent fast few fine first for found from gift good great green hard heavy house instead just kept "
    "large last late light little long many more much never nice noisy often old once only paper perhaps quiet quite "
    "red return short simple small soft solid some soon still strong sturdy terrible than there they thin time today "
    "twice under useful very week well when without wood work would year yellow"
).split()

_SCHEMA = """
CREATE TABLE customer (id INTEGER PRIMARY KEY, name TEXT, city TEXT, region TEXT, segment TEXT, joined INTEGER,
    referred_by INTEGER REFERENCES customer(id), note TEXT);
CREATE TABLE product (id INTEGER PRIMARY KEY, name TEXT, category TEXT, price REAL, description TEXT);
CREATE TABLE purchase (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customer(id),
    product_id INTEGER REFERENCES product(id), day INTEGER, quantity INTEGER, amount REAL, status TEXT, channel TEXT);
CREATE TABLE review (id INTEGER PRIMARY KEY, product_id INTEGER REFERENCES product(id),
    customer_id INTEGER REFERENCES customer(id), stars INTEGER, body TEXT);
CREATE TABLE visit (id INTEGER PRIMARY KEY, customer_id INTEGER REFERENCES customer(id), day INTEGER, seconds INTEGER,
    page TEXT);
"""
_INDEXES = """
CREATE INDEX purchase_customer ON purchase (customer_id);
CREATE INDEX review_product ON review (product_id);
CREATE INDEX customer_city ON customer (city);
"""


def make_database(path: Path, scale: float = 1.0, seed: int = 0) -> Path:
    """The database at ``path``: one that is there is kept if version, scale and seed are the same."""
    made = (VERSION, scale, seed)
    if path.exists() and _made(path) == made:
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(path.name + ".part")
    unfinished.unlink(missing_ok=True)
    sizes = {table: max(20, round(size * scale)) for table, size in SIZES.items()}
    with closing(sqlite3.connect(unfinished, isolation_level=None)) as connection:
        connection.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000")
        connection.executescript(_SCHEMA)
        connection.execute("BEGIN")
        for table, rows in _tables(random.Random(seed), sizes).items():
            columns = len(connection.execute(f"SELECT * FROM {table}").description)
            connection.executemany(f"INSERT INTO {table} VALUES ({', '.join('?' * columns)})", rows)
        connection.execute("CREATE TABLE made (version INTEGER, scale REAL, seed INTEGER)")
        connection.execute("INSERT INTO made VALUES (?, ?, ?)", made)
        connection.execute("COMMIT")
        connection.executescript(_INDEXES)
    os.replace(unfinished, path)
    return path


def _made(path: Path) -> tuple | None:
    with closing(sqlite3.connect(path)) as connection:
        try:
            return connection.execute("SELECT version, scale, seed FROM made").fetchone()
        except sqlite3.Error:
            return None


def _tables(chance: random.Random, sizes: dict[str, int]) -> dict[str, Iterator[tuple]]:
    """The rows of each table. They are drawn from one source of chance, so the order of reading them matters."""
    number, pick, below = chance.random, chance.choice, chance.randrange
    customers, products = sizes["customer"], sizes["product"]

    def words(count: int) -> str:
        return " ".join(chance.choices(WORDS, k=count))

    def skewed(count: int) -> int:
        return 1 + int(number() ** 2 * count)  # the first half of the keys is met more than twice as often

    return {
        "customer": (
            (
                id,
                f"Customer {id}",
                pick(CITIES),
                pick(REGIONS),
                pick(SEGMENTS),
                below(3000),
                below(id) or None,
                words(8),
            )
            for id in range(1, customers + 1)
        ),
        "product": (
            (id, f"{pick(WORDS)} {pick(WORDS)} {id}", pick(CATEGORIES), below(100, 50_000) / 100, words(50))
            for id in range(1, products + 1)
        ),
        "purchase": (
            (
                id,
                1 + int(number() * customers),
                skewed(products),
                int(number() * 3000),
                1 + int(number() * 9),
                int(number() * 100_000) / 100,
                STATUSES[int(number() ** 2 * 4)],
                CHANNELS[int(number() * 4)],
            )
            for id in range(1, sizes["purchase"] + 1)
        ),
        "review": (
            (id, skewed(products), 1 + int(number() * customers), 1 + int(number() * 5), words(45))
            for id in range(1, sizes["review"] + 1)
        ),
        "visit": (
            (
                id,
                1 + int(number() * customers),
                int(number() * 3000),
                int(number() * 900),
                f"/page/{int(number() * 500)}",
            )
            for id in range(1, sizes["visit"] + 1)
        ),
    }
