"""The model that training starts from: seen to be one, with a tokenizer that can be trained with, before anything."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExcotError, first_line

if TYPE_CHECKING:
    from peft import PeftModel
    from trl import DPOConfig, GRPOConfig, ModelConfig, SFTConfig

log = logging.getLogger("excot")


def set_model_options(training_args: SFTConfig | DPOConfig | GRPOConfig, model_args: ModelConfig) -> None:
    """Let the trainer load the model as TRL's own scripts do; ``model_init_kwargs`` wins."""
    training_args.model_init_kwargs = {
        "revision": model_args.model_revision,
        "trust_remote_code": training_args.trust_remote_code,
        "attn_implementation": model_args.attn_implementation,
        "dtype": model_args.dtype,
        **(training_args.model_init_kwargs or {}),
    }


def load_config(model_args: ModelConfig, trust_remote_code: bool = False) -> Any:
    """The configuration of the model, or of the base model of an adapter.

    Raises:
        ExcotError: a folder that is no model, or a name that the Hub does not know.
    """
    from transformers import AutoConfig

    name, revision = model_args.model_name_or_path, model_args.model_revision
    if adapter := adapter_base(name):
        name, revision = adapter, None
    folder = Path(name).expanduser()
    if folder.is_dir() and not (folder / "config.json").is_file():
        raise ExcotError(f"{name} is no model: it has no config.json", "give a model's folder or a Hub id")
    try:
        return AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=trust_remote_code)
    except Exception as error:  # of many kinds, by what is wrong with the folder or the Hub
        raise ExcotError(
            f"cannot read the configuration of the model {name} ({first_line(error)})",
            "give a model's folder or a Hub id (HF_TOKEN set where it is gated)",
        ) from error


def load_tokenizer(model_args: ModelConfig, training_args: SFTConfig | DPOConfig | GRPOConfig) -> Any:
    """The tokenizer with which the trainer will read the data.

    Raises:
        ExcotError: there is none, or it has no chat template or no token that ends an answer.
    """
    from transformers import AutoTokenizer

    name = model_args.model_name_or_path
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            name, revision=model_args.model_revision, trust_remote_code=training_args.trust_remote_code
        )
    except Exception as error:
        raise ExcotError(
            f"cannot load the tokenizer of {name} ({first_line(error)})", "save a tokenizer beside the model"
        ) from error
    template = getattr(training_args, "chat_template_path", None)
    if template:
        tokenizer.chat_template = _chat_template(template)
    if not tokenizer.chat_template:
        raise ExcotError(
            f"the tokenizer of {name} has no chat template",
            "take the instruction-tuned model, or save a chat_template.jinja beside the tokenizer",
        )
    if getattr(training_args, "eos_token", None):
        tokenizer.eos_token = training_args.eos_token
    if tokenizer.eos_token_id is None:
        raise ExcotError(
            f"the tokenizer of {name} has no end token: an answer would never end",
            "set eos_token in its tokenizer_config.json",
        )
    if tokenizer.pad_token_id is None:
        log.warning("the tokenizer of %s has no padding token: its end token %s is used", name, tokenizer.eos_token)
    return tokenizer


def adapter_base(name: str) -> str | None:
    """The base model of an adapter's folder, or ``None`` where the folder holds no adapter."""
    path = Path(name).expanduser() / "adapter_config.json"
    if not path.is_file():
        return None
    from peft import PeftConfig

    try:
        base = PeftConfig.from_pretrained(str(path.parent)).base_model_name_or_path
    except Exception as error:
        raise ExcotError(f"cannot read {path} ({first_line(error)})", "restore the adapter's folder") from error
    if not base:
        raise ExcotError(f"{path} does not say what its base model is", "set base_model_name_or_path in it")
    if base.startswith((".", "/", "~")) and not Path(base).expanduser().is_dir():
        raise ExcotError(
            f"the adapter {name} is for the base model {base}, which is not there",
            "restore it, or correct base_model_name_or_path in adapter_config.json",
        )
    return base


def starting_model(
    model_args: ModelConfig, training_args: SFTConfig | DPOConfig | GRPOConfig, quantization: Any
) -> str | PeftModel:
    """What to hand to the trainer: the model's name, or, for an adapter, it on its base, to be trained further.

    Raises:
        ExcotError: the adapter does not belong to its base model.
    """
    name = model_args.model_name_or_path
    base = adapter_base(name)
    _check_weights(Path(base or name).expanduser())
    if base is None:
        return name
    from peft import PeftModel, get_peft_model_state_dict
    from peft.utils import load_peft_weights
    from transformers import AutoModelForCausalLM

    options = {**training_args.model_init_kwargs, "revision": None}
    if quantization is not None:
        options["quantization_config"] = quantization
    try:
        model = PeftModel.from_pretrained(
            AutoModelForCausalLM.from_pretrained(base, **options), name, is_trainable=True
        )
        unlike = load_peft_weights(name, device="cpu").keys() ^ get_peft_model_state_dict(model).keys()
    except (RuntimeError, ValueError) as error:  # other shapes, other names of layers
        raise _unfitting(name, base, first_line(error)) from error
    if unlike:
        raise _unfitting(name, base, f"{len(unlike)} weights without a counterpart, {min(unlike)} among them")
    model_args.use_peft = False  # it has its adapter: another one on top is not what was asked for
    return model


def _check_weights(folder: Path) -> None:
    """See that a model's folder has weights whose files are what they claim to be; the Hub sees to its own."""
    from safetensors import SafetensorError, safe_open

    if not folder.is_dir():
        return
    files = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*.bin")]
    if not files:
        raise ExcotError(f"{folder} has no weights", "give a folder with model.safetensors beside config.json")
    for file in files:
        try:
            if file.suffix == ".safetensors":
                with safe_open(file, "pt"):
                    pass
        except (SafetensorError, OSError) as error:
            raise ExcotError(f"cannot read the weights {file} ({first_line(error)})", "restore the file") from error


def _unfitting(name: str, base: str, why: str) -> ExcotError:
    return ExcotError(
        f"the adapter {name} does not fit its base model {base} ({why})", "give the model that it was trained on"
    )


def _chat_template(path: str) -> str | None:
    """From a template file, or from another model's tokenizer: what TRL's ``chat_template_path`` may be."""
    if Path(path).suffix in (".jinja", ".j2"):
        return Path(path).read_text("utf-8")
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(path).chat_template
