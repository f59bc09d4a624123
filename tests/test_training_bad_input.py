"""What cannot be trained on is refused in one line, before anything is written; a full disk leaves no half model."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from command import python
from planted import HUB_TOKEN
from training import World, environment, start, train

pytest.importorskip("trl")


@pytest.fixture
def refused(world: World, tmp_path: Path):
    """Trains, and gives the one line that says why not; nothing may have been written."""

    def refuse(stage: str = "sft", **options: Any) -> str:
        out = tmp_path / "model"
        done = train(stage, world.recipe(output_dir=out, **options))
        lines = [line for line in done.err.splitlines() if line.startswith("excot: ")]
        assert done.code in (1, 2) and len(lines) == 1 and "Traceback" not in done.err, done.err
        assert not out.exists() and not done.out
        return lines[0].removeprefix("excot: ")

    return refuse


@pytest.fixture
def model(world: World, tmp_path: Path) -> Path:
    """A copy of the world's model, to be spoiled."""
    return Path(shutil.copytree(world.nano, tmp_path / "spoiled"))


def spoil(path: Path, **changes: Any) -> None:
    values = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in {**values, **changes}.items() if value is not None}))


def rows(folder: Path, columns: dict[str, list[Any]]) -> str:
    folder.mkdir()
    pq.write_table(pa.table(columns), folder / "train.parquet")
    return str(folder)


def test_data_that_is_not_there_or_not_for_this_recipe(refused, world, tmp_path):
    assert refused(dataset_config="pears") == (
        f"{world.run} has no dataset config 'pears': it has questions, generations, verified, sft, pairs"
    )
    assert f"{world.run} has no column completion" in refused(dataset_config="pairs")
    assert "sft trains on --dataset_config sft" in refused(dataset_config="pairs")
    assert "has no column chosen, rejected" in refused("dpo", dataset_config="sft")
    assert "has no column question" in refused("grpo", dataset_config="sft", max_length=None, num_generations=2)
    error = refused(dataset_name="org/nowhere")
    assert "there is no folder org/nowhere, and the Hub is not asked while HF_HUB_OFFLINE is set" in error
    assert "has no split 'dev'" in refused(dataset_train_split="dev")
    assert "is a folder, which has no revision 'v1'" in refused(dataset_revision="v1")
    empty = rows(tmp_path / "empty", {"prompt": pa.array([], pa.string()), "completion": pa.array([], pa.string())})
    assert "empty" in refused(dataset_name=empty)
    plain = rows(tmp_path / "plain", {"prompt": ["a"], "completion": ["b"]})
    assert "the prompts of" in refused(dataset_name=plain) and "are plain text" in refused(dataset_name=plain)
    assert refused(dataset_streaming=True).startswith("a recipe does not stream its data")


def test_data_that_was_changed_by_hand(refused, world, tmp_path):
    run = Path(shutil.copytree(world.run, tmp_path / "run"))
    (file,) = (run / "sft").glob("*.parquet")
    table = pq.read_table(file)
    pq.write_table(table.slice(1), file)
    assert "is not the file that the manifest describes" in refused(dataset_name=str(run))


def test_rows_that_are_too_long(refused, world, tmp_path):
    assert "every row is over 20 tokens" in refused(max_length=20)
    error = refused(max_length=500)
    assert "rows (" in error and "are over 500 tokens" in error and "drop them with --allow_drops" in error
    done = train(
        "sft",
        world.recipe(
            output_dir=tmp_path / "out", model_name_or_path=world.nano, max_length=500, allow_drops=True, max_steps=1
        ),
    )
    assert done.code == 0 and "over the limit of 500 dropped" in done.err
    long = {"dataset_config": "questions", "max_length": None, "max_completion_length": 2040, "num_generations": 2}
    assert "every row is over 8 tokens" in refused("grpo", **long)


def test_too_few_questions_for_one_batch_of_grpo(refused):
    options = {"dataset_config": "questions", "max_length": None, "num_generations": 2, "max_completion_length": 8}
    assert "8 questions do not fill one generation batch of 16: nothing would be trained" in refused(
        "grpo", **options, gradient_accumulation_steps=16, test_split_size=0.93
    )


def test_rows_longer_than_the_models_context_are_too_long_whatever_max_length_says(refused, model, world):
    spoil(model / "config.json", max_position_embeddings=300)
    assert "every row is over 300 tokens" in refused(model_name_or_path=str(model), max_length=4096)


def test_a_tokenizer_that_cannot_be_trained_with(refused, model):
    (model / "chat_template.jinja").rename(model / "template.txt")
    assert "has no chat template: take the instruction-tuned model" in refused(model_name_or_path=str(model))
    (model / "template.txt").rename(model / "chat_template.jinja")
    spoil(model / "tokenizer_config.json", eos_token=None)
    assert "has no end token: an answer would never end" in refused(model_name_or_path=str(model))


def test_without_a_padding_token_the_end_token_pads_and_the_user_is_told(world, model, tmp_path):
    spoil(model / "tokenizer_config.json", pad_token=None)
    done = train("sft", world.recipe(output_dir=tmp_path / "out", model_name_or_path=model, max_steps=1))
    assert done.code == 0, done.err
    assert "has no padding token: its end token <|end|> is used" in done.err


