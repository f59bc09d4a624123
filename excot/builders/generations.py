"""Generations: every question answered several times, each finished question kept at once."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator
from typing import Any

from ..config import GenerateConfig
from ..errors import ExcotError
from ..execution import file_hash
from ..llm.base import Message
from ..llm.prices import money
from ..models import model_record
from ..prompts import STYLES, Prompt, few_shots, load_prompt
from ..run import Run
from .asking import ask_all, run_to_end
from .backends import open_backend
from .budget import Budget
from .columns import GENERATIONS
from .estimate import estimate
from .exclusion import read_exclusion
from .ledger import Ledger, sampling_of, seed_of

__all__ = ["generate", "seed_of"]

log = logging.getLogger("excot")

TEACHER_NOTE = (
    "These answers were written by the offline teacher, which has seen the gold SQL. "
    "They show how the method works and say nothing about any model."
)


def generate(config: GenerateConfig) -> str:
    """The stage ``generations``: ask a backend about every question. Returns the lines to show.

    Killed and started again, it goes on with what is not finished. A question that fails is recorded in the manifest,
    keeps its row without candidates, and is asked again on the next start; one that will never be answered as it is
    asked (too long for the model, refused by a content filter) says so in its row's ``failure``.

    Raises:
        ExcotError: nothing can be asked (a key, the endpoint, a file), the budget is used up, or the run folder holds
            something else.
    """
    if config.collect and config.model is None:
        from .batches import recall

        config = recall(config)
    run = Run(config.out, config.round)
    exclusion = read_exclusion(config.exclude, run)
    questions = list(run.read("questions"))[: config.limit]
    excluded = exclusion.facts(question["id"] for question in questions)
    questions = [question for question in questions if question["id"] not in exclusion.ids]
    if not questions:
        raise ExcotError(f"{config.exclude} leaves out every question", "take lines out of it")
    prompt = load_prompt(config.prompt)
    examples = _examples(config)
    budget = Budget(config)

    def messages(question: dict[str, Any]) -> list[Message]:
        return prompt.messages(question["question"], question["schema"] or "", question["evidence"], examples)

    answerable = [question for question in questions if question["schema"]]
    if len(answerable) < len(questions):
        log.warning("%d questions have no schema text: they are not asked", len(questions) - len(answerable))
    if config.dry_run:
        return estimate(config, prompt, [messages(question) for question in answerable], budget)

    arguments = {**asked_for(config, prompt), **exclusion.arguments()}
    with run.begin("generations", arguments, ("questions",), on_existing=config.on_existing) as stage:
        if stage.finished:
            if config.clean:
                from .batches import clean_up

                run_to_end(clean_up(open_backend(config, questions), stage))
            return _summary(run, "already there: ")
        _store(run, prompt)
        journal = stage.journal()
        try:
            if budget.limited:
                budget.add_journal(journal.path)
            ledger = Ledger(config, answerable, messages, journal, budget)
            backend = open_backend(config, questions)
            if config.batched:
                from .batches import ask_by_batch

                outcome = run_to_end(ask_by_batch(backend, ledger, config, stage))
                if outcome.waiting:  # some are still at the service
                    return outcome.said
            else:
                run_to_end(ask_all(backend, ledger, config.concurrency))
            if ledger.exhausted:
                raise _stopped(ledger, budget)
            _check_for_answers(ledger)
            describe = getattr(backend, "describe", dict)  # of endpoints: what may be said of them without secrets
            tally = _Tally(config, budget)

            def rows() -> Iterator[dict[str, Any]]:
                for question in questions:
                    made = tally.count({"model": backend.model, "candidates": [], **(ledger.read(question) or {})})
                    yield {
                        **question,
                        **{name: made.get(name) for name in ("candidates", "prompt_tokens", "failure", "model")},
                        "completion_tokens": made.get("usage", {}).get("completion_tokens"),
                        "prompt_id": prompt.id,
                        "sampling": json.dumps(made.get("sampling") or ledger.sampling(question)),
                    }

            stage.write(
                rows(),
                GENERATIONS,
                run.entry("questions")["split"],
                lambda: tally.facts(backend.model),
                prompt_id=prompt.id,
                few_shots=config.few_shots,
                failed=ledger.failed,
                endpoint=describe(),
                revision=getattr(backend, "revision", None),
                trained=model_record(config.adapter or config.model) if config.model else None,
                note=TEACHER_NOTE if config.backend == "teacher" else None,
                **excluded,
            )
        finally:
            journal.close()
    return _summary(run)


def _check_for_answers(ledger: Ledger) -> None:
    """A run in which nothing was answered is no dataset."""
    errors = ledger.errors()
    if errors and not ledger.answered():
        id, error = next(iter(errors.items()))
        raise ExcotError(f"all {len(errors)} questions failed, the first, {id}, with: {error}")


def _stopped(ledger: Ledger, budget: Budget) -> ExcotError:
    finished = len(ledger.questions) - len(ledger.waiting())
    return ExcotError(
        f"stopped at {budget.spent()}: {finished:,} of {len(ledger.questions):,} questions are finished",
        "start again with more to go on; what is finished is kept",
    )


class _Tally:
    """Counts over the rows that pass, for the manifest and the summary."""

    def __init__(self, config: GenerateConfig, budget: Budget) -> None:
        self._counts = dict.fromkeys(("candidates", "without_candidates", "without_text"), 0)
        self._usage: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._models: Counter[str] = Counter()
        self._price = budget.price
        self._batch = config.batched

    def count(self, made: dict[str, Any]) -> dict[str, Any]:
        counts, candidates = self._counts, made["candidates"]
        self._models[made["model"]] += len(candidates)
        counts["candidates"] += len(candidates)
        counts["without_candidates"] += not candidates
        counts["without_text"] += sum(not (candidate["text"] or "").strip() for candidate in candidates)
        if made.get("failure"):
            self._failures[made["failure"]] += 1
        elif (usage := made.get("usage")) and usage["completion_tokens"] is not None:
            self._usage.update(usage)
        return made

    def facts(self, model: str) -> dict[str, Any]:
        """The counts, and who gave most of the answers: ``model`` where there are none."""
        tokens = {name: self._usage.get(name) for name in ("prompt_tokens", "completion_tokens")}
        cost = None
        if self._price and self._usage:
            cost = {"currency": "USD", "amount": round(self._price.cost(**tokens, batch=self._batch), 6)}
        return {
            **self._counts,
            **tokens,
            "cost": cost,
            "failures": dict(self._failures),
            "model": max(self._models, key=self._models.__getitem__, default=model),
        }


def asked_for(config: GenerateConfig, prompt: Prompt) -> dict[str, Any]:
    """What the answers depend on: of the options only those that the backend looks at."""
    names = ("backend", "model", "n", "limit")
    common = {**{name: getattr(config, name) for name in names}, "prompt": prompt.id}
    if config.replay_from:
        return {**common, "from": _file_hash(config.replay_from)}
    if config.backend == "teacher":
        return {**common, "seed": config.seed, "error_rate": config.error_rate}
    given = {name: value for name in ("adapter", "provider") if (value := getattr(config, name)) is not None}
    return {**common, **given, **sampling_of(config, config.seed).to_dict(), "few_shots": config.few_shots}


def _examples(config: GenerateConfig) -> tuple:
    if not config.few_shots:
        return ()
    if config.prompt not in STYLES:
        raise ExcotError(
            f"--few-shots {config.few_shots} with your own template", "put your examples into the template"
        )
    return tuple(few_shots(config.prompt, config.few_shots))


def _file_hash(path: str) -> str:
    try:
        return file_hash(path)[:16]
    except OSError as error:
        raise ExcotError(f"cannot read {path} ({error.strerror})", "give --from a JSONL file of candidates") from None


def _store(run: Run, prompt: Prompt) -> None:
    path = run.prompt_path(prompt.id)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(prompt.text, "utf-8")


def _summary(run: Run, prefix: str = "") -> str:
    entry = run.entry("generations")
    answers, asked = entry["candidates"], entry["rows"]
    if entry["failed"]:
        id, error = next(iter(entry["failed"].items()))
        log.warning(
            "%d questions failed; start the same command again to retry them. %s: %s", len(entry["failed"]), id, error
        )
    for kind, count in entry.get("failures", {}).items():
        log.warning("%d questions %s: they are left without answers", count, _FAILURES.get(kind, f"are {kind}"))
    if entry["candidates"] and entry["without_text"] * 2 > entry["candidates"]:
        log.warning(
            "%d of %d answers are empty: raise --max-tokens if the model reasons first, or look for a content filter",
            entry["without_text"],
            entry["candidates"],
        )
    return (
        f"{prefix}{answers:,} answers to {asked - entry['without_candidates']:,} of {asked:,} questions by "
        f"{entry['model']}{_taken(entry)}, in {run.folder}\nnext: {run.command('verify')}"
    )


_FAILURES = {
    "too_long": "are too long for the model",
    "content_filter": "are refused by the endpoint's content filter",
}


def _taken(entry: dict[str, Any]) -> str:
    """The tokens and the cost of the answers, where they are known."""
    if not entry.get("completion_tokens"):
        return ""
    cost = f", {money(entry['cost']['amount'])}" if entry.get("cost") else ""
    return f" ({entry['prompt_tokens']:,} prompt and {entry['completion_tokens']:,} answer tokens{cost})"
