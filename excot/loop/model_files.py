"""A model's folder by its files: whether it is still the model that it was, without reading hundreds of gigabytes."""

from __future__ import annotations

import hashlib
from pathlib import Path

from ..errors import ExcotError
from ..execution import file_hash
from ..journal import digest_of

_WHOLE = 64 * 2**20  # bytes up to which a file is read whole; weights of an 8B model would take a minute
_PIECES, _PIECE = 64, 2**16


def record_files(folder: str | Path) -> dict[str, str]:
    """Every file of a model, the card aside, which scores are written into, with a digest of its content.

    Of a large file the size counts, and pieces spread evenly over it.

    Args:
        folder: the model's; what lies in folders of it, such as checkpoints, does not belong to the model.
    """
    return {path.name: _digest(path) for path in sorted(Path(folder).iterdir()) if _belongs(path)}


def fingerprint(files: dict[str, str]) -> str:
    """One digest for all of a model's files."""
    return digest_of(files)


def check_files(folder: str | Path, files: dict[str, str], remedy: str) -> None:
    """See that a model is still as it was recorded.

    Raises:
        ExcotError: a file was changed, or is gone; with the remedy that is given.
    """
    for name, digest in files.items():
        path = Path(folder) / name
        if not path.is_file():
            raise ExcotError(f"{path} is missing", remedy)
        if _digest(path) != digest:
            raise ExcotError(f"{path} was changed since the model was made", remedy)


def _belongs(path: Path) -> bool:
    return path.is_file() and path.name != "README.md" and not path.name.startswith(".") and path.suffix != ".new"


def _digest(path: Path) -> str:
    size = path.stat().st_size
    if size <= _WHOLE:
        return file_hash(path)
    digest = hashlib.sha256(str(size).encode())
    with open(path, "rb") as file:
        for k in range(_PIECES):
            file.seek(k * (size - _PIECE) // (_PIECES - 1))
            digest.update(file.read(_PIECE))
    return f"pieces-{digest.hexdigest()}"
