"""The options of a run as a recipe of its own, and how it was launched: with both, anybody can train it again."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator
    from trl import TrlParser

RECIPE = "recipe.yaml"

# Where a run writes, publishes and asks: another one does so elsewhere. `env` is the machine's, and may hold keys.
_LEFT_OUT = "config env output_dir overwrite resume_from_checkpoint plan plan_gpus local_rank".split()
_LEFT_OUT_PREFIXES = ("hub_", "push_to_hub", "vllm_server_", "trackio_")
_SECRET_ENDS = ("api_key", "auth_token", "hub_token", "password", "secret")

_FIRST = ("model_name_or_path", "model_revision", "dataset_name", "dataset_revision", "dataset_config")


def given_options(parser: TrlParser, argv: list[str], values: dict[str, Any]) -> dict[str, Any]:
    """The options that a user gave, in a file or by flags, which win; what nobody gave is not among them.

    Args:
        parser: of the recipe; it cannot be used for anything else afterwards.
        argv: the command line without the program's name, seen to be right.
        values: what the ``--config`` file says.
    """
    for action in parser._actions:  # argparse then tells of the flags that are there, each read as the type it has
        action.default, action.required = argparse.SUPPRESS, False
    parser.add_argument("--config")
    return {**values, **vars(parser.parse_args(argv))}


def recipe_text(given: dict[str, Any], record: dict[str, Any]) -> str:
    """The text of the recipe.

    Args:
        given: as of `given_options`.
        record: the ``training.json``. A model and a dataset of the Hub are written down at its commits.
    """
    import yaml

    options = {name: _plain(value) for name, value in given.items() if _belongs(name)}
    model, data = record["model"], record["data"][0]
    if not model["local"] and model["commit"] and model["name"] == options.get("model_name_or_path"):
        options["model_revision"] = model["commit"]
    if not data["local"] and data["commit"] and data["name"] == options.get("dataset_name"):
        options["dataset_revision"] = data["commit"]
    first = {name: options[name] for name in _FIRST if name in options}
    text = yaml.safe_dump({**first, **options}, sort_keys=False, allow_unicode=True)
    head = f"# {record['stage']} with excot {record['excot']}, as it was run; README.md says how to run it again"
    return f"{head}\n\n{text}"


def launched(accelerator: Accelerator) -> dict[str, Any]:
    """On which kind of device a run is, over how many machines, and by what its weights are split, if at all."""
    deepspeed, fsdp = (getattr(accelerator.state, f"{name}_plugin", None) for name in ("deepspeed", "fsdp"))
    return {
        "device": accelerator.device.type,
        "machines": int(os.environ.get("GROUP_WORLD_SIZE", "1")),  # which torch's launcher sets
        "sharding": f"zero{deepspeed.zero_stage}" if deepspeed else f"fsdp{fsdp.fsdp_version}" if fsdp else None,
    }


def _belongs(name: str) -> bool:
    return name not in _LEFT_OUT and not name.startswith(_LEFT_OUT_PREFIXES)


def _plain(value: Any) -> Any:
    """A value without the secrets in it; a mapping that was given as a flag is JSON."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except ValueError:
            return value
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if not _is_secret(str(key))}
    return [_plain(part) for part in value] if isinstance(value, list) else value


def _is_secret(key: str) -> bool:
    return key == "token" or key.endswith(_SECRET_ENDS)
