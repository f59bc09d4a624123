"""Large contents of the tests' Hub: in files rather than in memory, hashed while they come, sent as they lie there."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from socket import socket


@dataclass(frozen=True)
class OnDisk:
    """Consecutive bytes of a file, which are measured and cut as ``bytes`` are, and read only where they are needed.

    Attributes:
        path: the file.
        sha256: the checksum of the whole file.
        start, stop: where in it the bytes begin and end.
    """

    path: Path
    sha256: str
    start: int
    stop: int

    def __len__(self) -> int:
        return self.stop - self.start

    def __getitem__(self, part: slice) -> OnDisk:
        start, stop, _ = part.indices(len(self))
        return replace(self, start=self.start + start, stop=self.start + max(start, stop))

    def __bytes__(self) -> bytes:
        with self.path.open("rb") as file:
            file.seek(self.start)
            return file.read(len(self))

    def send(self, connection: socket) -> None:
        """From the file to the network, past our memory."""
        if self:
            with self.path.open("rb") as file:
                connection.sendfile(file, self.start, len(self))

    def moved(self, path: Path) -> OnDisk:
        """The same content after its file was moved."""
        return replace(self, path=self.path.replace(path))


Content = bytes | OnDisk


def written(parts: Iterable[bytes], path: Path) -> OnDisk:
    """Write what arrives to a file."""
    sha256 = hashlib.sha256()
    with path.open("wb") as file:
        for part in parts:
            file.write(part)
            sha256.update(part)
        return OnDisk(path, sha256.hexdigest(), 0, file.tell())


def checksum(content: Content) -> str:
    """The SHA-256 by which a whole content is known."""
    return content.sha256 if isinstance(content, OnDisk) else hashlib.sha256(content).hexdigest()
