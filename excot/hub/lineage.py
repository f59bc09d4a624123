"""``excot lineage``: what every dataset was made from, back to the questions and the databases."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ..config import LineageConfig
from ..errors import ExcotError
from ..run import Run
from ..stages import in_order, parse_name
from .remote import Remote

_DIGEST = 12  # characters of a hash that are shown; manifest.json has the whole ones


def lineage(config: LineageConfig) -> str:
    """The lineage of a run folder or a repository. Returns the lines to show.

    Raises:
        ExcotError: there is neither such a folder nor such a repository, or it has no manifest.
    """
    folder = Path(config.source).expanduser()
    if folder.is_dir():
        where, manifest = str(folder), Run(folder).manifest
    else:
        repo, _, revision = config.source.partition("@")
        remote = Remote.open(repo, revision or None)
        where, manifest = f"{config.source} (commit {remote.commit[:7]})", remote.manifest
    if not manifest["stages"]:
        raise ExcotError(f"{config.source} has no manifest of excot's", "its lineage is not known")
    return "\n".join([where, *lineage_lines(manifest)])


def lineage_lines(manifest: Mapping[str, Any]) -> Iterator[str]:
    """A tree: below each dataset that nothing else here was made from, what it was made from itself.

    Args:
        manifest: ``stages``, and ``ancestors`` for what they were made from and is not beside them.
    """
    known = {**manifest.get("ancestors", {}), **manifest["stages"]}
    used = {name for entry in known.values() for name in entry["inputs"]}
    used |= {name for entry in known.values() for name in _taught(entry, known)}
    shown: set[str] = set()
    for name in reversed(in_order([*manifest["stages"]])):
        if name not in used:
            yield from _tree(name, known, manifest["stages"], shown, "")


def _tree(
    name: str, known: Mapping[str, Any], here: Mapping[str, Any], shown: set[str], indent: str, mark: str = ""
) -> Iterator[str]:
    entry = known[name]
    again = name in shown
    notes = ("" if name in here else ", not in this repository") + (", see above" if again else "")
    yield f"{indent}{mark}{name}  {entry['fingerprint'][:_DIGEST]}  {_made(name, entry)}{notes}"
    if again:
        return
    shown.add(name)
    below = indent + {"": "", "├─ ": "│  ", "└─ ": "   "}[mark]
    parts = [*_parts(name, entry, known)]
    for number, (other, text) in enumerate(parts):
        branch = "└─ " if number == len(parts) - 1 else "├─ "
        if other:
            yield from _tree(other, known, here, shown, below, branch)
        else:
            yield f"{below}{branch}{text}"


def _parts(name: str, entry: Mapping[str, Any], known: Mapping[str, Any]) -> Iterator[tuple[str | None, str]]:
    """What a dataset was made from: other datasets by name, and all else in words."""
    for source, fingerprint in entry["inputs"].items():
        if source in known and known[source]["fingerprint"] == fingerprint:
            yield source, ""
        elif parse_name(source):
            yield None, f"{source}  {fingerprint[:_DIGEST]}  an earlier version, which is not known here"
        elif source != "databases" or "databases" not in entry:
            yield None, f"{source}  {fingerprint[:_DIGEST]}"
    if prompt_id := entry.get("prompt_id"):
        yield None, f"prompt  {prompt_id}"
    if trained := entry.get("trained"):
        yield None, f"model  {trained['model']['name']}, trained by {trained['stage']} on {_data(trained)}"
        yield from ((taught, "") for taught in _taught(entry, known))
    stage, _ = parse_name(name) or (name, 0)
    if stage == "questions":
        for db_id, files in sorted(entry.get("databases", {}).items()):
            yield None, f"database {db_id}  " + ", ".join(f"{file} {hash[:_DIGEST]}" for file, hash in files.items())


def _taught(entry: Mapping[str, Any], known: Mapping[str, Any]) -> list[str]:
    """The datasets here that the model learned from whose answers these are, told by their fingerprints."""
    learned = {part.get("fingerprint") for part in (entry.get("trained") or {}).get("data", [])} - {None}
    return [name for name, other in known.items() if other["fingerprint"] in learned]


def _data(trained: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{part['name']}{'@' + part['revision'] if part['revision'] else ''} {part['config']} "
        f"{(part['fingerprint'] or 'without a fingerprint')[:_DIGEST]}"
        for part in trained["data"]
    )


def _made(name: str, entry: Mapping[str, Any]) -> str:
    """How much of what it is, and by which settings."""
    stage, _ = parse_name(name) or (name, 0)
    arguments, rows = entry["arguments"], f"{entry['rows']:,} rows"
    how = {
        "questions": lambda: f"{arguments['benchmark']} {arguments['split']}",
        "generations": lambda: f"{entry['candidates']:,} answers by {entry['model']}",
        "verified": lambda: f"executed, {arguments['timeout']:g} s a statement",
        "audit": lambda: "questions with a doubtful gold",
        "sft": lambda: f"{arguments['choose']} right answers by rule {arguments['rule']}",
        "pairs": lambda: f"{arguments['strategy']} by rule {arguments['rule']}",
        "details": lambda: f"{len(entry['systems'])} scored systems",
        "scores": lambda: f"{len(entry['systems'])} scored systems",
    }[stage]
    return f"{rows}, {how()}"
