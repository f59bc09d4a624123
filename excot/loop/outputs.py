"""What the steps have made: which of them are finished, and whether that is still as it was left."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..builders.generations import asked_for
from ..errors import ExcotError
from ..metrics.answers import generation_options
from ..metrics.systems import known_systems
from ..models import RECORD
from ..prompts import load_prompt
from ..run import Run
from .model_files import check_files, fingerprint, record_files
from .settings import Settings
from .state import State
from .steps import Model, Step


class Outputs:
    """The outputs of a loop's steps.

    Args:
        settings: of the loop.
        state: its notes.
    """

    def __init__(self, settings: Settings, state: State):
        self._settings, self._state = settings, state
        self._models: dict[str, str] = {}

    def inputs(self, step: Step) -> dict[str, Any]:
        """What a step is made from, apart from what the run folder itself keeps an eye on."""
        run = Run(step.out)
        out = run.manifest["stages"]
        if step.kind == "train":
            return {"data": run.dataset(step.dataset)["fingerprint"], "model": self._model(step.start)}
        if step.kind == "score":
            return {"questions": run.dataset("questions")["fingerprint"], "model": self._model(step.model)}
        if step.kind == "generate" and step.model:
            return {"model": self._model(step.model)}
        if step.kind == "push":
            return {name: entry["fingerprint"] for name, entry in out.items()}
        return {}

    def is_finished(self, step: Step, remedy: str = "") -> bool:
        """Whether a step need not be run again.

        Args:
            step: the step.
            remedy: what helps where its output cannot be used.

        Raises:
            ExcotError: it was made otherwise than it is asked for now, or its output was changed by hand.
        """
        state = self._state
        if not state.is_finished(step.name):
            return False
        if step.kind == "push":  # what later rounds add is pushed under their own tags
            changed = state.changed(step.name, step.asked, state.steps[step.name]["inputs"])
        else:
            self._check_output(step, remedy)
            changed = state.changed(step.name, step.asked, self.inputs(step))
        if changed:
            raise ExcotError(f"{self.place(step)} was {changed}", remedy)
        if step.kind == "questions":
            databases = Run(step.out).local.get("databases")
            return databases is None or Path(databases).is_dir()  # else the command finds them anew
        return True

    def trained_in(self, step: Step) -> float | None:
        """The seconds that a model took which is complete although nobody has noted so: the loop was killed before.

        Raises:
            ExcotError: there is one, and it is not this step's.
        """
        assert step.model and step.start
        try:
            record = json.loads((Path(step.model.path) / RECORD).read_text("utf-8"))
        except (OSError, ValueError):
            return None  # the recipe says what is wrong with it
        if not record.get("finished"):
            return None
        again = f"remove {step.model.path}, or use another out"
        if step.name not in self._state.steps:
            raise ExcotError(f"{step.model.path} holds a model that this loop has not trained", again)
        inputs = self.inputs(step)
        changed = self._state.changed(step.name, step.asked, inputs)
        if record["data"][0]["fingerprint"] != inputs["data"]:
            changed = "made from another data"
        if changed:
            raise ExcotError(f"{step.model.path} was {changed}", again)
        return float(record.get("seconds") or 0)

    def note_model(self, model: Model) -> None:
        """Keep what a model that was trained just now consists of. To be saved."""
        self._state.models[model.name] = {"path": model.path, "files": record_files(model.path)}
        self._models.pop(model.name, None)

    def replaces_answers(self, step: Step) -> bool:
        """Whether the dev folder holds the answers of another model than the one that a step scores."""
        entry = Run(step.out).manifest["stages"].get("generations")
        if entry is None:
            return False
        options = replace(step.command.options, prompt=self._settings.prompt, **step.model.options(self._backend))
        asked = asked_for(generation_options(options, options.model), load_prompt(self._settings.prompt))
        return entry["arguments"] != json.loads(json.dumps(asked))

    def place(self, step: Step) -> str:
        """Where a step's output is, in words."""
        if step.kind == "train":
            return step.model.path
        return f"{step.title} in {step.out}" if step.kind in ("score", "push") else f"{step.dataset} in {step.out}"

    @property
    def _backend(self) -> str:
        return self._settings.score.options.backend

    def _check_output(self, step: Step, remedy: str) -> None:
        run = Run(step.out)
        if step.kind == "train":
            check_files(step.model.path, self._state.models[step.model.name]["files"], remedy)
        elif step.kind == "score":
            run.dataset("details")  # a score that was killed may have left `scores` behind it: it will complete them
            if step.model.name not in known_systems(run):
                raise ExcotError(f"{step.out} has no scores of {step.model.name} any more", remedy)
        else:
            run.dataset(step.dataset)

    def _model(self, model: Model) -> str:
        """A model by its content; a student of the Hub by its name."""
        if model.name not in self._models:
            known = self._state.models.get(model.name, {}).get("files")
            if known is None:  # the student, which is not ours
                known = record_files(model.path) if Path(model.path).is_dir() else {"name": model.path}
            self._models[model.name] = fingerprint(known)
        return self._models[model.name]
