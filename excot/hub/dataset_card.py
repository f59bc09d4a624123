"""The dataset card of a run folder: ``README.md``, whose front matter tells ``load_dataset`` where each config is."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from ..atomic import replace_text
from ..stages import VERBS, in_order, parse_name
from .card import card_file, card_text, excerpt, fence, parse_card, render_card
from .funnel import Entry, by_round, deciding_rules, funnel, funnel_svg, known_entries

# The most finished dataset is what `load_dataset(folder)` without a config name should give.
_DEFAULT_FIRST = ("pairs", "sft", "verified", "details", "generations", "questions", "audit", "scores")

_SIZES = ((1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"))

# Of the options of a round's stages, those that a reader wants to know; all of them are in the manifest.
_OPTIONS = {
    "generations": ("n", "temperature", "top_p", "max_tokens", "seed", "error_rate", "limit"),
    "sft": ("rule", "choose", "max_per_question", "limit"),
    "pairs": ("rule", "strategy", "max_per_question", "rejected", "seed", "limit"),
}


class Benchmark(NamedTuple):
    """What a card says of where the questions are from."""

    title: str | None
    url: str | None
    license: str
    source: str


_BENCHMARKS = {
    "spider": Benchmark("Spider", "https://yale-lily.github.io/spider", "cc-by-sa-4.0", "xlangai/spider"),
    "bird": Benchmark("BIRD", "https://bird-bench.github.io", "cc-by-sa-4.0", "extended|other-bird"),
}
_OWN = Benchmark(None, None, "unknown", "original")


def write_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write or bring up to date the card of a run folder, and the figure in it.

    The card calls the data by the repository that the folder was last pushed to or pulled from, or else by the folder.

    Args:
        folder: the run folder.
        manifest: its manifest.

    Raises:
        ExcotError: the card that is there cannot be read.
    """
    path, name = folder / "README.md", folder.resolve().name
    with suppress(OSError, ValueError):  # no such file is the common case; a damaged one is named where it matters
        name = json.loads((folder / ".excot" / "local.json").read_text("utf-8")).get("repo") or name
    card = dataset_card(folder, manifest, name, existing=card_file(path), where=str(path))
    figure = funnel_svg(manifest)
    if figure:
        replace_text(folder / "funnel.svg", figure)
    replace_text(path, card)


def dataset_card(
    folder: Path,
    manifest: dict[str, Any],
    name: str,
    revision: str | None = None,
    existing: str = "",
    where: str = "README.md",
) -> str:
    """The whole text of a dataset card: front matter, its owner's own words, and what we say between our markers.

    Args:
        folder: where the Parquet files are that the manifest names. A dataset without its file shows no sample.
        manifest: of the run folder. ``ancestors`` in it are told of but cannot be loaded.
        name: what ``load_dataset`` shall be given: a folder's name, or ORG/NAME.
        revision: the tag that it shall be given as well.
        existing: the card until now.
        where: how errors call that card.

    Raises:
        ExcotError: the front matter of the existing card is not YAML.
    """
    front, body = parse_card(existing, where)
    here = {dataset: manifest["stages"][dataset] for dataset in in_order(list(manifest["stages"]))}
    # `load_dataset` fails on a config without rows, such as an audit that found nothing: then it is no config.
    stages = {dataset: entry for dataset, entry in here.items() if entry["rows"]} or here
    known = known_entries(manifest)
    questions = known.get("questions", {})
    origin = _BENCHMARKS.get(questions.get("arguments", {}).get("benchmark"), _OWN)
    rounds = [_round(number, entries) for number, entries in by_round(manifest).items()]
    judged = [round["verified"] for round in rounds if round["verified"]]
    generated = render_card(
        "dataset_card.md.jinja",
        name=name,
        quoted=json.dumps(name, ensure_ascii=False),
        versioned=f", revision={json.dumps(revision, ensure_ascii=False)}" if revision else "",
        stages=stages,
        stage_of={dataset: (parse_name(dataset) or (dataset, 0))[0] for dataset in stages},
        default=_most_finished(stages),
        elsewhere=[dataset for dataset in in_order(list(known)) if dataset not in here],
        outdated=_outdated(known),
        questions=questions,
        benchmark=origin,
        rounds=rounds,
        answers=sum(round["generations"].get("candidates", 0) for round in rounds),
        judged=bool(judged),
        golds=judged[-1].get("golds", {}) if judged else {},
        rules={rule for round in rounds for rule in round["rules"]},
        notes=list(dict.fromkeys(filter(None, (round["generations"].get("note") for round in rounds)))),
        funnel=funnel(manifest),
        samples=_samples(folder, stages),
        fence=fence,
    )
    return card_text(_front_matter(front, stages, origin, known), body, generated)


# The front matter


