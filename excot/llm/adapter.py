"""Whether a LoRA adapter fits a model, seen from its weights' names and shapes alone, before any model is loaded.

vLLM itself takes an adapter of a narrower or a deeper model without a word and answers with nonsense.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from .base import FatalBackendError
from .local import check_adapter, first_line

_WEIGHT = re.compile(r"base_model\.model\.(.+)\.lora_([AB])\.weight")


def adapter_rank(adapter: str, model: str) -> int:
    """The largest rank in a LoRA adapter that fits a model.

    Args:
        adapter: the folder that training with LoRA wrote.
        model: the folder or Hub id of the model; of it only ``config.json`` is read.

    Raises:
        FatalBackendError: the folder holds no LoRA adapter, or one that was trained on another model.
    """
    folder = check_adapter(adapter)
    try:
        settings = json.loads((folder / "adapter_config.json").read_text("utf-8"))
        rank = max(settings["r"], *(settings.get("rank_pattern") or {}).values(), 1)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise FatalBackendError(
            f"{adapter}/adapter_config.json is no LoRA adapter's ({first_line(error)})",
            "give the folder that training with LoRA wrote",
        ) from None
    try:
        made_for = _shapes_adapted(folder)
        there = _shapes(model)
    except Exception as error:  # a damaged file, a configuration that transformers does not know
        raise FatalBackendError(
            f"cannot hold the adapter {adapter} against {model} ({first_line(error)})", "mend what the message names"
        ) from error
    for name, (width, height) in made_for.items():
        if name not in there and ".experts." not in name:  # experts are kept together, under another name
            raise _unfitting(adapter, model, f"it has weights for {name}, which the model lacks")
        # GPT-2's family writes its matrices the other way round.
        if name in there and (height, width) not in (there[name], there[name][::-1]):
            seen = " x ".join(map(str, there[name]))
            raise _unfitting(adapter, model, f"its {name} is for {height} x {width} weights, the model's are {seen}")
    return rank


def _shapes_adapted(folder: Path) -> dict[str, tuple[int, int]]:
    """Inputs and outputs of each layer that an adapter changes, by the layer's name."""
    from safetensors import safe_open

    sides: dict[str, dict[str, int]] = {}
    with safe_open(folder / "adapter_model.safetensors", "pt") as weights:
        for key in weights.keys():  # noqa: SIM118 (it can be asked for its keys, not gone through)
            if match := _WEIGHT.fullmatch(key):
                rows, columns = weights.get_slice(key).get_shape()
                sides.setdefault(match[1], {})[match[2]] = columns if match[2] == "A" else rows
    return {name: (side["A"], side["B"]) for name, side in sides.items()}


def _shapes(model: str) -> dict[str, Any]:
    """Every layer's weight, by the layer's name, of a model that is never filled with any."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.from_pretrained(Path(model).expanduser() if Path(model).expanduser().exists() else model)
    with torch.device("meta"):
        network = AutoModelForCausalLM.from_config(config)
    return {
        name.removesuffix(".weight"): tuple(weight.shape)
        for name, weight in network.named_parameters(remove_duplicate=False)
    }


def _unfitting(adapter: str, model: str, why: str) -> FatalBackendError:
    return FatalBackendError(
        f"the adapter {adapter} does not fit {model} ({why})", "give the model that it was trained on"
    )
