"""From options to a trainer, and from a trainer to a finished model: what the three recipes have in common."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExcotError, first_line
from ..models import model_commit
from .arguments import RecipeArguments
from .data import Data, load_data
from .lengths import drop_overlong
from .model import adapter_base, load_config, load_tokenizer, set_model_options, starting_model
from .output import Output, record_of
from .plan import plan
from .recipe import launched

if TYPE_CHECKING:
    from datasets import Dataset
    from peft import PeftConfig, PeftModel
    from transformers import BitsAndBytesConfig, Trainer
    from trl import DatasetMixtureConfig, DPOConfig, GRPOConfig, ModelConfig, SFTConfig

    from ..execution import Databases

log = logging.getLogger("excot")


@dataclass(frozen=True)
class Session:
    """All that was found right before training.

    Attributes:
        model: what to hand to the trainer as its model.
        train: the rows to train on, none of which is over the length limit.
        held_out: those to evaluate on, or ``None``.
        quantization: how the trainer shall load the model; ``None`` where it is loaded already.
        adapter: the adapter that the trainer shall add, or ``None``.
        data: where they come from, and their prompt.
        questions: held-out questions to answer while training, with their databases; or ``None``.
        output: the output folder.
        script_args: the recipe's own options.
    """

    model: str | PeftModel
    train: Dataset
    held_out: Dataset | None
    quantization: BitsAndBytesConfig | None
    adapter: PeftConfig | None
    data: Data
    questions: tuple[list[dict[str, Any]], Databases] | None
    output: Output
    script_args: RecipeArguments


def prepare(
    stage: str,
    script_args: RecipeArguments,
    training_args: SFTConfig | DPOConfig | GRPOConfig,
    model_args: ModelConfig,
    dataset_args: DatasetMixtureConfig,
) -> Session | None:
    """Look at everything that could be wrong, print a summary of the lengths, and begin the output folder.

    Returns:
        What to train, or ``None`` after ``--plan``, which has been printed.

    Raises:
        ExcotError: whatever is wrong, in one line, before the first step.
    """
    from accelerate import PartialState
    from trl import get_peft_config, get_quantization_config

    set_model_options(training_args, model_args)
    _check_accuracy_options(script_args, training_args)
    state = PartialState()
    with state.local_main_process_first():  # the others find what it has read in the cache
        data = load_data(stage, script_args, dataset_args, evaluates=training_args.eval_strategy != "no")
    config, tokenizer = _open_model(script_args, training_args, model_args)
    origin = _origin(model_args)
    train, held_out, lengths = data.train, data.held_out, None
    if tokenizer is not None:
        limit = _limit(stage, training_args, config)
        processes = getattr(training_args, "dataset_num_proc", None)
        settings = (tokenizer, stage, limit, script_args.allow_drops, processes)
        with state.local_main_process_first():
            train, lengths = drop_overlong(train, *settings)
            if held_out is not None:
                held_out, _ = drop_overlong(held_out, *settings)
    if getattr(training_args, "precompute_ref_log_probs", False):
        name = model_args.model_name_or_path
        train, held_out = (_bound_to_weights(rows, name, origin["commit"]) for rows in (train, held_out))
    record = record_of(stage, origin, data, len(train), training_args)
    record["lengths"] = str(lengths)

    if script_args.plan:
        gpus = training_args.world_size if training_args.world_size > 1 else script_args.plan_gpus
        if state.is_main_process:
            print(plan(stage, training_args, record, lengths, len(held_out or ()), config, gpus), flush=True)
        return None

    if stage == "grpo":
        _check_generation_batch(len(train), training_args)
    output = Output.look(
        training_args.output_dir, record, script_args.overwrite, _checkpoint(training_args.resume_from_checkpoint)
    )
    questions = None
    if script_args.ex_dataset:
        from .accuracy import held_out_questions

        questions = held_out_questions(script_args, data.prompt)
    quantization = get_quantization_config(model_args)
    model = starting_model(model_args, training_args, quantization)
    quantization = quantization if isinstance(model, str) else None
    log.info("%s", lengths)
    if output.checkpoint:
        log.info("going on from %s", output.checkpoint)
    state.wait_for_everyone()  # until all have looked at the folder as it was
    if state.is_main_process:
        output.begin()
    state.wait_for_everyone()
    adapter = get_peft_config(model_args)  # none for a model that has one: `starting_model` has seen to that
    return Session(model, train, held_out, quantization, adapter, data, questions, output, script_args)


def fit(trainer: Trainer, session: Session) -> None:
    """Train, save the model with its card, push it if asked, and say where it is. On all processes together."""
    script_args, output = session.script_args, session.output
    if session.questions:
        from .accuracy import ExecutionAccuracy

        trainer.add_callback(ExecutionAccuracy(trainer, *session.questions, script_args))
    trainer.create_model_card = lambda *_, **__: None  # TRL's own, which it writes at every checkpoint
    if tied := getattr(trainer.model, "all_tied_weights_keys", None):
        # DeepSpeed copies the weights before they are saved, and would save a tied one twice.
        trainer.model._keys_to_ignore_on_save |= set(tied)
    trainer.model.config.prompt_id = session.data.prompt_id
    started = time.monotonic()
    trainer.train(resume_from_checkpoint=output.checkpoint)
    output.save_final(
        trainer,
        session.data.prompt,
        getattr(script_args, "given", {}),  # of `script.run`
        steps=trainer.state.global_step,
        # The trainer's own mean would be that of the steps since the last start alone.
        train_loss=next((entry["loss"] for entry in reversed(trainer.state.log_history) if "loss" in entry), None),
        seconds=round(time.monotonic() - started, 1),
        exec_acc=_accuracy(trainer, session),
        launched=launched(trainer.accelerator),
        repository=trainer.hub_model_id,
    )
    if trainer.accelerator.is_main_process:
        print(f"{trainer.state.global_step:,} steps; the model is in {output.folder}", flush=True)
        if trainer.args.push_to_hub:
            print(f"pushed to {_push(trainer, output.folder)}", flush=True)
    trainer.end()


def _open_model(script_args: RecipeArguments, training_args: Any, model_args: ModelConfig) -> tuple[Any, Any]:
    """The model's configuration and tokenizer; neither where ``--plan`` cannot reach the Hub."""
    try:
        config = load_config(model_args, training_args.trust_remote_code)
        return config, load_tokenizer(model_args, training_args)
    except ExcotError as error:
        if not script_args.plan or Path(model_args.model_name_or_path).is_dir():
            raise
        log.warning("%s", error)
        return None, None


