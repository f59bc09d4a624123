"""The dataset card of a run folder: ``README.md``, whose front matter tells ``load_dataset`` where each config is."""

from __future__ import annotations

import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from ..atomic import replace_text
from ..errors import ExcotError

BEGIN, END = "<!-- excot:begin -->", "<!-- excot:end -->"
"""Only what stands between these markers is written anew; a user's own words around it stay."""

# The most finished dataset is what `load_dataset(folder)` without a config name should give.
_DEFAULT_FIRST = ("pairs", "sft", "verified", "details", "generations", "questions")


def write_card(folder: Path, manifest: dict[str, Any]) -> None:
    """Write or bring up to date the card of a run folder.

    Args:
        folder: the run folder.
        manifest: its manifest.
    """
    path = folder / "README.md"
    front, body = read_card(path)
    stages = manifest["stages"]
    default = next(stage for stage in _DEFAULT_FIRST if stage in stages)
    front.setdefault("language", ["en"])
    front.setdefault("task_categories", ["text-generation"])
    front.setdefault("tags", ["text-to-sql", "excot"])
    front["configs"] = [
        {
            "config_name": stage,
            **({"default": True} if stage == default else {}),
            "data_files": [{"split": entry["split"], "path": f"{stage}/*-{entry['fingerprint'][:8]}.parquet"}],
        }
        for stage, entry in stages.items()
    ]
    save_card(path, front, body, render_card("dataset_card.md.jinja", name=folder.resolve().name, stages=stages))


def save_card(path: Path, front: dict[str, Any], body: str, generated: str) -> None:
    """Write a card in one step.

    Args:
        path: where.
        front: the front matter.
        body: what the card said until now, without its front matter.
        generated: what shall stand between the markers.
    """
    import yaml

    generated = f"{BEGIN}\n{generated}\n{END}"
    before, begin, rest = body.rpartition(BEGIN)  # the last: one without its end would take a user's words with it
    _, end, after = rest.partition(END)
    body = f"{before}{generated}{after}" if begin and end else f"{body.rstrip()}\n\n{generated}\n".lstrip()
    replace_text(path, f"---\n{yaml.safe_dump(front, sort_keys=False, allow_unicode=True)}---\n{body}")


def read_card(path: Path) -> tuple[dict[str, Any], str]:
    """The front matter and the rest of an existing card."""
    import yaml

    if not path.is_file():
        return {}, ""
    text = path.read_text("utf-8")
    found = re.match(r"---\n(.*?\n)??---(?:\n|$)", text, re.DOTALL)
    if not found:
        return {}, text
    try:
        values = yaml.safe_load(found[1] or "")
    except yaml.YAMLError as error:
        raise ExcotError(
            f"the front matter of {path} is not YAML ({error})", "mend it, or move the file away"
        ) from None
    if values is not None and not isinstance(values, dict):
        return {}, text  # two rules with words between them
    return values or {}, text[found.end() :]


def render_card(template: str, **values: Any) -> str:
    """Render one of the templates of this folder."""
    from jinja2 import Environment, StrictUndefined

    text = (files(__package__) / template).read_text("utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    return environment.from_string(text).render(**values).strip()
