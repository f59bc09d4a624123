"""Look before the work starts: versions, data, databases, the endpoint; what is missing, and how to get it."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from . import __version__
from .config import DoctorConfig
from .errors import ExcotError, named

OK, MISSING, PROBLEM = "ok", "missing", "PROBLEM"
"""Fine; not there, and needed for some things only; not there or broken, and asked for."""

_LIBRARIES = {
    "": ("datasets", "huggingface_hub", "openai", "pyarrow", "rapidfuzz", "sqlglot"),
    "train": ("torch", "transformers", "trl", "accelerate", "peft"),
    "deepspeed": ("deepspeed",),
    "vllm": ("vllm",),
    "ray": ("ray",),
    "metric": ("evaluate",),
    "app": ("gradio",),
    "report": ("matplotlib",),
}


def doctor(config: DoctorConfig) -> str:
    """Check what is asked for. Returns the findings, one a line.

    Raises:
        ExcotError: something that was asked for does not work; the findings so far are printed.
    """
    problems = 0
    for level, line in _findings(config):
        print(f"{level:<8} {line}", flush=True)
        problems += level == PROBLEM
    if problems:
        raise ExcotError(f"{problems} problem{'s' if problems > 1 else ''} found", "see the lines above")
    return "all is well"


def _findings(config: DoctorConfig) -> Iterator[tuple[str, str]]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield OK, f"excot {__version__}, Python {python}, SQLite {sqlite3.sqlite_version}"
    for extra, libraries in _LIBRARIES.items():
        found = {library: _version(library) for library in libraries}
        present = ", ".join(f"{library} {number}" for library, number in found.items() if number)
        absent = ", ".join(library for library, number in found.items() if not number)
        if not absent:
            yield OK, f"{extra}: {present}" if extra else present
        elif extra:
            yield MISSING, f"{extra}: {absent}; when you need it: pip install 'excot[{extra}]'"
        else:
            yield PROBLEM, f"{absent} not installed: pip install excot"
    if config.benchmark and config.data:
        yield from _data(config.benchmark, config.data)
    if config.backend or config.base_url or config.model:
        yield _endpoint(config)


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None


def _data(name: str, data: str) -> Iterator[tuple[str, str]]:
    """Every split that is there, and every database that its questions need, opened and described."""
    from .builders.questions import open_benchmark

    try:
        benchmark = open_benchmark(name, data)
    except ExcotError as error:
        yield PROBLEM, str(error)
        return
    splits = [split for split in benchmark.known_splits if benchmark.question_files(split)]
    if not splits:
        yield PROBLEM, f"no questions of {name} in {data}: give the folder of the unpacked release"
    found_any = False
    for split in splits:
        try:
            needed = sorted({record["db_id"] for record in benchmark.records(split)})
        except ExcotError as error:
            yield PROBLEM, str(error)
            continue
        missing = []
        for db_id in needed:
            if not benchmark.database_files(split, db_id):
                missing.append(db_id)
                continue
            try:
                benchmark.tables(split, db_id)
            except ExcotError as error:
                yield PROBLEM, str(error)
        for note in benchmark.notes(split):
            yield MISSING, note
        if len(missing) < len(needed):
            found_any = True
            yield OK, f"{name} {split}: {len(needed) - len(missing)} of {len(needed)} databases"
        if missing:
            databases = benchmark.databases(split)  # once there is such a folder, no other is looked into
            where = databases.folder if databases else " or ".join(map(str, benchmark.database_folders(split)[:2]))
            yield MISSING, f"{name} {split}: no file for {named(missing)}: unpack the release's databases into {where}"
    if splits and not found_any:
        yield PROBLEM, f"no database of {name} in {data}: nothing can be executed"


def _endpoint(config: DoctorConfig) -> tuple[str, str]:
    from .llm.openai import OpenAI

    if not config.model:
        return PROBLEM, "which model to ask for is not known: give --model NAME"

    async def ask() -> str:
        backend = OpenAI(config.model, config.base_url, azure=config.backend == "azure", timeout=60)
        try:
            return await backend.check()
        finally:
            await backend.close()

    try:
        return OK, asyncio.run(ask())
    except ExcotError as error:
        return PROBLEM, str(error)
