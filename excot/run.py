"""The run folder: one dataset a stage, a manifest that says how each was made, and journals to go on from.

A run folder is what a Hub dataset repository holds, so ``load_dataset(folder, "pairs")`` opens it. ``.excot/`` beside
the datasets is this machine's business (journals, where the databases are) and is never pushed.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from . import __version__
from .atomic import replace_text
from .errors import ExcotError
from .execution import file_hash
from .hub.dataset_card import write_card
from .journal import Journal, begun_to_replace, differences
from .stages import JOURNALED, VERBS, dataset_name, in_order, parse_name

if TYPE_CHECKING:
    import pyarrow as pa

OnExisting = Literal["refuse", "resume", "overwrite"]

_ROWS_AT_ONCE = 200  # rows in memory while a dataset is written: a row of generations can hold 100 kB of text
_SHARD_BYTES = 64_000_000  # `load_dataset(streaming=True)` holds a shard in memory: of 300 MB it took 1.5 GB


class Run:
    """A run folder, seen from one of its rounds: ``pairs`` are that round's pairs.

    Args:
        folder: its path. It is made by the first stage that writes into it.
        round: which round's datasets the names of stages mean.

    Attributes:
        manifest: ``{"stages": {dataset: {...}}}``, as in ``manifest.json``; ``ancestors`` in it are what these were
            made from and is not here itself; ``loop`` is what `excot run` has noted.

    Raises:
        ExcotError: ``manifest.json`` cannot be read.
    """

    def __init__(self, folder: str | Path, round: int = 0):
        self.folder = Path(folder)
        self.round = round
        self.private = self.folder / ".excot"
        self._checked: set[str] = set()
        self.manifest: dict[str, Any] = self._read_manifest()

    def entry(self, stage: str) -> dict[str, Any]:
        """What the manifest says of a finished stage.

        Raises:
            ExcotError: the stage is not there, its files were changed by hand, or what it was made from has changed.
        """
        return self.dataset(self.name(stage))

    def dataset(self, dataset: str) -> dict[str, Any]:
        """What the manifest says of a dataset by its name, whatever its round.

        Raises:
            ExcotError: as `entry`.
        """
        entry = self.manifest["stages"].get(dataset)
        again = f"run `{self._remake(dataset)}`"
        if entry is None:
            raise ExcotError(f"{self.folder} has no {dataset} yet", f"{again} first")
        for name, sha256 in entry["files"].items() if dataset not in self._checked else ():
            path = self.folder / name
            if not path.is_file():
                raise ExcotError(f"{path} is missing", f"restore it, or {again} again")
            if file_hash(path) != sha256:
                raise ExcotError(
                    f"{path} is not the file that the manifest describes",
                    f"restore it, or remove it and {again} again",
                )
        self._check_fresh(dataset)
        self._checked.add(dataset)  # once a process is enough: hashing a round's answers takes seconds
        return entry

    def read(self, stage: str, columns: list[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows of a finished stage in order, a few hundred in memory at a time."""
        import pyarrow.parquet as pq

        for name in sorted(self.entry(stage)["files"]):
            with pq.ParquetFile(self.folder / name) as file:
                for batch in file.iter_batches(_ROWS_AT_ONCE, columns=columns):
                    yield from batch.to_pylist()

    def name(self, stage: str) -> str:
        """What this round's dataset of a stage is called."""
        return dataset_name(stage, self.round)

    def has(self, stage: str) -> bool:
        """Whether a stage of this round is finished, fresh or not."""
        return self.name(stage) in self.manifest["stages"]

    def prompt_path(self, prompt_id: str) -> Path:
        """Where the template of a prompt is kept, so that the data can be rendered again anywhere."""
        return self.folder / "prompts" / f"{prompt_id}.jinja"

    @property
    def local(self) -> dict[str, Any]:
        """What is true on this machine only, such as where the databases are."""
        return _read_json(self.private / "local.json") or {}

    def set_local(self, **values: Any) -> None:
        _write_json(self.private / "local.json", {**self.local, **values})

    def note(self, key: str, value: Any) -> None:
        """Put something beside the stages into the manifest; stages leave it as it is.

        Raises:
            ExcotError: another process is at work in the folder, or it cannot be written.
        """
        with locked(self):
            self._replace_manifest({**self._read_manifest(), key: value})

    def drop(self, datasets: Iterable[str]) -> None:
        """Remove datasets with what was begun of them; those that are not there do not matter.

        Raises:
            ExcotError: as `note`.
        """
        with locked(self):
            manifest = self._read_manifest()
            names = [*datasets]
            stages = {name: entry for name, entry in manifest["stages"].items() if name not in names}
            if stages != manifest["stages"]:  # first of all, so that nobody sees a dataset without its files
                self._replace_manifest({**manifest, "stages": stages})
                write_card(self.folder, self.manifest)
            for name in names:
                shutil.rmtree(self.folder / name, ignore_errors=True)
                for path in self.private.glob(f"{name}.*"):
                    shutil.rmtree(path) if path.is_dir() else path.unlink()
                self._checked.discard(name)

    def _replace_manifest(self, manifest: dict[str, Any]) -> None:
        try:
            _write_json(self.folder / "manifest.json", manifest)
        except OSError as error:
            raise ExcotError(
                f"cannot write {self.folder / 'manifest.json'} ({error.strerror})", "make room or check permissions"
            ) from None
        self.manifest = manifest

    def _check_fresh(self, dataset: str) -> None:
        """Refuse what was made from an earlier version of its input, however far up the chain."""
        known = {**self.manifest.get("ancestors", {}), **self.manifest["stages"]}
        for name, fingerprint in known[dataset]["inputs"].items():
            if parse_name(name) is None:
                continue
            if known.get(name, {}).get("fingerprint") != fingerprint:
                raise ExcotError(
                    f"{dataset} in {self.folder} was made from an earlier {name}",
                    f"run `{self._remake(dataset)}` anew",
                )
            self._check_fresh(name)

    def command(self, verb: str) -> str:
        """What to type for this folder and round."""
        return _command(verb, self.round, self.folder)

    def _remake(self, dataset: str) -> str:
        stage, round = parse_name(dataset) or (dataset, 0)
        return _command(VERBS[stage], round, self.folder)

    def _read_manifest(self) -> dict[str, Any]:
        path = self.folder / "manifest.json"
        manifest = _read_json(path)
        if manifest is None:
            return {"stages": {}}
        if not isinstance(manifest, dict) or not isinstance(manifest.get("stages"), dict):
            raise ExcotError(f"{path} is no manifest of a run folder", "restore the file, or use another --out")
        return manifest

    def begin(
        self,
        stage: str,
        arguments: dict[str, Any],
        inputs: tuple[str, ...] = (),
        sources: dict[str, str] | None = None,
        on_existing: OnExisting = "refuse",
    ) -> Stage:
        """Start a stage, or go on with it. Use as a context manager: it locks the folder.

        Args:
            stage: one of `stages.STAGES`; its dataset is that of this round.
            arguments: all that the stage's output depends on, apart from its inputs.
            inputs: the stages that it reads.
            sources: digests of what else it reads: a benchmark's files, databases.
            on_existing: what to do about output that was made with other arguments: refuse, go on from its finished
                questions (``resume``), or make it anew (``overwrite``).

        Raises:
            ExcotError: an input is missing or stale, other arguments made what is there, or another process is at work
                in this folder.
        """
        read = {self.name(name): self.entry(name)["fingerprint"] for name in inputs} | (sources or {})
        arguments = json.loads(json.dumps(arguments))  # as they will be read back
        return Stage(self, self.name(stage), arguments, read, on_existing)


