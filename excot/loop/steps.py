"""The steps of a loop in their order: each is a command that one could type, and says what its output depends on."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from ..builders.generations import asked_for
from ..prompts import load_prompt
from ..stages import dataset_name
from ..training.output import decides
from .settings import Command, Settings, Training

Kind = Literal["questions", "generate", "verify", "sft", "pairs", "train", "score", "push"]


@dataclass(frozen=True)
class Model:
    """A model of the loop.

    Attributes:
        name: under which it is scored: ``base``, ``sft``, ``dpo``, ``dpo_round1``, ...
        path: its folder, or the Hub's name of the student.
        base: where it is an adapter, the model that it stands on.
    """

    name: str
    path: str
    base: str | None = None

    def options(self, backend: str) -> dict[str, str]:
        """How a backend is told of it. Transformers finds an adapter's base by itself; vLLM wants both."""
        if self.base and backend == "vllm":
            return {"model": self.base, "adapter": self.path}
        return {"model": self.path}


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        name: its own among all steps; also the name of its log.
        title: what it does, for people.
        kind: of which sort it is.
        round: in which round it is made anew: 0 is the teacher's, ``None`` for what no round makes anew.
        words: what to type; for ``accelerate launch`` without the program that stands for it.
        asked: what its output depends on, apart from its inputs.
        out: the run folder that it writes into.
        dataset: the dataset that it makes, if any.
        model: the model that it trains or scores, or samples from.
        start: the model that training starts from.
        command: its options, where it is one of excot's stages.
        training: how it trains.
    """

    name: str
    title: str
    kind: Kind
    round: int | None
    words: list[str]
    asked: dict[str, Any]
    out: str
    dataset: str | None = None
    model: Model | None = None
    start: Model | None = None
    command: Command | None = None
    training: Training | None = None


def all_steps(settings: Settings) -> list[Step]:
    """The steps of a loop that is not stopped early, in order."""
    base = Model("base", settings.student, _adapter_base(settings.student))
    sft = _trained("sft", settings, settings.sft, base)
    model = _trained("dpo", settings, settings.offpolicy, sft)
    steps = [
        _questions("questions", settings.train, settings.out),
        _questions("dev_questions", settings.dev, settings.dev_out),
        score_step(settings, base, None),
        _generate(settings, settings.teacher, 0, None),
        _verify(settings, 0),
        _rows(settings, settings.sft, 0),
        train_step(settings, settings.sft, base, sft, 0),
        score_step(settings, sft, 0),
        _rows(settings, settings.offpolicy, 0),
        train_step(settings, settings.offpolicy, sft, model, 0),
        score_step(settings, model, 0),
        *_push(settings, 0),
    ]
    for round in range(1, settings.rounds + 1):
        assert settings.onpolicy and settings.sampling
        before, model = model, _trained(f"dpo_round{round}", settings, settings.onpolicy, model)
        steps += [
            _generate(settings, settings.sampling, round, before),
            _verify(settings, round),
            _rows(settings, settings.onpolicy, round),
            train_step(settings, settings.onpolicy, before, model, round),
            score_step(settings, model, round),
            *_push(settings, round),
        ]
    return steps


def all_right_file(settings: Settings, round: int) -> Path:
    """The list of the questions that were all right in a round."""
    return Path(settings.out) / ".excot" / f"all_right_round{round}.jsonl"


def _questions(name: str, command: Command, out: str) -> Step:
    asked = command.options.arguments()
    title = f"questions to {'learn from' if name == 'questions' else 'score on'}"
    words = command.words(out=out)
    return Step(name, title, "questions", None, words, asked, out, "questions", command=command)


def _generate(settings: Settings, command: Command, round: int, model: Model | None) -> Step:
    options = command.options
    asked = asked_for(options, load_prompt(settings.prompt))
    if model:
        asked.pop("model")  # by its content among the inputs: the folder may move
    more: dict[str, Any] = {"round": round or None}
    if model:
        # Another seed in every round: else the same questions would draw the same numbers again.
        more |= {"prompt": settings.prompt, "seed": options.seed + round, **model.options(options.backend)}
        asked |= {"seed": options.seed + round}
        if settings.skip_all_right and round > 1:
            more["exclude"] = str(all_right_file(settings, round - 1))
            asked["skip_all_right"] = True
    dataset = dataset_name("generations", round)
    title = f"answers of {model.name if model else 'the teacher'}{_in_round(round)}"
    words = command.words(**more, out=settings.out)
    # What the teacher has answered may have cost money: no round makes that anew.
    made_in = round if model else None
    return Step(dataset, title, "generate", made_in, words, asked, settings.out, dataset, model, command=command)


def _verify(settings: Settings, round: int) -> Step:
    dataset, command = dataset_name("verified", round), settings.verify
    words, asked = command.words(round=round or None, out=settings.out), command.options.arguments()
    title = f"verdicts on them{_in_round(round)}"
    return Step(dataset, title, "verify", round, words, asked, settings.out, dataset, command=command)


def _rows(settings: Settings, training: Training, round: int) -> Step:
    command = training.data
    stage = "sft" if training.stage == "sft" else "pairs"
    dataset = dataset_name(stage, round)
    title = "right answers to learn from" if stage == "sft" else f"{command.options.strategy} pairs"
    title += _in_round(round)
    words = command.words(round=round or None, out=settings.out)
    asked = {**command.options.arguments(), "exclude": command.options.exclude}
    name = "sft_data" if stage == "sft" else dataset
    return Step(name, title, stage, round, words, asked, settings.out, dataset, command=command)


def train_step(settings: Settings, training: Training, start: Model, model: Model, round: int) -> Step:
    """The step that trains a model from another one, on the data of a round."""
    dataset = dataset_name("sft" if training.stage == "sft" else "pairs", round)
    launcher = [word for name, value in training.launcher.items() for word in (f"--{name}", str(value))]
    recipe = ["-m", f"excot.recipes.{training.stage}", "--config", training.recipe]
    ours = {
        "model_name_or_path": start.path,
        "dataset_name": settings.out,
        "dataset_config": dataset,
        "output_dir": model.path,
        # A bar would be drawn into a log; the losses are shown instead.
        **({} if "disable_tqdm" in training.settings else {"disable_tqdm": "true"}),
    }
    words = [*launcher, *recipe, *(word for name, value in ours.items() for word in (f"--{name}", value))]
    asked = {name: value for name, value in training.settings.items() if decides(name) and name != "env"}
    asked |= {"global_batch": training.global_batch}
    title = f"train {model.name} from {start.name}"
    words += training.flags()
    return Step(
        model.name,
        title,
        "train",
        round,
        words,
        json.loads(json.dumps(asked, default=str)),
        settings.out,
        dataset,
        model,
        start,
        training=training,
    )


def score_step(settings: Settings, model: Model, round: int | None) -> Step:
    """The step that scores a model on dev."""
    command, options = settings.score, settings.score.options
    names = model.options(options.backend)
    # The student answers under the prompt of the data, before it has learned it and after.
    more = {"name": model.name, "prompt": settings.prompt, **names, "out": settings.dev_out}
    asked = {**options.arguments(), "prompt": load_prompt(settings.prompt).id, "exclude": options.exclude}
    asked = {name: value for name, value in asked.items() if name not in ("name", "model")}
    return Step(
        f"score_{model.name}",
        f"score {model.name}",
        "score",
        round,
        command.words(**more),
        asked,
        settings.dev_out,
        "details",
        model,
        command=command,
    )


def _push(settings: Settings, round: int) -> list[Step]:
    if settings.push is None:
        return []
    tag = settings.push.tag_of(round)
    words = ["excot", "push", settings.out, settings.push.repo, "--tag", tag]
    words += ["--public"] if settings.push.public else []
    asked = {**asdict(settings.push), "tag": tag}
    return [Step(f"push_round{round}", f"push as {tag}", "push", round, words, asked, settings.out)]


def _in_round(round: int) -> str:
    return f", round {round}" if round else ""


def _trained(name: str, settings: Settings, training: Training, start: Model) -> Model:
    base = start.base or (start.path if training.is_adapter else None)
    return Model(name, os.path.join(settings.out, "models", name), base)


def _adapter_base(student: str) -> str | None:
    """What the student stands on, where it is an adapter's folder."""
    try:
        return json.loads((Path(student) / "adapter_config.json").read_text("utf-8"))["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
