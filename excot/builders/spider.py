"""Spider 1.0 (Yu et al., EMNLP 2018) as its release unpacks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import pick, read_rows
from .questions import Benchmark


class Spider(Benchmark):
    """Spider's questions: ``train``, ``dev``, ``test``.

    ``train`` is ``train_spider.json`` and then ``train_others.json``, whose places are counted on.
    """

    benchmark = "spider"
    known_splits = ("train", "dev", "test")
    _files = {"train": ("train_spider.json", "train_others.json"), "dev": ("dev.json",), "test": ("test.json",)}

    def question_files(self, split: str) -> list[Path]:
        return [self.data / name for name in self._files.get(split, ()) if (self.data / name).is_file()]

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        for path in self.question_files(split):
            for where, row in read_rows(path):
                picked = pick(where, row, {"db_id": "db_id", "question": "question", "gold_sql": "query"})
                yield {**picked, "evidence": None, "difficulty": None}

    def database_folders(self, split: str) -> list[Path]:
        return [self.data / name for name in (["test_database"] if split == "test" else []) + ["database"]]

    def tables_files(self, split: str) -> list[Path]:
        return [self.data / name for name in (["test_tables.json"] if split == "test" else []) + ["tables.json"]]

    def notes(self, split: str) -> list[str]:
        missing = [name for name in self._files[split] if not (self.data / name).is_file()]
        return [f"{self.data / name} is missing: its questions are left out" for name in missing]
