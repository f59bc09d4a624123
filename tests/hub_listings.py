"""What the tests' Hub lists of a repository: files and folders as they are shown, one page after the other."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any

from hub_store import Commit
from hub_wire import Reply, Request

SAFE = {"status": "safe", "avScan": None, "pickleImportScan": None}


def entries(commit: Commit, expand: bool = False) -> dict[str, dict[str, Any]]:
    """Every file and folder of a commit as a listing shows it, by its path.

    Args:
        expand: with the last commit that changed it, and what a virus scan says.
    """
    shown: dict[str, dict[str, Any]] = {}
    for path, file in sorted(commit.files.items()):
        for folder in folders(path):
            oid = hashlib.sha1(f"{commit.oid} {folder}".encode()).hexdigest()
            shown.setdefault(folder, {"type": "directory", "path": folder, "size": 0, "oid": oid})
        shown[path] = {"type": "file", "path": path, **file.about, **({"securityFileStatus": SAFE} if expand else {})}
    if expand:
        last = last_changes(commit)
        for path, entry in shown.items():
            entry["lastCommit"] = {"id": last[path].oid, "title": last[path].title, "date": last[path].date}
    return shown


def folders(path: str) -> Iterator[str]:
    """The folders that a path lies in, the outermost first."""
    return map(str, reversed(PurePosixPath(path).parents[:-1]))


def last_changes(commit: Commit) -> dict[str, Commit]:
    """The newest commit up to this one that touched each file, or anything in each folder."""
    last: dict[str, Commit] = {}
    for made in commit.history():
        before = made.parent.files if made.parent else {}
        for path in {*before, *made.files}:
            if before.get(path) != made.files.get(path):
                for place in (path, *folders(path)):
                    last.setdefault(place, made)
    return last


def page(items: list[Any], size: int, request: Request, url: str) -> Reply:
    """The part of a listing that the request asks for, with a link to the next one."""
    start = int(request.query.get("cursor", 0))
    more = {"Link": f'<{url}{request.target(cursor=str(start + size))}>; rel="next"'}
    return Reply(items[start : start + size], headers=more if start + size < len(items) else {})
