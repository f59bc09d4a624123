"""What became of statements, on disk, so that none is executed twice: by the next round, the score, or the reward.

An entry holds all that is known of one gold: its outcome, its results where executing it again would take longer, and
the outcome of every statement that was compared with it. Its key is the databases' contents, the gold, the limits, and
the version of everything that decides. A result that depends on the clock or on chance is never kept; one in which the
time limit had a say is good for the same limit only.
"""

from __future__ import annotations

import hashlib
import logging
import marshal
import os
import sqlite3
import sys
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from .compare import Matches
from .files import logs
from .measure import Measured
from .task import GoldOutcome, Outcome

if TYPE_CHECKING:
    from .work import Question

log = logging.getLogger("excot")

T = TypeVar("T")

SIZE = 1_000_000_000
"""Bytes that a cache may take, unless it is told otherwise: some 300,000 golds with 32 candidates each."""

_FORMAT = 1  # of the entries, and of what a verdict means
_FILE = "verdicts.sqlite"
_WRITE_EVERY = 2.0  # s
_PENDING = 500  # entries at most that are not on disk yet
_PATIENCE = 10.0  # s to wait for another process that writes
_SCHEMA = "CREATE TABLE entry (key BLOB PRIMARY KEY, value BLOB NOT NULL, day INTEGER NOT NULL)"


@dataclass(frozen=True)
class Recalled:
    """What is known of a gold: its outcome, its results if they are worth it, and outcomes by statement."""

    gold: GoldOutcome
    gold_rows: bytes | None = None
    outcomes: dict[str, Outcome] = field(default_factory=dict)


