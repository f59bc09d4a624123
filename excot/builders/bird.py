"""BIRD (Li et al., NeurIPS 2023) as its releases unpack: train, dev, and mini-dev."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .files import pick, read_rows
from .questions import Benchmark


class Bird(Benchmark):
    """BIRD's questions: ``train``, ``dev``, ``mini_dev`` (SQLite), from a release's folder or one that holds several.

    ``train`` is ``train.json``, or else the authors' filtered ``train_filtered.json``.
    """

    benchmark = "bird"
    known_splits = ("train", "dev", "mini_dev")
    _files = {
        "train": ("train.json", "train_filtered.json"),
        "dev": ("dev.json",),
        "mini_dev": ("mini_dev_sqlite.json",),
    }
    _folders = {
        "train": (".", "train"),
        "dev": (".", "dev", "dev_20240627"),
        "mini_dev": (".", "mini_dev", "mini_dev_data", "MINIDEV", "minidev/MINIDEV"),
    }

    def question_files(self, split: str) -> list[Path]:
        found = [path for name in self._files.get(split, ()) for path in self._places(split, name) if path.is_file()]
        return found[:1]

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        names = {
            "db_id": "db_id",
            "question": "question",
            "gold_sql": "SQL",
            "evidence": "evidence",
            "difficulty": "difficulty",
        }
        for path in self.question_files(split):
            for where, row in read_rows(path):
                yield pick(where, row, names, optional=("evidence", "difficulty"))

    def database_folders(self, split: str) -> list[Path]:
        return self._beside(split, "databases")

    def tables_files(self, split: str) -> list[Path]:
        return self._beside(split, "tables.json")

    def notes(self, split: str) -> list[str]:
        found = self.question_files(split)
        if split == "train" and found and found[0].name != "train.json":
            return [f"train.json is not there: reading {found[0]}, the filtered questions"]
        return []

    def _beside(self, split: str, what: str) -> list[Path]:
        """``dev_databases`` and the like; mini-dev asks about dev's databases, and often lies beside them."""
        own = self._places(split, f"dev_{what}" if split == "mini_dev" else f"{split}_{what}")
        return own + (self._places("dev", f"dev_{what}") if split == "mini_dev" else [])

    def _places(self, split: str, name: str) -> list[Path]:
        return [self.data / folder / name for folder in self._folders[split]]
