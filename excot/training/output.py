"""The output folder: what is trained there, from which checkpoint it goes on, and the finished model, whole or absent.

``training.json`` in it says what the model is trained on, and when it is finished. The final model is written beside
its place and moved in when it is complete.
"""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..atomic import replace_text
from ..errors import ExcotError
from ..hub.model_card import write_model_card
from ..hub.results import load_model_card
from ..journal import differences
from ..models import RECORD
from .recipe import RECIPE, recipe_text

if TYPE_CHECKING:
    from transformers import Trainer, TrainingArguments

    from ..prompts import Prompt

_SCRATCH = ".final"
_LIBRARIES = ("torch", "transformers", "trl", "accelerate", "peft", "datasets")
_DECIDES = ("stage", "model", "data", "prompt_id", "rows", "settings")
"""What of a record must be the same for a run to go on from its checkpoints."""

# Settings that may change between the start of a run and its going on: where and how fast it runs, what it logs.
_FREE = (
    "output_dir run_name disable_tqdm resume_from_checkpoint push_to_hub debug do_train do_eval do_predict "
    "prediction_loss_only local_rank project report_to deepspeed fsdp use_cpu skip_memory_metrics full_determinism "
    "parallelism_config accelerator_config activation_checkpointing activation_checkpointing_kwargs "
    "gradient_checkpointing gradient_checkpointing_kwargs activation_offloading torch_empty_cache_steps "
    "per_device_train_batch_size gradient_accumulation_steps load_best_model_at_end metric_for_best_model "
    "greater_is_better ignore_data_skip enable_jit_checkpoint model_init_kwargs dataset_num_proc torch_compile "
    "auto_find_batch_size include_for_metrics"
).split()
_FREE_PREFIXES = (
    "logging_ log_ hub_ save_ eval_ dataloader_ per_device_eval fsdp_ ddp_ trackio vllm_ torch_compile_".split()
)