def default_folder() -> Path:
    """``$EXCOT_CACHE``, or ``excot`` where this user's caches are."""
    if folder := os.environ.get("EXCOT_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "excot"


class Cache:
    """Outcomes on disk, for any number of processes at once.

    A file that is damaged, or of another version, is begun anew. Where nothing can be written, or another process
    holds the file for long, that is said once and the work goes on without. Those entries go first, once there are too
    many, that were not used for longest.

    Args:
        folder: where the file is; by default `default_folder`.
        size: how many bytes it may take.
    """

    def __init__(self, folder: str | Path | None = None, size: int = SIZE):
        self._folder = default_folder() if folder is None else Path(folder)
        self._size = size
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._latest: tuple[bytes, float, Recalled | None] | None = None
        self._pending: dict[bytes, _Entry] = {}
        self._used: set[bytes] = set()
        self._written = time.monotonic()
        self._broken = False

    @property
    def path(self) -> Path:
        return self._folder / _FILE

    def recall(self, question: Question, hashes: Sequence[str]) -> Recalled | None:
        """What is known of a gold under these limits; ``None`` where it has to be executed.

        Args:
            question: the gold, and what else its outcome depends on.
            hashes: those of its databases' files, by which it is found wherever they lie.
        """
        key = _key(question, hashes)
        if key is None:
            return None
        seconds = question.limits.seconds
        if self._latest is None or self._latest[:2] != (key, seconds):  # questions to one gold come one after another
            entry = self._entry(key)
            self._latest = key, seconds, _usable(entry, seconds) if entry else None
        return self._latest[2]

    def remember(
        self,
        question: Question,
        hashes: Sequence[str],
        gold: GoldOutcome,
        gold_rows: bytes | None,
        outcomes: Mapping[str, Outcome],
    ) -> None:
        """Keep what became of a gold and of statements compared with it, beside what is there already."""
        key = _key(question, hashes)
        if key is None or gold.lasts == "once":
            return
        seconds = question.limits.seconds
        lasting = {sql: (seconds, _plain(outcome)) for sql, outcome in outcomes.items() if outcome.lasts != "once"}
        self._pending[key] = _merged(self._pending.get(key), (seconds, astuple(gold), gold_rows, lasting))
        self._latest = None
        if len(self._pending) >= _PENDING or time.monotonic() - self._written > _WRITE_EVERY:
            self.write()

    def write(self) -> None:
        """Bring to disk what is not there yet."""
        self._written = time.monotonic()
        if self._pending or self._used:
            self._try(self._write)
        self._pending.clear()
        self._used.clear()

    def close(self) -> None:
        """Write what is left, and let go of the file; a later call opens it again."""
        self.write()
        if self._connection is not None and self._owner == os.getpid():
            self._connection.close()
        self._connection = None

    def __enter__(self) -> Cache:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _entry(self, key: bytes) -> _Entry | None:
        pending = self._pending.get(key)
        found = self._try(lambda connection: _found(connection, key))
        if found is None:
            return pending
        value, day = found
        if day != _today():
            self._used.add(key)
        entry = _opened(key, value)
        return entry if pending is None else _merged(entry, pending)

    def _try(self, act: Callable[[sqlite3.Connection], T]) -> T | None:
        """Do something with the file; ``None`` where that cannot be done."""
        if self._broken:
            return None
        try:
            return act(self._open())
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                log.warning("the cache %s is held by another process: going on without it", self.path)
            else:
                log.warning("the cache %s cannot be used (%s): going on without it", self.path, error)
            self._broken = True
        except sqlite3.DatabaseError as error:
            self._begin_anew(str(error))
        except OSError as error:
            log.warning("the cache %s cannot be used (%s): going on without it", self.path, error.strerror)
            self._broken = True
        return None

    def _open(self) -> sqlite3.Connection:
        if self._connection is None or self._owner != os.getpid():  # SQLite's connections do not survive a fork
            self._folder.mkdir(parents=True, exist_ok=True)
            self._owner = os.getpid()
            self._connection = sqlite3.connect(
                self.path, timeout=_PATIENCE, isolation_level=None, check_same_thread=False
            )
            # What a machine without power loses is executed again, and what it leaves behind has its checksum.
            self._connection.execute("PRAGMA synchronous = OFF")
            if _version(self._connection) != _FORMAT:
                self._make_tables(self._connection)
        return self._connection

    def _make_tables(self, connection: sqlite3.Connection) -> None:
        with _transaction(connection):
            if _version(connection) == _FORMAT:
                return  # another process was faster
            tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            for (table,) in tables:
                connection.execute(f'DROP TABLE "{table}"')
            connection.execute(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_FORMAT}")

    def _begin_anew(self, error: str) -> None:
        log.warning("the cache %s is damaged (%s): it is begun anew", self.path, error)
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        for path in (self.path, *logs(self.path)):
            path.unlink(missing_ok=True)

    def _write(self, connection: sqlite3.Connection) -> None:
        today = _today()
        with _transaction(connection):
            for key, entry in self._pending.items():
                known = _found(connection, key)  # also what another process has written meanwhile
                value = _sealed(key, _merged(known and _opened(key, known[0]), entry))
                connection.execute("REPLACE INTO entry VALUES (?, ?, ?)", (key, value, today))
            for key in self._used:
                connection.execute("UPDATE entry SET day = ? WHERE key = ?", (today, key))
            self._make_room(connection)

    def _make_room(self, connection: sqlite3.Connection) -> None:
        def number(pragma: str) -> int:
            return connection.execute(f"PRAGMA {pragma}").fetchone()[0]

        page, most = number("page_size"), self._size
        while (number("page_count") - number("freelist_count")) * page > most:
            most = int(self._size * 0.9)  # once it is full, some room is made at a time
            oldest = "SELECT key FROM entry ORDER BY day LIMIT 1 + (SELECT count(*) FROM entry) / 20"
            if not connection.execute(f"DELETE FROM entry WHERE key IN ({oldest})").rowcount:
                break


class _transaction:
    """All of it or nothing, with the right to write from the start: one that comes later could be refused."""

    def __init__(self, connection: sqlite3.Connection):
        self._connection = connection

    def __enter__(self) -> None:
        self._connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, exception: type[BaseException] | None, *_: object) -> None:
        if exception is None:
            self._connection.execute("COMMIT")
        elif self._connection.in_transaction:
            self._connection.execute("ROLLBACK")


