"""The recipes: each one is planned as a user would, on a model of the real size, and has the settings it claims."""

from __future__ import annotations

import math
import re
import shlex
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import ROOT, log_restored
from training import make_world, train

from excot.run import Run

pytest.importorskip("trl")

STAGES = {"sft": "sft", "dpo_offpolicy": "dpo", "dpo_onpolicy": "dpo", "grpo": "grpo"}
METHOD = ("llama-3.1-8b-instruct", "llama-3.1-70b-instruct", "qwen2.5-coder-32b-instruct")
LORA = ("qwen2.5-coder-7b-lora", "qwen2.5-coder-0.5b-lora")
CPU = ("smollm2-135m", "tiny-llama")
MODELS = (*METHOD, *LORA, *CPU)
RECIPES = [f"{model}/{stage}" for model in MODELS for stage in STAGES]

LLAMA, QWEN = "LlamaConfig", "Qwen2Config"
SIZES = {  # configuration class, hidden size, layers, MLP, heads, key and value heads, vocabulary, tied, parameters
    "llama-3.1-8b-instruct": (LLAMA, 4096, 32, 14336, 32, 8, 128256, False, 8.03e9),
    "llama-3.1-70b-instruct": (LLAMA, 8192, 80, 28672, 64, 8, 128256, False, 70.6e9),
    "qwen2.5-coder-32b-instruct": (QWEN, 5120, 64, 27648, 40, 8, 152064, False, 32.8e9),
    "qwen2.5-coder-7b-lora": (QWEN, 3584, 28, 18944, 28, 4, 152064, False, 7.6e9),
    "qwen2.5-coder-0.5b-lora": (QWEN, 896, 24, 4864, 14, 2, 151936, True, 0.494e9),
    "smollm2-135m": (LLAMA, 576, 30, 1536, 9, 3, 49152, True, 134.5e6),
}
GIB = 2**30


def path_of(recipe: str) -> Path:
    return ROOT / "recipes" / f"{recipe}.yaml"


def values_of(recipe: str) -> dict[str, Any]:
    return yaml.safe_load(path_of(recipe).read_text("utf-8"))


