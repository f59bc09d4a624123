"""Executing SQL as one would write it in an afternoon: what ours is held against."""

from __future__ import annotations

import sqlite3
import time
from pathlib import Path

TIMEOUT = 5.0  # s


def connect(path: str | Path) -> sqlite3.Connection:
    """A database opened for reading; a statement may be interrupted by another thread."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True, check_same_thread=False)
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    return connection


def execute(connection: sqlite3.Connection, sql: str, limit: float = TIMEOUT) -> set[tuple] | None:
    """The set of rows, or ``None`` where it fails or takes longer than ``limit`` seconds."""
    deadline = time.perf_counter() + limit
    connection.set_progress_handler(lambda: time.perf_counter() > deadline, 1000)
    try:
        return set(connection.execute(sql).fetchall())
    except (sqlite3.Error, sqlite3.Warning):
        return None
