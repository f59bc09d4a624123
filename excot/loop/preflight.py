"""What must be right before a loop starts: found in seconds here, and not after hours of work."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from ..config import StageConfig
from ..errors import ExcotError
from ..execution import Databases
from ..options import read_yaml
from ..run import Run
from .anew import is_dropped
from .outputs import Outputs
from .settings import Command, Settings, check_installed
from .state import State
from .steps import Step
from .student import check_student

log = logging.getLogger("excot")


@dataclass(frozen=True)
class Read:
    """The questions of a part of the file: ``(id, database, question)`` of each."""

    part: str
    rows: list[tuple[str, str, str]]


def check_all(settings: Settings, steps: list[Step], state: State, from_round: int | None) -> None:
    """Look at everything on this machine that can be looked at beforehand; nothing is written.

    Args:
        settings: of the loop.
        steps: its steps.
        state: its notes.
        from_round: the round from which on all will be made anew, if any.

    Raises:
        ExcotError: the first thing that is wrong.
    """
    _check_packages(settings)
    check_student(settings.student)
    train, dev = (
        _questions("train", settings.train, settings.out),
        _questions("dev", settings.dev, settings.dev_out),
    )
    _check_apart(train, dev)
    check_outputs(settings, steps, state, from_round)
    _check_teacher(settings, state)


def check_push(settings: Settings, steps: list[Step], state: State) -> None:
    """See that rounds can be pushed: token, permission, and that nobody else has changed the repository, which is made
    where there is none.

    Raises:
        ExcotError: they cannot.
    """
    push = settings.push
    waiting = [step for step in steps if step.kind == "push" and not state.is_finished(step.name)]
    if push is None or not waiting:
        return
    from ..hub.push import check_before

    tag = waiting[0].asked["tag"]
    check_before(StageConfig(out=settings.out, push_to_hub=push.repo, tag=tag, public=push.public))


def check_outputs(settings: Settings, steps: list[Step], state: State, from_round: int | None) -> None:
    """See that what is finished is still as it was left, and was made as it is asked for now."""
    outputs = Outputs(settings, state)
    for step in steps:
        if is_dropped(step.round, from_round) or not state.is_finished(step.name):
            continue
        if step.round is None:
            remedy = "restore it, or use another out"
        else:
            remedy = f"restore it, or make round {step.round} and all later ones anew with --from-round {step.round}"
        try:
            outputs.is_finished(step, remedy)
        except ExcotError as error:
            raise ExcotError(error.problem, remedy) from error


def _check_packages(settings: Settings) -> None:
    trained = [part for part in (settings.sft, settings.offpolicy, settings.onpolicy) if part]
    if any(part.is_adapter for part in trained) or (Path(settings.student) / "adapter_config.json").is_file():
        check_installed("peft")
    for part in trained:
        config = part.launcher.get("config_file")
        if config and read_yaml(config).get("distributed_type") == "DEEPSPEED":
            check_installed("deepspeed", extra="deepspeed")
    if "vllm" in {part.options.backend for part in (settings.sampling, settings.score, settings.teacher) if part}:
        check_installed("vllm", extra="vllm")
    if settings.verify.options.engine == "ray":
        check_installed("ray", extra="ray")


def _questions(part: str, command: Command, out: str) -> Read:
    """The questions of a benchmark, or of the run folder that holds them already, with their databases there."""
    run = Run(out)
    if "questions" in run.manifest["stages"]:
        rows = list(run.read("questions", ["id", "db_id", "question"]))
        folder = run.local.get("databases")
        # Else `excot questions` looks for them where the file says they are now.
        if folder and Path(folder).is_dir():
            databases = Databases(folder)
            _check_databases(part, {row["db_id"]: bool(databases.find(row["db_id"])) for row in rows}, folder)
            return Read(part, [(row["id"], row["db_id"], row["question"]) for row in rows])
    from ..builders.questions import open_benchmark

    options = command.options
    try:
        benchmark = open_benchmark(options.benchmark, options.data, options.descriptions)
        if not benchmark.question_files(options.split):
            next(benchmark.questions(options.split))  # says what there is
        rows = list(islice(benchmark.records(options.split), options.limit))
    except ExcotError as error:
        raise ExcotError(f"{part}: {error.problem}", error.remedy) from error
    if not rows:
        raise ExcotError(f"{part}: no questions in {options.data}", "the file of this split is empty")
    found = {row["db_id"]: bool(benchmark.database_files(options.split, row["db_id"])) for row in rows}
    _check_databases(part, found, options.data)
    ids = (f"{benchmark.benchmark}-{options.split}-{place:04d}" for place in range(len(rows)))
    return Read(part, [(id, row["db_id"], row["question"]) for id, row in zip(ids, rows, strict=True)])


def _check_databases(part: str, found: dict[str, bool], folder: str) -> None:
    if not any(found.values()):
        raise ExcotError(
            f"{part}: none of the {len(found)} databases of its questions is in {folder}, first {min(found)}",
            "unpack the databases of the release there",
        )


def _check_apart(train: Read, dev: Read) -> None:
    """A model must not be scored on what it has learned."""
    same = {id for id, *_ in train.rows} & {id for id, *_ in dev.rows}
    if same:
        raise ExcotError(
            f"train and dev have {len(same):,} questions in common, first {min(same)}",
            "give dev another split: scores on what was learned mean nothing",
        )
    alike = {tuple(row) for _, *row in train.rows} & {tuple(row) for _, *row in dev.rows}
    if alike:
        log.warning("%d questions of dev are word for word in train: scores on them mean nothing", len(alike))


def _check_teacher(settings: Settings, state: State) -> None:
    """See that the teacher can be asked: its key, its address."""
    if state.is_finished("generations"):
        return
    from ..builders.asking import run_to_end
    from ..builders.backends import open_backend

    options = settings.teacher.options
    if options.backend in ("openai", "azure", "openai-batch", "azure-batch"):
        try:
            run_to_end(_closed(open_backend(options, [])))
        except ExcotError as error:
            raise ExcotError(f"teacher: {error.problem}", error.remedy) from error


async def _closed(backend: Any) -> None:
    await backend.close()