def stage_of(recipe: str) -> str:
    return STAGES[recipe.split("/")[1]]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Iterator[str]:
    """A small run folder with all that recipes read; what `datasets` caches of it goes with it."""
    import datasets

    folder = tmp_path_factory.mktemp("recipes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(datasets.config, "HF_DATASETS_CACHE", folder / "cache")
        yield make_world(folder, n=2).run


@pytest.fixture(scope="module")
def model_of(data, tmp_path_factory) -> Callable[[str], str]:
    """Makes a recipe's model as far as a plan needs it: the real configuration, a small tokenizer and no weights."""
    import transformers

    from excot.demo import model as tiny

    folder = tmp_path_factory.mktemp("models")
    tokenizer = tiny.make_tokenizer(tiny.texts_of(Run(data)))

    def make(name: str) -> str:
        path = folder / name
        if path.is_dir():
            return str(path)
        if name == "tiny-llama":
            assert tiny.main([data, str(path)]) == 0  # the command that the recipe names
            return str(path)
        kind, hidden, layers, mlp, heads, key_heads, vocabulary, tied, _ = SIZES[name]
        getattr(transformers, kind)(
            hidden_size=hidden,
            num_hidden_layers=layers,
            intermediate_size=mlp,
            num_attention_heads=heads,
            num_key_value_heads=key_heads,
            vocab_size=vocabulary,
            tie_word_embeddings=tied,
            max_position_embeddings=8192,
        ).save_pretrained(path)
        tokenizer.save_pretrained(path)
        return str(path)

    return make


@dataclass(frozen=True)
class Planned:
    """What ``--plan`` printed."""

    text: str

    def number(self, pattern: str) -> float:
        """The first group of a pattern that must be there."""
        found = re.search(pattern, self.text, re.MULTILINE)
        assert found, f"{pattern} is not in\n{self.text}"
        return float(found[1].replace(",", ""))


@pytest.fixture(scope="module")
def plan_of(data, model_of) -> Callable[..., Planned]:
    """Plans a recipe through its script, each once."""
    plans: dict[tuple[str, ...], Planned] = {}

    def plan(recipe: str, *flags: str) -> Planned:
        key = (recipe, *flags)
        if key not in plans:
            words = ["--config", str(path_of(recipe)), "--dataset_name", data, "--plan", *flags]
            words += ["--model_name_or_path", model_of(recipe.split("/")[0])]
            done = train(stage_of(recipe), words)
            assert done.code == 0, done.err
            plans[key] = Planned(done.out)
        return plans[key]

    return plan


@pytest.fixture(scope="module")
def parsed(data, model_of) -> Callable[[str], dict[str, Any]]:
    """All options of a recipe with their values, as its script parses them."""

    def parse(recipe: str) -> dict[str, Any]:
        from excot.training.script import run

        seen: dict[str, Any] = {}
        # With --plan a recipe for GPUs parses on a machine without one.
        words = ["--config", str(path_of(recipe)), "--model_name_or_path", model_of(recipe.split("/")[0]), "--plan"]
        script = import_module(f"excot.recipes.{stage_of(recipe)}")
        with warnings.catch_warnings(), log_restored():
            warnings.simplefilter("error", FutureWarning)
            assert run(stage_of(recipe), script.make_parser, lambda *args: seen.update(everything(args)), words) == 0
        return seen

    return parse


def everything(args: tuple[Any, ...]) -> dict[str, Any]:
    return {name: value for part in args for name, value in vars(part).items()}


def test_every_model_has_the_same_four_recipes():
    assert sorted(
        str(path.relative_to(ROOT / "recipes")) for path in (ROOT / "recipes").glob("*/*") if path.name != "loop.yaml"
    ) == sorted(f"{recipe}.yaml" for recipe in RECIPES)


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_plan_says_the_global_batch_the_steps_and_the_memory(recipe, plan_of, data):
    values, plan = values_of(recipe), plan_of(recipe)
    name, stage = recipe.split("/")[0], stage_of(recipe)
    gpus = values["plan_gpus"]

    batch = plan.number(r"^global batch: ([\d,]+) = ")
    parts = [plan.number(part) for part in (r"= (\d+) a device", r"x (\d+) accumulated", r"x (\d+) process")]
    assert math.prod(parts) == batch and parts[2] == gpus
    if name in METHOD and stage != "grpo":
        assert batch == {"sft": 128, "dpo": 64}[stage]

    rows = plan.number(r"^rows: ([\d,]+) rows")
    assert rows == sum(1 for _ in Run(data).read(values["dataset_config"]))
    steps = plan.number(r"^steps: ([\d,]+) ")
    if stage == "grpo":
        questions = plan.number(r"answers to (\d+) questions")
        assert steps == values["max_steps"] and questions * values["num_generations"] == batch
        rounds = values.get("steps_per_generation", parts[1])  # in which the questions drawn at once are used up
        an_epoch = math.ceil(rows // (questions * rounds / parts[1]) * rounds / parts[1])
        assert plan.number(r"max_steps; ([\d.]+) epochs\)") == float(f"{steps / an_epoch:.2g}")
    else:
        assert steps == values["num_train_epochs"] * math.ceil(rows / batch)
        assert ("warm up" in plan.text) == ("warmup_steps" in values)
    if "warmup_steps" in values:
        assert plan.number(r"the first (\d+) to warm up") == math.ceil(steps * values["warmup_steps"])


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if "tiny" not in recipe])
def test_a_plan_knows_the_parameters_and_what_they_take(recipe, plan_of):
    values, plan = values_of(recipe), plan_of(recipe)
    parameters = plan.number(r"^memory of .* for ([\d,]+) parameters")
    assert parameters == pytest.approx(SIZES[recipe.split("/")[0]][-1], rel=0.01)
    gpus = values["plan_gpus"]
    assert ("one GPU" if gpus == 1 else f"each of {gpus} GPUs") in plan.text
    if "use_peft" in values:
        frozen = plan.number(r"the frozen weights in bfloat16: +([\d,.]+) GiB")
        assert frozen == pytest.approx(2 * parameters / GIB, rel=0.01, abs=0.06)
        assert 0 < plan.number(r"the adapter of r 16 .*: ([\d,.]+) GiB") < frozen
        return
    whole = plan.number(r"^  (?:every GPU holds all|without ZeRO) +([\d,.]+) GiB")
    assert whole == pytest.approx(16 * parameters / GIB, rel=0.01, abs=0.06)  # weights, gradients and two moments
    assert "reference model" not in plan.text  # its log-probabilities are computed before
    assert ("vLLM on top" in plan.text) == values.get("use_vllm", False)
    if find_spec("deepspeed") is None:
        assert "pip install 'excot[deepspeed]'" in plan.text
    elif gpus > 1:
        split = plan.number(r"^  ZeRO-3 +([\d,.]+) GiB")
        assert split == pytest.approx(18 * parameters / gpus / GIB, rel=0.15)  # and the largest layer
        assert split < 60 < 0.8 * whole  # it fits GPUs of 80 GB so, and not otherwise


