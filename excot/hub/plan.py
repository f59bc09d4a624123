"""What a push leaves in the repository, and what must be sent and removed for it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..config import PushConfig
from ..errors import ExcotError
from ..execution import file_hash
from ..run import Run
from ..stages import in_order, parse_name
from .card import own_words, parse_card
from .dataset_card import dataset_card
from .funnel import funnel_svg
from .remote import CARD, MANIFEST, Remote, is_ours
from .sync import Sync, hashes

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete


@dataclass(frozen=True)
class Content:
    """What a file in the repository shall hold.

    Args:
        source: the bytes themselves, or a file here, which is never read whole.
        sha256: the hash of a file that the Hub keeps as a large one.
    """

    source: bytes | Path
    sha256: str | None = None

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.source) if isinstance(self.source, bytes) else self.source.stat().st_size

    @cached_property
    def oid(self) -> str:
        """The hash by which the Hub will know it."""
        if self.sha256:
            return self.sha256
        data = self.source if isinstance(self.source, bytes) else self.source.read_bytes()
        return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def content_of(path: Path) -> Content:
    """What a file here holds."""
    return Content(path, file_hash(path) if path.suffix == ".parquet" else None)


@dataclass(frozen=True)
class Plan:
    """A push.

    Attributes:
        contents: the files that it leaves there, by their paths.
        sent: those that are not there yet.
        removed: what is there and shall go.
        after: the hash of every file there afterwards.
        card: the text of the card.
        datasets: the names of those that are there afterwards, in the order in which they were made.
        is_whole: whether they are all of the run folder's.
    """

    contents: dict[str, Content]
    sent: list[str]
    removed: list[str]
    after: dict[str, str]
    card: str
    datasets: list[str]
    is_whole: bool

    @property
    def changes(self) -> bool:
        """Whether there is anything to do."""
        return bool(self.sent or self.removed)

    @property
    def size(self) -> int:
        """Of all that is sent, in bytes."""
        return sum(self.contents[path].size for path in self.sent)

    def counts(self, done: bool = False) -> str:
        """What it does, or has done, in words."""
        there = len(self.contents) - len(self.sent)
        upload, remove = ("uploaded", "removed") if done else ("to upload", "to remove")
        words = [f"{files(len(self.sent))} {upload} ({in_bytes(self.size)})"] if self.sent else []
        words += [f"{there} there already"] if there else []
        return ", ".join([*words, *([f"{len(self.removed)} {remove}"] if self.removed else [])])

    @property
    def message(self) -> str:
        """What the commit says."""
        return f"excot {__version__}: {', '.join(self.datasets)}"

    def there(self, remote: Remote) -> dict[str, str]:
        """The hashes of the files that have their content already."""
        there = hashes(remote)
        return {path: content.oid for path, content in self.contents.items() if there.get(path) == content.oid}

    def is_there(self, remote: Remote) -> bool:
        """Whether the repository is as this push would leave it."""
        return hashes(remote) == self.after

    def operations(self) -> list[CommitOperationAdd | CommitOperationDelete]:
        """What the commit consists of."""
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        sources = {path: self.contents[path].source for path in self.sent}
        return [
            *(CommitOperationAdd(path, str(s) if isinstance(s, Path) else s) for path, s in sources.items()),
            *map(CommitOperationDelete, self.removed),
        ]


def make_plan(run: Run, config: PushConfig, remote: Remote, sync: Sync) -> Plan:
    """Compare a run folder with the repository.

    Raises:
        ExcotError: a dataset was asked for that is not there, or is stale; or the card is not YAML.
    """
    datasets = _chosen(run, config, remote)
    manifest = _manifest(run, datasets)
    card = _card(run, config, manifest, remote, sync)
    contents = {
        MANIFEST: Content((json.dumps(manifest, indent=2, ensure_ascii=False) + "\n").encode()),
        CARD: Content(card.encode()),
        **_extras(run, manifest, card),
    }
    for name in datasets:
        for path, sha256 in run.dataset(name)["files"].items():
            contents[path] = Content(run.folder / path, sha256)
    there = hashes(remote)
    replaced = {*manifest["stages"]}
    removed = [
        path
        for path in there
        if is_ours(path)
        and path not in contents
        # Of what others may have put there, only what they were told of.
        and (path in sync.files or config.overwrite_remote or path.partition("/")[0] in replaced)
    ]
    sent = [path for path, content in contents.items() if there.get(path) != content.oid]
    after = {path: oid for path, oid in there.items() if path not in removed}
    after |= {path: content.oid for path, content in contents.items()}
    is_whole = datasets == in_order([*run.manifest["stages"]])
    return Plan(contents, sent, removed, after, card, datasets, is_whole)


def files(count: int) -> str:
    """So many files, in words."""
    return f"{count} file{'' if count == 1 else 's'}"


def in_bytes(size: int) -> str:
    """A size for people."""
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _chosen(run: Run, config: PushConfig, remote: Remote) -> list[str]:
    """The datasets to push: all, or those named and those that the repository holds already."""
    here = [*run.manifest["stages"]]
    for name in config.stages or ():
        if parse_name(name) is None:
            raise ExcotError(f"--stages: {name!r} is no dataset", f"{run.folder} has {', '.join(here)}")
        run.dataset(name)  # says what to run first
    names = {*here} if config.stages is None else {*config.stages, *(here & remote.manifest["stages"].keys())}
    for name in names:
        run.dataset(name)
    return in_order([*names])


def _manifest(run: Run, datasets: list[str]) -> dict[str, Any]:
    """What the repository's manifest says: these datasets, and what they were made from and is not among them."""
    known: dict[str, Any] = {**run.manifest.get("ancestors", {}), **run.manifest["stages"]}
    stages = {name: run.manifest["stages"][name] for name in datasets}
    ancestors: dict[str, Any] = {}
    waiting = [*datasets]
    while waiting:
        for name in known[waiting.pop()]["inputs"]:
            if name in known and name not in stages and name not in ancestors:
                ancestors[name] = {**known[name], "files": {}}
                waiting.append(name)
    ordered = {name: ancestors[name] for name in in_order([*ancestors])}
    return {"stages": stages, **({"ancestors": ordered} if ordered else {})}