def _check_generation_batch(questions: int, training_args: GRPOConfig) -> None:
    needed = training_args.generation_batch_size // training_args.num_generations
    if questions < needed:
        raise ExcotError(
            f"{questions} questions do not fill one generation batch of {needed}: nothing would be trained",
            "lower gradient_accumulation_steps or steps_per_generation",
        )


def _check_accuracy_options(script_args: RecipeArguments, training_args: Any) -> None:
    if script_args.ex_dataset and training_args.eval_strategy == "no":
        raise ExcotError(
            "ex_dataset is given, but nothing is ever evaluated", "set eval_strategy: steps and eval_steps"
        )
    if not script_args.ex_dataset and "exec_acc" in (training_args.metric_for_best_model or ""):
        raise ExcotError(
            f"metric_for_best_model is {training_args.metric_for_best_model}, which is not measured",
            "name held-out questions with ex_dataset",
        )


def _limit(stage: str, training_args: Any, config: Any) -> int | None:
    """The most tokens of a row (of a prompt, for GRPO): what the trainer would cut, or the model cannot take."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None)
    if stage == "grpo":
        windows = [context, training_args.vllm_max_model_length if training_args.use_vllm else None]
        window = min((length for length in windows if length), default=None)
        return window and window - training_args.max_completion_length
    limits = [limit for limit in (training_args.max_length, context) if limit]
    return min(limits, default=None)


def _bound_to_weights(rows: Dataset | None, name: str, commit: str | None) -> Dataset | None:
    """The same rows under a fingerprint that changes with the model's weights.

    TRL keeps the reference's log-probabilities in a cache that knows rows by their fingerprint and the model by its
    ``state_dict``, which is empty where ZeRO-3 splits it: after retraining, the old ones would be found.
    """
    if rows is None:
        return None
    from datasets.fingerprint import Hasher

    folder = Path(name).expanduser()
    files = [
        (file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in sorted(folder.glob("*.safetensors"))
    ]
    rows._fingerprint = Hasher.hash((rows._fingerprint, files or commit))
    return rows


def _origin(model_args: ModelConfig) -> dict[str, Any]:
    name = model_args.model_name_or_path
    base = adapter_base(name)
    revision = None if base else model_args.model_revision
    adapter = None
    if base:
        adapter = {"from": name}
    elif model_args.use_peft:
        adapter = {"r": model_args.lora_r, "alpha": model_args.lora_alpha, "dropout": model_args.lora_dropout}
    return {
        "name": base or name,
        "revision": revision,
        "commit": model_commit(base or name, revision),
        "local": Path(base or name).expanduser().is_dir(),
        "adapter": adapter,
    }


def _checkpoint(given: str | None) -> str | None:
    if given is not None and not Path(given).is_dir():
        raise ExcotError(
            f"resume_from_checkpoint: there is no folder {given}",
            "leave it out: training goes on from the last checkpoint by itself",
        )
    return given


def _accuracy(trainer: Trainer, session: Session) -> dict[str, Any] | None:
    """What was measured of the model that is saved: the best one's where that was asked for, or the last."""
    measured = [entry for entry in trainer.state.log_history if "eval_exec_acc" in entry]
    if trainer.args.load_best_model_at_end and trainer.state.best_global_step:
        measured = [entry for entry in measured if entry["step"] == trainer.state.best_global_step]
    if not measured or not session.questions:
        return None
    last = measured[-1]
    return {
        "value": last["eval_exec_acc"],
        "low": last["eval_exec_acc_low"],
        "high": last["eval_exec_acc_high"],
        "step": last["step"],
        "questions": len(session.questions[0]),
        "dataset": session.script_args.ex_dataset,
        "local": Path(session.script_args.ex_dataset).expanduser().is_dir(),
        "rule": session.script_args.ex_rule,
    }


def _push(trainer: Trainer, folder: Path) -> str:
    from huggingface_hub import HfApi

    api = HfApi()
    # Made by the trainer at its start, so that a missing permission shows before training and not after it.
    try:
        api.upload_folder(
            repo_id=trainer.hub_model_id,
            folder_path=folder,
            revision=trainer.args.hub_revision,
            commit_message=f"Trained for {trainer.state.global_step} steps",
            ignore_patterns=["checkpoint-*", ".*", "runs/*", "*.new"],
        )
    except Exception as error:  # of the network or of the Hub: the model itself is whole
        raise ExcotError(
            f"the model is in {folder}, but could not be pushed ({first_line(error)})",
            f"push it with: hf upload {trainer.hub_model_id} {folder} --exclude 'checkpoint-*'",
        ) from error
    return f"{api.endpoint}/{trainer.hub_model_id}"
