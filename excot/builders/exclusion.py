"""Questions to leave out: a JSONL file with an ``id`` in each line, which `audit` writes and anybody may edit."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ExcotError
from ..journal import digest_of
from ..run import Run
from .files import read_jsonl

log = logging.getLogger("excot")


@dataclass(frozen=True)
class Exclusion:
    """What to leave out of a run's questions.

    Attributes:
        ids: those of the run's questions that are on the list; empty where there is no list.
    """

    ids: frozenset[str] = frozenset()

    def arguments(self) -> dict[str, str]:
        """What the output depends on: the ids, and neither where the list lies nor what else it says."""
        return {"exclude": digest_of(sorted(self.ids))} if self.ids else {}

    def facts(self, ids: Iterable[str]) -> dict[str, int]:
        """For the manifest: how many of these questions are left out; nothing where there is no list."""
        return {"excluded": len(self.ids.intersection(ids))} if self.ids else {}


def read_exclusion(path: str | None, run: Run) -> Exclusion:
    """Read a list. Keys other than ``id`` and empty lines do not count.

    One list may serve several subsets of a benchmark, so ids of other questions are only counted, with a warning.

    Args:
        path: the list; ``None`` for none.
        run: whose questions it is for.

    Raises:
        ExcotError: the file cannot be read, a line is no JSON object with an id, or none of the ids is a question's.
    """
    if path is None:
        return Exclusion()
    listed = {_id(where, row) for where, row in read_jsonl(Path(path))}
    if not listed:
        raise ExcotError(f"{path} lists no question", "leave --exclude out where nothing is to be left out")
    known = listed.intersection(row["id"] for row in run.read("questions", ["id"]))
    strangers = listed - known
    if not known:
        raise ExcotError(
            f"none of the {len(listed):,} ids in {path} is a question's in {run.folder}, first {min(strangers)}",
            "is the list for another benchmark or split?",
        )
    if strangers:
        log.warning("%d of the %d ids in %s are no questions of %s", len(strangers), len(listed), path, run.folder)
    return Exclusion(frozenset(known))


def _id(where: str, row: Any) -> str:
    id = row.get("id") if isinstance(row, dict) else None
    if not isinstance(id, str):
        raise ExcotError(f"{where}: no id", 'each line names one question, as in {"id": "bird-train-0012"}')
    return id
