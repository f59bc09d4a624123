"""What the tests' Hub keeps: repositories with their branches, tags, pull requests and commits."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cached_property
from typing import Any

from hub_contents import Content, checksum

LFS_SUFFIXES = (".arrow", ".bin", ".gz", ".onnx", ".parquet", ".pt", ".safetensors", ".sqlite", ".zip")
LFS_FROM_BYTES = 10 * 2**20


class UnknownRevision(Exception):
    """What was asked for is no branch, tag, pull request or commit of the repo."""

    def __init__(self, revision: str):
        super().__init__(f"Invalid rev id: {revision}")


def is_lfs(path: str, sample: bytes, size: int) -> bool:
    """Whether a file of this name, beginning and size is kept as a large one."""
    return path.endswith(LFS_SUFFIXES) or b"\0" in sample or size > LFS_FROM_BYTES


@dataclass(frozen=True)
class File:
    """One file at one commit."""

    stored: Content
    lfs: bool = False

    @property
    def content(self) -> bytes:
        return bytes(self.stored)

    @cached_property
    def about(self) -> dict[str, Any]:
        """Size and checksums, under all the names that the different listings have for them."""
        size, sha256 = len(self.stored), checksum(self.stored)
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        kept = pointer if self.lfs else self.content  # by git itself
        blob = hashlib.sha1(b"blob %d\0" % len(kept) + kept).hexdigest()
        lfs = {"lfs": {"oid": sha256, "sha256": sha256, "size": size, "pointerSize": len(pointer)}}
        return {"size": size, "oid": blob, "blobId": blob} | (lfs if self.lfs else {})

    @property
    def etag(self) -> str:
        """By this the clients tell whether they have the content already."""
        return self.about["lfs"]["oid"] if self.lfs else self.about["oid"]


@dataclass(frozen=True)
class Commit:
    """A state of all files of a repo, and how it came about."""

    oid: str
    parent: Commit | None
    title: str
    message: str
    author: str
    date: str
    files: Mapping[str, File]

    def history(self) -> Iterator[Commit]:
        """The commits that led here, the newest first."""
        commit: Commit | None = self
        while commit is not None:
            yield commit
            commit = commit.parent


class Repo:
    """One repository. It begins with a commit of ``.gitattributes``, as on the Hub.

    Attributes:
        branches, tags, pull_requests: the commit that each of them points to; pull requests are called ``refs/pr/1``.
        opened_by: the user who opened each pull request.
        commits: all of them by their ids.
        lfs: the large contents that were uploaded, by their checksums, whether a commit uses them or not.
    """

    def __init__(self, kind: str, repo_id: str, private: bool = False, sdk: str | None = None):
        self.kind, self.id, self.private, self.sdk = kind, repo_id, private, sdk
        self.namespace = repo_id.split("/")[0]
        self.path = repo_id if kind == "model" else f"{kind}s/{repo_id}"
        self.branches: dict[str, Commit] = {}
        self.tags: dict[str, Commit] = {}
        self.pull_requests: dict[str, Commit] = {}
        self.opened_by: dict[str, str] = {}
        self.commits: dict[str, Commit] = {}
        self.lfs: dict[str, Content] = {}
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        self.record("main", {".gitattributes": File(attributes.encode())}, "initial commit")

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """The content of every file at a branch, tag, pull request or commit."""
        return {path: file.content for path, file in self.find(revision).files.items()}

    def find(self, revision: str) -> Commit:
        """The commit that a revision names; seven digits of a commit are enough."""
        named = self.pull_requests | self.branches | self.tags
        commits = [commit for oid, commit in self.commits.items() if len(revision) >= 7 and oid.startswith(revision)]
        if revision not in named and len(commits) != 1:
            raise UnknownRevision(revision)
        return named[revision] if revision in named else commits[0]

    def record(
        self,
        ref: str,
        files: Mapping[str, File],
        title: str,
        message: str = "",
        parent: Commit | None = None,
        author: str = "system",
    ) -> Commit:
        """Make a commit on a branch or pull request, new or old."""
        oid = hashlib.sha1(f"{self.kind} {self.id} {len(self.commits)} {title}".encode()).hexdigest()
        date = datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        refs = self.branches
        if ref.startswith("refs/pr/"):
            refs = self.pull_requests
            self.opened_by.setdefault(ref, author)
        self.commits[oid] = refs[ref] = Commit(oid, parent, title, message, author, date, dict(files))
        self.lfs |= {file.etag: file.stored for file in files.values() if file.lfs}
        return refs[ref]

    def blobs(self) -> Iterator[tuple[str, Content]]:
        """Every content of any commit once, and what was uploaded for none, each with a path to name it by."""
        seen: set[str] = set()
        for commit in self.commits.values():
            for path, file in commit.files.items():
                if file.etag not in seen:
                    seen.add(file.etag)
                    yield path, file.stored
        yield from ((f"an uploaded {oid}", stored) for oid, stored in self.lfs.items() if oid not in seen)
