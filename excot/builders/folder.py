"""Your own questions and databases in one folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import pick, read_rows
from .questions import Benchmark


class Folder(Benchmark):
    """Questions in ``<split>.jsonl``, ``.csv`` or ``.parquet``, or else ``questions.*``, beside their databases.

    Columns: ``question``, ``gold_sql``, ``db_id``, and, where you have them, ``evidence`` and ``difficulty``. The
    databases are ``database/<db_id>/<db_id>.sqlite``, ``database/<db_id>.sqlite``, or the same without ``database/``.
    The folder's own name becomes the benchmark's.
    """

    known_splits = ("train", "dev", "test")

    def __init__(self, data: str | Path, descriptions: bool = False, **kwargs: Any):
        self.benchmark = Path(data).resolve().name  # type: ignore[misc]
        super().__init__(data, descriptions, **kwargs)

    def question_files(self, split: str) -> list[Path]:
        stems = (split, "questions") if self._is_only_split(split) else (split,)
        found = [self.data / f"{stem}{suffix}" for stem in stems for suffix in (".jsonl", ".csv", ".parquet")]
        return [path for path in found if path.is_file()][:1]

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        names = {name: name for name in ("db_id", "question", "gold_sql", "evidence", "difficulty")}
        for path in self.question_files(split):
            for where, row in read_rows(path):
                yield pick(where, row, names, optional=("evidence", "difficulty"))

    def database_folders(self, split: str) -> list[Path]:
        return [self.data / "database", self.data]

    def tables_files(self, split: str) -> list[Path]:
        return [self.data / "tables.json"]

    def _is_only_split(self, split: str) -> bool:
        """``questions.*`` is the train split, and nothing else: the same rows under two names would leak."""
        return split == "train"
