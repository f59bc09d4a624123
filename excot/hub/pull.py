"""``excot pull``: a run folder from the Hub, byte for byte, or one brought up to date with what others have pushed.

Each dataset, the card and every other file is taken over where only the Hub has changed it since the two were last in
step, and kept where only this folder has. Where both have, it is refused.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..atomic import replace_text
from ..config import PullConfig
from ..errors import ExcotError, named
from ..execution import file_hash
from ..run import Run, locked
from ..stages import in_order, parse_name
from .asking import asking, patiently
from .card import own_words
from .dataset_card import write_card
from .plan import content_of, files, in_bytes
from .remote import CARD, MANIFEST, Remote, is_ours
from .sync import Sync, fingerprints, hashes

log = logging.getLogger("excot")


@dataclass(frozen=True)
class Merge:
    """What a pull does.

    Attributes:
        manifest: of the folder afterwards.
        wanted: the files to take from the Hub.
        card: the text that the folder's card starts from.
        is_theirs: whether the folder is then what is at the Hub, and nothing more.
    """

    manifest: dict[str, Any]
    wanted: list[str]
    card: str
    is_theirs: bool


def pull(config: PullConfig) -> str:
    """Pull a run folder. Returns the lines to show.

    Raises:
        ExcotError: there is no such repository, revision or manifest, the Hub cannot be asked, or what the folder
            holds would be lost.
    """
    run = Run(config.run)
    others = [path for path in run.folder.glob("*") if path != run.private]  # which a pull that was cut off has made
    if others and not run.manifest["stages"]:
        raise ExcotError(f"{run.folder} holds something else", "give a folder that is new, empty, or a run folder")
    return patiently(lambda: _pull(config))


def _pull(config: PullConfig) -> str:
    repo, _, revision = config.repo.partition("@")
    remote, run = Remote.open(repo, revision or None), Run(config.run)
    if not remote.manifest["stages"]:
        raise ExcotError(f"{config.repo} is no dataset of excot's: it has no {MANIFEST}", "load it with load_dataset")
    if config.dry_run:
        merge = _merge(run, Sync.read(run, repo), remote, config.overwrite)
        return f"would download {_sizes(merge.wanted, remote)} of {config.repo} into {run.folder}"
    with locked(run):
        run = Run(config.run)
        sync = Sync.read(run, repo)
        merge = _merge(run, sync, remote, config.overwrite)
        _download(run, remote, merge.wanted)
        run.set_local(repo=repo)
        _move_in(run, remote, merge)
        sync.settled(run, remote, own_words((run.folder / CARD).read_text("utf-8")))
    return _summary(run, config, remote, merge)


def _merge(run: Run, sync: Sync, remote: Remote, overwrite: bool) -> Merge:
    conflicts: list[str] = []

    def theirs(what: str, here: str | None, before: str | None, there: str | None) -> bool:
        """Whether to take what is at the Hub."""
        if here == there or (there == before and here is not None):
            return False
        if here not in (None, before) and not overwrite:
            conflicts.append(what)
        return True

    here, before, there = fingerprints(run.manifest), sync.datasets, fingerprints(remote.manifest)
    stages: dict[str, Any] = {}
    for name in in_order([*{**here, **there}]):
        takes = theirs(name, here.get(name), before.get(name), there.get(name))
        if entry := (remote.manifest if takes else run.manifest)["stages"].get(name):
            stages[name] = entry

    cards = _text(run.folder / CARD), remote.read(CARD).decode("utf-8", "replace") if CARD in remote.files else ""
    words, their_words = map(own_words, cards)
    takes_words = theirs(f"your words in {CARD}", words or None, sync.words, their_words) or not cards[0]

    wanted = []
    for path, oid in hashes(remote).items():
        place, dataset = run.folder / path, path.partition("/")[0]
        if path in (MANIFEST, CARD) or path.startswith("."):  # what is hidden is a machine's own
            continue
        if parse_name(dataset):
            sha256 = stages.get(dataset, {}).get("files", {}).get(path)
            takes = sha256 is not None and not (place.is_file() and file_hash(place) == sha256)
        elif is_ours(path):
            takes = True
        else:
            takes = theirs(path, content_of(place).oid if place.is_file() else None, sync.files.get(path), oid)
        if takes:
            wanted.append(path)
    if conflicts:
        raise ExcotError(
            f"both {run.folder} and {remote.repo} have changed {named(conflicts)}",
            "pull into another folder, or --overwrite to take what is on the Hub",
        )
    ancestors = {**run.manifest.get("ancestors", {}), **remote.manifest.get("ancestors", {})}
    absent = {name: entry for name, entry in ancestors.items() if name not in stages}
    manifest = {"stages": stages, **({"ancestors": absent} if absent else {})}
    if "loop" in run.manifest:  # what was noted of this folder's own making
        manifest["loop"] = run.manifest["loop"]
    is_theirs = manifest == remote.manifest and (takes_words or words == their_words)
    return Merge(manifest, wanted, cards[1] if takes_words or is_theirs else cards[0], is_theirs)


def _download(run: Run, remote: Remote, paths: Iterable[str]) -> None:
    """Bring files into the folder's private part; those of a pull that was cut off are there already."""
    from huggingface_hub import hf_hub_download

    scratch = _scratch(run, remote)
    for other in run.private.glob("pull-*"):
        if other != scratch:
            shutil.rmtree(other, ignore_errors=True)
    hashes = {path: hash for entry in remote.manifest["stages"].values() for path, hash in entry["files"].items()}
    paths = [*paths]
    if paths:
        log.info("downloading %s from %s", _sizes(paths, remote), remote.repo)
    for path in paths:
        with asking(remote.repo, revision=remote.commit):
            hf_hub_download(remote.repo, path, repo_type="dataset", revision=remote.commit, local_dir=scratch)
        if path in hashes and file_hash(scratch / path) != hashes[path]:
            raise ExcotError(
                f"{path} of {remote.repo} is not the file that its {MANIFEST} describes",
                "pull an earlier revision, or ask who pushed it",
            )


