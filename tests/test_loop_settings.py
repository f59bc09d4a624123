"""A loop's file: the ones that we ship, what their steps are, and what a step is told of a model."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from command import ROOT, excot

from excot.config import VerifyConfig
from excot.loop.settings import Settings, read_settings
from excot.loop.steps import all_steps

pytest.importorskip("trl")

SHIPPED = {path.parent.name: path.read_text("utf-8") for path in sorted((ROOT / "recipes").glob("*/loop.yaml"))}
SHOWN = re.findall(r"^```yaml\n(.*?)^```$", (ROOT / "docs" / "loop.md").read_text("utf-8"), re.M | re.S)
FILES = {**SHIPPED, **{f"docs {place}": text for place, text in enumerate(SHOWN)}}


def read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Read a file of ours from the root, from where its paths are seen."""
    path = tmp_path / "loop.yaml"
    path.write_text(FILES[name])
    monkeypatch.chdir(ROOT)
    return read_settings(str(path))


def test_there_are_files_for_a_gpu_and_for_a_cpu_and_both_are_explained():
    assert {*SHIPPED} >= {"tiny-llama", "qwen2.5-coder-7b-lora"} and len(SHOWN) == 2


@pytest.mark.parametrize("name", FILES)
def test_every_file_of_ours_is_understood_and_its_commands_too(name, tmp_path, monkeypatch):
    from excot import cli
    from excot.options import from_dict

    settings = read(name, tmp_path, monkeypatch)
    steps = all_steps(settings)
    assert len({step.name for step in steps}) == len(steps)
    for step in steps:
        if step.kind != "train":
            flags = vars(cli._parser().parse_args(step.words[1:]))
            verb = flags.pop("verb")
            del flags["debug"]
            from_dict(cli.VERBS[verb].options, flags, step.name)
    assert isinstance(settings.verify.options, VerifyConfig)
    assert settings.offpolicy.data.options.strategy == "farthest"
    assert settings.onpolicy.data.options.strategy == "nearest"


def test_vllm_is_told_an_adapters_base_and_every_round_draws_by_another_seed(tmp_path, monkeypatch):
    settings = read("qwen2.5-coder-7b-lora", tmp_path, monkeypatch)
    student, out = "Qwen/Qwen2.5-Coder-7B-Instruct", "runs/spider-qwen-7b"
    steps = {step.name: " ".join(step.words) for step in all_steps(settings)}
    assert f"--model {student}" in steps["score_base"] and "--adapter" not in steps["score_base"]
    assert f"--model {student} --adapter {out}/models/sft" in steps["score_sft"]
    assert f"--seed 1 --model {student} --adapter {out}/models/dpo " in steps["generations_round1"]
    assert f"--seed 2 --model {student} --adapter {out}/models/dpo_round1 " in steps["generations_round2"]
    assert f"--model_name_or_path {out}/models/dpo_round1" in steps["dpo_round2"]
    assert "--prompt divide_and_conquer" in steps["score_base"]


def test_the_default_is_two_rounds_and_no_early_stop(tmp_path, monkeypatch):
    values = yaml.safe_load(FILES["tiny-llama"])
    del values["rounds"], values["onpolicy"]["data"], values["offpolicy"]["data"]
    monkeypatch.setitem(FILES, "plain", yaml.safe_dump(values))
    settings = read("plain", tmp_path, monkeypatch)
    assert (settings.rounds, settings.stop_early, settings.skip_all_right) == (2, False, False)
    assert settings.onpolicy.data.options.strategy == "nearest"


def test_a_loop_without_onpolicy_ends_after_the_teachers_pairs(tmp_path, monkeypatch):
    values = yaml.safe_load(FILES["tiny-llama"])
    del values["onpolicy"]
    monkeypatch.setitem(FILES, "short", yaml.safe_dump({**values, "rounds": 0}))
    steps = all_steps(read("short", tmp_path, monkeypatch))
    assert [step.name for step in steps][-1] == "score_dpo"


def test_what_generate_is_told_to_leave_out_it_does_not_ask(tmp_path):
    from chain import make_run, rows_of
    from command import done

    out = make_run(tmp_path, 6)
    ids = [row["id"] for row in rows_of(out, "questions")]
    (tmp_path / "list.jsonl").write_text("".join(f'{{"id": "{id}"}}\n' for id in ids[:2]))
    ask = ("generate", "--backend", "teacher", "--n", 2, "--out", out, "--exclude", tmp_path / "list.jsonl")
    done(*ask)
    assert [row["id"] for row in rows_of(out, "generations")] == ids[2:]
    assert done(*ask).startswith("already there: ")
    (tmp_path / "list.jsonl").write_text("".join(f'{{"id": "{id}"}}\n' for id in ids))
    assert "leaves out every question" in excot(*ask, "--overwrite").error()
