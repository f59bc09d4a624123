"""One statement on one SQLite database, safely: read-only, bounded in time and memory, nothing left behind.

What it covers: the file is opened read-only and immutable; an authorizer lets a statement read, select, call functions
and recurse, and nothing else; one statement at a time; wall time, the length of a value and of a row, and SQLite's own
memory are limited. What it does not cover: a single step that SQLite never interrupts (one very long function call).
Those are ended from outside by the process pool, in whose workers sandboxes live (``pool.py``).
"""

from __future__ import annotations

import sqlite3
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from .compare import Row
from .database import DatabaseError, connect
from .volatile import VOLATILE_FUNCTIONS, is_volatile

T = TypeVar("T")
Status = Literal["ok", "error", "timeout", "too_large", "refused"]

_HAS_SETLIMIT = hasattr(sqlite3.Connection, "setlimit")  # Python 3.11; before that the heap limit alone bounds a value
_MAPPED = 128 << 20  # bytes of the file that SQLite reads in place: a sixth less time on a database of 500 MB
_SOON = 0.05  # s; a first row that comes sooner is not missed
_INSTRUCTIONS_BETWEEN_CLOCK_READINGS = 1_000
_ALLOWED = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_RECURSIVE}
_FORBIDDEN_FUNCTIONS = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"}
_FORBIDDEN_TABLES = {"sqlite_stmt"}  # it holds what the connection has been used for, not what the database holds
# SQLite's own words, whole: a statement can bring any word of its own into a message ("no such column: interrupted").
_TOO_LARGE = {"string or blob too big", "query string is too large", "database or disk is full"}
_NOT_UTF8 = "Could not decode to UTF-8"  # the beginning of what Python's sqlite3 says of a value
_DATABASE_AT_FAULT = {
    "database is locked",
    "database disk image is malformed",
    "disk I/O error",
    "file is not a database",
    "unable to open database file",
}


@dataclass(frozen=True)
class Limits:
    """What one statement may use.

    Attributes:
        seconds: wall time. 5 for labels; 30 for scores, as BIRD's official script allows.
        rows: rows of a gold result that are kept; a candidate never keeps more than its gold has.
        result_bytes: bytes of a gold result that are kept, estimated.
        value_bytes: length of one value (and of one row inside SQLite).
        row_bytes: memory of one row as Python holds it. Each column has an equal share, which no text may exceed: the
            values of a row with more than ``row_bytes / value_bytes`` columns have to be shorter.
        sql_bytes: length of the statement.
        heap_bytes: memory of SQLite in one process; large sorts and temporary indices go to a file. It holds for the
            whole process from the first sandbox on, and SQLite lets later ones only lower it.

    Whoever reads rows and keeps none needs, at the worst, ``heap_bytes`` and twice ``row_bytes``: SQLite's values, the
    row that is being made of them, and the one before it.
    """

    seconds: float = 5.0
    rows: int = 1_000_000
    result_bytes: int = 100_000_000
    value_bytes: int = 4_000_000
    row_bytes: int = 64_000_000
    sql_bytes: int = 100_000
    heap_bytes: int = 64_000_000


class _NotUtf8(Exception):
    """A value that was to be decoded strictly."""


class TooLarge(Exception):
    """Raised by a reader of rows when it will not keep more of them."""


@dataclass(frozen=True)
class Execution(Generic[T]):
    """What became of a statement.

    Attributes:
        status: what happened.
        value: what its rows were read into; ``None`` unless ``status`` is ``ok``.
        error: SQLite's message, or what else stopped it.
        seconds: wall time.
        volatile: whether it asks for the clock or for chance, so that it may come out otherwise at any time.
    """

    status: Status
    value: T | None
    error: str | None
    seconds: float
    volatile: bool = False