def _move_in(run: Run, remote: Remote, merge: Merge) -> None:
    """Put the files in their places, and then the manifest, from when on they count; old ones go last."""
    scratch = _scratch(run, remote)
    for path in merge.wanted:
        place = run.folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        os.replace(scratch / path, place)
    old = {path for entry in run.manifest["stages"].values() for path in entry["files"]}
    run.manifest = merge.manifest
    text = json.dumps(merge.manifest, indent=2, ensure_ascii=False) + "\n"
    replace_text(run.folder / MANIFEST, remote.read(MANIFEST).decode() if merge.is_theirs else text)
    replace_text(run.folder / CARD, merge.card)
    if not merge.is_theirs:
        write_card(run.folder, merge.manifest)
    for path in old - {path for entry in merge.manifest["stages"].values() for path in entry["files"]}:
        (run.folder / path).unlink(missing_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)


def _summary(run: Run, config: PullConfig, remote: Remote, merge: Merge) -> str:
    entries = merge.manifest["stages"]
    rows = ", ".join(f"{name} {entry['rows']:,}" for name, entry in entries.items())
    lines = [f"{run.folder} is in step with {config.repo} ({remote.commit[:7]}), rows: {rows}"]
    if "databases" not in run.local:
        lines.append("where the databases are stays with each machine: give --databases to what executes SQL")
    return "\n".join([*lines, f'next: load_dataset("{run.folder}", "{[*entries][-1]}")'])


def _sizes(paths: Iterable[str], remote: Remote) -> str:
    paths = [*paths]
    return f"{files(len(paths))} ({in_bytes(sum(remote.files[path].size for path in paths))})"


def _scratch(run: Run, remote: Remote) -> Path:
    return run.private / f"pull-{remote.commit[:12]}"


def _text(path: Path) -> str:
    return path.read_text("utf-8") if path.is_file() else ""
