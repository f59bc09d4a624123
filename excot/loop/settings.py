"""What a loop's YAML file says, checked before anything is done: every part by the options of its command."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, TypeVar

from ..config import GenerateConfig, PairsConfig, PushConfig, QuestionsConfig, ScoreConfig, SftConfig, VerifyConfig
from ..errors import ExcotError, UsageError, import_error
from ..options import check, flag, from_dict, option, public_name, read_yaml

C = TypeVar("C")

LOADING = ("transformers", "vllm")
"""The backends that load a model themselves: no server needs to be started for each model that the loop makes."""

_COMMON = ("out", "round", "dry_run", "overwrite", "resume", "push_to_hub", "tag", "public")
_OF_TRAINING = ("model_name_or_path", "dataset_name", "dataset_config", "datasets", "output_dir", "overwrite", "plan")
_TEACHER = ("submit", "collect", "clean", "exclude")
_STUDENT = (*_TEACHER, "model", "adapter", "prompt", "few_shots", "from")
_SCORED = ("model", "adapter", "name", "prompt", "predictions", "format", "missing", "model_card")


@dataclass(frozen=True)
class Command:
    """A verb's options: as they were given, and as the verb will read them.

    Attributes:
        verb: of the command ``excot``.
        given: the options given, by the names that users know.
        options: all of them.
    """

    verb: str
    given: dict[str, Any]
    options: Any

    def words(self, **more: Any) -> list[str]:
        """What to type, with these options on top; one that is ``None`` or false is left out."""
        positional = {public_name(f) for f in fields(self.options) if f.metadata["positional"]}
        words = ["excot", self.verb]
        named: list[str] = []
        for name, value in {**self.given, **more}.items():
            if value is None or value is False:
                continue
            values = [str(item) for item in value] if isinstance(value, list) else [str(value)]
            if name in positional:
                words += values
            else:
                named += [flag(name), *([] if value is True else values)]
        return words + named


@dataclass(frozen=True)
class Training:
    """A model to train.

    Attributes:
        stage: ``sft`` or ``dpo``.
        recipe: the recipe's path.
        values: what the recipe says.
        options: what the loop's file says on top of it.
        launcher: options of ``accelerate launch``.
        processes: how many train together.
        data: the options of ``excot sft`` or ``excot pairs``, which makes what it is trained on.
    """

    stage: str
    recipe: str
    values: dict[str, Any]
    options: dict[str, Any]
    launcher: dict[str, Any]
    processes: int
    data: Command

    @property
    def settings(self) -> dict[str, Any]:
        """The recipe with the loop's options over it."""
        return {**self.values, **self.options}

    @property
    def is_adapter(self) -> bool:
        """Whether an adapter is trained and not the model itself."""
        return bool(self.settings.get("use_peft"))

    @property
    def global_batch(self) -> int:
        """Rows of one optimizer step."""
        per_device = int(self.settings.get("per_device_train_batch_size", 8))
        return per_device * int(self.settings.get("gradient_accumulation_steps", 1)) * self.processes

    def flags(self) -> list[str]:
        """The loop's options as flags of the recipe."""
        words: list[str] = []
        for name, value in self.options.items():
            values = value if isinstance(value, list) else [value]
            words += [f"--{name}", *map(_as_word, values)]
        return words


@dataclass(kw_only=True)
class LoopConfig:
    """The first level of the file."""

    out: str = option(help="the run folder")
    train: dict = option(help="the questions to learn from: options of `excot questions`")
    dev: dict = option(help="the questions to score on: options of `excot questions`")
    teacher: dict = option(help="who answers first: options of `excot generate`")
    verify: dict | None = option(None, "options of `excot verify`")
    student: str = option(help="the model to train: a folder, or a name on the Hub")
    sft: dict = option(help="recipe, accelerate_config, num_processes, data, training")
    offpolicy: dict = option(help="the same, for DPO on the teacher's pairs")
    onpolicy: dict | None = option(None, "the same, for DPO on the model's own pairs; and sampling")
    score: dict | None = option(None, "options of `excot score`")
    rounds: int = option(2, "on-policy rounds")
    stop_early: bool = option(False, "stop when dev execution accuracy has not risen over the model before")
    skip_all_right: bool = option(False, "do not ask again in a round what was all right in the one before")
    push: dict | None = option(None, "repo, public, tag: push the run folder after each round")

    def __post_init__(self) -> None:
        check(self)
        if self.rounds < 0:
            raise ExcotError(f"rounds is {self.rounds}", "it takes 0 or more")
        if self.rounds and self.onpolicy is None:
            raise ExcotError(f"rounds is {self.rounds}, but onpolicy is missing", "write onpolicy: ..., or rounds: 0")


