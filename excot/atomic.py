"""Replace a text file in one step, so that a reader sees the old content or the new, never half of it."""

from __future__ import annotations

import os
from pathlib import Path


def replace_text(path: Path, text: str) -> None:
    """Write the text, its line ends as they are, beside the file, and put it in the file's place.

    Raises:
        OSError: the disk is full or not writable; the old file is still there.
    """
    scratch = path.with_name(path.name + ".new")
    scratch.write_bytes(text.encode("utf-8"))
    os.replace(scratch, path)
