"""Generations: every question answered several times, each finished question kept at once."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..config import GenerateConfig
from ..errors import ExcotError
from ..execution import file_hash
from ..journal import Journal, digest_of
from ..llm.base import Backend, BackendError, Candidate, Completion, Message, Sampling
from ..models import model_record
from ..progress import Progress
from ..prompts import STYLES, Prompt, few_shots, load_prompt
from ..run import Run
from .columns import GENERATIONS

log = logging.getLogger("excot")
_CHARACTERS_PER_TOKEN = 4  # of English and SQL, roughly; for the estimate of --dry-run only


def generate(config: GenerateConfig) -> str:
    """The stage ``generations``: ask a backend about every question. Returns the lines to show.

    Killed and started again, it goes on with the questions that are not finished. A question that fails is recorded,
    keeps its row without candidates, and is asked again on the next start.

    Raises:
        ExcotError: nothing can be asked (a key, the endpoint, a file), or the run folder holds something else.
    """
    run = Run(config.out, config.round)
    questions = list(run.read("questions"))[: config.limit]
    prompt = load_prompt(config.prompt)
    examples = _examples(config)

    def messages(question: dict[str, Any]) -> list[Message]:
        return prompt.messages(question["question"], question["schema"] or "", question["evidence"], examples)

    answerable = [question for question in questions if question["schema"]]
    if len(answerable) < len(questions):
        log.warning("%d questions have no schema text: they are not asked", len(questions) - len(answerable))
    if config.dry_run:
        return _plan(config, prompt, [messages(question) for question in answerable])

    with run.begin("generations", _arguments(config, prompt), ("questions",), on_existing=config.on_existing) as stage:
        if stage.finished:
            return _summary(run, "already there: ")
        _store(run, prompt)
        digests = {question["id"]: _digest(config, question, messages(question)) for question in answerable}
        journal = stage.journal()
        try:
            backend = open_backend(config, questions)
            failed = _run(_ask_all(backend, answerable, messages, digests, journal, config))
            if failed and not len(journal):
                id, error = next(iter(failed.items()))
                raise ExcotError(f"all {len(failed)} questions failed, the first, {id}, with: {error}")
            describe = getattr(backend, "describe", dict)  # of endpoints: what may be said of them without secrets
            tally = _Tally()

            def rows() -> Iterator[dict[str, Any]]:
                for question in questions:
                    id = question["id"]
                    unanswered = {"candidates": [], "model": backend.model, "sampling": _used(config, id)}
                    # Under --resume the journal may hold answers to an earlier form of the question: those are none.
                    finished = id in digests and journal.has(id, digests[id])
                    made = tally.count(journal.read(id) if finished else unanswered)
                    yield {**question, **made, "prompt_id": prompt.id, "sampling": json.dumps(made["sampling"])}

            stage.write(
                rows(),
                GENERATIONS,
                _split(run),
                lambda: tally.facts(backend.model),
                prompt_id=prompt.id,
                few_shots=config.few_shots,
                failed=failed,
                endpoint=describe(),
                revision=getattr(backend, "revision", None),
                trained=model_record(config.model) if config.model else None,
                note=TEACHER_NOTE if config.backend == "teacher" else None,
            )
        finally:
            journal.close()
    return _summary(run)


TEACHER_NOTE = (
    "These answers were written by the offline teacher, which has seen the gold SQL. "
    "They show how the method works and say nothing about any model."
)


def open_backend(config: GenerateConfig, questions: list[dict[str, Any]]) -> Backend:
    """The backend that a config names."""
    if config.backend in ("openai", "azure"):
        from ..llm.openai import OpenAI

        return OpenAI(config.model, config.base_url, azure=config.backend == "azure", timeout=config.timeout)
    if config.backend == "transformers":
        from ..llm.transformers import Transformers

        return Transformers(config.model, config.batch_size, device=config.device)
    if config.backend == "replay":
        from ..llm.replay import Replay

        replay = Replay(config.replay_from, questions, config.model)
        for count, what in ((replay.failed, "failed requests"), (replay.not_in_run, "lines for other questions")):
            if count:
                log.warning("%s: %d %s are left out", config.replay_from, count, what)
        return replay
    from ..llm.teacher import Teacher

    if config.prompt != STYLES[0]:
        log.warning("the teacher answers by %s whatever the prompt says", STYLES[0])
    return Teacher(config.error_rate)


def seed_of(seed: int, id: str) -> int:
    """A question's own seed: the same on every start, whatever else is asked beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{id}".encode()).digest()[:4], "big") >> 1


async def _ask_all(
    backend: Backend,
    questions: list[dict[str, Any]],
    messages: Callable[[dict[str, Any]], list[Message]],
    digests: dict[str, str],
    journal: Journal,
    config: GenerateConfig,
) -> dict[str, str]:
    """Ask every question that the journal does not hold; what failed, by id."""
    waiting = [question for question in questions if not journal.has(question["id"], digests[question["id"]])]
    progress = Progress("generate", len(questions), len(questions) - len(waiting))
    queue = iter(waiting)
    failed: dict[str, str] = {}

    async def work() -> None:
        for question in queue:  # shared by all workers: each takes the next one
            id = question["id"]
            try:
                completion = await backend.complete(
                    messages(question), config.n or 0, _sampling(config, seed_of(config.seed, id)), question
                )
            except BackendError as error:
                failed[id] = str(error)
                progress.advance(failed=1)
                continue
            if completion.candidates:  # a file without answers to a question has not finished it: another one may
                journal.add(id, digests[id], {**_record(completion), "sampling": _used(config, id)})
            progress.advance(answers=len(completion.candidates))

    workers = [asyncio.create_task(work()) for _ in range(min(config.concurrency, len(waiting)))]
    try:
        await asyncio.gather(*workers)
    finally:
        for worker in workers:
            worker.cancel()
        await asyncio.gather(*workers, return_exceptions=True)
        progress.close()
        await backend.close()
    return failed