def test_a_plan_counts_the_reference_model_where_it_stays_in_memory(plan_of):
    plan = plan_of("llama-3.1-8b-instruct/dpo_offpolicy", "--precompute_ref_log_probs", "false")
    assert plan.number(r"the reference model on top of that: ([\d.]+) GiB") == pytest.approx(29.9, abs=0.1)


def test_a_plan_says_that_too_few_questions_give_no_step(plan_of):
    plan = plan_of("tiny-llama/grpo", "--gradient_accumulation_steps", "1000")
    assert "steps: none, as 150 questions do not fill one generation batch" in plan.text


def test_the_documented_plan_is_what_is_printed(plan_of):
    pytest.importorskip("deepspeed")
    (shown,) = re.findall(
        r"\$ python .* --plan\n(.*?)```", (ROOT / "docs" / "training.md").read_text("utf-8"), re.DOTALL
    )
    printed = plan_of("llama-3.1-8b-instruct/sft").text
    # Tokens and steps are those of other rows; what the model and the recipe decide is the same.
    assert [line.split(":")[0].split(" of ")[0] for line in printed.splitlines()[:6]] == [
        line.split(":")[0].split(" of ")[0] for line in shown.splitlines()[:6]
    ]
    assert shown.splitlines()[3] == printed.splitlines()[3]
    assert shown.splitlines()[5:] == printed.splitlines()[5:]


@pytest.mark.parametrize("recipe", RECIPES)
def test_no_option_is_deprecated_and_none_is_left_to_a_surprising_default(recipe, parsed):
    values, options = values_of(recipe), parsed(recipe)  # a deprecated option would have raised
    said = {name: options[name] for name in values if name not in ("model_name_or_path", "lora_target_modules")}
    assert said == {name: values[name] for name in said}
    assert {"learning_rate", "activation_checkpointing", "seed", "save_steps"} <= values.keys()
    length = "max_completion_length" if stage_of(recipe) == "grpo" else "max_length"
    assert length in values
    assert "gradient_checkpointing" not in values
    on_cpu = recipe.split("/")[0] in CPU
    assert options["activation_checkpointing"] == (not on_cpu)
    assert options["bf16"] == (not on_cpu) and values.get("use_cpu", False) == on_cpu


@pytest.mark.parametrize("model", METHOD)
def test_the_methods_settings(model, parsed):
    sft = parsed(f"{model}/sft")
    assert (sft["learning_rate"], sft["weight_decay"], sft["lr_scheduler_type"]) == (1e-5, 0.1, "linear")
    assert (sft["max_length"], sft["num_train_epochs"], sft["warmup_steps"]) == (8192, 2, 0)
    assert sft["completion_only_loss"] is not False
    for stage in ("dpo_offpolicy", "dpo_onpolicy"):
        dpo = parsed(f"{model}/{stage}")
        assert (dpo["learning_rate"], dpo["beta"], dpo["loss_type"]) == (1e-6, 0.1, ["sigmoid"])
        assert (dpo["warmup_steps"], dpo["num_train_epochs"], dpo["max_length"]) == (0.1, 2, 8192)
        assert dpo["lr_scheduler_type"] == "linear" and dpo["precompute_ref_log_probs"]


