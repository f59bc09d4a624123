"""Execution accuracy while training: held-out questions answered greedily, executed, and logged next to the loss."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from transformers import GenerationConfig, TrainerCallback

from ..errors import ExcotError
from ..execution import Cache, Databases, Limits, Task, verify_all
from ..llm.transformers import end_ids
from ..metrics.statistics import wilson_interval
from ..prompts import Prompt, extract_sql
from .arguments import RecipeArguments
from .source import Source

if TYPE_CHECKING:
    from transformers import Trainer

log = logging.getLogger("excot")


class ExecutionAccuracy(TrainerCallback):
    """Measures at every evaluation, on all processes together.

    It puts ``eval_exec_acc`` (0 to 1), both ends of its 95% interval and ``eval_valid_rate`` (the share of answers
    that execute) into the evaluation's metrics, so ``metric_for_best_model: exec_acc`` keeps the best checkpoint by
    it, and logs them. A question whose gold fails counts as wrong, as in the official scripts.

    Args:
        trainer: whose model answers.
        questions: ``id``, ``db_id``, ``gold_sql`` and chat ``messages`` of each.
        databases: where their databases are.
        script_args: the ``ex_`` options.
    """

    def __init__(
        self,
        trainer: Trainer,
        questions: list[dict[str, Any]],
        databases: Databases,
        script_args: RecipeArguments,
    ):
        self._trainer = trainer
        self._questions = questions
        self._databases = databases
        self._script_args = script_args

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: dict[str, float], **_: Any) -> None:
        from accelerate.utils import broadcast_object_list, gather_object

        answers = dict(gather_object(list(self._answers())))
        # One process judges and tells the others: they must all take the same decision about the best checkpoint.
        found: list[Any] = [self._judge(answers) if self._trainer.accelerator.is_main_process else None]
        broadcast_object_list(found)
        if isinstance(found[0], ExcotError):
            raise found[0]
        metrics.update(found[0])
        self._trainer.log(dict(found[0]))

    def _judge(self, answers: dict[int, tuple[str, str]]) -> dict[str, float] | ExcotError:
        limits = Limits(seconds=self._script_args.ex_timeout)
        tasks = []
        for place, question in enumerate(self._questions):
            sql = extract_sql(*answers[place]).sql
            if sql is not None:
                paths = self._databases.paths(question["db_id"])
                tasks.append(Task(str(place), paths, question["gold_sql"], (sql,), limits))
        try:
            outcomes = [verdict.candidates[0] for _, verdict in verify_all(tasks, cache=Cache())]
        except ExcotError as error:
            return error
        right = sum(getattr(outcome.matches, self._script_args.ex_rule) for outcome in outcomes)
        total = len(self._questions)
        low, high = wilson_interval(right, total)
        return {
            "eval_exec_acc": right / total,
            "eval_exec_acc_low": low,
            "eval_exec_acc_high": high,
            "eval_valid_rate": sum(outcome.status == "ok" for outcome in outcomes) / total,
        }

    def _answers(self) -> Iterator[tuple[int, tuple[str, str]]]:
        """This process's share: a question's place, and its answer with the finish reason."""
        import torch
        from trl.distributed import DistributedBackend
        from trl.models import unwrap_model_for_generation

        trainer = self._trainer
        tokenizer = trainer.processing_class
        prompts = [
            tokenizer.apply_chat_template(question["messages"], add_generation_prompt=True, return_dict=True)
            for question in self._questions
        ]
        rank, world = trainer.accelerator.process_index, trainer.accelerator.num_processes
        # Where weights are split over processes these generate in step, so each needs as many questions as the others:
        # some are answered twice. Those of like length share a batch.
        order = sorted(range(len(prompts)), key=lambda place: -len(prompts[place]["input_ids"]))
        share = -(-len(order) // world)
        mine = [order[(rank + turn * world) % len(order)] for turn in range(share)]
        size = self._script_args.ex_batch_size
        with (
            unwrap_model_for_generation(trainer.model_wrapped, trainer.accelerator) as model,
            torch.no_grad(),
            DistributedBackend(trainer.accelerator).summon_full_params(trainer.model_wrapped, recurse=False),
        ):
            for start in range(0, share, size):
                batch = mine[start : start + size]
                yield from zip(batch, self._generate(model, [prompts[k] for k in batch]), strict=True)

    def _generate(self, model: Any, prompts: list[dict[str, Any]]) -> list[tuple[str, str]]:
        import torch

        tokenizer = self._trainer.processing_class
        ends = end_ids(tokenizer, model)
        width = max(len(prompt["input_ids"]) for prompt in prompts)
        pads = [width - len(prompt["input_ids"]) for prompt in prompts]
        rows = [
            [tokenizer.pad_token_id] * pad + prompt["input_ids"] for pad, prompt in zip(pads, prompts, strict=True)
        ]
        mask = [[0] * pad + [1] * (width - pad) for pad in pads]
        device = self._trainer.accelerator.device
        output = model.generate(
            input_ids=torch.tensor(rows, device=device),
            attention_mask=torch.tensor(mask, device=device),
            generation_config=GenerationConfig(
                do_sample=False,
                use_cache=True,
                max_new_tokens=self._script_args.ex_max_new_tokens,
                eos_token_id=ends,
                pad_token_id=tokenizer.pad_token_id,
            ),
        )
        answers = []
        for tokens in output[:, width:].tolist():
            stops = [place for place, token in enumerate(tokens) if token in ends]
            text = tokenizer.decode(tokens[: stops[0]] if stops else tokens, skip_special_tokens=True)
            answers.append((text, "stop" if stops else "length"))
        return answers


def held_out_questions(script_args: RecipeArguments, prompt: Prompt | None) -> tuple[list[dict[str, Any]], Databases]:
    """The questions that ``--ex_dataset`` names, rendered, and their databases.

    Args:
        script_args: the ``ex_`` options.
        prompt: the prompt that the model is trained under.

    Raises:
        ExcotError: no such questions, no databases, or the prompt is not known.
    """
    if prompt is None:
        raise ExcotError("--ex_dataset needs the prompt that the data was made with", "name it with --prompt")
    source = Source.open(script_args.ex_dataset)
    (rows,) = source.load("questions" if source.manifest["stages"] else None).values()
    databases = Databases(source.databases(script_args.ex_databases, "ex_databases"))
    wanted = min(script_args.ex_questions, len(rows))
    # Spread evenly: the first ones would be on a few databases only.
    rows = rows.select(sorted({place * len(rows) // wanted for place in range(wanted)}))
    questions = []
    for row in rows:
        if not databases.find(row["db_id"]):
            continue
        messages = prompt.messages(row["question"], row["schema"] or "", row["evidence"])
        questions.append({key: row[key] for key in ("id", "db_id", "gold_sql")} | {"messages": messages})
    if not questions:
        raise ExcotError(f"no question of {source} has a database in {databases.folder}", "check --ex_databases")
    if len(questions) < len(rows):
        log.warning("%d of %d held-out questions have no database file", len(rows) - len(questions), len(rows))
    return questions, databases
