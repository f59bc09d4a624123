"""What a model says of itself: how it was trained, under which prompt it must be asked, and which commit it is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RECORD = "training.json"
"""Written beside every model that a recipe trains."""

_MODEL = ("name", "revision", "commit", "adapter")
_DATA = ("name", "config", "revision", "commit", "fingerprint")


def model_record(model: str) -> dict[str, Any] | None:
    """How a model was trained, as far as the provenance of its answers needs it.

    Args:
        model: a model's folder; any other name has no record here.

    Returns:
        ``stage``; ``model``, that it started from, with ``name``, ``revision``, ``commit`` and ``adapter``; ``data``,
        a list of what it learned from, each with ``name``, ``config``, ``revision``, ``commit`` and ``fingerprint``;
        and ``prompt_id``. ``None`` where no recipe says so.
    """
    record = _read(model, RECORD)
    base, data = record.get("model"), record.get("data")
    if not isinstance(base, dict) or not isinstance(data, list) or not all(isinstance(part, dict) for part in data):
        return None
    return {
        "stage": record.get("stage"),
        "model": {name: base.get(name) for name in _MODEL},
        "data": [{name: part.get(name) for name in _DATA} for part in data],
        "prompt_id": record.get("prompt_id"),
    }


def trained_prompt(model: str) -> str | None:
    """The id of the prompt that a model in a folder was trained under, or ``None`` where nobody says."""
    found = (_read(model, name).get("prompt_id") for name in (RECORD, "config.json"))
    return next((prompt_id for prompt_id in found if isinstance(prompt_id, str)), None)


def model_commit(name: str, revision: str | None = None) -> str | None:
    """The commit of the Hub that a model was loaded at.

    Transformers does not say; its cache does, since files lie in it by their commit.

    Args:
        name: the model, whose ``config.json`` has been loaded by now.
        revision: the one that was asked for.

    Returns:
        ``None`` for a folder, for what cannot be a model of the Hub, and where nothing of it is in the cache.
    """
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    if Path(name).expanduser().is_dir():
        return None
    try:
        path = try_to_load_from_cache(name, "config.json", revision=revision)
    except HFValidationError:
        return None
    return Path(path).parent.name if isinstance(path, str) else None


def _read(model: str, name: str) -> dict[str, Any]:
    """A JSON file of the folder; empty where there is none that can be read."""
    try:
        record = json.loads((Path(model) / name).read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
