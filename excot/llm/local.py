"""A model on this machine: its tokenizer and chat template, its weights, an adapter on top of them."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

from ..errors import import_error
from .base import FatalBackendError, Message


def load_tokenizer(model: str, adapter: str | None = None) -> Any:
    """The tokenizer that goes with a model: the adapter's own, where one lies beside it.

    Args:
        model: a folder with config, weights and tokenizer, or a Hub id.
        adapter: the folder of a LoRA adapter on top of it.

    Raises:
        ExcotError: transformers is not installed.
        FatalBackendError: there is no such model or tokenizer, or it has no chat template.
    """
    try:
        from transformers import AutoTokenizer
    except ImportError:
        raise import_error("transformers", "train") from None
    folder = Path(model).expanduser()
    if not folder.exists() and (model.startswith((".", "/", "~")) or model.count("/") > 1):
        raise FatalBackendError(f"no model folder {model}", "give a folder that train wrote, or a Hub id")
    own = Path(adapter).expanduser() if adapter else None
    name = str(own) if own and (own / "tokenizer_config.json").is_file() else _place(model)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except Exception as error:
        remedy = "give a folder with config.json, weights and tokenizer, or a Hub id (HF_TOKEN set where it is gated)"
        raise FatalBackendError(f"cannot load the tokenizer of {model} ({first_line(error)})", remedy) from error
    if not tokenizer.chat_template:
        raise FatalBackendError(
            f"the tokenizer of {model} has no chat template",
            "take the instruction-tuned model, or save a chat_template.jinja beside its tokenizer",
        )
    return tokenizer


def encode(tokenizer: Any, messages: list[Message], model: str) -> list[int]:
    """A prompt's tokens, by the chat template, up to where the answer begins.

    Raises:
        FatalBackendError: the template refuses such messages; some refuse a system message.
    """
    from jinja2 import TemplateError

    try:
        return tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)["input_ids"]
    except TemplateError as error:
        raise FatalBackendError(
            f"the chat template of {model} refuses our messages ({error})",
            "use a prompt that the template takes, or mend the template",
        ) from None


def load_model(model: str, device: str, dtype: str, adapter: str | None = None) -> Any:
    """A causal language model, ready to generate.

    Args:
        model: a folder, or a Hub id.
        device: ``"auto"`` (CUDA, Apple's GPU, CPU: the first there is) or a torch device.
        dtype: ``"auto"`` (the checkpoint's own) or a torch type's name.
        adapter: the folder of a LoRA adapter on top of it.

    Raises:
        ExcotError: peft, which adapters need, is not installed.
        FatalBackendError: the model cannot be loaded, or the adapter does not fit it.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    if adapter:
        check_adapter(adapter)
    if not sys.stderr.isatty():
        logging.disable_progress_bar()  # of the weights: in a log it is noise
    try:
        network = AutoModelForCausalLM.from_pretrained(_place(model), dtype=dtype)
    except Exception as error:
        problem = f"cannot load the model {model} as {dtype!r} ({first_line(error)})"
        raise FatalBackendError(problem, "mend what the message names") from error
    if adapter:
        network = _with_adapter(network, model, adapter)
    try:
        return network.to(_device(device)).eval()
    except Exception as error:
        problem = f"cannot load the model {model} on device {device!r} ({first_line(error)})"
        raise FatalBackendError(problem, "mend what the message names") from error


def end_ids(tokenizer: Any, model: Any) -> list[int]:
    """The tokens that end an answer: those of the generation config, and the tokenizer's."""
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    if tokenizer.eos_token_id is not None and tokenizer.eos_token_id not in ends:
        ends.append(tokenizer.eos_token_id)
    return ends


def first_line(error: BaseException) -> str:
    """What an exception says first, on one line of at most 200 characters."""
    first, *more = str(error).strip().splitlines() or [type(error).__name__]
    return " ".join([first, *more[: first.endswith(":")]]).replace("\t", " ")[:200]


def check_adapter(adapter: str) -> Path:
    """The folder of an adapter.

    Raises:
        FatalBackendError: it is no folder that holds one.
    """
    folder = Path(adapter).expanduser()
    if not (folder / "adapter_config.json").is_file():
        raise FatalBackendError(
            f"{adapter} holds no adapter (there is no adapter_config.json)",
            "give the folder that training with LoRA wrote",
        )
    return folder


def _with_adapter(network: Any, model: str, adapter: str) -> Any:
    folder = check_adapter(adapter)
    try:
        from peft import PeftModel, get_peft_model_state_dict
        from peft.utils import load_peft_weights
    except ImportError:
        raise import_error("peft", "train") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what does not fit is said below, in one line
            adapted = PeftModel.from_pretrained(network, str(folder))
        # Weights for layers that the model does not have are passed over without a word.
        unlike = load_peft_weights(str(folder), device="cpu").keys() ^ get_peft_model_state_dict(adapted).keys()
    except Exception as error:  # other shapes, other names of layers, a damaged file
        raise _unfitting(adapter, model, first_line(error)) from error
    if unlike:
        raise _unfitting(adapter, model, f"{len(unlike)} weights without a counterpart, {min(unlike)} among them")
    return adapted.get_base_model()


def _unfitting(adapter: str, model: str, why: str) -> FatalBackendError:
    return FatalBackendError(
        f"the adapter {adapter} does not fit {model} ({why})", "give the model that it was trained on"
    )


def _place(model: str) -> str:
    folder = Path(model).expanduser()
    return str(folder) if folder.exists() else model


def _device(name: str) -> Any:
    import torch

    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
