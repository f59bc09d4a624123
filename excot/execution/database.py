"""SQLite files: find them, open them without ever changing them, and describe what is inside."""

from __future__ import annotations

import os
import sqlite3
import stat
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from urllib.parse import quote

from ..errors import ExcotError
from .files import logs

_HEADER = b"SQLite format 3\0"
_SAMPLED_ROWS = (
    10_000  # sample values come from the first rows only: a large table must not be scanned for three values
)
_SAMPLES = 3
# The tables in which the virtual tables of SQLite itself (full-text search, R*Tree) keep what they hold.
_SHADOWS = "content segments segdir docsize stat data idx config node parent rowid".split()


class DatabaseError(ExcotError):
    """A database file that is missing, unreadable, damaged, or no SQLite database."""


class MissingDatabase(DatabaseError):
    """There is no file for this ``db_id``."""


@dataclass(frozen=True)
class Column:
    """A column as the file declares it: ``references`` are ``(table, column)``, ``samples`` up to three values."""

    name: str
    type: str = ""
    primary_key: bool = False
    references: tuple[tuple[str, str], ...] = ()
    samples: tuple[str | int | float | bytes, ...] = ()


@dataclass(frozen=True)
class Table:
    """A table or view with its columns in declaration order."""

    name: str
    columns: tuple[Column, ...]