def _front_matter(
    front: dict[str, Any], stages: dict[str, Entry], origin: Benchmark, known: dict[str, Entry]
) -> dict[str, Any]:
    """Where the data is and how much there is; what else we can say only where the card's owner has not."""
    of = f" from {origin.title} {known['questions']['split']}" if origin.title else ""
    defaults = {
        "pretty_name": f"Text-to-SQL data{of}, judged by execution",
        "language": ["en"],
        "license": origin.license,
        "task_categories": ["text-generation"],
        "source_datasets": [origin.source],
        "tags": ["text-to-sql", "excot"],
    }
    largest = max(entry["rows"] for entry in stages.values())
    size = next((words for limit, words in _SIZES if largest < limit), "10M<n<100M")
    return {**defaults, **front, "size_categories": [size], "configs": _configs(front.get("configs"), stages)}


def _configs(existing: Any, stages: dict[str, Entry]) -> list[Any]:
    """Our configs, and those that somebody else put beside them into the repository."""
    others = [
        config
        for config in (existing if isinstance(existing, list) else [])
        if not (isinstance(config, dict) and parse_name(str(config.get("config_name"))))
    ]
    # `datasets` takes a config called "default" for marked as well, and refuses two that are.
    marked = any(
        isinstance(config, dict) and (config.get("default") or config.get("config_name") == "default")
        for config in others
    )
    default = None if marked else _most_finished(stages)
    ours = [
        {
            "config_name": dataset,
            **({"default": True} if dataset == default else {}),
            "data_files": [{"split": entry["split"], "path": f"{dataset}/*-{entry['fingerprint'][:8]}.parquet"}],
        }
        for dataset, entry in stages.items()
    ]
    return ours + others


def _most_finished(stages: dict[str, Entry]) -> str:
    def finished(dataset: str) -> tuple[int, int]:
        stage, round = parse_name(dataset) or ("scores", 0)
        return -_DEFAULT_FIRST.index(stage), round

    return max(stages, key=finished)


# What the card tells


def _round(number: int, entries: dict[str, Entry]) -> dict[str, Any]:
    """What the table of how a round was made needs beside its entries."""
    databases = {id: hashes for id, hashes in entries["verified"].get("databases", {}).items() if hashes}
    digest = hashlib.sha256(json.dumps(databases, sort_keys=True).encode()).hexdigest()
    versions: dict[str, list[str]] = {}
    for entry in filter(None, entries.values()):
        for library, version in {"excot": entry.get("excot"), **(entry.get("versions") or {})}.items():
            if version and str(version) not in versions.setdefault(library, []):
                versions[library].append(str(version))
    return {
        "number": number,
        **entries,
        "rules": deciding_rules(entries),
        "options": {stage: _options(entries[stage], names) for stage, names in _OPTIONS.items()},
        "limits": _limits(entries["verified"]),
        "databases": len(databases),
        "digest": digest[:16],
        "versions": versions,
        "seconds": {VERBS[stage]: f"{entry['seconds']:,.1f}" for stage, entry in entries.items() if entry},
    }


def _options(entry: Entry, names: tuple[str, ...]) -> dict[str, Any]:
    """Those of a stage's options that somebody set, lists in words."""
    given = {name: entry.get("arguments", {}).get(name) for name in names}
    return {
        name: " ".join(value) if isinstance(value, list) else value
        for name, value in given.items()
        if value is not None
    }


def _limits(verified: Entry) -> list[str]:
    """What one statement may use, in words."""
    seconds = verified.get("arguments", {}).get("timeout")
    limits = {**({"seconds": seconds} if seconds else {}), **(verified.get("limits") or {})}
    return [
        f"{value / 1e6:,g} MB of {name.removesuffix('_bytes')}" if name.endswith("_bytes") else f"{value:,.9g} {name}"
        for name, value in limits.items()
    ]


def _outdated(known: dict[str, Entry]) -> list[tuple[str, str]]:
    """Datasets that were made from an earlier version of another one, with the other one's name."""
    return [
        (dataset, source)
        for dataset in in_order(list(known))
        for source, fingerprint in known[dataset].get("inputs", {}).items()
        if parse_name(source) and source in known and known[source]["fingerprint"] != fingerprint
    ]


def _samples(folder: Path, stages: dict[str, Entry]) -> dict[str, str]:
    """The first row of every dataset as JSON, its long texts and lists shortened."""
    rows = {dataset: _first_row(folder, entry) for dataset, entry in stages.items()}
    return {dataset: excerpt(row) for dataset, row in rows.items() if row is not None}


def _first_row(folder: Path, entry: Entry) -> dict[str, Any] | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in sorted(entry["files"])[:1]:
        with suppress(OSError, pa.ArrowException), pq.ParquetFile(folder / name) as file:  # a damaged one is no sample
            for batch in file.iter_batches(1):
                return next(iter(batch.to_pylist()), None)
    return None
