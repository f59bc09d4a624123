"""Rounds made anew: what came of them is dropped first, as a whole, whatever kills the loop meanwhile."""

from __future__ import annotations

import shutil
from pathlib import Path

from ..metrics.systems import drop_systems
from ..run import Run
from ..stages import parse_name
from .settings import Settings
from .state import State
from .steps import Step


def is_dropped(round: int | None, from_round: int | None) -> bool:
    """Whether what was made in a round goes when rounds are made anew. What the teacher has answered never does."""
    return round is not None and from_round is not None and round >= from_round


def pending(state: State, from_round: int | None) -> int | None:
    """From which round on something is to be dropped; ``None`` where nothing is, or all of it is dropped already.

    A loop that was killed while it made rounds anew goes on when the same command is given again.

    Args:
        state: the loop's notes.
        from_round: what the command says.
    """
    begun = state.anew
    if begun and not begun["dropped"]:  # half of it may be gone
        return begun["round"] if from_round is None else min(from_round, begun["round"])
    if begun and begun["round"] == from_round:
        return None
    return from_round


def drop(settings: Settings, steps: list[Step], state: State, from_round: int) -> None:
    """Drop all that was made in this round and the later ones, and note that it is gone."""
    state.anew = {"round": from_round, "dropped": False}
    state.save()
    _drop_scores(settings, state, from_round)
    run = Run(settings.out)
    known = {*run.manifest["stages"], *(step.dataset for step in steps if step.out == settings.out and step.dataset)}
    kept = ("questions", "generations", "details", "scores")  # the last two, if any, are of the teacher's answers
    run.drop(name for name in sorted(known) if name not in kept and _round(name) >= from_round)
    models = Path(settings.out) / "models"
    for folder in models.iterdir() if models.is_dir() else ():
        if _model_round(folder.name) >= from_round:
            shutil.rmtree(folder)
    for path in run.private.glob("all_right_round*.jsonl"):
        if int(path.stem.removeprefix("all_right_round")) >= from_round:
            path.unlink()
    state.rounds = {name: counts for name, counts in state.rounds.items() if int(name) < from_round}
    state.steps = {name: step for name, step in state.steps.items() if not is_dropped(_step_round(name), from_round)}
    state.models = {name: model for name, model in state.models.items() if _model_round(name) < from_round}
    state.stopped = None
    state.anew = {"round": from_round, "dropped": True}
    state.save()


def _drop_scores(settings: Settings, state: State, from_round: int) -> None:
    """The scores of the models that go, and their answers, which another model at the same place must not be given."""
    dev = Run(settings.dev_out)
    if "questions" not in dev.manifest["stages"]:
        return
    gone = [name for name in state.steps if name.startswith("score_") and is_dropped(_step_round(name), from_round)]
    names = [name.removeprefix("score_") for name in gone]
    drop_systems(dev, names)
    if names:  # begun answers of one of them, or finished ones of the last
        dev.drop(["generations"])


def _round(dataset: str) -> int:
    _, round = parse_name(dataset) or ("", -1)
    return round


def _model_round(name: str) -> int:
    """In which round a model is made; before all of them for the student, and for what is not the loop's."""
    if name in ("sft", "dpo"):
        return 0
    number = name.removeprefix("dpo_round")
    return int(number) if number.isdigit() and name != number else -1


def _step_round(name: str) -> int | None:
    """In which round a step is, by its name."""
    if name in ("questions", "dev_questions", "generations", "score_base"):
        return None
    number = name.rpartition("_round")[2]
    return int(number) if number.isdigit() else 0
