"""The options of every verb: one dataclass a verb, filled from YAML, from flags, or by hand.

The command line, ``--config`` files and the library all end in these classes, so each option has one name, one
default, one explanation and one check.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from typing import Any, Literal

from .errors import ExcotError
from .options import at_least, at_most, check, flag, option

log = logging.getLogger("excot")


@dataclass(kw_only=True)
class StageConfig:
    """What every stage has in common."""

    out: str = option(help="the run folder that is read and written", affects_output=False)
    limit: int | None = option(None, "only the first so many questions (rows for sft and pairs)")
    dry_run: bool = option(False, "say what would be done, and do nothing", affects_output=False)
    overwrite: bool = option(False, "make the output anew although it exists", affects_output=False)
    push_to_hub: str | None = option(
        None, "push the run folder to this Hub dataset (ORG/NAME) when done", affects_output=False
    )
    tag: str | None = option(None, "with --push-to-hub: tag what is pushed, such as v1", affects_output=False)
    public: bool = option(
        False, "with --push-to-hub: a new repository is for everybody to see; private otherwise", affects_output=False
    )

    def __post_init__(self) -> None:
        check(self)
        at_least(self, limit=1)
        if self.push_to_hub is None and (self.tag or self.public):
            raise ExcotError("--tag and --public are for --push-to-hub", "give --push-to-hub ORG/NAME too")

    @property
    def on_existing(self) -> Literal["refuse", "resume", "overwrite"]:
        """What to do about output that was made with other options."""
        return "overwrite" if self.overwrite else "refuse"

    def arguments(self) -> dict[str, Any]:
        """The options that the output depends on, for the manifest."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.metadata["affects_output"]}


@dataclass(kw_only=True)
class RoundConfig(StageConfig):
    """What the stages have in common that every round makes anew."""

    round: int = option(0, "which round's data to make; 0 is the teacher's", affects_output=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, round=0)


