"""What a recipe may say, known without torch; --plan; `excot train`."""

from __future__ import annotations

import dataclasses
import re

import pytest
from command import excot, python
from hypothesis import given
from hypothesis import strategies as st
from training import World, train

from excot.training.data import is_held_out
from excot.training.launch import _split
from excot.training.settings import STAGES, known_options

pytest.importorskip("trl")


@pytest.mark.parametrize("stage", STAGES)
def test_the_options_read_off_the_sources_are_those_of_the_classes(stage):
    import trl

    from excot.training.arguments import GrpoArguments, RecipeArguments

    ours = GrpoArguments if stage == "grpo" else RecipeArguments
    classes = (ours, getattr(trl, f"{stage.upper()}Config"), trl.ModelConfig, trl.DatasetMixtureConfig)
    expected = {f.name for cls in classes for f in dataclasses.fields(cls) if f.init}
    assert known_options(stage).keys() == expected
    assert known_options(stage)["learning_rate"] == {"float"}
    assert known_options(stage)["lr_scheduler_kwargs"] == {"dict", "str", "None"}
    assert known_options(stage)["report_to"] == {"None", "str", "list"}


@pytest.mark.parametrize("stage", STAGES)
def test_every_recipe_explains_its_options(stage):
    process = python("import sys; from excot.cli import main; sys.exit(main(sys.argv[1:]))", "train", stage, "--help")
    out, err = process.communicate()
    assert process.returncode == 0, err
    assert {"--learning_rate", "--ex_dataset", "--allow_drops", "--plan", "--lora_r"} <= set(re.findall(r"--\w+", out))
    assert ("--reward_executes" in out) == (stage == "grpo")


def test_train_takes_the_launchers_options_out_and_leaves_the_rest(tmp_path):
    config = tmp_path / "zero3.yaml"
    config.touch()
    words = ["--config", "r.yaml", "--accelerate_config", str(config), "--num-processes=4", "--beta", "0.2"]
    assert _split(words) == (
        ["--config_file", str(config), "--num_processes", "4"],
        ["--config", "r.yaml", "--beta", "0.2"],
    )


def test_train_says_in_one_line_what_it_cannot_do(tmp_path):
    assert excot("train", "rlhf").error() == "no recipe 'rlhf': train takes sft, dpo, grpo"
    error = excot("train", "sft", "--accelerate_config", "nowhere.yaml").error()
    assert error == "--accelerate_config: there is no nowhere.yaml: give one of accelerate_configs/"
    assert excot("train", "sft", "--num_processes").error() == "--num_processes has no value: give it one"
    assert excot("train", "sft").error().startswith("model_name_or_path is missing")
    assert excot("train").code == 2 and "usage: excot train" in excot("train", "--help").out


@pytest.mark.slow
def test_train_hands_over_to_accelerate_and_gives_its_exit_code(world: World, tmp_path):
    program = "import sys; from excot.cli import main; sys.exit(main(sys.argv[1:]))"
    options = world.recipe(output_dir=tmp_path / "model", model_name_or_path=world.nano, max_steps=1)
    config = tmp_path / "cpu.yaml"
    config.write_text('compute_environment: LOCAL_MACHINE\ndistributed_type: "NO"\nuse_cpu: true\n')
    for words, code in ((options, 0), (options, 1)):
        process = python(program, "train", "sft", "--accelerate_config", config, *words)
        _, err = process.communicate()
        assert process.returncode == code, err
    assert (tmp_path / "model" / "model.safetensors").is_file()
    assert "already holds a finished model" in err and "Traceback" not in err  # the second time


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("shape", [(2, 1), (2, 3), (4, 2)])
def test_the_planned_steps_are_the_steps_that_are_taken(stage, shape, world: World, tmp_path):
    batch, accumulated = shape
    options = {
        "num_train_epochs": 2,
        "max_steps": -1,
        "model_name_or_path": world.nano,
        "per_device_train_batch_size": batch,
        "gradient_accumulation_steps": accumulated,
        "test_split_size": 0.93,  # few rows are left to train on
    }
    if stage == "grpo":
        options |= {"max_length": None, "num_generations": 2, "max_completion_length": 4}
    planned = train(stage, world.recipe(output_dir=tmp_path / "plan", plan=True, **options))
    assert planned.code == 0 and not (tmp_path / "plan").exists(), planned.err
    assert f"global batch: {batch * accumulated} = " in planned.out
    steps = int(re.search(r"steps: (\d+)", planned.out)[1])
    done = train(stage, world.recipe(output_dir=tmp_path / "done", save_strategy="no", **options))
    assert f"{steps} steps; the model is in" in done.out, done.err


@given(st.lists(st.text(), min_size=1, unique=True), st.floats(0, 1), st.floats(0, 1))
def test_a_question_that_is_held_out_stays_so_when_more_are(keys, one, other):
    small, large = sorted((one, other))
    assert all(is_held_out(key, large) for key in keys if is_held_out(key, small))
    assert not any(is_held_out(key, 0.0) for key in keys) and all(is_held_out(key, 1.0) for key in keys)


def test_about_as_many_are_held_out_as_asked_for():
    count = sum(is_held_out(f"spider-train-{number:04d}", 0.1) for number in range(10_000))
    assert 880 < count < 1120  # four standard deviations