@pytest.mark.parametrize("recipe", [recipe for recipe in RECIPES if recipe.endswith("grpo")])
def test_grpo_rewards_what_executes(recipe, parsed):
    options = parsed(recipe)
    assert (options["reward_right"], options["reward_executes"], options["reward_wrong"]) == (1.0, 0.1, 0.0)
    assert options["num_generations"] == (8 if recipe.split("/")[0] in CPU else 16)
    assert "not in the paper" in path_of(recipe).read_text().splitlines()[0]
    assert options["generation_batch_size"] % options["num_generations"] == 0
    if tensor_parallel := options["use_vllm"] and options["vllm_tensor_parallel_size"]:
        assert 8 % tensor_parallel == 0  # within a machine


@pytest.mark.parametrize("model", MODELS)
def test_each_stage_starts_from_what_the_stage_before_wrote_and_writes_to_a_place_of_its_own(model):
    recipes = {stage: values_of(f"{model}/{stage}") for stage in STAGES}
    written = {stage: values["output_dir"] for stage, values in recipes.items()}
    started = {stage: values["model_name_or_path"] for stage, values in recipes.items()}
    places = {"sft": "sft", "dpo_offpolicy": "dpo-1", "dpo_onpolicy": "dpo-2", "grpo": "grpo"}
    assert written == {stage: f"models/{model}/{place}" for stage, place in places.items()}
    assert started["sft"] not in written.values()
    assert started["dpo_offpolicy"] == started["grpo"] == written["sft"]
    assert started["dpo_onpolicy"] == written["dpo_offpolicy"]
    kinds = {stage: values["dataset_config"] for stage, values in recipes.items()}
    assert kinds == {"sft": "sft", "dpo_offpolicy": "pairs", "dpo_onpolicy": "pairs", "grpo": "questions"}
    # Pairs of a strong model would make "on-policy" a lie, so its placeholder is another folder.
    assert recipes["dpo_onpolicy"]["dataset_name"] == recipes["dpo_offpolicy"]["dataset_name"] + "-dpo-1"


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_head_of_a_recipe_is_the_command_that_runs_it(recipe):
    text = path_of(recipe).read_text("utf-8")
    head = "\n".join(line[2:] for line in text.split("\n\n")[0].splitlines() if line.startswith("# "))
    what, _, command = head.partition("\n")
    words = shlex.split(command.replace("\\\n", " "))
    script = words.index(f"recipes/{stage_of(recipe)}.py")
    assert words[script + 1 : script + 4 : 2] == ["--config", "--dataset_name"]
    assert words[script + 2] == f"recipes/{recipe}.yaml"
    values = values_of(recipe)
    assert words[script + 4] == values["dataset_name"]
    if words[0] == "python":
        assert what.endswith("on a CPU:") and script == 1 and values["plan_gpus"] == 1
        return
    assert words[:3] == ["accelerate", "launch", "--config_file"]
    launcher = dict(zip(words[2:script:2], words[3:script:2], strict=True))
    config = yaml.safe_load((ROOT / launcher["--config_file"]).read_text("utf-8"))
    processes = int(launcher.get("--num_processes", config["num_processes"]))
    machines = int(launcher.get("--num_machines", config["num_machines"]))
    assert processes == values["plan_gpus"] == 8 * machines or processes == values["plan_gpus"] == 1
    assert ("one GPU" if processes == 1 else f"{processes} GPUs") in what
    if machines > 1:
        assert f"each of the {machines} nodes" in what and {"--main_process_ip", "--machine_rank"} <= launcher.keys()


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_short_and_says_where_its_values_come_from(recipe):
    lines = path_of(recipe).read_text("utf-8").splitlines()
    assert 20 <= len(lines) <= 35 and max(map(len, lines)) <= 119
    plain = {"dataset_config", "output_dir", "gradient_accumulation_steps", "plan_gpus", "use_cpu", "seed"}
    plain |= {"model_name_or_path", "save_total_limit"}
    values = values_of(recipe)
    per_device, accumulated = values["per_device_train_batch_size"], values["gradient_accumulation_steps"]
    product = f"{per_device} x {accumulated}" + (f" x {values['plan_gpus']} GPUs" if values["plan_gpus"] > 1 else " =")
    assert f"per_device_train_batch_size: {per_device} # ours: {product}" in "\n".join(lines)
    for line in lines:
        if line and not line.startswith("#"):
            assert "#" in line or line.split(":")[0] in plain, line