@dataclass(kw_only=True)
class LongStageConfig(StageConfig):
    """What the stages have in common that keep a journal."""

    resume: bool = option(False, "go on from questions that were finished with other options", affects_output=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.resume and self.overwrite:
            raise ExcotError("--resume and --overwrite contradict each other", "give one of them")

    @property
    def on_existing(self) -> Literal["refuse", "resume", "overwrite"]:
        return "resume" if self.resume else super().on_existing


@dataclass(kw_only=True)
class SelectiveConfig(StageConfig):
    """What the stages have in common that can leave questions out."""

    exclude: str | None = option(
        None,
        "leave out the questions of this list: JSON lines with an id each, such as audit.jsonl",
        affects_output=False,  # the ids in it do: they become an argument once the list has been read
    )


@dataclass(kw_only=True)
class LoadingConfig(StageConfig):
    """What the verbs have in common that can load a model by themselves."""

    device: str = option("auto", "transformers: cpu, cuda, cuda:1, mps", affects_output=False)
    adapter: str | None = option(None, "transformers, vllm: the folder of a LoRA adapter on top of the model")
    tensor_parallel_size: int | None = option(
        None, "vllm: GPUs that one copy of the model is split over", affects_output=False
    )
    data_parallel_size: int | None = option(None, "vllm: copies of the model side by side", affects_output=False)
    max_model_len: int | None = option(
        None, "vllm: tokens of prompt and answer together (default: the model's own)", affects_output=False
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, tensor_parallel_size=1, data_parallel_size=1, max_model_len=1)


@dataclass(kw_only=True)
class ExecutingConfig(StageConfig):
    """What the stages have in common that execute statements."""

    databases: str | None = option(
        None, "the databases folder, if not where the questions found it", affects_output=False
    )
    timeout: float = option(5.0, "seconds that one statement may take")
    processes: int | None = option(None, "worker processes; one for each core by default", affects_output=False)
    no_cache: bool = option(False, "execute everything, whatever earlier runs have found", affects_output=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, timeout=0.001, processes=1)


@dataclass(kw_only=True)
class QuestionsConfig(StageConfig):
    """Read a benchmark's questions, or your own, and describe their databases."""

    benchmark: Literal["spider", "bird", "folder"] = option(help="whose layout the data has", positional=True)
    data: str = option(
        help="the folder with the unpacked release, or with your questions and databases", affects_output=False
    )
    split: str = option("train", "which split: train, dev, test (Spider); train, dev, mini_dev (BIRD)")
    descriptions: bool = option(False, "add BIRD's column descriptions to the schema text")


_BATCHES = ("openai-batch", "azure-batch")
_WITH_A_MODEL = ("openai", "azure", *_BATCHES, "transformers", "vllm", "tgi")
_ONLY_FOR = {
    "submit": _BATCHES,
    "collect": _BATCHES,
    "clean": _BATCHES,
    "api_version": ("azure", "azure-batch"),
    "provider": ("tgi",),
    "adapter": ("transformers", "vllm"),
    "tensor_parallel_size": ("vllm",),
    "data_parallel_size": ("vllm",),
    "max_model_len": ("vllm",),
}
"""Options that mean nothing to the other backends: there they would be read past without a word."""


def _refuse_meaningless(config: Any) -> None:
    for name, backends in _ONLY_FOR.items():
        if getattr(config, name, None) and config.backend not in backends:
            raise ExcotError(
                f"{flag(name)} means nothing to --backend {config.backend}",
                f"it is for --backend {' or '.join(backends)}",
            )


@dataclass(kw_only=True)
class GenerateConfig(LoadingConfig, SelectiveConfig, LongStageConfig, RoundConfig):
    """Answer every question several times with a model."""

    backend: Literal[
        "openai", "azure", "openai-batch", "azure-batch", "transformers", "vllm", "tgi", "replay", "teacher"
    ] = option(
        "openai",
        "where answers come from: any OpenAI-compatible endpoint, Azure OpenAI, the batch API of either, a local "
        "model through transformers or vLLM, a text-generation-inference server, a file, or the offline stand-in "
        "that has seen the gold",
    )
    model: str | None = option(None, "the model's name, Azure deployment, or folder")
    n: int | None = option(None, "answers per question (default: 32; replay: all that exist)")
    temperature: float = option(1.0, "softmax temperature; 0 is greedy")
    top_p: float = option(1.0, "nucleus size")
    max_tokens: int = option(4096, "new tokens of one answer at most")
    seed: int = option(0, "from which every question's own seed is derived")
    prompt: str = option("divide_and_conquer", "divide_and_conquer, cot, direct, or the path of a Jinja template")
    few_shots: int = option(0, "worked examples shown before the question (0 to 3; for a teacher only)")
    base_url: str | None = option(
        None, "openai, azure, tgi: the endpoint, such as http://localhost:8000/v1", affects_output=False
    )
    api_version: str | None = option(
        None, "azure: the version of the API (default: OPENAI_API_VERSION)", affects_output=False
    )
    provider: str | None = option(None, "tgi: ask an inference provider of the Hub, such as together")
    concurrency: int = option(16, "questions in flight at once, at most", affects_output=False)
    timeout: float = option(600.0, "openai, azure, tgi: seconds to wait for one reply", affects_output=False)
    max_cost: float | None = option(None, "stop before the run has cost more than this many USD", affects_output=False)
    max_tokens_total: int | None = option(
        None, "stop before the run has taken more than this many tokens, prompts and answers", affects_output=False
    )
    prices: str | None = option(None, "a YAML file of prices in place of the built-in ones", affects_output=False)
    submit: bool = option(False, "batch APIs: hand the questions in and do not wait for answers", affects_output=False)
    collect: bool = option(False, "batch APIs: fetch what is finished and hand nothing new in", affects_output=False)
    clean: bool = option(
        False, "batch APIs: delete our files at the service once all is answered", affects_output=False
    )
    batch_size: int = option(
        16, "transformers: sequences generated together; keep concurrency times n at twice that", affects_output=False
    )
    replay_from: str | None = option(
        None, "replay: a JSONL file of candidates, or a batch API's results.jsonl", name="from", affects_output=False
    )
    error_rate: float = option(0.3, "teacher: how often it makes a mistake on purpose")
    habit_rate: float = option(0.0, 'teacher: how often it reads "at least" as "more than", "at most" as "less than"')
    brief: bool = option(False, "teacher: answers in the fewest words, for models too small for more")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n is None and self.backend != "replay":
            self.n = 32
        at_least(self, n=1, temperature=0, max_tokens=1, few_shots=0, concurrency=1, timeout=0.001, batch_size=1)
        at_least(self, max_cost=0, max_tokens_total=1)
        at_most(self, top_p=1, error_rate=1, habit_rate=1, few_shots=3)
        at_least(self, top_p=0, error_rate=0, habit_rate=0)
        if self.submit and self.collect:
            raise ExcotError("--submit and --collect contradict each other", "give one of them, or neither to do both")
        if self.collect and self.model is None and self.backend in ("openai", *_BATCHES):
            return  # what was handed in says how: the rest of the options is read from there
        if self.backend in _WITH_A_MODEL and not self.model and not (self.backend == "tgi" and self.base_url):
            raise ExcotError(f"--backend {self.backend} needs a model", "give --model NAME")
        if self.temperature == 0 and (self.n or 1) > 1 and self.backend in _WITH_A_MODEL:
            log.warning("at temperature 0 all %d answers to a question are the same: give --n 1", self.n)
        if (self.backend == "replay") != (self.replay_from is not None):
            raise ExcotError("--backend replay and --from FILE go together", "give both")
        _refuse_meaningless(self)

    @property
    def batched(self) -> bool:
        """Whether questions go through a batch API: handed in together, answered within hours."""
        return self.backend in _BATCHES


@dataclass(kw_only=True)
class VerifyConfig(ExecutingConfig, LongStageConfig, RoundConfig):
    """Run every answer's SQL and compare its result with the gold's."""

    engine: Literal["local", "ray"] = option(
        "local", "where statements run: on this machine, or on a Ray cluster", affects_output=False
    )
    address: str | None = option(
        None, "ray: the cluster's HOST:PORT (default: the one that this machine is part of)", affects_output=False
    )
    databases_repo: str | None = option(
        None,
        "ray: a Hub dataset (ORG/NAME) from which nodes fetch the databases that they have not got",
        affects_output=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.engine == "local" and (self.address or self.databases_repo):
            raise ExcotError("--address and --databases-repo are for --engine ray", "give --engine ray too")
        if self.engine == "ray" and self.processes:
            raise ExcotError(
                "--processes means nothing to --engine ray", "each of the cluster's cores is used: leave it out"
            )


@dataclass(kw_only=True)
class AuditConfig(ExecutingConfig, RoundConfig):
    """List the questions whose gold SQL looks wrong, with the evidence."""

    majority: float = option(0.667, "what share of the answers that ran must agree against the gold: more than this")
    votes: int = option(3, "how many answers at least must agree against the gold")
    slow: float = option(1.0, "seconds from which a gold counts as slow")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, majority=0, votes=1, slow=0)
        at_most(self, majority=0.99)


RuleName = Literal["set", "multiset", "ordered", "test_suite"]
CandidateStatus = Literal["ok", "error", "timeout", "too_large", "refused", "no_sql", "truncated"]


@dataclass(kw_only=True)
class SftConfig(SelectiveConfig, RoundConfig):
    """Choose right answers to learn from."""

    rule: RuleName = option("set", "the comparator that says which answers are right")
    choose: Literal["first", "shortest", "all"] = option("first", "which right answers of a question")
    max_per_question: int | None = option(None, "at most so many of a question; 1 unless --choose all")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, max_per_question=1)


