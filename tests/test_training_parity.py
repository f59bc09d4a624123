"""The recipes learn exactly what TRL's own scripts learn, and see exactly the tokens that TRL sees."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from training import World, environment, train

pytest.importorskip("trl")


def trajectory(folder: Path) -> list[tuple[float, float]]:
    """Loss and gradient norm of every step."""
    (state,) = folder.glob("checkpoint-*/trainer_state.json")
    return [
        (entry["loss"], entry["grad_norm"])
        for entry in json.loads(state.read_text())["log_history"]
        if "grad_norm" in entry
    ]


@pytest.mark.slow
@pytest.mark.parametrize(("stage", "config"), [("sft", "sft"), ("dpo", "pairs")])
def test_the_losses_are_those_of_trls_own_script(stage, config, world: World, tmp_path):
    options = {"max_steps": 4, "learning_rate": 5e-4, "num_train_epochs": 2, "dataset_config": config}
    ours = train(stage, world.recipe(output_dir=tmp_path / "ours", **options))
    assert ours.code == 0, ours.err
    script = [sys.executable, "-m", f"trl.scripts.{stage}"]
    theirs = subprocess.run(
        [*script, *world.recipe(output_dir=tmp_path / "theirs", **options)],
        env=environment(),
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert theirs.returncode == 0, theirs.stderr
    expected = trajectory(tmp_path / "theirs")
    assert len(expected) == 4 and len({loss for loss, _ in expected}) == 4
    for one, other in zip(trajectory(tmp_path / "ours"), expected, strict=True):
        assert one == pytest.approx(other, abs=1e-6)


@pytest.mark.parametrize("stage", ["sft", "dpo"])
def test_the_length_gate_measures_what_the_trainer_sees(stage, world: World, tmp_path):
    import trl
    from datasets import load_dataset
    from transformers import AutoTokenizer

    from excot.training.lengths import drop_overlong

    rows = load_dataset(world.run, {"sft": "sft", "dpo": "pairs"}[stage], split="train")
    tokenizer = AutoTokenizer.from_pretrained(world.model)

    def seen_by_trainer(rows, limit):
        config = (
            getattr(trl, f"{stage.upper()}Config")(
                str(tmp_path), max_length=limit, use_cpu=True, bf16=False, report_to="none", shuffle_dataset=False
            )
            if stage == "sft"
            else trl.DPOConfig(str(tmp_path), max_length=limit, use_cpu=True, bf16=False, report_to="none")
        )
        trainer = getattr(trl, f"{stage.upper()}Trainer")(world.model, args=config, train_dataset=rows)
        if stage == "sft":
            return [len(row["input_ids"]) for row in trainer.train_dataset]
        return [
            len(row["prompt_ids"]) + max(len(row["chosen_ids"]), len(row["rejected_ids"]))
            for row in trainer.train_dataset
        ]

    lengths = seen_by_trainer(rows, None)
    limit = sorted(lengths)[-6]  # five rows are over it
    kept, summary = drop_overlong(rows, tokenizer, stage, limit, allow_drops=False)
    assert (summary.rows, summary.longest, summary.dropped) == (len(rows), max(lengths), len(rows) - len(kept))
    expected = [id for id, length in zip(rows["id"], lengths, strict=True) if length <= limit]
    assert kept["id"] == expected
    assert seen_by_trainer(kept, limit) == [length for length in lengths if length <= limit]  # nothing is truncated
    assert drop_overlong(rows, tokenizer, stage, max(lengths), allow_drops=False)[0] is rows