class Databases:
    """A folder of databases: ``<db_id>/<db_id>.sqlite`` (Spider, BIRD) or ``<db_id>.sqlite``.

    Args:
        folder: the folder that holds them, such as Spider's ``database`` or BIRD's ``dev_databases``.

    Raises:
        DatabaseError: there is no such folder.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        if not self.folder.is_dir():
            raise DatabaseError(
                f"no such databases folder: {self.folder}", "give the folder that holds <db_id>/<db_id>.sqlite"
            )

    def paths(self, db_id: str) -> tuple[Path, ...]:
        """The files of one database, the main one first.

        A folder of its own may hold several ``.sqlite`` files: further instances of the same schema with other
        contents, on all of which the test-suite comparator must hold.

        Raises:
            MissingDatabase: there is no main file.
        """
        if Path(db_id).name == db_id and db_id not in ("", ".."):  # a path could lead anywhere on the disk
            nested = self.folder / db_id / f"{db_id}.sqlite"
            if os.path.exists(nested):  # Path.exists() raises on a name that is too long
                # Names with a dot in front are the droppings of other systems, such as macOS's "._x.sqlite".
                others = (path for path in nested.parent.glob("*.sqlite") if not path.name.startswith("."))
                return (nested, *sorted(path for path in others if path != nested))
            flat = self.folder / f"{db_id}.sqlite"
            if os.path.exists(flat):
                return (flat,)
        raise MissingDatabase(
            f"no database {db_id!r} in {self.folder}",
            f"put it at {db_id}/{db_id}.sqlite or {db_id}.sqlite in that folder",
        )

    def find(self, db_id: str) -> tuple[Path, ...]:
        """The files of one database, as `paths` gives them; empty where there is no main file."""
        try:
            return self.paths(db_id)
        except MissingDatabase:
            return ()


def connect(path: str | Path) -> sqlite3.Connection:
    """Open a database for reading only; the file and its journals stay untouched.

    Where a write-ahead log lies beside the file, its rows are read too; SQLite then keeps an index of it in ``-shm``.

    Raises:
        DatabaseError: missing, a folder, without permission, empty, not SQLite, or damaged: said in one line.
    """
    path = Path(path)
    _check_file(path)
    mode = "mode=ro"
    if not logs(path):
        mode += "&immutable=1"  # neither locks nor a journal: nothing but the file itself is looked at
    connection = None
    try:
        connection = sqlite3.connect(
            f"file:{quote(os.fsencode(path.absolute()))}?{mode}",
            uri=True,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=0,  # `sqlite_stmt` would show a statement the ones before it
        )
        connection.execute("SELECT 1 FROM sqlite_master LIMIT 1").fetchall()
    except sqlite3.Error as error:
        if connection is not None:
            connection.close()
        raise _damaged(path, error) from None
    return connection


def describe(path: str | Path) -> list[Table]:
    """The tables and views of a database in creation order, each column with up to three sample values.

    Sample values are distinct, not null, and always the same ones: the first that the table's first rows hold. Views
    and virtual tables have none, and those that cannot be read at all (over a table that is gone, of a module that is
    not installed) are left out.

    Raises:
        DatabaseError: as `connect`, or damaged pages found on the way.
    """
    connection = connect(path)
    connection.text_factory = partial(str, encoding="utf-8", errors="replace")
    try:
        found = connection.execute(
            "SELECT name, type, sql LIKE 'CREATE VIRTUAL%' FROM sqlite_master "
            "WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid"
        ).fetchall()
        shadows = {f"{name}_{part}" for name, _, is_virtual in found if is_virtual for part in _SHADOWS}
        tables = []
        for name, kind, is_virtual in found:
            if name in shadows:
                continue
            stored = kind == "table" and not is_virtual
            try:
                tables.append(Table(name, _columns(connection, name, sampled=stored)))
            except sqlite3.OperationalError:
                if stored:
                    raise
        return tables
    except sqlite3.Error as error:
        raise _damaged(Path(path), error) from None
    finally:
        connection.close()


def _check_file(path: Path) -> None:
    mode = _status(path).st_mode
    if stat.S_ISDIR(mode):
        raise DatabaseError(f"database {path} is a folder", "put the .sqlite file there instead")
    if not stat.S_ISREG(mode):  # to open a pipe is to wait for whoever writes into it
        raise DatabaseError(f"database {path} is no regular file (mode {stat.filemode(mode)})", "check the path")
    try:
        with open(path, "rb") as file:
            start = file.read(len(_HEADER))
    except OSError as error:
        raise _unreadable(path, error) from None
    if not start:
        raise DatabaseError(f"database {path} is empty (0 bytes)", "copy or unpack the file again")
    if start != _HEADER:
        seen = start.decode("utf-8", "replace")
        raise DatabaseError(
            f"database {path} is not a SQLite file (it begins with {seen!r})", "copy or unpack it again"
        )


def _status(path: str | Path) -> os.stat_result:
    try:
        return os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise _unreadable(path, error) from None


def _unreadable(path: str | Path, error: Exception) -> DatabaseError:
    if isinstance(error, FileNotFoundError):
        return MissingDatabase(f"database {path} does not exist", "check the path, or unpack the benchmark again")
    reason = getattr(error, "strerror", None) or error
    remedy = "check its permissions" if isinstance(error, PermissionError) else "check the path"
    return DatabaseError(f"database {path} cannot be read ({reason})", remedy)


def _columns(connection: sqlite3.Connection, table: str, sampled: bool) -> tuple[Column, ...]:
    references: dict[str, list[tuple[str, str]]] = {}
    for _, place, parent, column, parent_column, *_ in connection.execute(
        f"PRAGMA foreign_key_list({_quoted(table)})"
    ):
        target = parent_column or _primary_key(connection, parent, place)
        references.setdefault(column.lower(), []).append((parent, target))
    return tuple(
        Column(
            name=name,
            type=type_,
            primary_key=bool(key),
            references=tuple(reversed(references.get(name.lower(), ()))),  # SQLite lists the last one first
            samples=_sample(connection, table, name) if sampled else (),
        )
        # table_xinfo knows the generated columns too; "hidden" is 1 for what is no real column of a virtual table.
        for _, name, type_, _, _, key, hidden in connection.execute(f"PRAGMA table_xinfo({_quoted(table)})").fetchall()
        if hidden != 1
    )


def _primary_key(connection: sqlite3.Connection, table: str, place: int) -> str:
    """The column to which the ``place``-th column of a foreign key refers that names none itself."""
    keys = {key: name for _, name, _, _, _, key in connection.execute(f"PRAGMA table_info({_quoted(table)})")}
    return keys.get(place + 1, "rowid")


def _sample(connection: sqlite3.Connection, table: str, column: str) -> tuple[str | int | float | bytes, ...]:
    rows = connection.execute(
        # Neither an index (another order) nor the column's own collation (which may not be installed) has a say.
        f"SELECT DISTINCT value FROM (SELECT {_quoted(column)} COLLATE BINARY AS value FROM {_quoted(table)} "
        f"NOT INDEXED LIMIT {_SAMPLED_ROWS}) WHERE value IS NOT NULL LIMIT {_SAMPLES}"
    )
    return tuple(value for (value,) in rows)


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _damaged(path: Path, error: sqlite3.Error) -> DatabaseError:
    return DatabaseError(f"database {path} cannot be read ({error})", "it may be damaged: copy or unpack it again")