def _run(work: Coroutine[Any, Any, dict[str, str]]) -> dict[str, str]:
    """Run to the end, also from within a running event loop, as a notebook's cells are."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


def _record(completion: Completion) -> dict[str, Any]:
    return {
        "candidates": [
            {
                "text": _clean(candidate),
                "finish_reason": candidate.finish_reason,
                "completion_tokens": candidate.completion_tokens,
            }
            for candidate in completion.candidates
        ],
        "prompt_tokens": completion.prompt_tokens,
        "model": completion.model,
    }


def _clean(candidate: Candidate) -> str | None:
    """Text without the lone surrogates that JSON can hold and UTF-8 cannot."""
    return candidate.text and candidate.text.encode("utf-8", "replace").decode("utf-8")


class _Tally:
    """Counts over the rows that pass, for the manifest and the summary."""

    def __init__(self) -> None:
        names = ("candidates", "without_candidates", "without_text", "prompt_tokens", "completion_tokens")
        self._counts = dict.fromkeys(names, 0)
        self._models: Counter[str] = Counter()

    def count(self, made: dict[str, Any]) -> dict[str, Any]:
        counts, candidates = self._counts, made["candidates"]
        self._models[made["model"]] += len(candidates)
        counts["candidates"] += len(candidates)
        counts["without_candidates"] += not candidates
        counts["prompt_tokens"] += made.get("prompt_tokens") or 0
        for candidate in candidates:
            counts["without_text"] += not (candidate["text"] or "").strip()
            counts["completion_tokens"] += candidate["completion_tokens"] or 0
        return made

    def facts(self, model: str) -> dict[str, Any]:
        """The counts, and who gave most of the answers: ``model`` where there are none."""
        return {**self._counts, "model": max(self._models, key=self._models.__getitem__, default=model)}


def _digest(config: GenerateConfig, question: dict[str, Any], messages: list[Message]) -> str:
    """Tells whether a finished question's answers are still answers to it: the teacher's hang on the gold as well."""
    return digest_of(messages, *([question["gold_sql"]] if config.backend == "teacher" else []))


def _arguments(config: GenerateConfig, prompt: Prompt) -> dict[str, Any]:
    """What the answers depend on: of the options only those that the backend looks at."""
    common = {
        "backend": config.backend,
        "model": config.model,
        "n": config.n,
        "limit": config.limit,
        "prompt": prompt.id,
    }
    if config.replay_from:
        return {**common, "from": _file_hash(config.replay_from)}
    if config.backend == "teacher":
        return {**common, "seed": config.seed, "error_rate": config.error_rate}
    return {**common, **_sampling(config, config.seed).to_dict(), "few_shots": config.few_shots}


def _sampling(config: GenerateConfig, seed: int) -> Sampling:
    return Sampling(config.temperature, config.top_p, config.max_tokens, seed)


def _used(config: GenerateConfig, id: str) -> dict[str, Any]:
    """The settings that a question's answers were sampled with, for its row; nobody knows those of a file."""
    if config.backend == "replay":
        return {"n": config.n}
    sampling = _sampling(config, seed_of(config.seed, id)).to_dict()
    return {"n": config.n, "few_shots": config.few_shots, **sampling}


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


def _split(run: Run) -> str:
    return run.entry("questions")["split"]


def _plan(config: GenerateConfig, prompt: Prompt, prompts: list[list[Message]]) -> str:
    if not prompts:
        raise ExcotError("no question can be asked: none has a schema text", "check the databases of the questions")
    characters = sum(len(message["content"]) for messages in prompts for message in messages)
    answers = "all answers that exist" if config.n is None else f"{config.n} answers"
    shown = "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in prompts[0])
    return (
        f"would ask {len(prompts):,} questions for {answers} each with prompt {prompt.id}, about "
        f"{characters // _CHARACTERS_PER_TOKEN:,} prompt tokens in all; the first prompt:\n\n{shown}"
    )


def _summary(run: Run, prefix: str = "") -> str:
    entry = run.entry("generations")
    answers, asked = entry["candidates"], entry["rows"]
    made = f"{prefix}{answers:,} answers to {asked - entry['without_candidates']:,} of {asked:,} questions"
    if entry["failed"]:
        id, error = next(iter(entry["failed"].items()))
        log.warning(
            "%d questions failed; start the same command again to retry them. %s: %s", len(entry["failed"]), id, error
        )
    if entry["candidates"] and entry["without_text"] * 2 > entry["candidates"]:
        log.warning(
            "%d of %d answers are empty: raise --max-tokens if the model reasons first, or look for a content filter",
            entry["without_text"],
            entry["candidates"],
        )
    return f"{made} by {entry['model']}, in {run.folder}\nnext: {run.command('verify')}"
