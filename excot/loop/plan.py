"""``excot run --dry-run``: every step with its command, and how much it is of, as far as anybody knows."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from ..builders.budget import Budget
from ..builders.estimate import estimate
from ..config import GenerateConfig, ScoreConfig
from ..metrics.answers import generation_options
from ..prompts import few_shots, load_prompt
from ..run import Run
from ..training.plan import training_steps
from .anew import is_dropped
from .report import duration
from .runner import shown
from .settings import Command, Settings
from .state import State
from .steps import Step

_DEFAULTS = {
    "per_device_train_batch_size": 8,
    "gradient_accumulation_steps": 1,
    "num_train_epochs": 3,
    "max_steps": -1,
}
"""Of transformers, for what a recipe does not say."""


@dataclass(frozen=True)
class Size:
    """How much a step is of.

    Attributes:
        words: for people.
        count: of what its time grows with: optimizer steps, answers; ``None`` where nobody knows.
        exact: whether the count is known, and not only a bound that it cannot pass.
    """

    words: str
    count: int | None = None
    exact: bool = False


def plan_text(settings: Settings, steps: list[Step], state: State, from_round: int | None) -> str:
    """The lines of ``--dry-run``; nothing is written.

    Args:
        settings: of the loop.
        steps: its steps.
        state: its notes.
        from_round: the round from which on all would be made anew, if any.
    """
    plan = _Plan(settings, steps, state, from_round)
    done = sum(map(plan.is_done, steps))
    lines = [f"{settings.path} in {settings.out}: {len(steps)} steps, {done} of them done"]
    if from_round is not None:
        lines.append(f"what was made in round {from_round} and later would be dropped first")
    for place, step in enumerate(steps, start=1):
        mark = ", done" if plan.is_done(step) else ""
        lines += ["", f"[{place}/{len(steps)}] {step.title}{mark}", f"  {shown(step, step.words)}"]
        if size := plan.size(step).words:
            lines.append(f"  {size}")
        if hours := plan.hours_in_words(step):
            lines.append(f"  {hours}")
    if settings.stop_early and settings.rounds:
        lines += ["", "on-policy rounds end early where a model is no better on dev than the one before it"]
    return "\n".join([*lines, "", plan.total()])


class _Plan:
    def __init__(self, settings: Settings, steps: list[Step], state: State, from_round: int | None):
        self._settings, self._steps, self._state, self._from = settings, steps, state, from_round

    def is_done(self, step: Step) -> bool:
        return self._state.is_finished(step.name) and not is_dropped(step.round, self._from)

    def size(self, step: Step) -> Size:
        return {
            "questions": self._questions,
            "generate": self._answers,
            "score": self._scored,
            "verify": self._verdicts,
            "sft": self._rows,
            "pairs": self._rows,
            "train": self._training,
        }.get(step.kind, lambda step: Size(""))(step)

    # How much

    def _questions(self, step: Step) -> Size:
        count = len(self._train if step.name == "questions" else self._dev)
        return Size(f"{count:,} questions", count, True)

    def _answers(self, step: Step) -> Size:
        options: GenerateConfig = step.command.options
        if self.is_done(step):
            count = self._entry(step)["candidates"]
            return Size(f"{count:,} answers", count, True)
        words = self._tokens(step, self._train, options)
        count = len(self._train[: options.limit]) * options.n if options.n else None
        return Size(words, count, options.n is not None and "--exclude" not in step.words)

    def _scored(self, step: Step) -> Size:
        options: ScoreConfig = step.command.options
        count = len(self._dev[: options.limit]) * options.n
        if self.is_done(step):
            return Size(f"{count:,} answers", count, True)
        named = replace(options, prompt=self._settings.prompt, **step.model.options(options.backend))
        return Size(self._tokens(step, self._dev, generation_options(named, named.model)), count, True)

    def _verdicts(self, step: Step) -> Size:
        if self.is_done(step):
            return Size(f"{self._entry(step)['rows']:,} questions")
        (asked,) = (other for other in self._steps if other.kind == "generate" and _same_round(other, step))
        size = self._answers(asked)
        return Size(f"up to {size.count:,} answers to execute" if size.count else "all answers that exist")

    def _rows(self, step: Step) -> Size:
        if self.is_done(step):
            count = self._entry(step)["rows"]
            return Size(f"{count:,} rows", count, True)
        options = step.command.options
        (asked,) = (other for other in self._steps if other.kind == "generate" and _same_round(other, step))
        n = asked.command.options.n
        each = options.max_per_question or (1 if getattr(options, "choose", None) != "all" else n)
        if each is None:
            return Size("as many rows as there are right answers")
        count = len(self._train[: asked.command.options.limit]) * each
        count = min(count, options.limit or count)
        return Size(f"up to {count:,} rows", count)

    def _training(self, step: Step) -> Size:
        (made,) = (s for s in self._steps if s.kind in ("sft", "pairs") and s.dataset == step.dataset)
        rows = self._rows(made)
        values = {name: step.training.settings.get(name, value) for name, value in _DEFAULTS.items()}
        values = {name: float(value) if name == "num_train_epochs" else int(value) for name, value in values.items()}
        batch = step.training.global_batch
        of = f"{batch:,} row{'s' if batch > 1 else ''} each"
        if values["max_steps"] > 0:
            return Size(f"{values['max_steps']:,} optimizer steps of {of}", values["max_steps"], True)
        if rows.count is None:
            return Size(f"{values['num_train_epochs']:g} epochs, in optimizer steps of {of}")
        args: Any = SimpleNamespace(**values)
        count, _ = training_steps(step.training.stage, args, rows.count, None, step.training.processes)
        return Size(f"{'' if rows.exact else 'up to '}{count:,} optimizer steps of {of}", count, rows.exact)

    def _tokens(self, step: Step, questions: list[dict[str, Any]], options: GenerateConfig) -> str:
        prompt = load_prompt(self._settings.prompt)
        examples = tuple(few_shots(options.prompt, options.few_shots)) if options.few_shots else ()
        prompts = [
            prompt.messages(question["question"], question["schema"], question["evidence"], examples)
            for question in questions[: options.limit]
            if question["schema"]
        ]
        if step.model:  # the tokenizer is the student's: later models may not be there yet
            options = replace(options, model=self._tokenizer or "student", adapter=None)
            if not self._tokenizer:  # by characters, as for an endpoint
                alone = dict.fromkeys(("tensor_parallel_size", "data_parallel_size", "max_model_len"))
                options = replace(options, backend="openai", **alone)
        text = estimate(options, prompt, prompts, Budget(options)).partition("; the first prompt")[0]
        more = ", fewer where all were right before" if "--exclude" in step.words else ""
        return text.removeprefix("would ask ") + more

    @property
    def _tokenizer(self) -> str | None:
        """The folder of the student's tokenizer; none where it is on the Hub, which a plan does not ask."""
        student = self._steps[2].model
        return next((path for path in (student.path, student.base) if path and _has_tokenizer(Path(path))), None)

    @cached_property
    def _train(self) -> list[dict[str, Any]]:
        return _questions_of(self._settings.train, self._settings.out)

    @cached_property
    def _dev(self) -> list[dict[str, Any]]:
        return _questions_of(self._settings.dev, self._settings.dev_out)

    def _entry(self, step: Step) -> dict[str, Any]:
        return Run(step.out).manifest["stages"][step.dataset]

    # How long

    def hours_in_words(self, step: Step) -> str:
        if self.is_done(step):
            return f"took {duration(self._state.steps[step.name]['seconds'])}"
        if _devices(step) and (seconds := self._expected(step)) is not None:
            bound = "" if self.size(step).exact else "at most "
            return f"{bound}about {duration(seconds)}, as long as {_likeness(step)} took before"
        return ""

    def total(self) -> str:
        """Process-hours of what loads a model: measured, estimated, not known."""
        loading = [step for step in self._steps if _devices(step)]
        measured = sum(_devices(s) * self._state.steps[s.name]["seconds"] for s in loading if self.is_done(s))
        waiting = [step for step in loading if not self.is_done(step)]
        expected = {step.name: self._expected(step) for step in waiting}
        known = sum(_devices(s) * seconds for s in waiting if (seconds := expected[s.name]) is not None)
        unknown = [s.title for s in waiting if expected[s.name] is None]
        parts = [f"{measured / 3600:.2f} measured"] if len(waiting) < len(loading) else []
        if len(unknown) < len(waiting):
            parts.append(f"about {known / 3600:.2f} to come, by what like steps took")
        if unknown:
            parts.append(f"not known yet for {', '.join(unknown)}")
        return f"GPU-hours (of processes, on a CPU): {'; '.join(parts)}"

    def _expected(self, step: Step) -> float | None:
        """Seconds, as long as the last like step took by its size."""
        count = self.size(step).count
        for other in reversed(self._steps):
            like = (_likeness(other), _devices(other)) == (_likeness(step), _devices(step))
            if count and like and self.is_done(other) and (size := self.size(other).count):
                return self._state.steps[other.name]["seconds"] / size * count
        return None


def _likeness(step: Step) -> str:
    """What steps have in common that take equally long by their size."""
    return f"{step.training.stage} training" if step.training else {"generate": "sampling"}.get(step.kind, "scoring")


def _devices(step: Step) -> int:
    """How many GPUs (or processes on a CPU) a step holds; none where it loads no model."""
    if step.training:
        return step.training.processes
    if step.model is None:
        return 0
    options = step.command.options
    return (options.tensor_parallel_size or 1) * (options.data_parallel_size or 1)


def _has_tokenizer(folder: Path) -> bool:
    return (folder / "tokenizer_config.json").is_file()


def _same_round(step: Step, other: Step) -> bool:
    return (step.round or 0) == (other.round or 0)


def _questions_of(command: Command, out: str) -> list[dict[str, Any]]:
    """The questions as the run folder holds them, or as they would be read."""
    run = Run(out)
    if run.has("questions"):
        return list(run.read("questions"))
    from ..builders.questions import open_benchmark

    options = command.options
    benchmark = open_benchmark(options.benchmark, options.data, options.descriptions)
    return list(islice(benchmark.questions(options.split), options.limit))