@dataclass
class Stage:
    """A stage under way in a run folder, made by `Run.begin`.

    Attributes:
        name: of its dataset.
        finished: whether its output is there already, made with these arguments from these inputs.
    """

    run: Run
    name: str
    arguments: dict[str, Any]
    inputs: dict[str, str]
    on_existing: OnExisting
    finished: bool = False

    def __enter__(self) -> Stage:
        self._started = time.monotonic()
        self._lock = _lock(self.run)
        try:
            self._look_at_existing()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def journal(self) -> Journal:
        """The journal of this stage's finished questions."""
        path = self.run.private / f"{self.name}.jsonl"
        replaces = self._entry.get("fingerprint")
        # An --overwrite that was stopped and started again goes on: its journal names the output that it replaces.
        if self.on_existing == "overwrite" and not begun_to_replace(path, self.arguments, replaces):
            path.unlink(missing_ok=True)
        return Journal(path, self.arguments, keep=self.on_existing == "resume", replaces=replaces)

    def write(
        self,
        rows: Iterable[dict[str, Any]],
        schema: pa.Schema,
        split: str,
        counted: Callable[[], dict[str, Any]] = dict,
        **facts: Any,
    ) -> int:
        """Write the stage's dataset and its manifest entry.

        New files come to lie beside the old ones, whose names differ; the manifest, replaced in one step, then says
        which of them count. So whatever ends this process, the old dataset is whole or the new one is.

        Args:
            rows: the rows, drawn a few hundred at a time.
            schema: their columns.
            split: the name of the one split.
            counted: called once all rows are drawn, for facts that were counted on the way.
            facts: what else the manifest shall say (model, tokens, counts).

        Returns:
            How many rows there were.

        Raises:
            ExcotError: the disk is full or not writable.
        """
        scratch = self.run.private / f"{self.name}.new"
        try:
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir(parents=True)
            count, shards = _write_shards(scratch, rows, schema)
            hashes = [file_hash(shard) for shard in shards]
            fingerprint = hashlib.sha256("".join(hashes).encode()).hexdigest()
            # The fingerprint is part of the names, and through them of the card's `configs`, because the cache of
            # `load_dataset` knows a local folder by those alone: the same names would give it back the old rows.
            names = [
                f"{split}-{number:05d}-of-{len(shards):05d}-{fingerprint[:8]}.parquet" for number in range(len(shards))
            ]
            self._folder.mkdir(exist_ok=True)
            for shard, name in zip(shards, names, strict=True):
                os.replace(shard, self._folder / name)
            entry = {
                "excot": __version__,
                "versions": _versions(),
                "arguments": self.arguments,
                "inputs": self.inputs,
                "rows": count,
                "split": split,
                "fingerprint": fingerprint,
                "files": {f"{self.name}/{name}": hash for name, hash in zip(names, hashes, strict=True)},
                "seconds": round(time.monotonic() - self._started, 3),
                **facts,
                **counted(),
            }
            stages = {**self.run.manifest["stages"], self.name: entry}
            manifest = {**self.run.manifest, "stages": {name: stages[name] for name in in_order([*stages])}}
            _write_json(self.run.folder / "manifest.json", manifest)
            self.run.manifest = manifest
            write_card(self.run.folder, manifest)
        except OSError as error:
            raise ExcotError(
                f"cannot write {error.filename or self.run.folder} ({error.strerror or error})",
                "make room or check permissions, then start the same command again; what is finished is kept",
            ) from None
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            self._tidy()
        return count

    @property
    def _folder(self) -> Path:
        return self.run.folder / self.name

    @property
    def _entry(self) -> dict[str, Any]:
        """What the manifest says of this stage's finished output; empty where there is none."""
        return self.run.manifest["stages"].get(self.name, {})

    def _tidy(self) -> None:
        """Remove the Parquet files that the manifest does not name: the old ones, or the new ones of a failure."""
        named = self._entry.get("files", {})
        with suppress(OSError):  # the dataset is complete without it, and a failure has its own message
            for path in self._folder.glob("*.parquet"):
                if f"{self.name}/{path.name}" not in named:
                    path.unlink()
            if not named:
                self._folder.rmdir()

    def _look_at_existing(self) -> None:
        self.run.manifest = self.run._read_manifest()
        entry = self._entry
        if not entry or self.on_existing == "overwrite":
            return
        if entry["arguments"] != self.arguments:
            if self.on_existing == "refuse":
                raise ExcotError(
                    f"{self.run.folder} already holds {self.name} made with "
                    f"{differences(entry['arguments'], self.arguments)}",
                    ("--resume to keep its finished questions, " if parse_name(self.name)[0] in JOURNALED else "")
                    + "--overwrite to make it anew, or another --out",
                )
            return
        self.finished = (
            entry["inputs"] == self.inputs
            and not entry.get("failed")
            and all((self.run.folder / name).is_file() for name in entry["files"])
        )
        if self.finished:  # a process that was killed after the manifest may not have come to these
            write_card(self.run.folder, self.run.manifest)
            self._tidy()