@dataclass(kw_only=True)
class TrainingConfig:
    """A part of the file about a model to train."""

    recipe: str = option(help="a recipe's file")
    accelerate_config: str | None = option(None, "a file of accelerate_configs/")
    num_processes: int | None = option(None, "processes that train together")
    data: dict | None = option(None, "options of `excot sft` or `excot pairs`")
    training: dict | None = option(None, "options of the recipe, which win over it")
    sampling: dict | None = option(None, "onpolicy: options of `excot generate`")

    def __post_init__(self) -> None:
        check(self)
        if self.num_processes is not None and self.num_processes < 1:
            raise ExcotError(f"num_processes is {self.num_processes}", "it takes 1 or more")


@dataclass(kw_only=True)
class Pushing:
    """Where each round's datasets are pushed."""

    repo: str = option(help="the dataset repository: ORG/NAME")
    public: bool = option(False, "a new repository is for everybody to see; private otherwise")
    tag: str | None = option(None, "what the tags of the rounds begin with")

    def __post_init__(self) -> None:
        check(self)

    def tag_of(self, round: int) -> str:
        return f"{self.tag}-round{round}" if self.tag else f"round{round}"


@dataclass(frozen=True)
class Settings:
    """A loop, every part of which has been seen to be right in itself. Made by `read_settings`.

    Attributes:
        path: the file.
        out: the run folder.
        student: the model to begin with.
        train, dev, teacher, verify, sampling, score: the options of their commands.
        sft, offpolicy, onpolicy: the models to train.
        rounds, stop_early, skip_all_right, push: as in the file.
        text: all that the file says, as JSON can hold it.
    """

    path: str
    out: str
    student: str
    train: Command
    dev: Command
    teacher: Command
    verify: Command
    sampling: Command | None
    score: Command
    sft: Training
    offpolicy: Training
    onpolicy: Training | None
    rounds: int
    stop_early: bool
    skip_all_right: bool
    push: Pushing | None
    text: dict[str, Any] = field(repr=False)

    @property
    def dev_out(self) -> str:
        """The run folder in which all models are scored."""
        return os.path.join(self.out, "dev")

    @property
    def prompt(self) -> str:
        """What everybody is asked under, the teacher and the student: a style, or a template's path."""
        return self.teacher.options.prompt


def read_settings(path: str) -> Settings:
    """Read and check a loop's file.

    Raises:
        UsageError: it cannot be read, or a part of it is wrong: named with what may stand there.
        ExcotError: what trains is not installed.
    """
    check_installed("torch", "transformers", "trl", "accelerate")
    try:
        return _read(path)
    except UsageError:
        raise
    except ExcotError as error:
        raise UsageError(error.problem, error.remedy) from error


def check_installed(*packages: str, extra: str = "train") -> None:
    """See that packages are there, without importing them.

    Raises:
        ExcotError: one is not.
    """
    from importlib.util import find_spec

    for package in packages:
        if find_spec(package) is None:
            raise import_error(package, extra)


