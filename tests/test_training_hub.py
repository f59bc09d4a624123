"""Training from a dataset on the Hub at a tag, and the model pushed there: through the real clients, to a stand-in."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from hub import HubServer
from training import World, train

pytest.importorskip("trl")


@pytest.fixture
def hub(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The Hub with the world's run folder at tag v1, after which main has moved on to something else."""
    with HubServer() as server:
        server.online(monkeypatch, tmp_path / "home")
        files = {
            str(path.relative_to(world.run)): path.read_bytes()
            for path in Path(world.run).rglob("*")
            if path.is_file() and ".excot" not in path.parts
        }
        commit = server.put("dataset", "team/shop", files)
        server.repos["dataset", "team/shop"].tags["v1"] = commit
        server.put("dataset", "team/shop", {"README.md": "# moved on\n"})
        yield server


def test_the_data_of_a_tag_and_the_prompt_beside_it_are_found_and_named_on_the_card(hub, world, tmp_path):
    out = tmp_path / "model"
    options = {"dataset_name": "team/shop", "dataset_revision": "v1", "max_steps": 1, "output_dir": out}
    done = train("sft", world.recipe(model_name_or_path=world.nano, **options))
    assert done.code == 0, done.err
    record = json.loads((out / "training.json").read_text())
    (data,) = record["data"]
    commit = hub.repos["dataset", "team/shop"].tags["v1"]
    assert (data["name"], data["revision"], data["local"]) == ("team/shop", "v1", False)
    assert data["commit"] == commit.oid
    manifest = json.loads((Path(world.run) / "manifest.json").read_text())
    assert data["fingerprint"] == manifest["stages"]["sft"]["fingerprint"]
    assert record["prompt_id"] == manifest["stages"]["generations"]["prompt_id"]
    assert (out / "prompt.jinja").read_text() == next((Path(world.run) / "prompts").iterdir()).read_text()
    card = (out / "README.md").read_text()
    assert "| data | team/shop@v1, config `sft` (commit `" in card
    assert yaml.safe_load(card.split("---\n")[1])["datasets"] == ["team/shop"]


def test_what_is_not_on_the_hub_is_said_in_one_line(hub, world, tmp_path):
    def line(**options: str) -> str:
        done = train("sft", world.recipe(output_dir=tmp_path / "model", **options))
        assert done.code == 1 and not (tmp_path / "model").exists()
        (found,) = (text for text in done.err.splitlines() if text.startswith("excot: "))
        return found

    assert "the dataset team/shop has no revision 'v2'" in line(dataset_name="team/shop", dataset_revision="v2")
    assert "there is no folder team/gone, and there is no dataset team/gone on the Hub" in line(
        dataset_name="team/gone"
    )
    error = line(dataset_name="team/shop", dataset_revision="v1", dataset_config="pears")
    assert "team/shop@v1 has no dataset config 'pears': it has questions, generations, verified, sft, pairs" in error
    databases = train(
        "grpo",
        world.recipe(
            output_dir=tmp_path / "model",
            dataset_name="team/shop",
            dataset_revision="v1",
            max_length=None,
            num_generations=2,
            max_completion_length=8,
        ),
    )
    assert "where the databases of team/shop@v1 are is not known: give their folder to --databases" in databases.err


def test_the_finished_model_is_pushed_private_and_without_its_checkpoints(hub, world, tmp_path):
    out = tmp_path / "model"
    shutil.copytree(world.run, tmp_path / "data")
    options = {"dataset_name": tmp_path / "data", "save_steps": 1, "push_to_hub": True, "hub_model_id": "team/tiny"}
    done = train("sft", world.recipe(model_name_or_path=world.nano, output_dir=out, **options))
    assert done.code == 0, done.err
    assert f"pushed to {hub.url}/team/tiny" in done.out
    repo = hub.repos["model", "team/tiny"]
    files = repo.files("main")
    assert repo.private
    assert files["model.safetensors"] == (out / "model.safetensors").read_bytes()
    assert {"README.md", "config.json", "prompt.jinja", "tokenizer.json", "training.json"} <= files.keys()
    assert not any("checkpoint" in name or name.startswith(".") for name in files.keys() - {".gitattributes"})
    assert not any(hub.token.encode() in content for content in files.values())
    front = yaml.safe_load(files["README.md"].decode().split("---\n")[1])
    assert front["pipeline_tag"] == "text-generation" and "base_model" not in front and "datasets" not in front


def test_a_push_that_is_not_allowed_fails_before_training(hub, world, tmp_path):
    options = {"push_to_hub": True, "hub_model_id": "strangers/tiny"}
    done = train("sft", world.recipe(output_dir=tmp_path / "model", **options))
    assert done.code == 1 and "Traceback" not in done.err
    (line,) = (text for text in done.err.splitlines() if text.startswith("excot: "))
    assert (
        'the Hub refused (403 Forbidden: You don\'t have the rights to write under the namespace "strangers".' in line
    )
    assert "'loss'" not in done.out


def test_a_push_that_breaks_off_leaves_the_model_and_says_how_to_push_it(hub, world, tmp_path):
    out = tmp_path / "model"
    hub.fail_next("/commit/", status=403)
    done = train(
        "sft",
        world.recipe(
            model_name_or_path=world.nano, output_dir=out, push_to_hub=True, hub_model_id="team/tiny", max_steps=1
        ),
    )
    assert done.code == 1 and "Traceback" not in done.err
    assert f"excot: the model is in {out}, but could not be pushed (403 Forbidden" in done.err
    assert f"push it with: hf upload team/tiny {out} --exclude 'checkpoint-*'" in done.err
    assert json.loads((out / "training.json").read_text())["finished"] and (out / "model.safetensors").is_file()
