"""Executing SQL as one would write it in an afternoon: what ours is held against."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

TIMEOUT = 5.0  # s


def connect(folder: Path, db_id: str) -> sqlite3.Connection:
    """A database in Spider's layout, opened for reading."""
    connection = sqlite3.connect(f"file:{folder / db_id / db_id}.sqlite?mode=ro", uri=True)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def execute(connection: sqlite3.Connection, sql: str) -> set[tuple] | None:
    """The set of rows, or ``None`` where it fails or takes too long."""
    deadline = time.perf_counter() + TIMEOUT
    connection.set_progress_handler(lambda: time.perf_counter() > deadline, 1000)
    try:
        return set(connection.execute(sql).fetchall())
    except (sqlite3.Error, sqlite3.Warning):
        return None