class Sandbox:
    """A database that any statement may be tried on.

    Args:
        path: the SQLite file.
        limits: what each statement may use.
        on_restart: called where a statement is executed a second time, whose limit begins anew.

    Raises:
        DatabaseError: the file is missing, empty, or no SQLite database.
    """

    def __init__(self, path: str | Path, limits: Limits, on_restart: Callable[[], None] = lambda: None):
        self.path, self.limits = Path(path), limits
        self._on_restart = on_restart
        self._deadline = 0.0
        self._denied: str | None = None
        self._functions: set[str] = set()
        self._replaces = False  # whether text that is not UTF-8 has been met
        self._share = limits.row_bytes  # of each column of the current statement
        self._length = 0  # of a value, as SQLite was told
        self._connection = connect(path)
        # Where somebody else has locked the file, waiting for it is not interrupted.
        self._connection.execute(f"PRAGMA busy_timeout = {int(1000 * min(1.0, limits.seconds))}").close()
        self._connection.execute(f"PRAGMA mmap_size = {_MAPPED}").close()
        self._connection.execute(f"PRAGMA hard_heap_limit = {limits.heap_bytes}").close()
        # A sort or a temporary index that outgrows its cache goes to a file without a name, as in the official
        # scripts: kept in memory it would meet that limit, and large golds that are right would be too large.
        if _HAS_SETLIMIT:
            self._limit_values(columns=1)
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, limits.sql_bytes)
            self._connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
        self._connection.set_authorizer(self._authorize)
        self._connection.set_progress_handler(self._out_of_time, _INSTRUCTIONS_BETWEEN_CLOCK_READINGS)

    def run(self, sql: str, read: Callable[[Iterator[Row]], T]) -> Execution[T]:
        """Execute one statement and hand its rows, as they come, to ``read``.

        Args:
            sql: the statement, any text whatever.
            read: takes an iterator of rows (tuples) and makes something of them; it may stop early, and may raise
                `TooLarge`. It is called again, from the first row on, where text turns up that is not UTF-8.

        Raises:
            DatabaseError: the file itself is damaged or gone; no statement is to blame for that.
        """
        try:
            return self._run(sql, read)
        except _NotUtf8:
            self._replaces = True
            self._on_restart()
            return self._run(sql, read)

    def _run(self, sql: str, read: Callable[[Iterator[Row]], T]) -> Execution[T]:
        started = time.perf_counter()
        self._deadline = started + self.limits.seconds
        self._denied = None
        self._functions.clear()
        self._connection.text_factory = self._decode
        self._limit_values(columns=1)
        status: Status = "ok"
        value, error, cursor = None, None, None
        try:
            if len(sql) > self.limits.sql_bytes:
                raise TooLarge(f"the statement has {len(sql):,} characters, the limit is {self.limits.sql_bytes:,}")
            cursor = self._begin(sql)
            value = read(cursor)
        # sqlite3.Warning: several statements (Python 3.10); MemoryError: SQLite's or Python's own; UnicodeDecodeError:
        # a message in which SQLite quotes text that is not UTF-8, and which can come with any row.
        except (sqlite3.Error, sqlite3.Warning, MemoryError, UnicodeDecodeError, TooLarge) as exception:
            status, error = self._explain(exception)
        finally:
            if cursor is not None:
                cursor.close()
        volatile = bool(self._functions) and is_volatile(self._functions, sql)
        return Execution(status, value, error, time.perf_counter() - started, volatile)

    def _begin(self, sql: str) -> sqlite3.Cursor:
        cursor = self._execute(sql)
        columns = len(cursor.description)
        # A value that a statement names in 2,000 columns SQLite may hold once, and Python makes 2,000 copies of it.
        # If it is a literal, SQLite does not even look at its length.
        if columns * sys.getsizeof(sql) > self.limits.row_bytes:
            cursor.close()
            raise TooLarge(f"a statement of {len(sql):,} characters with {columns:,} columns")
        if columns * self.limits.value_bytes > self.limits.row_bytes and _HAS_SETLIMIT:
            self._limit_values(columns)
            # SQLite has made the first row, under the longer limit. Where that took long it is not made again: then
            # only the limit of the process's memory is between a row of giants and the machine.
            if self._deadline - time.perf_counter() > self.limits.seconds - _SOON:
                cursor.close()
                return self._execute(sql)
            return cursor
        self._share = self.limits.row_bytes // columns
        if 4 * columns * self.limits.value_bytes <= self.limits.row_bytes and not self._replaces:
            # No text can be too large for its share: Python's own decoding, which takes a third of the time, will do.
            self._connection.text_factory = str
        return cursor

    def _execute(self, sql: str) -> sqlite3.Cursor:
        try:
            cursor = self._connection.execute(sql)
        except (ValueError, OverflowError, RecursionError) as error:  # text that is no SQL: NULs, lone surrogates
            raise sqlite3.ProgrammingError(str(error)) from None
        if cursor.description is None:
            raise sqlite3.ProgrammingError("not a query: the statement has no result")
        return cursor

    def close(self) -> None:
        self._connection.close()

    def _limit_values(self, columns: int) -> None:
        self._share = self.limits.row_bytes // columns
        if _HAS_SETLIMIT:
            most = self.limits.value_bytes
            # Not less than an eighth: a sort of wide rows makes one value of each.
            length = min(most, max(self.limits.row_bytes // columns, most // 8))
            if length != self._length:
                self._length = length
                self._connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, length)

    def _decode(self, raw: bytes) -> str:
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            # Replacement instead of an error or a loss: what cannot be decoded is the same for gold and candidate.
            text = raw.decode(errors="replace")
        # One character that takes four bytes makes every other one of the text take four in Python.
        if 4 * len(raw) > self._share and sys.getsizeof(text) > self._share:
            raise TooLarge(f"a text of {len(text):,} characters takes {sys.getsizeof(text):,} bytes")
        return text

    def _out_of_time(self) -> bool:
        return time.perf_counter() > self._deadline

    def _authorize(self, action: int, first: str | None, second: str | None, *_: Any) -> int:
        if action == sqlite3.SQLITE_FUNCTION:
            if second in VOLATILE_FUNCTIONS:
                self._functions.add(second)
            allowed = second not in _FORBIDDEN_FUNCTIONS
        else:
            allowed = action in _ALLOWED and not (action == sqlite3.SQLITE_READ and first.lower() in _FORBIDDEN_TABLES)
        if allowed:
            return sqlite3.SQLITE_OK
        # Opening a virtual table (json_each, FTS) declares its columns, which SQLite calls an update of sqlite_master;
        # a real update of that table it refuses by itself. FTS5 also asks whether the file has changed.
        if (action, first) == (sqlite3.SQLITE_UPDATE, "sqlite_master"):
            return sqlite3.SQLITE_OK
        if (action, first, second) == (sqlite3.SQLITE_PRAGMA, "data_version", None):
            return sqlite3.SQLITE_OK
        self._denied = _ACTION_NAMES.get(action, f"action {action}")
        return sqlite3.SQLITE_DENY

    def _explain(self, exception: BaseException) -> tuple[Status, str]:
        message = str(exception) or type(exception).__name__
        if message.startswith(_NOT_UTF8):
            raise _NotUtf8 from None
        # The full-text tables ask for more than they need and live with the refusal: what counts is the message.
        if self._denied is not None and ("authoriz" in message or "prohibited" in message):
            return "refused", f"{message} ({self._denied})"
        if isinstance(exception, TooLarge) or message in _TOO_LARGE:
            return "too_large", message
        # The database is never written, so what could not be written was a temporary file that had grown too large.
        if getattr(exception, "sqlite_errorname", None) == "SQLITE_IOERR_WRITE":
            return "too_large", "a sort or a temporary index is too large"
        if isinstance(exception, MemoryError) or message == "out of memory":
            return "too_large", f"more than {self.limits.heap_bytes:,} bytes of memory"
        if message == "interrupted":
            if not self._out_of_time():  # Ctrl-C came while SQLite asked for the time, and sqlite3 swallowed it
                raise KeyboardInterrupt from None
            return "timeout", f"more than {self.limits.seconds:g} s"
        if message in _DATABASE_AT_FAULT or message.startswith("malformed database schema"):
            raise DatabaseError(
                f"database {self.path} cannot be read ({message})",
                "restore the file, then start the same command again",
            ) from None
        return "error", message


_ACTION_NAMES = {
    getattr(sqlite3, f"SQLITE_{name}"): name.replace("_", " ").lower()
    for name in (
        "ALTER_TABLE ANALYZE ATTACH CREATE_INDEX CREATE_TABLE CREATE_TEMP_INDEX CREATE_TEMP_TABLE "
        "CREATE_TEMP_TRIGGER CREATE_TEMP_VIEW CREATE_TRIGGER CREATE_VIEW CREATE_VTABLE DELETE DETACH DROP_INDEX "
        "DROP_TABLE DROP_TEMP_INDEX DROP_TEMP_TABLE DROP_TEMP_TRIGGER DROP_TEMP_VIEW DROP_TRIGGER DROP_VIEW "
        "DROP_VTABLE FUNCTION INSERT PRAGMA READ REINDEX SAVEPOINT TRANSACTION UPDATE"
    ).split()
}
