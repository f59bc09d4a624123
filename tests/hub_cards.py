"""What the tests' Hub has against a card: our reading of the rules for the metadata at the head of a README.md.

The Hub's own check is not public. These rules are what its documentation of cards says, and what its refusals are
known to say; where neither says anything, a card passes. A language of three letters passes whether it exists or not,
and a repo that a card names need not be there.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import yaml

LICENSES = set(
    """
    afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
    bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc-by-2.0 cc-by-2.5
    cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
    cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc0-1.0 cdla-permissive-1.0
    cdla-permissive-2.0 cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0
    eupl-1.1 eupl-1.2 fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 grok2-community h-research
    intel-research isc lgpl lgpl-2.1 lgpl-3.0 lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit
    mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openmdw-1.0 openrail openrail++ osl-3.0 other pddl postgresql unknown
    unlicense wtfpl zlib
    """.split()
)
LANGUAGES = set(
    """
    aa ab ae af ak am an ar as av ay az ba be bg bi bm bn bo br bs ca ce ch co cr cs cu cv cy da de dv dz ee el en eo
    es et eu fa ff fi fj fo fr fy ga gd gl gn gu gv ha he hi ho hr ht hu hy hz ia id ie ig ii ik io is it iu ja jv ka
    kg ki kj kk kl km kn ko kr ks ku kv kw ky la lb lg li ln lo lt lu lv mg mh mi mk ml mn mr ms mt my na nb nd ne ng
    nl nn no nr nv ny oc oj om or os pa pi pl ps pt qu rm rn ro ru rw sa sc sd se sg sh si sk sl sm sn so sq sr ss st
    su sv sw ta te tg th ti tk tl tn to tr ts tt tw ty ug uk ur uz ve vi vo wa wo xh yi yo za zh zu code multilingual
    """.split()
)
TASKS = set(
    """
    any-to-any audio-classification audio-text-to-text audio-to-audio automatic-speech-recognition depth-estimation
    document-question-answering feature-extraction fill-mask graph-ml image-classification image-feature-extraction
    image-segmentation image-text-to-text image-to-3d image-to-image image-to-text image-to-video keypoint-detection
    mask-generation multiple-choice object-detection other question-answering reinforcement-learning robotics
    sentence-similarity summarization table-question-answering table-to-text tabular-classification tabular-regression
    tabular-to-text text-classification text-generation text-ranking text-retrieval text-to-3d text-to-audio
    text-to-image text-to-speech text-to-video time-series-forecasting token-classification translation
    unconditional-image-generation video-classification video-text-to-text visual-document-retrieval
    visual-question-answering voice-activity-detection zero-shot-classification zero-shot-image-classification
    zero-shot-object-detection
    """.split()
)
POWERS = ["1K", "10K", "100K", "1M", "10M", "100M", "1B", "10B", "100B", "1T"]
SIZES = {"n<1K", "n>1T"} | {f"{low}<n<{high}" for low, high in pairwise(POWERS)}
COLORS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}
SDKS = {"gradio", "docker", "static", "streamlit"}

Complaints = Iterator[str]


def check(card: str, kind: str) -> tuple[list[str], list[str]]:
    """The errors for which the Hub refuses a card of a model, dataset or Space, and what it merely warns of."""
    metadata, complaint = front_matter(card)
    if complaint:
        return [complaint], []
    if not metadata:
        return [], ["empty or missing yaml metadata in repo card"]
    rules = ERRORS | (IN_SPACES if kind == "space" else {})
    return _found(rules, metadata), _found(WARNINGS if kind == "dataset" else {}, metadata)


def front_matter(card: str) -> tuple[dict[str, Any], str]:
    """The metadata of a card, and why they cannot be read."""
    block = re.match(r"\s*---\r?\n(.*?)\r?\n---[ \t]*(\r?\n|$)", card, re.DOTALL)
    try:
        metadata = yaml.safe_load(block[1]) if block else None
    except yaml.YAMLError as error:
        return {}, f"Bad YAML: {error}"
    return (metadata or {}, "") if isinstance(metadata, dict | None) else ({}, "The metadata must be a mapping")


def _found(rules: dict[str, Callable[[str, Any], Complaints]], metadata: dict[str, Any]) -> list[str]:
    given = [name for name in rules if metadata.get(name) is not None]
    return [complaint for name in given for complaint in rules[name](name, metadata[name])]


def _one_of(allowed: set[str]) -> Callable[[str, Any], Complaints]:
    def rule(name: str, value: Any) -> Complaints:
        if not isinstance(value, str) or value not in allowed:
            yield f'"{name}" must be one of [{", ".join(sorted(allowed))}]'

    return rule


def _each(rule: Callable[[str, Any], Complaints], alone: bool = True) -> Callable[[str, Any], Complaints]:
    """The rule for each text of a list, which may also be one text alone."""

    def each(name: str, value: Any) -> Complaints:
        named = {name: value} if alone and not isinstance(value, list) else _places(name, value)
        if named is None:
            yield f'"{name}" must be an array'
        for place, text in (named or {}).items():
            yield from rule(place, text) if isinstance(text, str) else [f'"{place}" must be a string']

    return each


def _places(name: str, value: Any) -> dict[str, Any] | None:
    return {f"{name}[{n}]": one for n, one in enumerate(value)} if isinstance(value, list) else None


def _language(name: str, value: str) -> Complaints:
    if value not in LANGUAGES and not re.fullmatch("[a-z]{3}", value):
        yield (
            f'"{name}" with value "{value}" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code (two/three '
            'letters), or a special value like "code", "multilingual".'
        )


def _repo_id(what: str) -> Callable[[str, str], Complaints]:
    def rule(name: str, value: str) -> Complaints:
        part = r"(?!.*(--|\.\.))[A-Za-z0-9_]([\w.-]*[A-Za-z0-9_])?"
        if len(value) > 96 or not re.fullmatch(f"({part}/)?{part}", value, re.ASCII):
            yield f'"{name}" with value "{value}" is not valid. Use a {what} id from https://hf.co/{what}s.'

    return rule


def _members(name: str, value: Any, /, **kinds: type) -> Complaints:
    """What a mapping must have, and of which kind."""
    words = {str: "a string", list: "an array", dict: "an object"}
    if not isinstance(value, dict):
        yield f'"{name}" must be an object'
        return
    for member, kind in kinds.items():
        if member not in value:
            yield f'"{name}.{member}" is required'
        elif kind in words and not isinstance(value[member], kind):
            yield f'"{name}.{member}" must be {words[kind]}'


def _model_index(name: str, value: Any) -> Complaints:
    """Models with results; a result has a task, a dataset and metrics."""
    if not isinstance(value, list):
        yield f'"{name}" must be an array'
        return
    for place, model in _places(name, value).items():
        wrong = [*_members(place, model, name=str, results=list)]
        yield from wrong
        for result, found in _places(f"{place}.results", [] if wrong else model["results"]).items():
            wrong = [*_members(result, found, task=dict, dataset=dict, metrics=list)]
            yield from wrong or _result(result, found)


def _result(name: str, value: dict[str, Any]) -> Complaints:
    yield from _members(f"{name}.task", value["task"], type=str)
    yield from _members(f"{name}.dataset", value["dataset"], type=str, name=str)
    for member in ("config", "split", "revision"):
        if not isinstance(value["dataset"].get(member, ""), str):
            yield f'"{name}.dataset.{member}" must be a string'
    for place, metric in _places(f"{name}.metrics", value["metrics"]).items():
        yield from _members(place, metric, type=str, value=object)


def _configs(name: str, value: Any) -> Complaints:
    """The configs of a dataset: each has a name of its own and says where its data is; at most one is the default."""
    if not isinstance(value, list):
        yield f'"{name}" must be an array'
        return
    for place, config in _places(name, value).items():
        yield from _members(place, config, config_name=str)
        if isinstance(config, dict) and not {"data_files", "data_dir"} & config.keys():
            yield f'"{place}.data_files" is required'
        elif isinstance(config, dict) and "data_files" in config and not _finds_files(config["data_files"]):
            yield f'"{place}.data_files" must be a pattern, a list of them, or a list of splits with their paths'
    configs = [config for config in value if isinstance(config, dict)]
    names = [config["config_name"] for config in configs if isinstance(config.get("config_name"), str)]
    if len({*names}) < len(names):
        yield f'"{name}" contains a duplicate config_name'
    if sum(config.get("default") is True for config in configs) > 1:
        yield f'"{name}" has more than one default'


def _finds_files(value: Any) -> bool:
    def patterns(value: Any) -> bool:
        return isinstance(value, str) or (isinstance(value, list) and all(isinstance(one, str) for one in value))

    def split(value: Any) -> bool:
        return isinstance(value, dict) and isinstance(value.get("split"), str) and patterns(value.get("path"))

    return bool(value) and (patterns(value) or (isinstance(value, list) and all(map(split, value))))


def _short(name: str, value: Any) -> Complaints:
    if not isinstance(value, str) or len(value) > 60:
        yield f'"{name}" length must be less than or equal to 60 characters long'


ERRORS = {
    "license": _each(_one_of(LICENSES)),
    "language": _each(_language),
    "tags": _each(lambda name, value: iter(()), alone=False),
    "datasets": _each(_repo_id("dataset")),
    "base_model": _each(_repo_id("model")),
    "model-index": _model_index,
    "configs": _configs,
}
IN_SPACES = {
    "sdk": _one_of(SDKS),
    "colorFrom": _one_of(COLORS),
    "colorTo": _one_of(COLORS),
    "short_description": _short,
}
WARNINGS = {"task_categories": _each(_one_of(TASKS)), "size_categories": _each(_one_of(SIZES))}
