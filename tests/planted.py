"""The secrets that tests give away, and the search for them in all that is written afterwards.

Every token, key and password that a test hands to the code stands here. Each holds the same mark twice, so that one
search finds whichever leaked, also where only half of it did, or in base64 as an HTTP header has it. It looks

- into what a command printed, as soon as a test has it (`command.py`);
- into every repo at the Hub at every commit, and the addresses that were asked for, when a test's server ends;
- into what pytest captured of the tests, and every file below its temporary folder, when the session ends.

The files that `log_in` makes may hold a token, and no others. No report names a secret by its text.
"""

from __future__ import annotations

import gzip
import io
import os
from base64 import b64encode
from collections.abc import Iterator
from contextlib import suppress
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hub import HubServer

MARK = "Zq7vKx2Wj9"
HUB_TOKEN = f"hf_{MARK}MayWrite{MARK}"
HUB_READ_TOKEN = f"hf_{MARK}MayRead{MARK}"
HUB_OTHER_TOKEN = f"hf_{MARK}IsAStranger{MARK}"
OPENAI_KEY = f"sk-proj-{MARK}_secret-{MARK}"
AZURE_KEY = f"{MARK}0123456789ab{MARK}"
PASSWORD = f"{MARK}-open-sesame-{MARK}"

LARGEST = 64 * 2**20
"""Of a larger file only as many bytes are read: it is a model's weights."""

_logins: set[Path] = set()


def log_in(home: Path, token: str = HUB_TOKEN) -> Path:
    """Write the token where the Hub's clients keep the one of a user who logged in."""
    path = home / "token"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(token)
    _logins.add(path.resolve())
    return path


def _in_base64(text: str) -> Iterator[str]:
    """What stays of a text in base64 whatever stands around it: it may begin at any of three places."""
    for before in range(3):
        first, end = ceil(before * 8 / 6), (before + len(text)) * 8 // 6
        yield b64encode(b"\0" * before + text.encode()).decode()[first:end]


_NEEDLES = [needle.encode() for needle in (MARK, *_in_base64(MARK))]


def holds(content: bytes | str) -> bool:
    """Whether any secret, or half of one, is in a text."""
    data = content.encode(errors="replace") if isinstance(content, str) else content
    return any(needle in data for needle in _NEEDLES)


def hidden(text: str) -> str:
    """A text that may be shown."""
    for needle in _NEEDLES:
        text = text.replace(needle.decode(), "[...]")
    return text


def see_none_in(text: str | bytes | None, where: str) -> None:
    """End the test if a secret is in what it got to see."""
    if text and holds(text):
        raise AssertionError(f"a planted secret is in {where}")


def see_none_on(hub: HubServer) -> None:
    """End the test if a secret was pushed, or sent in an address."""
    for request in hub.requests:
        see_none_in(f"{request} {request.query}", f"the address of a {request.method} request to the Hub")
    for repo in hub.repos.values():
        for commit in repo.commits.values():
            see_none_in(f"{commit.title} {commit.message} {[*commit.files]}", f"a commit to the {repo.kind} {repo.id}")
        for path, content in repo.blobs():
            if any(map(holds, _readings(path, bytes(content[:LARGEST])))):
                raise AssertionError(f"a planted secret is in {path} of the {repo.kind} {repo.id} on the Hub")


def files_with_secrets(folder: Path) -> list[str]:
    """The files below a folder that hold a secret, or have it in their names, as paths from there."""
    return sorted(
        str(path.relative_to(folder))
        for path in _files(folder)
        if path.resolve() not in _logins and (holds(str(path)) or any(map(holds, _contents(path))))
    )


def _files(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        paths = (Path(parent, name) for name in names)
        yield from (path for path in paths if path.is_file() and not path.is_symlink())


def _contents(path: Path) -> Iterator[bytes]:
    with suppress(OSError), path.open("rb") as file:  # what nobody can read, or is gone by now
        yield from _readings(path.name, file.read(LARGEST))


def _readings(name: str, content: bytes) -> Iterator[bytes]:
    """A content as it is, and with what is compressed in it laid open."""
    yield content
    with suppress(Exception):  # damaged on purpose, or not what its name says
        if name.endswith(".gz"):
            with gzip.open(io.BytesIO(content)) as unpacked:
                yield unpacked.read(LARGEST)
        elif content[:4] == content[-4:] == b"PAR1":
            yield _rows(content)


def _rows(parquet: bytes) -> bytes:
    """The columns of a Parquet file one after the other, their texts as they are."""
    import pyarrow as pa
    import pyarrow.parquet

    table, sink = pyarrow.parquet.read_table(pa.BufferReader(parquet)), pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as stream:
        stream.write_table(table)
    return sink.getvalue().to_pybytes()
