"""What was handed in to a batch API, noted in the run folder before and after every step, for whoever goes on.

The notes hold no secret and no prompt: with the run folder, a key and an address any machine can go on.
"""

from __future__ import annotations

import json
import os
import re
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from ..atomic import replace_text
from ..errors import ExcotError
from ..journal import digest_of

_LONGEST_ID = 64  # characters of a custom id; how many a service takes is not documented, and this many all do

Step = Literal["planned", "uploading", "uploaded", "submitting", "running", "collected"]
"""How far a chunk is. ``uploading`` and ``submitting`` are noted before the request: whether it was carried out is
then for the service to say."""

Ask = list[int]
"""One request of a question: its seed, how many answers it asks for, and how often it was asked in vain."""


@dataclass
class Chunk:
    """Requests that make up one file and one batch.

    Attributes:
        tag: what its file and its batch are known by at the service.
        questions: what it asks, by the question's id; empty once it is collected.
        step: how far it is.
        handed_in: whether its questions have been handed in before, in this chunk or another.
        held: whether it waits until the service's queue has room.
        sent: the parameters of its requests.
        file: the id of its uploaded file.
        batch: the id of its batch.
        alone: whether it was submitted while nothing else of ours was under way.
        refused: the batches of it for which the service's queue had no room.
        status: what the service last said of its batch.
        done: how many of its requests are done, as the service last said.
    """

    tag: str
    questions: dict[str, list[Ask]]
    step: Step = "planned"
    handed_in: bool = False
    held: bool = False
    sent: dict[str, Any] = field(default_factory=dict)
    file: str | None = None
    batch: str | None = None
    alone: bool = False
    refused: list[str] = field(default_factory=list)
    status: str = ""
    done: int = 0

    @property
    def name(self) -> str:
        """What its file is called at the service."""
        return f"excot-{self.tag}.jsonl"


@dataclass
class Notes:
    """All that was handed in from a run folder.

    Attributes:
        path: where the notes are kept.
        made_for: the stage's arguments, and the output that it replaces.
        options: of the config, for a start that is given none.
        overwrite: whether it was started to overwrite what was there.
        resume: whether it was started to go on from what was finished with other options.
        endpoint: where it was handed in.
        learnt: what the service was found not to take.
        run: tells this run's files and batches from all others at the service.
        failed: why questions failed, by id, until they are asked again.
        files: the ids of our files at the service.
        chunks: in the order of their making.
    """

    path: Path
    made_for: dict[str, Any]
    options: dict[str, Any]
    overwrite: bool
    resume: bool
    endpoint: str
    learnt: dict[str, Any]
    run: str = field(default_factory=lambda: secrets.token_hex(8))
    failed: dict[str, str] = field(default_factory=dict)
    files: list[str] = field(default_factory=list)
    chunks: list[Chunk] = field(default_factory=list)

    @property
    def active(self) -> list[Chunk]:
        """The chunks that are not collected."""
        return [chunk for chunk in self.chunks if chunk.step != "collected"]

    def add(self, questions: dict[str, list[Ask]], handed_in: bool = False) -> Chunk:
        """One more chunk; its tag is that of no other, in this run or another."""
        chunk = Chunk(digest_of(self.run, len(self.chunks), questions), questions, handed_in=handed_in)
        self.chunks.append(chunk)
        return chunk

    def tags(self, chunk: Chunk) -> dict[str, str]:
        """The metadata of a chunk's batch."""
        return {"excot_run": self.run, "excot_chunk": chunk.tag}

    def own(self, *files: str) -> None:
        """Note files at the service as ours."""
        self.files += [file for file in files if file not in self.files]

    def save(self) -> None:
        """Write the notes so that they survive a crash of the machine: what they say costs money to forget."""
        values = {**vars(self), "chunks": [vars(chunk) for chunk in self.chunks]}
        del values["path"]
        try:
            replace_text(self.path, json.dumps(values, ensure_ascii=False) + "\n")
            for path in (self.path, self.path.parent):
                sync(path)
        except OSError as error:
            raise ExcotError(
                f"cannot write {self.path} ({error.strerror})",
                "make room on the disk, then start the same command again: what was handed in goes on",
            ) from None


def notes_path(private: Path, dataset: str) -> Path:
    """Where the notes for a dataset of generations are."""
    return private / f"{dataset.replace('generations', 'batches', 1)}.json"


def read_notes(path: Path) -> Notes | None:
    """The notes at ``path``; ``None`` where there are none.

    Raises:
        ExcotError: they cannot be read.
    """
    try:
        values = json.loads(path.read_text("utf-8"))
        return Notes(path, **{**values, "chunks": [Chunk(**chunk) for chunk in values["chunks"]]})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ExcotError(f"cannot read {path} ({error})", "restore the file: it says what is handed in") from None


def custom_id(id: str, *form: Any) -> str:
    """What a request is known by: a digest of all that its answer depends on, then the question's id.

    The answer to an earlier form of a question (another prompt, seed or model) therefore joins nothing. The digest
    stands first because the places of questions are read off the ends of such names (see `llm.replay`).
    """
    digest = digest_of(id, *form)
    return f"{digest}-{re.sub('[^0-9A-Za-z_.-]', '_', id)[-(_LONGEST_ID - len(digest) - 1) :]}"


def sync(path: Path) -> None:
    """See that what was written to a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