def _key(question: Question, hashes: Sequence[str]) -> bytes | None:
    """By what a question is found; ``None`` where its outcomes cannot be kept."""
    if question.measures.repetitions:  # times are measured when they are asked for
        return None
    # Without the time limit: each outcome knows for which it holds.
    limits = [value for name, value in vars(question.limits).items() if name != "seconds"]
    versions = (_FORMAT, sqlite3.sqlite_version, sys.version_info[:2])
    text = repr((versions, list(hashes), question.gold, limits, vars(question.measures)))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _version(connection: sqlite3.Connection) -> int:
    return connection.execute("PRAGMA user_version").fetchone()[0]


def _found(connection: sqlite3.Connection, key: bytes) -> tuple[bytes, int] | None:
    """An entry's bytes, and the day on which it was used last."""
    return connection.execute("SELECT value, day FROM entry WHERE key = ?", (key,)).fetchone()


def _today() -> int:
    return int(time.time() // 86_400)


_Outcomes = dict[str, tuple[float, tuple]]
_Entry = tuple[float, tuple, bytes | None, _Outcomes]
"""The limit in seconds of the gold, its outcome and results; and by statement the limit and the outcome of each."""

_CHECKSUM = 8  # bytes


def _checksum(key: bytes, content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_CHECKSUM, key=key).digest()


def _sealed(key: bytes, entry: _Entry) -> bytes:
    content = zlib.compress(marshal.dumps(entry), 1)
    return _checksum(key, content) + content


def _opened(key: bytes, value: bytes) -> _Entry | None:
    """An entry; ``None`` where its bytes are not what they were, or another key's."""
    content = value[_CHECKSUM:]
    if _checksum(key, content) != value[:_CHECKSUM]:
        return None
    return marshal.loads(zlib.decompress(content))


def _plain(outcome: Outcome) -> tuple[Any, ...]:
    measured = None if outcome.measured is None else astuple(outcome.measured)
    return (outcome.status, *outcome.matches, outcome.error, outcome.seconds, outcome.rows, measured, outcome.lasts)


def _outcome(plain: tuple[Any, ...]) -> Outcome:
    status, *matches, error, seconds, rows, measured, lasts = plain
    return Outcome(
        status, Matches(*matches), error, seconds, rows, None if measured is None else Measured.of(measured), lasts
    )


def _usable(entry: _Entry, seconds: float) -> Recalled | None:
    """What of an entry is true under a limit of so many seconds."""
    limit, gold, gold_rows, outcomes = entry
    if not _holds(limit, gold, seconds):
        return None
    good = {sql: _outcome(plain) for sql, (limit, plain) in outcomes.items() if _holds(limit, plain, seconds)}
    return Recalled(GoldOutcome(*gold), gold_rows, good)


def _holds(limit: float, plain: tuple[Any, ...], seconds: float) -> bool:
    """Whether what was found under one limit is true under another; ``plain`` is ``(status, ..., lasts)``."""
    if seconds == limit:
        return True
    return seconds > limit if plain[-1] == "always" else seconds < limit and plain[0] == "timeout"


def _merged(before: _Entry | None, new: _Entry) -> _Entry:
    """Both entries in one, the more widely true where both have an outcome."""
    if before is None:
        return new
    (limit, gold, rows, outcomes), (new_limit, new_gold, new_rows, new_outcomes) = before, new
    widely = gold[-1] == new_gold[-1] == "always"
    if gold[0] != new_gold[0] or not (limit == new_limit or widely):
        return new  # the gold ran under one limit only: nothing that was compared with it is comparable
    better = {
        sql: outcome
        for sql, outcome in new_outcomes.items()
        if sql not in outcomes or not _holds(*outcomes[sql], outcome[0])
    }
    kept = gold if limit < new_limit else new_gold
    return (min(limit, new_limit), kept, new_rows or rows, outcomes | better)
