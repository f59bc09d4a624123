"""What a long stage has finished, one JSON line a question, so that it can be killed at any moment and go on."""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .errors import ExcotError

_SYNC_EVERY = 1.0  # s; a killed process loses nothing, a machine without power loses at most this much


class Journal:
    """An append-only file of finished questions; the last record of a question counts.

    The first line says for which arguments the work was done. A last line that was cut off by a crash is dropped; a
    damaged line elsewhere is an error, since dropping it would silently ask for, and pay for, its question again.

    Args:
        path: the file; it is made on the first start.
        arguments: the stage's arguments.
        keep: go on from what is there although it was made with other arguments.
        replaces: the fingerprint of the finished output that this work shall replace, if any.

    Raises:
        ExcotError: the file was begun with other arguments, or is damaged.
    """

    def __init__(self, path: Path, arguments: dict[str, Any], keep: bool = False, replaces: str | None = None):
        self.path = path
        self._places: dict[str, tuple[int, str]] = {}  # id -> offset of its line, digest of what it was made from
        self._synced = time.monotonic()
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written without a buffer: what one holds back from a full disk would be tried again at every later call.
        self._writer = open(path, "ab", buffering=0)
        try:
            size = path.stat().st_size
            self._end = self._index(arguments, keep) if size else 0
            if self._end < size:
                self._writer.truncate(self._end)
            self._reader = open(path, "rb")
            if not self._end:
                self._write({"arguments": arguments, "replaces": replaces})
        except BaseException:
            self._writer.close()
            raise

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, id: str) -> bool:
        return id in self._places

    def has(self, id: str, digest: str) -> bool:
        """Whether this question is finished, from the same input (see `digest_of`)."""
        return self._places.get(id, (0, None))[1] == digest

    def add(self, id: str, digest: str, record: dict[str, Any]) -> None:
        """Write one finished question. It survives a kill of this process from here on."""
        self._places[id] = (self._write({"id": id, "input": digest, "record": record}), digest)

    def read(self, id: str) -> dict[str, Any]:
        """The record of a finished question."""
        self._reader.seek(self._places[id][0])
        return json.loads(self._reader.readline())["record"]

    def close(self) -> None:
        self._writer.close()
        self._reader.close()

    def _write(self, line: dict[str, Any]) -> int:
        """Append one line and return where it begins; a line that does not fit on the disk leaves no trace."""
        start, text = self._end, json.dumps(line, ensure_ascii=False).encode() + b"\n"
        rest = memoryview(text)
        try:
            while rest:
                rest = rest[self._writer.write(rest) :]
            if time.monotonic() - self._synced > _SYNC_EVERY:
                os.fsync(self._writer.fileno())
                self._synced = time.monotonic()
        except OSError as error:
            with suppress(OSError):
                self._writer.truncate(start)
            raise ExcotError(
                f"cannot write {self.path} ({error.strerror})",
                "make room on the disk, then start the same command again",
            ) from None
        self._end += len(text)
        return start

    def _index(self, arguments: dict[str, Any], keep: bool) -> int:
        """Note where each finished question is, and return where the next line may begin."""
        begun_with, end = arguments, 0
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break  # cut off in the middle of a write
                try:
                    entry = json.loads(line)
                    if number == 1:
                        begun_with = dict(entry["arguments"])
                    else:
                        id, digest, _ = entry["id"], entry["input"], entry["record"]
                        self._places[id] = (end, digest)
                except (ValueError, KeyError, TypeError):
                    raise ExcotError(
                        f"{self.path}, line {number}: not a journal line",
                        "restore the file, or start again with --overwrite",
                    ) from None
                end += len(line)
        if not self._places:
            return 0  # nothing is finished, so nothing holds anybody to the arguments of that start
        self._check(begun_with, arguments, keep)
        return end

    def _check(self, begun_with: dict[str, Any], arguments: dict[str, Any], keep: bool) -> None:
        if begun_with != arguments and not keep:
            raise ExcotError(
                f"{self.path.stem} was begun with {differences(begun_with, arguments)}",
                "give the same arguments to go on, --resume to keep what is finished and go on with the new ones, "
                "--overwrite to start again, or another --out",
            )


def begun_to_replace(path: Path, arguments: dict[str, Any], replaces: str | None) -> bool:
    """Whether the journal at ``path`` was begun with these arguments, to replace that very output."""
    try:
        with open(path, "rb") as file:
            header = json.loads(file.readline())
    except (OSError, ValueError):
        return False
    return header == {"arguments": arguments, "replaces": replaces}


def digest_of(*parts: Any) -> str:
    """A short digest of anything JSON can hold: tells whether a finished question's input is still the same."""
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:16]


def differences(old: dict[str, Any], new: dict[str, Any]) -> str:
    """What differs between two sets of arguments, as ``name=old (now new)``."""
    return ", ".join(
        f"{name}={old.get(name)!r} (now {new.get(name)!r})"
        for name in sorted({*old, *new})
        if old.get(name) != new.get(name)
    )
