"""Results as bytes, for another process or a later run."""

from __future__ import annotations

import marshal
import zlib
from collections.abc import Sequence

from .compare import Row

WORTH_KEEPING = 0.005
"""Seconds that a statement must have taken for its rows to be kept: below, executing it again costs as little."""

_LARGEST = 8_000_000  # bytes before compression, and a tenth of that after it

Results = list[Sequence[Row] | None]


def pack(results: Results) -> bytes | None:
    """The results' rows, compressed; ``None`` where they are too large to be carried about.

    The form is the interpreter's own for plain values, which keeps whole and floating numbers, text and BLOBs apart
    and costs next to nothing. Other versions of Python may not read it.
    """
    if sum(len(rows) for rows in results if rows) > _LARGEST // 64:
        return None
    plain = marshal.dumps([None if rows is None else list(rows) for rows in results])
    if len(plain) > _LARGEST:
        return None
    packed = zlib.compress(plain, 1)
    return packed if len(packed) <= _LARGEST // 10 else None


def unpack(packed: bytes) -> Results:
    """The results that `pack` was given."""
    return marshal.loads(zlib.decompress(packed))
