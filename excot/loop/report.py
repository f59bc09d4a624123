"""What a loop says in the end: all its models beside each other, and what to do with them."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from ..metrics.table import align, interval, percent, span
from .settings import Settings
from .state import State
from .steps import Step


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def score_line(model: Mapping[str, Any]) -> str:
    """A model's execution accuracy on dev."""
    return f"{percent(model['exec_acc'])} (95% interval {interval(model, 'exec_acc')})"


def models_table(settings: Settings, state: State, steps: list[Step]) -> str:
    """The lines at the end of a loop."""
    rows = []
    for step in steps:
        if step.kind != "score" or "exec_acc" not in state.models.get(step.model.name, {}):
            continue
        name, model = step.model.name, state.models[step.model.name]
        taken = state.steps.get(name, {}).get("seconds")
        rows.append(
            [
                name,
                step.model.path,
                percent(model["exec_acc"]),
                span(model["exec_acc_low"], model["exec_acc_high"]),
                duration(taken) if taken is not None else "",
                duration(state.steps[step.name]["seconds"]),
            ]
        )
    table = align(rows, ["model", "folder", "EX", "95% interval", "training", "scoring"], words=2)
    some = state.models["base"]
    head = f"execution accuracy on {some['questions']:,} questions of {settings.dev_out}, by rule {some['rule']}"
    seconds = sum(step["seconds"] for step in state.steps.values())
    pair = [shlex.quote(f"{settings.dev_out}:{name}") for name in (rows[0][0], rows[-1][0])]
    return f"{head}\n{table}\nall steps took {duration(seconds)}\nnext: excot compare {' '.join(pair)}"