@dataclass
class Output:
    """The output folder of one training run.

    Attributes:
        folder: its path.
        record: what is trained: ``stage``, ``model``, ``data``, ``prompt_id``, ``rows``, ``settings``, ...
        checkpoint: the checkpoint to go on from, or ``None``.
    """

    folder: Path
    record: dict[str, Any]
    checkpoint: str | None = None
    _overwrites: bool = field(default=False, repr=False)

    @classmethod
    def look(cls, folder: str, record: dict[str, Any], overwrite: bool, checkpoint: str | None = None) -> Output:
        """Decide whether training may begin in a folder, and from where, without touching it.

        Args:
            folder: the output folder; it may be missing.
            record: what shall be trained.
            overwrite: whether what is there may be lost.
            checkpoint: one that the user names.

        Raises:
            ExcotError: the folder holds a finished model, another run, or something else; or a card that cannot be
                read, to which nothing could be added in the end.
        """
        output = cls(Path(folder), json.loads(json.dumps(record, default=str)))
        found = output._read()
        same = found is not None and all(found[key] == output.record[key] for key in _DECIDES)
        # An --overwrite that was stopped goes on when it is started again.
        if same and not found["finished"] and (not overwrite or found["overwrites"]):
            output._check_card()
            output._overwrites = found["overwrites"]
            output.checkpoint = checkpoint or last_checkpoint(output.folder)
            return output
        if not overwrite:
            output._refuse(found)
        output._check_card()
        output._overwrites = overwrite
        output.checkpoint = checkpoint
        return output

    def begin(self) -> None:
        """Make the folder and say in it what is being trained; what is overwritten goes now. On one process only."""
        self.folder.mkdir(parents=True, exist_ok=True)
        if self._overwrites and self.checkpoint is None:
            for path in (*self.folder.glob("checkpoint-*"), *_model_files(self.folder), self.folder / RECORD):
                shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        shutil.rmtree(self.folder / _SCRATCH, ignore_errors=True)
        self._write()

    def save_final(self, trainer: Trainer, prompt: Prompt | None, given: dict[str, Any], **facts: Any) -> None:
        """Save the model, its card, prompt and recipe, and mark the run as finished. On all processes together.

        Args:
            trainer: trained.
            prompt: what the model was trained under; kept beside it so that it can be asked in the same way.
            given: the options that the user gave; kept as a recipe, so that it can be trained again.
            facts: what else the record shall say: steps, losses, scores.
        """
        scratch = self.folder / _SCRATCH
        plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
        if plugin is not None:  # a sharded state would not be a model that others can load
            plugin.set_state_dict_type("FULL_STATE_DICT")
        trainer.save_model(str(scratch), _internal_call=True)  # not the one that also pushes
        trainer.accelerator.wait_for_everyone()
        if not trainer.accelerator.is_main_process:
            return
        shutil.rmtree(scratch / "ref", ignore_errors=True)  # DPO's frozen copy of an adapter
        (scratch / "README.md").unlink(missing_ok=True)  # PEFT's form of a card, not filled in
        if not _model_files(scratch):
            raise ExcotError(f"no weights were saved to {scratch}", "see the warnings above")
        if prompt is not None:
            (scratch / "prompt.jinja").write_text(prompt.text, "utf-8")
        (scratch / RECIPE).write_text(recipe_text(given, self.record), "utf-8")
        self.record |= {"finished": True, **json.loads(json.dumps(facts, default=str))}
        write_model_card(scratch / "README.md", self.folder.resolve().name, self.record, self.folder / "README.md")
        for path in sorted(scratch.iterdir()):
            os.replace(path, self.folder / path.name)
        scratch.rmdir()
        self._write()

    def _refuse(self, found: dict[str, Any] | None) -> None:
        again = "--overwrite to train anew, or another --output_dir"
        if found and found["finished"]:
            raise ExcotError(f"{self.folder} already holds a finished model", again)
        if found:
            changed = differences(_flat(found), _flat(self.record))
            raise ExcotError(f"{self.folder} holds a run begun with {changed}", again)
        if _model_files(self.folder) or list(self.folder.glob("checkpoint-*")):
            raise ExcotError(f"{self.folder} holds a model that is not this recipe's", again)

    def _check_card(self) -> None:
        if self.folder.is_dir():
            load_model_card(self.folder)

    def _read(self) -> dict[str, Any] | None:
        path = self.folder / RECORD
        try:
            return json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            return None
        except (OSError, ValueError) as error:
            raise ExcotError(f"cannot read {path} ({error})", "restore the file, or --overwrite") from None

    def _write(self) -> None:
        record = {"finished": False, "overwrites": self._overwrites, **self.record}
        replace_text(self.folder / RECORD, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def record_of(stage: str, model: dict[str, Any], data: Any, rows: int, training_args: TrainingArguments) -> dict:
    """What a run's ``training.json`` says from its beginning.

    Args:
        stage: ``sft``, ``dpo`` or ``grpo``.
        model: name, revision and commit of the model to start from, and the adapter's options where there is one.
        data: the `data.Data` to train on.
        rows: how many of its rows are left after the length gate.
        training_args: the trainer's options; those that decide what is learned are kept.
    """
    settings = {name: value for name, value in training_args.to_dict().items() if decides(name)}
    settings["global_batch"] = (
        training_args.per_device_train_batch_size
        * training_args.gradient_accumulation_steps
        * training_args.world_size
    )
    return {
        "excot": __version__,
        "stage": stage,
        "model": model,
        "data": data.origin,
        "prompt_id": data.prompt_id,
        "rows": rows,
        "settings": settings,
        "world_size": training_args.world_size,
        "versions": {name: version(name) for name in _LIBRARIES},
    }


def decides(setting: str) -> bool:
    """Whether what is learned depends on an option of a recipe."""
    return setting not in _FREE and not setting.startswith(tuple(_FREE_PREFIXES)) and "token" not in setting


def last_checkpoint(folder: Path) -> str | None:
    """The newest checkpoint that is complete: a process that was killed may have left half of one behind it."""
    numbered = []
    for path in folder.glob("checkpoint-*"):
        number = path.name.rpartition("-")[2]
        if number.isdigit() and _is_complete(path):
            numbered.append((int(number), path))
    return str(max(numbered)[1]) if numbered else None


def _is_complete(checkpoint: Path) -> bool:
    try:
        json.loads((checkpoint / "trainer_state.json").read_text("utf-8"))  # which is written last
    except (OSError, ValueError):
        return False
    return any(checkpoint.glob("rng_state*.pth"))


def _model_files(folder: Path) -> list[Path]:
    patterns = (
        "model*.safetensors",
        "model.safetensors.index.json",
        "adapter_model.safetensors",
        "pytorch_model*.bin",
    )
    return [path for pattern in patterns for path in folder.glob(pattern)]


def _flat(record: dict[str, Any]) -> dict[str, Any]:
    """One level deep, so that a difference names the one setting that differs."""
    data = {f"dataset {place + 1}": part for place, part in enumerate(record["data"])}
    model = {f"model {name}": value for name, value in record["model"].items()}
    return {**{name: record[name] for name in ("stage", "prompt_id", "rows")}, **model, **data, **record["settings"]}
