"""What a run folder and its repository last had in common: who has changed what since is told by it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path, PurePosixPath

from ..atomic import replace_text
from ..errors import ExcotError, named
from ..run import Run
from .remote import CARD, MANIFEST, Remote


@dataclass
class Sync:
    """The last push or pull of a run folder, kept in its ``.excot/hub.json``.

    Attributes:
        repo: the repository.
        commit: its commit.
        files: the hash of every file there.
        datasets: the fingerprint of every dataset there.
        words: the user's own words on its card.
        sent: the hashes of the files that a push has set out to leave there, until the Hub has confirmed it.
    """

    repo: str
    commit: str | None = None
    files: dict[str, str] = field(default_factory=dict)
    datasets: dict[str, str] = field(default_factory=dict)
    words: str = ""
    sent: dict[str, str] | None = None

    @classmethod
    def read(cls, run: Run, repo: str) -> Sync:
        """That of this folder with this repository; an empty one where they have nothing in common yet.

        Raises:
            ExcotError: the file is damaged.
        """
        path = _path(run)
        try:
            found = cls(**json.loads(path.read_text("utf-8")))
        except FileNotFoundError:
            return cls(repo)
        except (OSError, ValueError, TypeError) as error:
            raise ExcotError(
                f"cannot read {path} ({error})", "remove it, then pull, or push with --overwrite-remote"
            ) from None
        return found if found.repo == repo else cls(repo)

    def save(self, run: Run) -> None:
        """Keep it."""
        path = _path(run)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n")

    def settled(self, run: Run, remote: Remote, words: str) -> None:
        """Both sides are the same now."""
        self.commit, self.sent, self.words = remote.commit, None, words
        self.files = hashes(remote)
        self.datasets = fingerprints(remote.manifest)
        self.save(run)
        run.set_local(repo=self.repo)

    def moved(self, remote: Remote, wanted: Mapping[str, str] = {}) -> str:
        """What others have changed in the repository since, in words; empty where nobody has.

        Args:
            remote: the repository as it is.
            wanted: the hashes that files shall have after a push; whoever has brought them there, they are right.
        """
        there = hashes(remote)
        if remote.commit == self.commit or (self.sent is not None and there == self.sent):
            return ""
        if self.commit is None and remote.is_new:
            return ""
        paths = [
            path
            for path in sorted({*self.files, *there})
            if self.files.get(path) != there.get(path) and there.get(path) != wanted.get(path)
        ]
        return named(_described(paths, self.files, there))


def hashes(remote: Remote) -> dict[str, str]:
    """The hash of every file of a repository, but of the one that the Hub itself writes."""
    return {path: file.oid for path, file in remote.files.items() if path != ".gitattributes"}


def fingerprints(manifest: Mapping[str, Mapping[str, Mapping[str, str]]]) -> dict[str, str]:
    """The fingerprint of every dataset."""
    return {name: entry["fingerprint"] for name, entry in manifest["stages"].items()}


def _described(paths: list[str], before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Changed files in words, those of one dataset together."""
    words: dict[str, set[str]] = {}
    # What changes with every dataset is only worth a word where nothing else has changed.
    for path in [path for path in paths if path not in (MANIFEST, CARD, "funnel.svg")] or paths:
        parts = PurePosixPath(path).parts
        what = parts[0] if len(parts) > 1 else path
        words.setdefault(what, set()).add("new" if path not in before else "gone" if path not in after else "changed")
    short = {name: "changed" if len(kinds) > 1 else kinds.pop() for name, kinds in words.items()}
    return [f"{name} {kind}" for name, kind in short.items()]


def _path(run: Run) -> Path:
    return run.private / "hub.json"
