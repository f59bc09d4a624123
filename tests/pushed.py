"""Run folders on the tests' Hub: one with every dataset, copies of it, and what is there beside what is here."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from chain import make_run
from command import done
from hub import HubServer

from excot.run import Run

REPO = "team/shop"
CONFIGS = ["questions", "generations", "verified", "sft", "pairs", "details", "scores"]


def make_finished(folder: Path) -> Path:
    """A run folder with every dataset; the databases lie beside it."""
    out = make_run(folder)
    done("generate", "--backend", "teacher", "--n", 4, "--out", out)
    done("verify", "--out", out, "--processes", 1)
    done("sft", "--out", out)
    done("pairs", "--out", out)
    done("score", "--out", out, "--processes", 1)
    return Path(out)


def copy(run: Path, to: Path) -> Path:
    """Another machine's run folder with the same content."""
    shutil.copytree(run, to)
    return to


def go_on(run: Path, databases: Path | None = None, round: int = 1, seed: int = 1) -> None:
    """Another round of answers and pairs."""
    where = ("--databases", databases) if databases else ()
    done("generate", "--round", round, "--backend", "teacher", "--n", 4, "--seed", seed, "--out", run)
    done("verify", "--round", round, "--out", run, "--processes", 1, *where)
    done("pairs", "--round", round, "--out", run)


def here(run: Path) -> dict[str, bytes]:
    """Every file of a run folder that is meant for others."""
    files = (path for path in run.rglob("*") if path.is_file() and ".excot" not in path.parts)
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files}


def there(hub: HubServer, revision: str = "main", repo: str = REPO) -> dict[str, bytes]:
    """Every file of the repository."""
    files = hub.repos["dataset", repo].files(revision)
    return {path: content for path, content in files.items() if path != ".gitattributes"}


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    """The rows of a dataset here, read without `datasets`."""
    import pyarrow.parquet as pq

    entry = Run(folder).manifest["stages"][name]
    return [row for file in sorted(entry["files"]) for row in pq.read_table(folder / file).to_pylist()]


def write_words(run: Path, words: str) -> None:
    """Put a paragraph of one's own at the head of the card."""
    path = run / "README.md"
    text = path.read_text("utf-8")
    end = text.index("\n---\n", 4) + len("\n---\n")
    path.write_text(f"{text[:end]}\n{words}\n{text[end:]}", "utf-8")
