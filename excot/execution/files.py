"""What tells one state of a database file from another: at a glance, and for good."""

from __future__ import annotations

import errno
import hashlib
import os
from pathlib import Path

Signature = tuple[int, ...]

_hashes: dict[tuple[Path, Signature], str] = {}


def signature(path: Path) -> Signature | None:
    """What changes when a file is written to or replaced: its size, times and inode, and those of its log.

    ``None`` where there is no such file.
    """
    found: list[int] = []
    for file in (path, *logs(path)):
        try:
            status = os.stat(file)
        except (OSError, ValueError):
            if file is path:
                return None
            continue  # the log has gone since
        found += [status.st_size, status.st_mtime_ns, status.st_ino]
        if file is path:  # of a log, SQLite itself sets the owner when it opens it
            found.append(status.st_ctime_ns)
    return tuple(found)


def logs(path: Path) -> list[Path]:
    """The write-ahead log or rollback journal beside a database, which can hold rows that its file does not."""
    beside = (path.with_name(path.name + suffix) for suffix in ("-wal", "-journal"))
    return [log for log in beside if os.path.exists(log)]


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def known_hash(path: Path) -> str:
    """`file_hash` of a file that is read once in this process, as long as it looks the same.

    Databases have gigabytes, and a stage asks for their hashes more than once.

    Raises:
        OSError: it cannot be read, or is no regular file: reading a pipe would wait for whoever writes into it.
    """
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "no regular file", str(path))
    seen = signature(path)
    if seen is None or (path, seen) not in _hashes:
        found = file_hash(path)
        if seen is None or signature(path) != seen:
            return found  # it is being written to
        _hashes[path, seen] = found
    return _hashes[path, seen]
