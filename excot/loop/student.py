"""The student, looked at before any work starts: is it there, and is it a model that can be asked and trained?

By its files alone: importing what loads models takes longer than everything else that is looked at beforehand.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ..errors import ExcotError

_TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def check_student(name: str) -> None:
    """See that a student can be loaded.

    Args:
        name: a folder, or a name on the Hub.

    Raises:
        ExcotError: it cannot.
    """
    folder = Path(name).expanduser()
    if folder.is_dir():
        _check_folder(folder, name)
    elif folder.exists() or name.startswith((".", "/", "~")) or name.count("/") != 1:
        raise ExcotError(f"student: there is no folder {name}", "give a model's folder, or its ORG/NAME on the Hub")
    else:
        _check_hub(name)


def _check_folder(folder: Path, name: str) -> None:
    adapter = folder / "adapter_config.json"
    if adapter.is_file():
        base = _json(adapter, name).get("base_model_name_or_path")
        if not base:
            raise ExcotError(f"student: {adapter} does not say what its base model is", "restore the adapter's folder")
        check_student(base)
    else:
        if not (folder / "config.json").is_file():
            raise ExcotError(f"student: {name} is no model: it has no config.json", "give a model's folder")
        if "model_type" not in _json(folder / "config.json", name):
            raise ExcotError(f"student: {folder / 'config.json'} names no model_type", "restore the model's folder")
        if not any((folder / file).is_file() for file in _TOKENIZERS):
            raise ExcotError(f"student: {name} has no tokenizer", "save a tokenizer beside the model")
    _check_weights(folder, name)


def _check_weights(folder: Path, name: str) -> None:
    files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if not files:
        raise ExcotError(f"student: {name} has no weights", "give a folder with model.safetensors beside config.json")
    for file in sorted(files):
        if file.suffix == ".safetensors" and not _is_whole(file):
            raise ExcotError(f"student: {file} is cut off or no safetensors file", "restore the file")


def _is_whole(file: Path) -> bool:
    """Whether a file of weights is as long as its head says."""
    with open(file, "rb") as weights:
        length = int.from_bytes(weights.read(8), "little")
        if length > file.stat().st_size:
            return False
        try:
            head: dict[str, Any] = json.loads(weights.read(length))
            ends = [entry["data_offsets"][1] for key, entry in head.items() if key != "__metadata__"]
        except (ValueError, KeyError, TypeError, IndexError, AttributeError):
            return False
    return file.stat().st_size == 8 + length + max(ends, default=0)


def _check_hub(name: str) -> None:
    from huggingface_hub import HfApi, constants, try_to_load_from_cache

    from ..hub.asking import asking

    if isinstance(try_to_load_from_cache(name, "config.json"), str):
        return
    if constants.HF_HUB_OFFLINE:
        raise ExcotError(
            f"student: there is no folder {name}, and HF_HUB_OFFLINE forbids to look for it on the Hub",
            "give a model's folder, or unset HF_HUB_OFFLINE",
        )
    with asking(name):
        HfApi().model_info(name)


def _json(path: Path, name: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ExcotError(f"student: cannot read {path} ({error})", f"restore the folder {os.fspath(name)}") from None
    return values if isinstance(values, dict) else {}
