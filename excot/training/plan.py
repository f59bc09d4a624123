"""What a recipe would do: rows, tokens, steps, global batch, and memory as the libraries estimate it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from .lengths import Lengths

if TYPE_CHECKING:
    from transformers import TrainingArguments

GIB = 2**30


def plan(
    stage: str,
    training_args: TrainingArguments,
    record: dict[str, Any],
    lengths: Lengths | None,
    held_out: int,
    model_config: Any,
    gpus: int,
) -> str:
    """The lines of ``--plan``.

    Args:
        stage: ``sft``, ``dpo`` or ``grpo``.
        training_args: the trainer's options.
        record: as in ``training.json``.
        lengths: of the rows to train on; ``None`` where there is no tokenizer to measure with.
        held_out: rows held out.
        model_config: of the model; ``None`` where it cannot be had.
        gpus: how many processes train together.
    """
    rows = lengths.rows - lengths.dropped if lengths else record["rows"]
    data = ", ".join(
        f"{part['name']}{'@' + part['revision'] if part['revision'] else ''} ({part['config']})"
        for part in record["data"]
    )
    steps, batch = training_steps(stage, training_args, rows, lengths, gpus)
    about = "about " if getattr(training_args, "packing", False) else ""
    per_device, accumulated = training_args.per_device_train_batch_size, training_args.gradient_accumulation_steps
    epochs = f"{training_args.num_train_epochs:g} epochs" if training_args.max_steps < 0 else "max_steps"
    lines = [
        f"{stage} of {record['model']['name']} on {data}, prompt {record['prompt_id'] or 'not known'}",
        f"rows: {lengths if lengths else f'{rows:,}, of lengths that cannot be told without the tokenizer'}",
        *([f"held out: {held_out:,} rows"] if held_out else []),
        *([f"tokens: {lengths.tokens:,} an epoch"] if lengths else []),
        f"global batch: {batch} = {per_device} a device x {accumulated} accumulated x {gpus} "
        f"{'process' if gpus == 1 else 'processes'}"
        + (f", {batch // training_args.num_generations} prompts" if stage == "grpo" else ""),
        f"steps: {about}{steps:,} ({epochs})",
        *(
            memory(model_config, training_args, gpus, record["model"]["adapter"] is not None)
            if model_config is not None
            else ["memory: not estimated, as the model's configuration is out of reach"]
        ),
    ]
    return "\n".join(lines)


def training_steps(
    stage: str, training_args: TrainingArguments, rows: int, lengths: Lengths | None, gpus: int
) -> tuple[int, int]:
    """How many optimizer steps the trainer will take, and how many samples (completions for GRPO) each is of.

    Packed rows are reckoned as full to ``max_length``.
    """
    per_device, accumulated = training_args.per_device_train_batch_size, training_args.gradient_accumulation_steps
    batch = per_device * accumulated * gpus
    if training_args.max_steps > 0:
        return training_args.max_steps, batch
    if getattr(training_args, "packing", False) and lengths and lengths.limit:
        rows = math.ceil(lengths.tokens / lengths.limit)
    if stage == "grpo":
        # Prompts come in whole generation batches: what is left over at the end of an epoch is not drawn.
        prompts = training_args.per_device_train_batch_size * gpus * training_args.steps_per_generation
        prompts //= training_args.num_generations
        rounds = rows // prompts * training_args.steps_per_generation * training_args.num_iterations
        an_epoch = max(1, math.ceil(rounds / accumulated))
    else:
        an_epoch = max(1, math.ceil(math.ceil(rows / (per_device * gpus)) / accumulated))
    return math.ceil(training_args.num_train_epochs * an_epoch), batch


def memory(model_config: Any, training_args: TrainingArguments, gpus: int, adapter: bool) -> list[str]:
    """Memory for weights, gradients and Adam's states per GPU; activations come on top.

    By `accelerate estimate-memory` for one GPU that holds all, and by DeepSpeed's estimators for ZeRO. Both reckon
    with training every weight.
    """
    from accelerate import init_empty_weights
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(model_config)
    model.tie_weights()
    parameters = sum(weight.numel() for weight in model.parameters())
    layer = max(sum(weight.numel() for weight in part.parameters(recurse=False)) for part in model.modules())
    size, _ = calculate_maximum_sizes(model.float())
    mixed = "bfloat16" if training_args.bf16 else "float16" if training_args.fp16 else "float32"
    usage = max(estimate_training_usage(size, mixed).values())
    lines = [
        f"memory a GPU for {parameters:,} parameters, without activations:",
        f"  all on each GPU (accelerate's estimate, {mixed}): {usage / GIB:.1f} GiB",
        *_sharded(parameters, layer, gpus),
    ]
    if adapter:
        lines.append(
            f"  with an adapter most of that falls away: the frozen base alone has {2 * parameters / GIB:.1f} GiB in "
            "16 bits"
        )
    return lines


def _sharded(parameters: int, layer: int, gpus: int) -> list[str]:
    try:
        from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs
        from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs
    except ImportError:
        return ["  ZeRO-2 and ZeRO-3: pip install 'excot[deepspeed]' for DeepSpeed's estimates"]
    per_node = min(gpus, 8)
    where = {"num_gpus_per_node": per_node, "num_nodes": max(1, gpus // per_node)}
    found = {
        "ZeRO-2": estimate_zero2_model_states_mem_needs(parameters, cpu_offload=False, **where),
        "ZeRO-2, optimizer offloaded": estimate_zero2_model_states_mem_needs(parameters, cpu_offload=True, **where),
        "ZeRO-3": estimate_zero3_model_states_mem_needs(
            parameters, layer, cpu_offload=False, cpu_offload_params=False, **where
        ),
        "ZeRO-3, all offloaded": estimate_zero3_model_states_mem_needs(
            parameters, layer, cpu_offload=True, cpu_offload_params=True, **where
        ),
    }
    return [
        f"  {name} on {gpus} (DeepSpeed's estimate): {sizes[1] / GIB:.1f} GiB, and {sizes[0] / GIB:.1f} GiB of the "
        "node's memory"
        for name, sizes in found.items()
    ]
