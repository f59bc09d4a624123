"""The same work on a Ray cluster, for those who outgrow one machine.

The plan of the work, the workers and the verdict are those of the local pool: on a node runs one of its workers, with
its limits and its hard stop. A node that dies takes nothing with it but time.
"""

from __future__ import annotations

import logging
import math
import platform
import socket
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from .. import __version__
from ..errors import ExcotError, import_error
from .cache import Cache
from .database import DatabaseError
from .files import known_hash
from .pool import Pool
from .task import GoldOutcome, Known, Outcome, Task, Verdict
from .work import Piece, Work

Fetch = Callable[[str, str], Path]
"""Brings a database to a node: takes its SHA-256 and its name, and returns where it lies."""

_DRAW_FOR = 0.02  # s; then the nodes are looked after again
_AHEAD = 2  # pieces for each core, so that no core waits for the next one
_SMALLEST = 4  # statements of one gold that are not worth being divided
_RETRIES = 5  # of a piece whose node or process has died; more would say that the piece is to blame
_LOOK = 5.0  # s between looks at the cluster

_pool: Pool | None = None  # in a process of Ray's, for all pieces that come to it
_versions = (__version__, sqlite3.sqlite_version)


def verify_on_cluster(
    tasks: Iterable[Task],
    address: str | None = None,
    *,
    cache: Cache | None = None,
    fetch: Fetch | None = None,
) -> Iterator[tuple[str, Verdict]]:
    """Verify questions on the nodes of a Ray cluster, as `verify_all` does on this machine.

    Every node needs this version of excot with the same SQLite, and the databases: under the path that they have here,
    or by ``fetch``. Only files whose SHA-256 is that of the file here are used.

    Args:
        tasks: the questions.
        address: of the cluster, as `ray.init` takes it; by default the one that this machine is part of.
        cache: where outcomes of earlier runs are looked for and new ones are kept, on this machine.
        fetch: brings a database to a node that has not got it.

    Raises:
        ExcotError: there is no cluster, a node has other versions, or pieces of work have failed again and again.
        DatabaseError: databases are missing, damaged, or have changed meanwhile. It is raised at the end, after the
            verdicts of all tasks on other databases.
    """
    ray, ours = _connect(address)
    execute = ray.remote(max_retries=_RETRIES, num_cpus=1)(_execute)
    work = Work(tasks, cache, hashed=True)
    running: dict[Any, Piece] = {}
    cores, looked = _cores(ray), time.monotonic()
    try:
        while True:
            yield from work.draw(_DRAW_FOR)
            if time.monotonic() - looked > _LOOK:  # cores come and go; to ask for them is to ask the head
                cores, looked = _cores(ray), time.monotonic()
            for piece in _pieces(work, _AHEAD * cores - len(running)):
                try:
                    hashes = _hashes(work, piece)
                except DatabaseError as error:
                    work.give_up(piece, error)
                    continue
                running[execute.remote(_placed(piece.task), piece.known, hashes, fetch, _versions)] = piece
            if work.exhausted and not running:
                work.check()
                return
            ready, _ = ray.wait([*running], timeout=0 if work.wants_more else _LOOK) if running else ([], [])
            for reference in ready:
                piece, verdicts = running.pop(reference), []
                try:
                    _take_in(piece, *_result(ray, reference))
                    verdicts = work.done(piece)
                except DatabaseError as error:
                    work.give_up(piece, error)
                yield from verdicts
    finally:
        for reference in running:
            ray.cancel(reference, force=True)
        if cache is not None:
            cache.write()
        if ours:
            ray.shutdown()


def _connect(address: str | None) -> tuple[Any, bool]:
    """Ray, connected to the cluster; and whether it is ours to disconnect."""
    try:
        import ray
    except ImportError:
        raise import_error("ray", "ray") from None
    if ray.is_initialized():
        return ray, False
    try:
        _knock(address)
        ray.init(address=address or "auto", log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        where = f"at {address}" if address else "that this machine is part of"
        raise ExcotError(
            f"there is no Ray cluster {where} ({' '.join(str(error).split())[:200]})",
            "start one with `ray start --head`, or give --address HOST:PORT",
        ) from None
    return ray, True


def _knock(address: str | None) -> None:
    """See that somebody listens there, which Ray itself would wait minutes for."""
    host, _, port = (address or "").rpartition(":")
    if host and "/" not in host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _cores(ray: Any) -> int:
    """Cores of all nodes that are alive."""
    return max(1, math.floor(ray.cluster_resources().get("CPU", 1)))


def _pieces(work: Work, room: int) -> Iterator[Piece]:
    """So many pieces at most; towards the end in smaller ones, so that no core is left with all of the slow ones."""
    pieces: list[Piece] = []
    while len(pieces) < room:
        piece = work.next(pieces[-1].job.question.databases if pieces else None, ())
        if piece is None:
            break
        pieces.append(piece)
    while work.exhausted and pieces and len(pieces) < room:
        largest = max(pieces, key=lambda piece: piece.size)
        if largest.size < 2 * _SMALLEST:
            break
        pieces.append(largest.split(0))
    yield from pieces


def _hashes(work: Work, piece: Piece) -> list[str]:
    databases = piece.job.question.databases
    hashes = work.hashes(databases)
    if hashes is None:
        raise DatabaseError(
            f"what is in database {databases[0]} cannot be told by its file: it is missing, or being written to",
            "close the program that writes it, so that no -wal or -journal file lies beside it",
        )
    return hashes


def _placed(task: Task) -> Task:
    """The task as every node understands it, whatever folder its processes are in."""
    return replace(task, databases=tuple(path.absolute() for path in task.databases))


def _execute(
    task: Task, known: Known, hashes: Sequence[str], fetch: Fetch | None, versions: tuple[str, str]
) -> tuple[GoldOutcome, bytes | None, dict[int, Outcome]]:
    """On a node: the gold's outcome, its results if they are worth it, and the outcomes by place."""
    global _pool
    if versions != _versions:
        raise ExcotError(
            f"node {platform.node()} has excot {_versions[0]} with SQLite {_versions[1]}, "
            f"this machine {versions[0]} with SQLite {versions[1]}",
            "install the same on all of them",
        )
    databases = tuple(_locate(path, sha256, fetch) for path, sha256 in zip(task.databases, hashes, strict=True))
    _pool = _pool or Pool(1)
    return _pool.execute(replace(task, databases=databases), known)


def _locate(path: Path, sha256: str, fetch: Fetch | None) -> Path:
    """Where this node has a database with this content."""
    if path.is_file() and known_hash(path) == sha256:
        return path
    if fetch is not None:
        return fetch(sha256, path.name)
    there = "another file there" if path.exists() else "no such file"
    raise DatabaseError(
        f"node {platform.node()} has not got database {path} ({there})",
        "put the databases under the same path on every node, or give --databases-repo ORG/NAME",
    )


def _result(ray: Any, reference: Any) -> Any:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, ExcotError):
            raise error.cause from None
        raise
    except ray.exceptions.RayError as error:
        raise ExcotError(
            f"a piece of work has failed on {_RETRIES + 1} nodes or processes ({' '.join(str(error).split())[:200]})",
            "see the nodes' logs; what was finished is kept: start the same command again to go on",
        ) from None


def _take_in(piece: Piece, gold: GoldOutcome, gold_rows: bytes | None, outcomes: dict[int, Outcome]) -> None:
    piece.job.add_gold(gold, gold_rows)
    for place, outcome in outcomes.items():
        piece.add(place, outcome)
