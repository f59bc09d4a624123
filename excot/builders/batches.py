"""Questions asked through a batch API: handed in together, answered within a day, each answer kept once.

``--submit`` hands in and leaves, ``--collect`` fetches what is there, from any machine that has the run folder; with
neither, one start does both and waits in between.
"""

from __future__ import annotations

import json
import logging
import shutil
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from ..config import GenerateConfig
from ..errors import ExcotError
from ..journal import Journal, differences
from ..llm.batch import OpenAIBatch
from ..progress import Progress
from ..prompts import STYLES
from ..prompts.template import stored_prompt
from ..run import Run, Stage
from .batch_asks import Asks
from .batch_notes import Notes, notes_path, read_notes
from .batch_rounds import under_way, work
from .batch_steps import Steps
from .ledger import Ledger

log = logging.getLogger("excot")


@dataclass
class Outcome:
    """How far the questions are: how many wait for the service, and what to say of them."""

    waiting: int = 0
    said: str = ""


def recall(config: GenerateConfig) -> GenerateConfig:
    """The config with the options that its run folder's questions were handed in with, for a start that names none.

    Raises:
        ExcotError: nothing was handed in from this run folder, or its template was changed.
    """
    run = Run(config.out, config.round)
    notes = _notes_of(run)
    options = dict(notes.options)
    if options["prompt"] not in STYLES:  # a template of the user's, whose file another machine does not have
        prompt_id = notes.made_for["arguments"]["prompt"]
        prompt = stored_prompt(run.prompt_path(prompt_id), prompt_id)
        copy = notes.path.with_suffix("") / f"{prompt.name}.jinja"
        copy.parent.mkdir(exist_ok=True)
        copy.write_text(prompt.text, "utf-8")
        options["prompt"] = str(copy)
    replaced = run.manifest["stages"].get(run.name("generations"), {}).get("fingerprint")
    overwrite = notes.overwrite and notes.made_for["replaces"] == replaced  # else it has been overwritten by now
    return replace(config, **options, overwrite=overwrite, resume=notes.resume and not overwrite)


async def ask_by_batch(backend: OpenAIBatch, ledger: Ledger, config: GenerateConfig, stage: Stage) -> Outcome:
    """Ask every question that the ledger waits for, through the batch API; the backend is closed then.

    Args:
        backend: the service.
        ledger: what is due, and where the answers go.
        config: whether to submit, to collect or to wait, and whether to clean up at the end.
        stage: which is under way.

    Raises:
        ExcotError: the service takes nothing or cannot be reached; or what is under way there was asked with other
            options. Whatever was handed in goes on.
    """
    try:
        notes = await _open_notes(backend, config, stage)
        if config.collect:
            _check_for_notes(notes, stage)
        folder = notes.path.with_suffix("")
        folder.mkdir(exist_ok=True)
        progress = Progress("generate", len(ledger.questions), len(ledger.questions) - len(ledger.waiting()))
        spares = Journal(notes.path.with_suffix(".jsonl"), {"run": notes.run})
        try:
            asks = Asks(backend, ledger, spares, progress)
            steps = Steps(backend, notes, asks, ledger, folder, _journal_path(stage), new=not config.collect)
            _plan(notes, steps, asks, ledger, new=not config.collect)
            await work(notes, steps, wait=not (config.submit or config.collect))
        finally:
            spares.close()
            progress.close()
        waiting = [question for question in ledger.waiting() if question["id"] not in ledger.failed]
        if waiting and (notes.active or not ledger.exhausted):
            return Outcome(len(waiting), _said(notes, ledger, stage, config))
        shutil.rmtree(folder, ignore_errors=True)
        if config.clean and not waiting:
            await _clean(backend, notes)
        return Outcome()
    finally:
        await backend.close()


async def clean_up(backend: OpenAIBatch, stage: Stage) -> None:
    """Delete our files at the service, of a stage that is finished; the backend is closed then."""
    try:
        notes = read_notes(notes_path(stage.run.private, stage.name))
        if notes:
            _check_endpoint(notes, backend)
            await _clean(backend, notes)
    finally:
        await backend.close()


def _plan(notes: Notes, steps: Steps, asks: Asks, ledger: Ledger, new: bool) -> None:
    """Plan the requests of the questions that are neither answered nor under way, and note what failed of them."""
    asked = {id for chunk in notes.active for id in chunk.questions}
    waiting = ledger.waiting()
    left = [question for question in waiting if question["id"] not in asked]
    if new and left:
        for question in waiting:
            if question["id"] in asked:
                ledger.reserve(question)  # what it takes is spent already, whatever the budget says
        due: dict[str, Any] = {}
        for question in left:
            if ledger.reserve(question):
                due[question["id"]] = asks.plan(question["id"])
                notes.failed.pop(question["id"], None)
        steps.plan(due)
    ledger.failed.update({q["id"]: notes.failed[q["id"]] for q in left if q["id"] in notes.failed})
    notes.save()


