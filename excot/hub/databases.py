"""Databases that lie in a dataset repository of the Hub, found by their content."""

from __future__ import annotations

from functools import cache
from pathlib import Path, PurePosixPath

from ..errors import ExcotError
from ..execution import DatabaseError, known_hash
from .asking import asking
from .remote import Remote


def fetch_database(repo: str, sha256: str, name: str) -> Path:
    """Where a database of a Hub dataset lies on this machine, downloaded if it has to be.

    Any layout will do, such as that of ``hf upload ORG/NAME spider/database --repo-type dataset``: the file is
    recognised by its hash, which the Hub knows of every large file.

    Args:
        repo: the dataset repository, or ``ORG/NAME@REVISION``.
        sha256: the file's hash.
        name: what it is called, for messages.

    Raises:
        DatabaseError: the repository holds no such file, or what came is another.
        ExcotError: there is no such repository, or the Hub cannot be asked.
    """
    from huggingface_hub import hf_hub_download

    commit, paths = _listed(repo)
    if sha256 not in paths:
        raise DatabaseError(
            f"database {name} (SHA-256 {sha256[:12]}...) is not in {repo} on the Hub",
            "upload the databases that the questions were made from",
        )
    with asking(repo):
        path = Path(
            hf_hub_download(repo.partition("@")[0], paths[sha256], repo_type="dataset", revision=commit)
        ).resolve()
    if known_hash(path) != sha256:
        raise DatabaseError(f"{path} is not what {repo} holds", "remove it, then start the same command again")
    return path


@cache
def _listed(repo: str) -> tuple[str, dict[str, str]]:
    """A repository's commit, and the paths of its large files by their hashes."""
    name, _, revision = repo.partition("@")
    remote = Remote.open(name, revision or None)
    paths = {file.oid: path for path, file in remote.files.items() if file.lfs}
    if not any(PurePosixPath(path).suffix in (".sqlite", ".db", ".sqlite3") for path in paths.values()):
        raise ExcotError(f"{repo} on the Hub holds no SQLite file", "give the dataset with the databases")
    return remote.commit, paths
