"""A dataset repository on the Hub at one commit: which files it holds, and what its manifest says."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from ..errors import ExcotError
from ..stages import parse_name
from .asking import NoSuchRepo, asking

MANIFEST, CARD = "manifest.json", "README.md"
_NEEDED = {"rows": int, "split": str, "fingerprint": str, "inputs": dict, "files": dict, "arguments": dict}


@dataclass(frozen=True)
class RemoteFile:
    """A file at the Hub: ``oid`` is the SHA-256 of a large file's content and git's own hash of a small one's."""

    size: int
    oid: str
    lfs: bool


@dataclass(frozen=True)
class Remote:
    """A dataset repository at one commit. Made by `Remote.open`."""

    repo: str
    commit: str
    private: bool
    files: dict[str, RemoteFile]
    manifest: dict[str, Any]

    @classmethod
    def open(cls, repo: str, revision: str | None = None) -> Remote:
        """Look at a repository.

        Raises:
            NoSuchRepo: there is none.
            ExcotError: it is of another type, has no such revision, or the Hub cannot be asked.
        """
        from huggingface_hub import HfApi
        from huggingface_hub.hf_api import RepoFile

        api = HfApi()
        try:
            with asking(repo, revision=revision):
                info = api.dataset_info(repo, revision=revision)
        except NoSuchRepo:
            _refuse_other_kind(repo)
            raise
        with asking(repo, revision=revision):
            entries = api.list_repo_tree(repo, recursive=True, revision=info.sha, repo_type="dataset")
            files = {
                entry.path: RemoteFile(entry.size, entry.lfs.sha256 if entry.lfs else entry.blob_id, bool(entry.lfs))
                for entry in entries
                if isinstance(entry, RepoFile)
            }
        remote = cls(repo, str(info.sha), bool(info.private), files, {"stages": {}})
        if MANIFEST in files:
            remote.manifest.update(_checked(remote.read(MANIFEST), f"{MANIFEST} of {repo}"))
        return remote

    def read(self, path: str) -> bytes:
        """The content of a small file.

        Raises:
            ExcotError: the Hub cannot be asked.
        """
        from huggingface_hub import hf_hub_download

        with asking(self.repo):
            return Path(hf_hub_download(self.repo, path, repo_type="dataset", revision=self.commit)).read_bytes()

    @property
    def is_new(self) -> bool:
        """Whether nobody has put anything into it but a card."""
        return self.files.keys() <= {".gitattributes", CARD}

    @property
    def url(self) -> str:
        """Its page."""
        from huggingface_hub import constants

        return f"{constants.ENDPOINT}/datasets/{self.repo}"


def is_ours(path: str) -> bool:
    """Whether a file of a repository belongs to what excot writes, and may be replaced or removed by a push."""
    parts = PurePosixPath(path).parts
    if len(parts) == 1:
        return path in (MANIFEST, CARD, "funnel.svg", "model-index.yaml")
    return parts[0] == "prompts" or (parse_name(parts[0]) is not None and path.endswith(".parquet"))


def _refuse_other_kind(repo: str) -> None:
    """Refuse a name that is a model's or a Space's: it was given by mistake, most of the time."""
    from huggingface_hub import HfApi

    for kind in ("model", "space"):
        try:
            with asking(repo, kind):
                HfApi().repo_info(repo, repo_type=kind)
        except NoSuchRepo:
            continue
        raise ExcotError(f"{repo} is a {kind} on the Hub, not a dataset", f"give another name, such as {repo}-data")


def _checked(text: bytes, where: str) -> dict[str, Any]:
    """A manifest that has what the stages look for; others may have written it."""
    try:
        manifest = json.loads(text)
        for part in ("stages", "ancestors"):
            for name, entry in manifest.get(part, {}).items():
                wrong = [key for key, kind in _NEEDED.items() if not isinstance(entry[key], kind)]
                if parse_name(name) is None or wrong or not _lie_in(name, entry["files"]):
                    raise ValueError(f"{part}.{name}{': ' if wrong else ''}{', '.join(wrong)}")
        return {"stages": {}, **manifest}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ExcotError(f"{where} is not one of excot's ({error})", "is it another project's dataset?") from None


def _lie_in(folder: str, names: Iterable[str]) -> bool:
    """Whether files lie in a folder: a path that leads out of it would overwrite others of the user's."""
    paths = map(PurePosixPath, names)
    return all(len(path.parts) == 2 and path.parts[0] == folder and path.name != ".." for path in paths)