def _read(path: str) -> Settings:
    if not Path(path).is_file():
        raise ExcotError(f"there is no file {path}", "give the loop's YAML file: see docs/loop.md")
    values = read_yaml(path)
    config = _within(path, lambda: from_dict(LoopConfig, values, path))
    out, dev = config.out, os.path.join(config.out, "dev")

    def command(verb: str, cls: type, part: str, given: dict | None, taken: tuple[str, ...], **more: Any) -> Command:
        given = {str(name).replace("-", "_"): value for name, value in (given or {}).items()}
        where = f"{path}: {part}"
        for name in {*taken, *_COMMON} & given.keys():
            raise ExcotError(f"{where}: {name} is for the loop to say", f"leave {name} out")
        return Command(verb, given, _within(where, lambda: from_dict(cls, {**given, **more}, where)))

    def training(stage: str, part: str, given: dict, data: dict[str, Any]) -> tuple[Training, dict | None]:
        where = f"{path}: {part}"
        parsed = _within(where, lambda: from_dict(TrainingConfig, given, where))
        if parsed.sampling is not None and part != "onpolicy":
            raise ExcotError(f"{where}: sampling is for onpolicy", "leave it out: here the teacher's answers are used")
        options = {str(name).replace("-", "_"): value for name, value in (parsed.training or {}).items()}
        for name in {*_OF_TRAINING} & options.keys():
            raise ExcotError(f"{where}: {name} is for the loop to say", f"leave {name} out of training")
        verb, cls = ("sft", SftConfig) if stage == "sft" else ("pairs", PairsConfig)
        rows = command(verb, cls, f"{part}.data", {**data, **(parsed.data or {})}, (), out=out)
        values, launcher = _recipe(where, stage, parsed, options), {}
        for name, value in (("config_file", parsed.accelerate_config), ("num_processes", parsed.num_processes)):
            if value is not None:
                launcher[name] = value
        processes = parsed.num_processes or _processes(where, parsed.accelerate_config)
        return Training(stage, parsed.recipe, values, options, launcher, processes, rows), parsed.sampling

    teacher = command("generate", GenerateConfig, "teacher", config.teacher, _TEACHER, out=out)
    _check_prompt(path, teacher.options.prompt)
    sft, _ = training("sft", "sft", config.sft, {})
    offpolicy, _ = training("dpo", "offpolicy", config.offpolicy, {"strategy": "farthest"})
    onpolicy = sampling = None
    if config.onpolicy is not None:
        onpolicy, given = training("dpo", "onpolicy", config.onpolicy, {"strategy": "nearest"})
        given = {"backend": "transformers", **(given or {})}
        asked = {"model": "the model before", "out": out}
        sampling = command("generate", GenerateConfig, "onpolicy.sampling", given, _STUDENT, **asked)
    given = {"backend": "transformers", **(config.score or {})}
    score = command("score", ScoreConfig, "score", given, _SCORED, model="each model", out=dev)
    for part, asked in (("onpolicy.sampling", sampling), ("score", score)):
        if asked and asked.options.backend not in LOADING:
            raise ExcotError(
                f"{path}: {part}: backend is {asked.options.backend!r}, which does not load a model by itself",
                f"the loop makes new models all the time: give {' or '.join(LOADING)}",
            )
    push = None
    if config.push is not None:
        where = f"{path}: push"
        push = _within(where, lambda: from_dict(Pushing, config.push, where))
        _within(where, lambda: PushConfig(run=out, repo=push.repo, tag=push.tag_of(0)))
    return Settings(
        path=path,
        out=out,
        student=config.student,
        train=command("questions", QuestionsConfig, "train", config.train, (), out=out),
        dev=command("questions", QuestionsConfig, "dev", config.dev, (), out=dev),
        teacher=teacher,
        verify=command("verify", VerifyConfig, "verify", config.verify, (), out=out),
        sampling=sampling,
        score=score,
        sft=sft,
        offpolicy=offpolicy,
        onpolicy=onpolicy,
        rounds=config.rounds,
        stop_early=config.stop_early,
        skip_all_right=config.skip_all_right,
        push=push,
        text=json.loads(json.dumps(values, default=str)),
    )


def _recipe(where: str, stage: str, parsed: TrainingConfig, options: dict[str, Any]) -> dict[str, Any]:
    """What the recipe says, after the recipe and the options over it have been seen to be understood."""
    from ..training.settings import check_settings

    if not Path(parsed.recipe).is_file():
        raise ExcotError(f"{where}: there is no recipe {parsed.recipe}", "give the path of a recipe's YAML file")
    given = Training(stage, parsed.recipe, {}, options, {}, 1, None).flags()
    # The model and the data are the loop's to say, whatever the recipe names.
    ours = ["--model_name_or_path", "org/model", "--dataset_name", "org/data"]
    values = _within(where, lambda: check_settings(stage, ["--config", parsed.recipe, *ours, *given]))
    return {name: value for name, value in values.items() if name not in _OF_TRAINING}


def _processes(where: str, path: str | None) -> int:
    """How many processes an accelerate config starts."""
    if path is None:
        return 1
    if not Path(path).is_file():
        raise ExcotError(f"{where}: there is no accelerate config {path}", "give one of accelerate_configs/")
    return int(_within(where, lambda: read_yaml(path)).get("num_processes") or 1)


def _check_prompt(path: str, prompt: str) -> None:
    from ..prompts import load_prompt

    _within(f"{path}: teacher", lambda: load_prompt(prompt))


def _within(where: str, make: Any) -> Any:
    """Make something; an error says in which part of the file it is."""
    try:
        return make()
    except ExcotError as error:
        if error.problem.startswith(where):
            raise
        raise UsageError(f"{where}: {error.problem}", error.remedy) from error


def _as_word(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return json.dumps(value) if isinstance(value, dict) else str(value)
