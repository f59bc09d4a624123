"""What a model's folder says of itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub import HubServer
from huggingface_hub import hf_hub_download

from excot.models import model_commit, model_record, trained_prompt

RECORD = {
    "excot": "0.1.0",
    "stage": "dpo",
    "model": {"name": "org/base", "revision": "main", "commit": "c0ffee", "local": False, "adapter": None},
    "data": [
        {"name": "team/shop", "config": "pairs", "revision": "v1", "commit": "d1ce", "fingerprint": "f1"}
        | {"local": False}
    ],
    "prompt_id": "cot-12345678",
    "settings": {"learning_rate": 1e-6},
}


def test_a_trained_model_says_what_it_was_made_from_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "training.json").write_text(json.dumps(RECORD))
    assert model_record(str(tmp_path)) == {
        "stage": "dpo",
        "model": {"name": "org/base", "revision": "main", "commit": "c0ffee", "adapter": None},
        "data": [{"name": "team/shop", "config": "pairs", "revision": "v1", "commit": "d1ce", "fingerprint": "f1"}],
        "prompt_id": "cot-12345678",
    }
    assert trained_prompt(str(tmp_path)) == "cot-12345678"


@pytest.mark.parametrize("text", [None, "{", "[1]", "{}", '{"prompt_id": 3}', '{"model": "a", "data": [1]}', "\x00"])
def test_a_folder_that_says_nothing_that_can_be_read_has_no_record(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "training.json").write_text(text)
    assert model_record(str(tmp_path)) is None and trained_prompt(str(tmp_path)) is None


def test_what_is_no_folder_has_no_record(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("org/base", str(tmp_path / "gone"), str(tmp_path / "file"), "", "a\x00b"):
        assert model_record(name) is None and trained_prompt(name) is None


def test_a_model_without_a_record_may_name_its_prompt_in_its_configuration(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"prompt_id": "direct-1"}))
    assert trained_prompt(str(tmp_path)) == "direct-1" and model_record(str(tmp_path)) is None


@pytest.mark.parametrize("revision", [None, "main", "v1"])
def test_a_model_of_the_hub_is_known_by_the_commit_that_was_loaded(
    hub: HubServer, tmp_path: Path, revision: str | None
) -> None:
    commit = hub.put("model", "team/base", {"config.json": b"{}"})
    hub.repos["model", "team/base"].tags["v1"] = commit
    assert model_commit("team/base", revision) is None  # nothing has been loaded
    hf_hub_download("team/base", "config.json", revision=revision)
    hub.put("model", "team/base", {"config.json": b'{"moved": "on"}'})
    assert model_commit("team/base", revision) == commit.oid
    for name in (str(tmp_path), "models/of/mine", "a b", "team/other"):
        assert model_commit(name, revision) is None