def _command(verb: str, round: int, folder: Path) -> str:
    return f"excot {verb}{f' --round {round}' if round else ''} --out {folder}"


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep every other excot process out of the folder.

    Raises:
        ExcotError: one is at work in it.
    """
    lock = _lock(run)
    try:
        yield
    finally:
        lock.release()


def _lock(run: Run):
    from filelock import FileLock, Timeout

    try:
        run.private.mkdir(parents=True, exist_ok=True)
        lock = FileLock(run.private / "lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise ExcotError(
            f"another excot process is at work in {run.folder}", "wait for it, or use another --out"
        ) from None
    except OSError as error:
        raise ExcotError(f"cannot write into {run.folder} ({error.strerror})", "use another --out") from None
    return lock


def _write_shards(folder: Path, rows: Iterable[dict[str, Any]], schema: pa.Schema) -> tuple[int, list[Path]]:
    """Write Parquet files, none much larger than `_SHARD_BYTES`; the number of rows, and the files in order."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    count, shards, writer = 0, [], None
    try:
        for batch in chain(
            _batches(rows, _ROWS_AT_ONCE), [[]]
        ):  # the empty one: a dataset without rows has a file too
            if writer is None and (batch or not shards):
                shards.append(folder / f"{len(shards)}.parquet")
                writer = pq.ParquetWriter(shards[-1], schema, compression="zstd")
            if batch:
                writer.write_table(pa.Table.from_pylist(batch, schema=schema))
                count += len(batch)
                if shards[-1].stat().st_size >= _SHARD_BYTES:
                    writer.close()
                    writer = None
    finally:
        if writer is not None:
            writer.close()
    return count, shards


def _versions() -> dict[str, str]:
    """What else a dataset's content may depend on: the interpreter, SQLite, and who wrote the Parquet."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "pyarrow": version("pyarrow"),
        "sqlglot": version("sqlglot"),
    }


def _batches(rows: Iterable[dict[str, Any]], size: int) -> Iterator[list[dict[str, Any]]]:
    batch = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        return json.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise ExcotError(f"cannot read {path} ({error})", "restore the file, or use another --out") from None


def _write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")