def _card(run: Run, config: PushConfig, manifest: Mapping[str, Any], remote: Remote, sync: Sync) -> str:
    """The card, with the user's own words here, or those that were written at the Hub before the first push."""
    path = run.folder / CARD
    existing, where = path.read_text("utf-8") if path.is_file() else "", str(path)
    if sync.commit is None and CARD in remote.files and not own_words(existing):
        existing, where = remote.read(CARD).decode("utf-8", "replace"), f"{CARD} of {config.repo}"
    return dataset_card(run.folder, manifest, config.repo, config.tag, existing, where)


def _extras(run: Run, manifest: Mapping[str, Any], card: str) -> dict[str, Content]:
    """What goes with the datasets: prompts, the funnel, scores to copy, and files of configs of the user's own."""
    known = {**manifest.get("ancestors", {}), **manifest["stages"]}
    prompts = {entry["prompt_id"] for entry in known.values() if entry.get("prompt_id")}
    paths = [path for prompt_id in sorted(prompts) if (path := run.prompt_path(prompt_id)).is_file()]
    if "scores" in manifest["stages"] and (index := run.folder / "model-index.yaml").is_file():
        paths.append(index)
    front, _ = parse_card(card, CARD)
    for config in front.get("configs", []):
        if parse_name(config["config_name"]) is None:  # named on the card, so it is meant to be seen
            paths += _data_files(run.folder, config.get("data_files"))
    files = {path.relative_to(run.folder).as_posix(): content_of(path) for path in paths}
    picture = funnel_svg(manifest)
    return files | ({"funnel.svg": Content(picture.encode())} if picture else {})


def _data_files(folder: Path, patterns: Any) -> list[Path]:
    """The files that a config of a card names: one pattern, several, or some for each split."""
    if isinstance(patterns, list):
        return [path for pattern in patterns for path in _data_files(folder, pattern)]
    if isinstance(patterns, dict):
        return _data_files(folder, patterns.get("path"))
    if not isinstance(patterns, str) or patterns.startswith("/") or ".." in patterns or "://" in patterns:
        return []  # nothing from outside of the folder
    return [path for path in sorted(folder.glob(patterns)) if path.is_file() and ".excot" not in path.parts]
