"""Stages of a run folder without the chain, and how `datasets` opens them, for tests of the folder itself."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
from datasets import load_dataset

from excot.run import Run, Stage

SCHEMA = pa.schema([("id", pa.string()), ("said", pa.list_(pa.struct([("text", pa.string()), ("n", pa.int64())])))])


def row(number: int) -> dict[str, Any]:
    return {"id": f"q-{number:04d}", "said": [{"text": f"answer {number} ü", "n": None}] * (number % 3)}


def begin(folder: Path, stage: str = "questions", on_existing: Any = "refuse", **arguments: Any) -> Stage:
    inputs = () if stage == "questions" else ("questions",)
    return Run(folder).begin(stage, arguments, inputs, on_existing=on_existing)


def write(folder: Path, rows: Iterable[dict[str, Any]], stage: str = "questions", **options: Any) -> None:
    with begin(folder, stage, **options) as under_way:
        assert not under_way.finished
        under_way.write(rows, SCHEMA, "train")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file of the folder that would be pushed."""
    found = (path for path in folder.rglob("*") if path.is_file() and ".excot" not in path.parts)
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def load(folder: Path, *config: str) -> list[dict[str, Any]]:
    """``load_dataset`` with a cache beside the folder, the same one for every call of a test."""
    return list(load_dataset(str(folder), *config, split="train", cache_dir=str(folder.parent / "cache")))
