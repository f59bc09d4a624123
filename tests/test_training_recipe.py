"""The recipe beside a trained model: with it the same model is trained again; and the code of its card runs."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import yaml
from hub import HubServer
from training import CPU, World, train, words

from excot.demo.data import make_data
from excot.training.recipe import recipe_text

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

LORA = {"use_peft": True, "lora_r": 4, "lora_dropout": 0.1, "lora_target_modules": ["q_proj", "v_proj"]}
CASES = {
    "sft": {"lr_scheduler_kwargs": '{"num_cycles": 0.4}', "lr_scheduler_type": "cosine"},
    "dpo": {"loss_type": ["sigmoid", "sft"], "learning_rate": 1e-4, **LORA},
    "grpo": {
        "dataset_config": "questions",
        "prompt": "direct",
        "max_length": None,
        "num_generations": 2,
        "max_completion_length": 8,
    },
}


def weights(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    (file,) = folder.glob("*model.safetensors")
    return load_file(file)


@pytest.mark.parametrize("stage", CASES)
def test_the_saved_recipe_trains_the_same_model_again(stage, world: World, tmp_path, monkeypatch):
    monkeypatch.setenv("EXCOT_TEST_KEY", "")  # set by the recipe, and gone after the test
    settings = {"model_name_or_path": world.nano, "dataset_name": world.run, **CPU, **CASES[stage]}
    settings = {name: value for name, value in settings.items() if value is not None}
    flags = {name: settings.pop(name) for name in (*CASES[stage], "bf16", "report_to") if name in settings}
    recipe = tmp_path / "mine.yaml"
    text = yaml.safe_dump({**settings, "env": {"EXCOT_TEST_KEY": "hidden"}, "learning_rate": 9.0, "max_steps": 99})
    recipe.write_text(text.replace("0.001", "1e-3"))  # which YAML takes for text
    flags = {"learning_rate": 1e-3, **flags, "max_steps": 2, "save_strategy": "no"}
    out, again = tmp_path / "out", tmp_path / "again"
    done = train(stage, ["--config", str(recipe), *words(flags), "--output_dir", str(out), "--overwrite"])
    assert done.code == 0, done.err

    saved = yaml.safe_load((out / "recipe.yaml").read_text())
    assert (saved["max_steps"], saved["seed"], saved["dataset_name"]) == (2, 3, world.run)
    assert not {"config", "env", "output_dir", "overwrite", "model_revision", "dataset_revision"} & saved.keys()
    assert set(saved) == {*settings, *flags}
    done = train(stage, ["--config", str(out / "recipe.yaml"), "--output_dir", str(again)])
    assert done.code == 0, done.err
    assert (again / "recipe.yaml").read_text() == (out / "recipe.yaml").read_text()
    one, other = (json.loads((folder / "training.json").read_text()) for folder in (out, again))
    assert all(one[name] == other[name] for name in ("stage", "model", "data", "prompt_id", "rows", "settings"))
    left, right = weights(out), weights(again)
    assert left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


def test_no_secret_is_kept_and_nothing_of_where_a_run_writes_and_asks():
    given = {
        "output_dir": "out",
        "env": {"WANDB_API_KEY": "hidden"},
        "hub_model_id": "team/hidden",
        "push_to_hub": True,
        "vllm_server_base_url": "http://hidden:8000",
        "resume_from_checkpoint": "hidden",
        "model_init_kwargs": '{"token": "hidden", "dtype": "float32"}',
        "generation_kwargs": {"eos_token": "</s>", "nested": [{"api_key": "hidden", "top_k": 3}]},
        "eos_token": "{end}",
        "use_vllm": True,
    }
    record = {
        "stage": "grpo",
        "excot": "0.1.0",
        "model": {"name": "a/b", "local": False, "commit": "c"},
        "data": [{"name": "d", "local": True, "commit": None}],
    }
    text = recipe_text(given, record)
    assert "hidden" not in text
    assert yaml.safe_load(text) == {
        "model_init_kwargs": {"dtype": "float32"},
        "generation_kwargs": {"eos_token": "</s>", "nested": [{"top_k": 3}]},
        "eos_token": "{end}",
        "use_vllm": True,
    }


def test_what_is_of_the_hub_is_pinned_and_pushed_with_the_model(world: World, tmp_path, monkeypatch):
    with HubServer() as hub:
        hub.online(monkeypatch, tmp_path / "home")
        train_and_push(hub, world, tmp_path)


def train_and_push(hub: HubServer, world: World, tmp_path: Path) -> None:
    files = {
        str(path.relative_to(world.run)): path.read_bytes()
        for path in Path(world.run).rglob("*")
        if path.is_file() and ".excot" not in path.parts
    }
    commit = hub.put("dataset", "team/shop", files)
    hub.repos["dataset", "team/shop"].tags["v1"] = commit
    base = {path.name: path.read_bytes() for path in Path(world.nano).iterdir()}
    base_commit = hub.put("model", "team/base", base)
    options = {"dataset_name": "team/shop", "dataset_revision": "v1", "max_steps": 1}
    options |= {"push_to_hub": True, "hub_model_id": "team/tiny"}
    out = tmp_path / "model"
    done = train("sft", world.recipe(model_name_or_path="team/base", output_dir=out, **options))
    assert done.code == 0, done.err
    pushed = hub.repos["model", "team/tiny"].files("main")
    saved = yaml.safe_load(pushed["recipe.yaml"])
    assert list(saved)[:4] == ["model_name_or_path", "model_revision", "dataset_name", "dataset_revision"]
    assert list(saved.values())[:4] == ["team/base", base_commit.oid, "team/shop", commit.oid]
    assert "hub_model_id" not in saved and "prompt.jinja" in pushed
    card = pushed["README.md"].decode()
    assert "hf download team/tiny recipe.yaml" in card and 'name = "team/tiny"' in card

    hub.put("dataset", "team/shop", {"README.md": b"# moved on\n"})
    hub.put("model", "team/base", {"model.safetensors": b"others", "tokenizer.json": b"others"})
    done = train("sft", ["--config", str(out / "recipe.yaml"), "--output_dir", str(tmp_path / "again")])
    assert done.code == 0, done.err
    one, other = weights(out), weights(tmp_path / "again")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("adapter", [False, True])
def test_the_code_in_the_card_asks_the_model(adapter, world: World, tmp_path, monkeypatch, capsys):
    out = tmp_path / "tiny"
    settings = {"model_name_or_path": world.nano, "max_steps": 1, **(LORA if adapter else {})}
    done = train("sft", world.recipe(output_dir=out, **settings))
    assert done.code == 0, done.err
    (database,) = list(make_data(tmp_path / "data", 0).rglob("*.sqlite"))[:1]
    monkeypatch.chdir(tmp_path)
    with sqlite3.connect(database) as connection, sqlite3.connect("my.sqlite") as copy:
        connection.backup(copy)
    (code,) = re.findall(r"```python\n(.*?)```", (out / "README.md").read_text(), re.DOTALL)
    exec(code.replace("max_new_tokens=1024", "max_new_tokens=4"), {})
    assert capsys.readouterr().out == "None\n"  # four tokens hold no SQL