@dataclass(kw_only=True)
class PairsConfig(SelectiveConfig, RoundConfig):
    """Pair right answers with wrong ones to prefer them over."""

    rule: RuleName = option("set", "the comparator that says which answers are right")
    strategy: Literal["nearest", "farthest", "random"] = option("nearest", "which pairs, by Levenshtein distance")
    max_per_question: int = option(1, "at most so many pairs of a question")
    rejected: list[CandidateStatus] = option(["ok", "error"], "statuses that a rejected answer may have")
    seed: int = option(0, "of the random strategy")

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, max_per_question=1)
        if not self.rejected:
            raise ExcotError("--rejected names no status", "give at least one, such as ok")


@dataclass(kw_only=True)
class ScoreConfig(LoadingConfig, SelectiveConfig, ExecutingConfig, LongStageConfig):
    """Score a file of predictions, a model, or the run's own generations, by executing every answer."""

    predictions: str | None = option(
        None, "a file of answers: BIRD's JSON, Spider's one SQL a line, or JSONL", affects_output=False
    )
    format: Literal["bird", "lines", "jsonl"] | None = option(
        None, "what the file of predictions is, where its content does not tell"
    )
    missing: Literal["refuse", "wrong", "skip"] = option(
        "refuse", "questions without a prediction: refuse the file, count them as wrong, or leave them out"
    )
    name: str | None = option(None, "the scored system's name (default: the file's stem, or the model)")
    rule: RuleName | None = option(
        None, "the comparator that decides (default: test_suite for Spider's questions, set for all others)"
    )
    extras: list[Literal["soft_f1", "ves", "r_ves"]] | None = option(
        None, "what else to measure: BIRD's soft F1 (set), VES and R-VES (speed)"
    )
    repetitions: int = option(100, "how often ves and r_ves time each statement")
    timeout: float = option(30.0, "seconds that one statement may take")
    model_card: str | None = option(
        None, "a model's folder, into whose README.md the results are written as metadata", affects_output=False
    )
    model: str | None = option(None, "answer the questions with this model first (name, Azure deployment, or folder)")
    backend: Literal["openai", "azure", "transformers", "vllm", "tgi"] = option(
        "openai",
        "where the model is: an OpenAI-compatible endpoint, Azure OpenAI, a local folder through transformers or "
        "vLLM, or a text-generation-inference server",
    )
    n: int = option(1, "answers per question; with several, set --temperature too")
    temperature: float = option(0.0, "softmax temperature; 0 is greedy")
    top_p: float = option(1.0, "nucleus size")
    max_tokens: int = option(4096, "new tokens of one answer at most")
    seed: int = option(0, "from which every question's own seed is derived")
    prompt: str | None = option(
        None, "a prompt style or template (default: the one that the model was trained with, if excot trained it)"
    )
    base_url: str | None = option(
        None, "openai, azure, tgi: the endpoint, such as http://localhost:8000/v1", affects_output=False
    )
    concurrency: int = option(16, "questions in flight at once", affects_output=False)
    batch_size: int = option(16, "transformers: sequences generated together", affects_output=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        at_least(self, repetitions=1)
        at_least(self, n=1, temperature=0, top_p=0, max_tokens=1, concurrency=1, batch_size=1)
        at_most(self, top_p=1)
        if self.predictions and self.model:
            raise ExcotError("--predictions and --model are two sources of answers", "give one of them")
        if self.predictions is None and (self.format or self.missing != "refuse"):
            raise ExcotError("--format and --missing are for --predictions FILE", "give the file too")
        if self.name is not None and not self.name.isprintable():
            raise ExcotError(f"--name is {self.name!r}", "it takes a name on one line")
        _refuse_meaningless(self)


@dataclass(kw_only=True)
class CompareConfig:
    """Compare two scored systems on the same questions: is the gain more than noise?"""

    baseline: str = option(help="a run folder with one scored system, or FOLDER:SYSTEM", positional=True)
    system: str = option(help="the other one, whose gain over the baseline is asked for", positional=True)
    out: str | None = option(None, "a JSONL file to write every question to on which they differ")

    def __post_init__(self) -> None:
        check(self)


@dataclass(kw_only=True)
class DoctorConfig:
    """Check versions, data, databases and the endpoint, and say what is missing."""

    benchmark: Literal["spider", "bird", "folder"] | None = option(None, "whose layout the data has", positional=True)
    data: str | None = option(None, "the data folder to look through")
    backend: Literal["openai", "azure"] | None = option(None, "ask this endpoint whether it answers")
    model: str | None = option(None, "the model or deployment to look for at the endpoint")
    base_url: str | None = option(None, "openai: the endpoint, such as http://localhost:8000/v1")

    def __post_init__(self) -> None:
        check(self)
        if (self.data is None) != (self.benchmark is None):
            raise ExcotError("BENCHMARK and --data go together", "such as: excot doctor spider --data spider/")


@dataclass(kw_only=True)
class MetricConfig:
    """Let `evaluate` find the metric excot/exec_acc: in any folder of this machine, or as a Space of the Hub."""

    action: Literal["install", "push"] = option(
        help="install: into evaluate's cache on this machine; push: to the Space ORG/exec_acc", positional=True
    )
    org: str | None = option(None, "push: the organisation or user that the Space belongs to", positional=True)
    public: bool = option(False, "push: a new Space is for everybody to see; private otherwise")
    package: str | None = option(None, "push: from where the Space installs excot, as pip takes it (default: by name)")

    def __post_init__(self) -> None:
        check(self)
        if self.action == "push" and self.org is None:
            raise ExcotError("push does not know where to", "such as: excot metric push my-org")
        if self.action == "install" and (self.org or self.public or self.package):
            raise ExcotError("ORG, --public and --package are for push", "give none of them: excot metric install")
        if self.org is not None and "/" in self.org:
            raise ExcotError(
                f"ORG is {self.org!r}", f"give the name alone; the Space is {self.org.split('/')[0]}/exec_acc"
            )


@dataclass(kw_only=True)
class PushConfig:
    """Push a run folder to the Hub: all its datasets, its card and its manifest in one commit."""

    run: str = option(help="the run folder", positional=True)
    repo: str = option(help="the dataset repository: ORG/NAME", positional=True)
    tag: str | None = option(None, "tag the commit, such as v1")
    stages: list[str] | None = option(
        None, "only these datasets, such as verified pairs (default: all); what is there already is kept up to date"
    )
    public: bool = option(False, "a new repository is for everybody to see; private otherwise")
    create_pr: bool = option(False, "open a pull request instead of committing to main")
    overwrite_tag: bool = option(False, "move the tag if it exists")
    overwrite_remote: bool = option(False, "push although others have changed the repository since")
    message: str | None = option(None, "the commit's message")
    dry_run: bool = option(False, "say what would be uploaded, and do nothing")

    def __post_init__(self) -> None:
        check(self)
        if self.tag and self.create_pr:
            raise ExcotError("--tag and --create-pr contradict each other", "tag it once the pull request is merged")
        if self.overwrite_tag and not self.tag:
            raise ExcotError("--overwrite-tag is given without a tag", "give --tag NAME too")


@dataclass(kw_only=True)
class PullConfig:
    """Make a run folder of a dataset on the Hub, to go on from; or bring one up to date."""

    repo: str = option(help="the dataset repository: ORG/NAME, or ORG/NAME@REVISION", positional=True)
    run: str = option(help="the run folder to make or to bring up to date", positional=True)
    overwrite: bool = option(False, "where both sides have changed, take what is on the Hub")
    dry_run: bool = option(False, "say what would be downloaded, and do nothing")

    def __post_init__(self) -> None:
        check(self)


@dataclass(kw_only=True)
class LineageConfig:
    """Show what every dataset was made from, back to the questions and the databases."""

    source: str = option(help="ORG/NAME, ORG/NAME@REVISION, or a run folder", positional=True)

    def __post_init__(self) -> None:
        check(self)


@dataclass(kw_only=True)
class RunConfig:
    """Run the whole method by one file: a teacher's answers, SFT, DPO, and rounds of DPO on the model's own."""

    loop: str = option(help="the YAML file that says everything: see docs/loop.md", positional=True)
    from_round: int | None = option(
        None, "make this round and the later ones anew; 0 is all that is learned from the teacher's answers"
    )
    dry_run: bool = option(False, "say what would run, with rows, tokens, cost and hours, and do nothing")

    def __post_init__(self) -> None:
        check(self)
        at_least(self, from_round=0)


@dataclass(kw_only=True)
class DemoConfig:
    """Run the whole method on databases of our own, with a tiny model on this CPU, offline."""

    out: str = option("runs/demo", "the run folder to make")
    seed: int = option(0, "of the databases, the questions, the teacher and the model")
    quick: bool = option(False, "a few steps of everything, to see that it runs: the figures mean nothing")
    data_only: bool = option(False, "make the data and train nothing")

    def __post_init__(self) -> None:
        check(self)
        if self.quick and self.data_only:
            raise ExcotError("--quick and --data-only contradict each other", "give one of them")