async def _open_notes(backend: OpenAIBatch, config: GenerateConfig, stage: Stage) -> Notes:
    """The notes to go on from: those that are there, or new ones where they are of other work."""
    path = notes_path(stage.run.private, stage.name)
    with open(_journal_path(stage), "rb") as journal:  # an --overwrite replaces what its journal names
        made_for = {"arguments": stage.arguments, "replaces": json.loads(journal.readline()).get("replaces")}
    notes, overwrite = read_notes(path), stage.on_existing == "overwrite"
    if notes and notes.made_for["arguments"] == stage.arguments:
        if notes.active or notes.made_for == made_for or not overwrite:
            _check_endpoint(notes, backend)
            backend.learnt, notes.made_for = notes.learnt, made_for
            return notes
    elif notes and overwrite:
        await _give_up(notes, backend)
    elif notes and any(chunk.handed_in or chunk.step != "planned" for chunk in notes.active):
        raise ExcotError(
            f"questions were handed in with {differences(notes.made_for['arguments'], stage.arguments)}",
            "fetch their answers first, by --collect with no other option but --out, or give them up by --overwrite",
        )
    path.with_suffix(".jsonl").unlink(missing_ok=True)
    shutil.rmtree(path.with_suffix(""), ignore_errors=True)
    return Notes(
        path,
        made_for=made_for,
        options=config.arguments(),
        overwrite=config.overwrite,
        resume=config.resume,
        endpoint=backend.endpoint,
        learnt=backend.learnt,
        files=notes.files if notes else [],
    )


def _check_for_notes(notes: Notes, stage: Stage) -> None:
    if not notes.path.exists():
        raise _nothing(stage.run)


def _notes_of(run: Run) -> Notes:
    notes = read_notes(notes_path(run.private, run.name("generations")))
    if notes is None:
        raise _nothing(run)
    return notes


def _nothing(run: Run) -> ExcotError:
    return ExcotError(
        f"nothing was handed in from {run.folder}", f"`{run.command('generate')} --backend openai-batch ... --submit`"
    )


def _check_endpoint(notes: Notes, backend: OpenAIBatch) -> None:
    if (notes.active or notes.files) and notes.endpoint != backend.endpoint:
        raise ExcotError(
            f"the questions were handed in at {notes.endpoint}, and this is {backend.endpoint}",
            f"give --base-url {notes.endpoint}",
        )


async def _give_up(notes: Notes, backend: OpenAIBatch) -> None:
    """Stop what is under way and will be asked anew, as far as the service lets us."""
    for chunk in notes.active:
        if chunk.batch and notes.endpoint == backend.endpoint:
            with suppress(ExcotError):
                await backend.cancel(chunk.batch)


async def _clean(backend: OpenAIBatch, notes: Notes) -> None:
    """Delete our files at the service: those that the notes name, and no other."""
    try:
        while notes.files:
            await backend.delete(notes.files[-1])
            notes.files.pop()
    except ExcotError as error:
        log.warning("%d of our files are still at %s: %s", len(notes.files), backend.endpoint, error)
    notes.save()


def _said(notes: Notes, ledger: Ledger, stage: Stage, config: GenerateConfig) -> str:
    """What to say where some questions still wait."""
    waiting = {question["id"] for question in ledger.waiting()} - set(ledger.failed)
    handed_in = {id for chunk in notes.active if chunk.handed_in for id in chunk.questions} & waiting
    lines = [f"{len(ledger.questions) - len(waiting):,} of {len(ledger.questions):,} questions are finished"]
    if handed_in:
        lines.append(f"{len(handed_in):,} are handed in; {under_way(notes)}")
    if handed_in != waiting:
        why = "for want of budget" if ledger.exhausted else "yet: start without --collect"
        lines.append(f"{len(waiting - handed_in):,} are not handed in {why}")
    where = f" --base-url {notes.endpoint}" if config.base_url else ""
    version = f" --api-version {config.api_version}" if config.api_version else ""
    if handed_in:
        lines.append(f"next, within 24 hours: {stage.run.command('generate')} --collect{where}{version}")
    return "\n".join(lines)


def _journal_path(stage: Stage) -> Path:
    return stage.run.private / f"{stage.name}.jsonl"
