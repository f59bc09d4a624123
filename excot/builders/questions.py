"""Questions of a benchmark, each with the text that describes its database: the first dataset of a run."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

import datasets

from ..config import QuestionsConfig
from ..errors import ExcotError, named
from ..execution import Databases, Table, describe, file_hash
from ..journal import digest_of
from ..run import Run
from .columns import QUESTIONS
from .files import read_json
from .schema import column_descriptions, schema_text, tables_from_json, with_declared_keys

log = logging.getLogger("excot")


class BenchmarkConfig(datasets.BuilderConfig):
    """The options of a benchmark; ``data_dir`` is the unpacked release."""

    def __init__(self, descriptions: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.descriptions = descriptions


class Benchmark(datasets.GeneratorBasedBuilder):
    """A benchmark on disk as a `datasets` builder: one row a question, columns as in `columns.QUESTIONS`.

    ``builder.download_and_prepare(); builder.as_dataset()`` gives every split that the folder holds, and
    ``questions`` the rows of one split without a copy in the cache.

    Args:
        data: the folder of the unpacked release.
        descriptions: add the column descriptions that BIRD ships to the schema text.
        kwargs: what else `datasets.GeneratorBasedBuilder` takes, such as ``cache_dir``.

    Raises:
        ExcotError: there is no such folder.
    """

    BUILDER_CONFIG_CLASS = BenchmarkConfig
    benchmark: ClassVar[str]
    known_splits: ClassVar[tuple[str, ...]]

    def __init__(self, data: str | Path, descriptions: bool = False, **kwargs: Any):
        self.data = Path(data)
        self.descriptions = descriptions
        if not self.data.is_dir():
            raise ExcotError(f"no such data folder: {data}", "give the folder of the unpacked release to --data")
        # The cache of `datasets` knows a builder by its options alone; with the files' state it serves no old rows.
        super().__init__(data_dir=str(self.data), config_id=f"{self.benchmark}-{self._state()}", **kwargs)

    # What a benchmark has to say; everything below is common to all.

    def question_files(self, split: str) -> list[Path]:
        """The files of a split, in the order in which its questions are counted; empty where there are none."""
        raise NotImplementedError

    def records(self, split: str) -> Iterator[dict[str, Any]]:
        """The questions of a split with ``db_id``, ``question``, ``gold_sql``, ``evidence`` and ``difficulty``."""
        raise NotImplementedError

    def database_folders(self, split: str) -> list[Path]:
        """Where the databases of a split may be, best first."""
        raise NotImplementedError

    def tables_files(self, split: str) -> list[Path]:
        """Where the ``tables.json`` of a split may be, best first."""
        return []

    def notes(self, split: str) -> list[str]:
        """What a user should know about the files found, such as one that is missing."""
        return []

    def questions(self, split: str) -> Iterator[dict[str, Any]]:
        """The rows of one split.

        Raises:
            ExcotError: the split is not there, a file is malformed, or a database is damaged.
        """
        if not self.question_files(split):
            available = [name for name in self.known_splits if self.question_files(name)]
            raise ExcotError(
                f"no {split!r} questions of {self.benchmark} in {self.data}",
                f"--split {' or '.join(available)}"
                if available
                else f"is this the folder of a {self.benchmark} release?",
            )
        schemas: dict[str, str | None] = {}
        for place, record in enumerate(self.records(split)):
            db_id = record["db_id"]
            if db_id not in schemas:
                schemas[db_id] = self._schema(split, db_id)
            yield {
                "id": f"{self.benchmark}-{split}-{place:04d}",
                "benchmark": self.benchmark,
                "split": split,
                **record,
                "schema": schemas[db_id],
            }

    def databases(self, split: str) -> Databases | None:
        """The databases of a split, or ``None`` where the release has none of them on disk."""
        for folder in self.database_folders(split):
            if folder.is_dir():
                return Databases(folder)
        return None

    def database_files(self, split: str, db_id: str) -> tuple[Path, ...]:
        """The files of one database; empty where it is missing."""
        databases = self.databases(split)
        return databases.find(db_id) if databases else ()

    def tables(self, split: str, db_id: str) -> list[Table]:
        """The tables of a database, from its file and ``tables.json``, or from one of them; empty without both.

        Raises:
            DatabaseError: the file is damaged.
        """
        declared = self._declared(split).get(db_id, [])
        files = self.database_files(split, db_id)
        return with_declared_keys(describe(files[0]), declared) if files else declared

    def _schema(self, split: str, db_id: str) -> str | None:
        files = self.database_files(split, db_id)
        described = (
            column_descriptions(files[0].parent / "database_description") if files and self.descriptions else {}
        )
        return schema_text(self.tables(split, db_id), described) or None

    def _declared(self, split: str) -> dict[str, list[Table]]:
        for path in self.tables_files(split):
            if path.is_file():
                if path not in self._tables:
                    self._tables[path] = _read_tables(path)
                return self._tables[path]
        return {}

    @cached_property
    def _tables(self) -> dict[Path, dict[str, list[Table]]]:
        return {}

    def _state(self) -> str:
        """Changes whenever a file of the release does."""
        found: set[Path] = set()
        for split in self.known_splits:
            found.update(self.question_files(split), self.tables_files(split))
            for folder in self.database_folders(split):
                found.update(folder.glob("*.sqlite"), folder.glob("*/*.sqlite"))
                found.update(folder.glob("*/database_description/*.csv"))
        files = sorted(path for path in found if path.is_file())
        return digest_of(
            [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in files], self.descriptions
        )

    # The builder that `datasets` wants.

    def _info(self) -> datasets.DatasetInfo:
        return datasets.DatasetInfo(features=datasets.Features.from_arrow_schema(QUESTIONS))

    def _split_generators(self, dl_manager: Any) -> list[datasets.SplitGenerator]:
        return [
            datasets.SplitGenerator(name=split, gen_kwargs={"split": split})
            for split in self.known_splits
            if self.question_files(split)
        ]

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in self.questions(split):
            yield row["id"], row


def make_questions(config: QuestionsConfig) -> str:
    """The stage ``questions``: read a benchmark into a run folder. Returns the lines to show."""
    benchmark = open_benchmark(config.benchmark, config.data, config.descriptions)
    rows = list(islice(benchmark.questions(config.split), config.limit))
    if not rows:
        raise ExcotError(f"no questions in {config.data}", "the file of this split is empty")
    for note in benchmark.notes(config.split):
        log.warning(note)
    needed = Counter(row["db_id"] for row in rows)
    files = {db_id: benchmark.database_files(config.split, db_id) for db_id in sorted(needed)}
    without = {db_id: needed[db_id] for db_id, paths in files.items() if not paths}
    with_database = len(rows) - sum(without.values())
    if without:
        log.warning(
            "%d of %d questions have no database file: %s",
            sum(without.values()),
            len(rows),
            named([f"{db_id} ({count})" for db_id, count in without.items()]),
        )
    summary = f"{len(rows):,} questions on {len(needed)} databases, {with_database:,} with a database file"
    if config.dry_run:
        return f"would write {summary} to {config.out}"

    run = Run(config.out)
    databases = benchmark.databases(config.split)
    sources = {"data": digest_of(rows)}
    with run.begin("questions", config.arguments(), sources=sources, on_existing=config.on_existing) as stage:
        if not stage.finished:
            hashes = {db_id: {path.name: file_hash(path) for path in paths} for db_id, paths in files.items() if paths}
            stage.write(rows, QUESTIONS, config.split, databases=hashes, without_database=sum(without.values()))
        run.set_local(databases=str(databases.folder.absolute()) if databases else None)
    return f"{summary}, in {config.out}\nnext: excot generate --out {config.out} --model MODEL"


def open_benchmark(name: str, data: str, descriptions: bool = False) -> Benchmark:
    """The builder of a benchmark by its name: ``spider``, ``bird`` or ``folder``."""
    from .bird import Bird
    from .folder import Folder
    from .spider import Spider

    return {"spider": Spider, "bird": Bird, "folder": Folder}[name](data, descriptions)


def _read_tables(path: Path) -> dict[str, list[Table]]:
    try:
        return {entry["db_id"]: tables_from_json(entry) for entry in read_json(path)}
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise ExcotError(f"{path} is no tables.json ({error!r})", "unpack the release again") from None
