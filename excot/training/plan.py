"""What a recipe would do: rows, tokens, steps, global batch, and memory as the libraries estimate it."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from .lengths import Lengths

if TYPE_CHECKING:
    from torch import nn
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
    per_device, accumulated = training_args.per_device_train_batch_size, training_args.gradient_accumulation_steps
    steps, batch = training_steps(stage, training_args, rows, lengths, gpus)
    lines = [
        f"{stage} of {record['model']['name']} on {data}, prompt {record['prompt_id'] or 'not known'}",
        f"rows: {lengths if lengths else f'{rows:,}, of lengths that cannot be told without the tokenizer'}",
        *([f"held out: {held_out:,} rows"] if held_out else []),
        *([_tokens(stage, training_args, lengths)] if lengths else []),
        f"global batch: {batch:,} = {per_device} a device x {accumulated} accumulated x {gpus} "
        f"{'process' if gpus == 1 else 'processes'}"
        + (f", answers to {_of(batch // training_args.num_generations, 'question')}" if stage == "grpo" else ""),
        _steps(stage, training_args, rows, lengths, gpus, steps),
        *(
            memory(stage, model_config, training_args, gpus, record["model"]["adapter"])
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
    batch = training_args.per_device_train_batch_size * training_args.gradient_accumulation_steps * gpus
    an_epoch = _steps_an_epoch(stage, training_args, rows, lengths, gpus)
    if training_args.max_steps > 0 and an_epoch:
        return training_args.max_steps, batch
    return math.ceil(training_args.num_train_epochs * an_epoch), batch


def _steps_an_epoch(
    stage: str, training_args: TrainingArguments, rows: int, lengths: Lengths | None, gpus: int
) -> int:
    per_device, accumulated = training_args.per_device_train_batch_size, training_args.gradient_accumulation_steps
    if stage == "grpo":
        # Prompts come in whole generation batches: what is left over at the end of an epoch is not drawn.
        prompts = per_device * gpus * training_args.steps_per_generation // training_args.num_generations
        rounds = rows // max(1, prompts) * training_args.steps_per_generation * training_args.num_iterations
        return math.ceil(rounds / accumulated)
    if getattr(training_args, "packing", False) and lengths and lengths.limit:
        rows = math.ceil(lengths.tokens / lengths.limit)
    return max(1, math.ceil(math.ceil(rows / (per_device * gpus)) / accumulated))


def _tokens(stage: str, training_args: TrainingArguments, lengths: Lengths) -> str:
    if stage == "grpo":
        most = training_args.max_completion_length
        return f"tokens: {lengths.tokens:,} of prompts an epoch; an answer has at most {most:,}"
    return f"tokens: {lengths.tokens:,} an epoch"


def _steps(
    stage: str, training_args: TrainingArguments, rows: int, lengths: Lengths | None, gpus: int, steps: int
) -> str:
    if steps == 0:
        return f"steps: none, as {_of(rows, 'question')} do not fill one generation batch"
    about = "about " if getattr(training_args, "packing", False) else ""
    if training_args.max_steps > 0:
        epochs = steps / _steps_an_epoch(stage, training_args, rows, lengths, gpus)
        text = f"steps: {steps:,} (max_steps; {about}{_of(float(f'{epochs:.2g}'), 'epoch')})"
    else:
        text = f"steps: {about}{steps:,} ({_of(training_args.num_train_epochs, 'epoch')})"
    warm = training_args.get_warmup_steps(steps)
    return f"{text}, the first {warm:,} to warm up" if warm else text


def memory(
    stage: str, model_config: Any, training_args: TrainingArguments, gpus: int, adapter: dict[str, Any] | None
) -> list[str]:
    """Memory for weights, gradients and Adam's two moments; activations come on top.

    By `accelerate estimate-memory` where every process holds all of it, by DeepSpeed's estimators where ZeRO splits
    it.

    Args:
        stage: ``sft``, ``dpo`` or ``grpo``.
        model_config: of the model.
        training_args: the trainer's options.
        gpus: how many processes train together.
        adapter: as in ``training.json``; with one, only it has gradients and moments.
    """
    import torch
    from accelerate import init_empty_weights
    from accelerate.commands.estimate import estimate_training_usage
    from accelerate.utils import calculate_maximum_sizes
    from transformers import AutoModelForCausalLM

    with init_empty_weights():
        model = AutoModelForCausalLM.from_config(model_config)
    model.tie_weights()
    dtype = getattr(torch, str((training_args.model_init_kwargs or {}).get("dtype")), None)
    if not isinstance(dtype, torch.dtype):  # "auto": as the weights are stored
        dtype = getattr(model_config, "dtype", None) or torch.float32
    size, _ = calculate_maximum_sizes(model.to(dtype))
    parameters = sum(weight.numel() for weight in model.parameters())
    where = f"each of {gpus} GPUs" if gpus > 1 else "one GPU (or CPU process)"
    lines = [f"memory of {where} for {parameters:,} parameters, activations not counted:"]
    if adapter:
        lines += _with_adapter(model, size, str(dtype).removeprefix("torch."), adapter, gpus)
    else:
        # Mixed precision leaves weights, gradients and moments as they were loaded, so that they take what accelerate
        # says for that type. What it says for bfloat16 itself is its largest single part and not the sum.
        usage = max(estimate_training_usage(size, "float32").values())
        lines += _table([("every GPU holds all" if gpus > 1 else "without ZeRO", usage, None), *_sharded(model, gpus)])
        if stage == "dpo" and not training_args.precompute_ref_log_probs:
            lines.append(
                f"  the reference model on top of that: {size / GIB:,.1f} GiB, and none with precompute_ref_log_probs"
            )
    if stage == "grpo" and training_args.use_vllm and training_args.vllm_mode == "colocate":
        lines.append(f"  vLLM on top of that: {training_args.vllm_gpu_memory_utilization:.0%} of the GPU")
    return lines


def _with_adapter(model: nn.Module, size: int, dtype: str, adapter: dict[str, Any], gpus: int) -> list[str]:
    lines = [f"  the frozen weights in {dtype}: {size / GIB:,.1f} GiB"]
    if gpus > 1:
        lines[0] += f", and {size / gpus / GIB:,.1f} GiB with ZeRO-3"
    if "r" in adapter:
        layers = [part for part in model.modules() if hasattr(part, "in_features")]
        ends = sum(
            part.in_features + part.out_features for part in layers if part is not model.get_output_embeddings()
        )
        most = 16 * adapter["r"] * ends  # bytes: weights, gradients and two moments in 32 bits
        lines.append(f"  the adapter of r {adapter['r']} on all linear layers: {most / GIB:,.1f} GiB, on fewer less")
    return lines


def _sharded(model: nn.Module, gpus: int) -> list[tuple[str, int, int]]:
    """What DeepSpeed estimates: a name, bytes of each GPU, bytes of each node."""
    try:
        with _quiet():
            from deepspeed.runtime.zero.stage3 import estimate_zero3_model_states_mem_needs as zero3
            from deepspeed.runtime.zero.stage_1_and_2 import estimate_zero2_model_states_mem_needs as zero2
    except ImportError:
        return []
    parameters = sum(weight.numel() for weight in model.parameters())
    layer = max(sum(weight.numel() for weight in part.parameters(recurse=False)) for part in model.modules())
    per_node = max(count for count in range(1, 9) if gpus % count == 0)
    where = {"num_gpus_per_node": per_node, "num_nodes": gpus // per_node}
    found = {
        "ZeRO-2": zero2(parameters, cpu_offload=False, **where),
        "ZeRO-3": zero3(parameters, layer, cpu_offload=False, cpu_offload_params=False, **where),
        "ZeRO-3, optimizer offloaded": zero3(parameters, layer, cpu_offload=True, cpu_offload_params=False, **where),
        "ZeRO-3, all offloaded": zero3(parameters, layer, cpu_offload=True, cpu_offload_params=True, **where),
    }
    # On one GPU there is nothing to split; what is left is to offload.
    return [(name, sizes[1], sizes[0]) for name, sizes in found.items() if gpus > 1 or "offloaded" in name]


def _table(rows: list[tuple[str, int, int | None]]) -> list[str]:
    width = max(len(name) for name, _, _ in rows)
    lines = [
        f"  {name:<{width}}  {gpu / GIB:8,.1f} GiB"
        + (f", and {node / GIB:8,.1f} GiB of a node's memory" if node is not None else "")
        for name, gpu, node in rows
    ]
    return lines if len(rows) > 1 else [*lines, "  with ZeRO: pip install 'excot[deepspeed]' for its estimates"]


@contextmanager
def _quiet() -> Iterator[None]:
    """DeepSpeed warns while it is imported that there is no GPU, which a plan does not need."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def _of(count: float, noun: str) -> str:
    return f"{count:g} {noun}" if count == 1 else f"{count:g} {noun}s"