def test_a_folder_that_is_no_model(refused, model, tmp_path):
    (tmp_path / "nothing").mkdir()
    assert "is no model: it has no config.json" in refused(model_name_or_path=str(tmp_path / "nothing"))
    assert "there is no ./nowhere" in refused(model_name_or_path="./nowhere")
    (model / "config.json").write_text("{")
    assert "cannot read the configuration of the model" in refused(model_name_or_path=str(model))


def test_weights_that_cannot_be_read(refused, model):
    (model / "model.safetensors").write_bytes(b"no weights")
    assert "cannot read the weights" in refused(model_name_or_path=str(model))
    (model / "model.safetensors").unlink()
    assert "has no weights" in refused(model_name_or_path=str(model))


def test_settings_that_make_no_sense(refused, world, tmp_path):
    assert refused(learning_rat=1) == "recipe sft: unknown option 'learning_rat': did you mean 'learning_rate'?"
    assert "invalid float value: 'fast': see --help" in refused(learning_rate="fast")
    assert "ex_dataset is given, but nothing is ever evaluated" in refused(ex_dataset=world.run)
    error = refused(eval_strategy="steps", eval_steps=1, metric_for_best_model="exec_acc", test_split_size=0.1)
    assert "metric_for_best_model is exec_acc, which is not measured" in error
    assert "give a --test_split_size" in refused(eval_strategy="steps", eval_steps=1)
    assert "hub_token is not taken from files or flags" in refused(hub_token=HUB_TOKEN)
    assert HUB_TOKEN not in refused(hub_token=HUB_TOKEN)
    assert "resume_from_checkpoint: there is no folder x" in refused(resume_from_checkpoint="x")
    assert "data was made with direct-" in refused(prompt="cot")


def test_a_recipe_file_is_read_before_torch_is(tmp_path):
    recipe = tmp_path / "recipe.yaml"
    program = (
        "import sys; from excot.training.launch import main\n"
        "code = main(sys.argv[1:]); assert not {'torch', 'transformers'} & sys.modules.keys(); exit(code)"
    )

    def said(text: str) -> str:
        recipe.write_text("model_name_or_path: org/model\ndataset_name: org/data\n" + text)
        process = python(program, "dpo", "--config", recipe)
        out, err = process.communicate()
        assert process.returncode == 2 and not out and err.count("\n") == 1
        return err.strip()

    at = f"excot: {recipe}: "
    assert said("max_lenght: 8192") == at + "unknown option 'max_lenght': did you mean 'max_length'?"
    assert said("beta: high") == at + "beta is 'high': it takes a number"
    assert said("loss_type: sigmoid") == at + "loss_type is 'sigmoid': it takes a list, such as [a, b]"
    assert said("num_train_epochs: [2]") == at + "num_train_epochs is [2]: it takes a number"
    assert said("bf16: 3") == at + "bf16 is 3: it takes true or false or null"
    assert said("databases: nowhere").startswith(at + "unknown option 'databases'")  # GRPO's
    assert said("ex_databases: nowhere") == "excot: ex_databases: there is no nowhere: check the path"
    assert said("deepspeed: ./ds.json") == "excot: deepspeed: there is no ./ds.json: check the path"
    assert "is not YAML" in said("a: [")


def test_numbers_as_yaml_writes_them_are_numbers(world, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text("learning_rate: 1e-6\nmax_steps: 7\n")  # YAML 1.1 takes 1e-6 for text
    done = train("sft", [*world.recipe(learning_rate=None, max_steps=None), "--config", str(recipe), "--plan"])
    assert done.code == 0, done.err
    assert "steps: 7 (max_steps" in done.out


@pytest.mark.slow
def test_a_disk_that_fills_up_leaves_one_line_and_no_half_model(world, tmp_path):
    out = tmp_path / "model"
    recipe = world.recipe(output_dir=out, max_steps=4, save_steps=2)
    most = 3 * (Path(world.model) / "model.safetensors").stat().st_size // 2

    def room() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))  # weights fit, the optimizer does not

    process = start("sft", recipe, preexec_fn=room)
    _, err = process.communicate()
    assert process.returncode == 1 and "Traceback" not in err
    (line,) = (line for line in err.splitlines() if line.startswith("excot: "))
    assert "the disk is full" in line and "start the same command again" in line
    assert not list(out.glob("*.safetensors")) and (out / "checkpoint-2").is_dir()
    done = train("sft", recipe)
    assert done.code == 0, done.err
    assert (out / "model.safetensors").is_file() and "going on from" not in done.err


def test_every_process_meets_the_error_and_one_says_it(world, tmp_path):
    process = python(
        "import runpy; runpy.run_module('excot.recipes.sft', run_name='__main__')",
        *world.recipe(output_dir=tmp_path, nonsense=1),
        environment={**environment(), "RANK": "1", "WORLD_SIZE": "2"},
    )
    assert process.communicate() == ("", "") and process.returncode == 2
