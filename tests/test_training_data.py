"""Which rows a recipe trains on, and which it holds out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import cot, judge, make_run, replay
from training import World, train

from excot.builders.sft import make_sft
from excot.config import SftConfig
from excot.errors import ExcotError

trl = pytest.importorskip("trl")

from excot.training.arguments import GrpoArguments, RecipeArguments  # noqa: E402
from excot.training.data import load_data  # noqa: E402


def load(stage: str, evaluates: bool = False, test_split_size: float | None = None, **options: Any):
    arguments = (GrpoArguments if stage == "grpo" else RecipeArguments)(**options)
    mixture = trl.DatasetMixtureConfig(test_split_size=test_split_size)
    return load_data(stage, arguments, mixture, evaluates)


@pytest.fixture
def run(tmp_path: Path) -> str:
    """Twelve questions; the first two have a right and a wrong answer."""
    out = make_run(tmp_path)
    replay(out, {0: [cot("SELECT name FROM item WHERE price > 0"), cot("SELECT 1")], 1: [cot("SELECT 4")]})
    judge(out)
    return out


def test_what_is_held_out_is_whole_questions_and_the_same_ones_at_every_stage(world: World):
    shares = {}
    for stage in ("sft", "dpo", "grpo"):
        everything = load(stage, dataset_name=world.run).train["id"]
        data = load(stage, True, 0.2, dataset_name=world.run)
        assert set(data.train["id"]).isdisjoint(data.held_out["id"])
        assert sorted([*data.train["id"], *data.held_out["id"]]) == sorted(everything)
        shares[stage] = set(data.held_out["id"])
    assert shares["sft"] <= shares["grpo"] and shares["dpo"] <= shares["grpo"]  # not every question gave a pair
    assert 15 < len(shares["grpo"]) < 45  # of 150
    assert load("sft", False, 0.2, dataset_name=world.run).held_out is None


def test_grpo_reads_questions_under_the_prompt_of_the_run(world: World):
    data = load("grpo", dataset_name=world.run)
    assert set(data.train.column_names) == {"id", "db_id", "gold_sql", "prompt"}
    assert data.prompt_id.startswith("direct-") and data.prompt.id == data.prompt_id
    by_id = {row["id"]: row["prompt"] for row in load("sft", dataset_name=world.run).train}
    rows = [row for row in data.train if row["id"] in by_id]
    assert len(rows) > 100 and all(row["prompt"] == by_id[row["id"]] for row in rows)


def test_grpo_leaves_out_questions_whose_gold_is_known_to_be_unusable(run, tmp_path):
    from excot.run import Run

    usable = [row["id"] for row in Run(run).read("verified") if row["gold"]["status"] == "ok"]
    assert 0 < len(usable)
    data = load("grpo", dataset_name=run, dataset_config="verified")
    assert list(data.train["id"]) == usable
    assert len(load("grpo", dataset_name=run).train) == 12


def test_grpo_leaves_out_questions_without_a_database_and_says_so(run, tmp_path, caplog):
    shutil.rmtree(tmp_path / "data" / "database" / "zoo")
    assert set(load("grpo", dataset_name=run).train["db_id"]) == {"shop"}
    assert "4 questions have no database file: zoo" in caplog.text
    (tmp_path / "empty").mkdir()
    with pytest.raises(ExcotError, match="no question has a database in .*empty: check --databases"):
        load("grpo", dataset_name=run, databases=str(tmp_path / "empty"))


def test_a_mixture_is_trained_on_as_one_and_each_part_is_named(world: World, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    parts = [{"path": world.run, "name": "sft"}, {"path": world.run, "name": "sft"}]
    recipe.write_text(yaml.safe_dump({"datasets": parts}))
    out = tmp_path / "model"
    words = world.recipe(model_name_or_path=world.nano, dataset_name=None, output_dir=out, max_steps=1)
    done = train("sft", [*words, "--config", str(recipe)])
    assert done.code == 0, done.err
    record = json.loads((out / "training.json").read_text())
    assert record["rows"] == 2 * len(load("sft", dataset_name=world.run).train)
    assert [(part["name"], part["config"]) for part in record["data"]] == [(world.run, "sft")] * 2
    assert record["prompt_id"].startswith("direct-")


def test_data_made_under_different_prompts_is_not_mixed(world: World, run):
    make_sft(SftConfig(out=run))
    parts = [{"path": world.run, "name": "sft"}, {"path": run, "name": "sft"}]
    with pytest.raises(ExcotError, match="the data was made with different prompts: direct-.*, divide_and_conquer-"):
        load_data("sft", RecipeArguments(), trl.DatasetMixtureConfig(datasets=parts), False)
