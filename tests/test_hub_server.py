"""The tests' Hub as a whole: it begins, serves whole programs, and ends."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from committed import BIRDS, LARGE, QUIET, added, refused
from datasets import Dataset, DatasetDict, load_dataset
from httpx2 import ConnectError
from hub import HubServer
from huggingface_hub import HfApi, HfFileSystem

pytestmark = QUIET


def test_going_online_again_forgets_what_was_looked_up(hub, api, monkeypatch, tmp_path):
    for name in ("a.txt", "b.txt"):
        hub.put("dataset", BIRDS, {name: "1"})
        hub.online(monkeypatch, tmp_path)
        assert f"datasets/{BIRDS}/{name}" in HfFileSystem().ls(f"datasets/{BIRDS}", detail=False)


def test_what_the_server_does_not_know_is_noted(hub, api):
    with refused(status=404):
        api.list_lfs_files(BIRDS, repo_type="dataset").__next__()
    with refused(status=404):
        api.delete_repo(BIRDS, repo_type="dataset")
    assert hub.unknown == [f"GET /api/datasets/{BIRDS}/lfs-files", "DELETE /api/repos/delete"]
    hub.unknown.clear()


def test_what_went_wrong_in_the_server_comes_out(monkeypatch, tmp_path):
    hub = HubServer()
    hub.__enter__()
    hub.online(monkeypatch, tmp_path)
    hub.watch = lambda request: 1 / 0
    with refused(status=501):
        HfApi().whoami()
    with pytest.raises(ZeroDivisionError):
        hub.__exit__()


def test_the_server_ends(monkeypatch, tmp_path):
    before = {*threading.enumerate()}
    with HubServer() as hub:
        hub.online(monkeypatch, tmp_path)
        HfApi().whoami()
    for thread in {*threading.enumerate()} - before:
        thread.join(5)
        assert not thread.is_alive()  # though the client keeps its connection open
    with pytest.raises(ConnectError):
        HfApi().whoami()


# Whole programs


def rows(count: int) -> Dataset:
    return Dataset.from_dict({"question": [f"q{n}" for n in range(count)], "n": list(range(count))})


def test_datasets_are_pushed_and_loaded(hub, tmp_path):
    rows(50).push_to_hub("birds", "questions", private=True)
    DatasetDict(train=rows(5), dev=rows(2)).push_to_hub("tester/birds", "pairs", set_default=False)
    HfApi().create_tag("tester/birds", tag="v1", repo_type="dataset")
    rows(7).push_to_hub("tester/birds", "questions", num_shards=2)
    assert rows(9).push_to_hub("tester/birds", "questions", create_pr=True).pr_revision == "refs/pr/1"
    rows(3).push_to_hub("tester/birds", "questions", revision="trial")

    assert hub.repos["dataset", "tester/birds"].private
    assert sorted(added(hub, repo="tester/birds")) == [
        "README.md",
        "pairs/dev-00000-of-00001.parquet",
        "pairs/train-00000-of-00001.parquet",
        "questions/train-00000-of-00002.parquet",
        "questions/train-00001-of-00002.parquet",  # the one shard of the first push is gone
    ]
    pushed = len(hub.requests)
    counts = {
        revision: load_dataset("tester/birds", "questions", split="train", revision=revision).num_rows
        for revision in (None, "v1", "refs/pr/1", "trial", hub.repos["dataset", "tester/birds"].tags["v1"].oid)
    }
    assert [*counts.values()] == [7, 50, 9, 3, 50]
    assert load_dataset("tester/birds", "pairs")["dev"].to_list() == rows(2).to_list()
    assert (tmp_path / "home" / "datasets" / "tester___birds").is_dir()
    stream = load_dataset("tester/birds", "questions", split="train", streaming=True)
    assert list(stream.take(4)) == rows(4).to_list()
    assert not any(str(request) in hub.writes for request in hub.requests[pushed:])


PROGRAM = """
import json, sys
from datasets import Dataset, load_dataset
from huggingface_hub import HfApi, get_token, snapshot_download
from transformers import AutoConfig, AutoTokenizer

Dataset.from_dict({"n": [1, 2, 3]}).push_to_hub("team/numbers", "questions")
tokenizer = AutoTokenizer.from_pretrained("team/tiny", revision="v1")
print(json.dumps({
    "rows": load_dataset("team/numbers", "questions", split="train")["n"][:],
    "dtype": load_dataset("team/numbers", "questions", split="train").info.features["n"].dtype,
    "model_type": AutoConfig.from_pretrained("team/tiny").model_type,
    "tokens": tokenizer.tokenize("select name from singer"),
    "chat": tokenizer.apply_chat_template([{"role": "user", "content": "name"}], tokenize=False),
    "snapshot": snapshot_download("team/tiny"),
    "user": HfApi().whoami()["name"],
    "token": get_token(),
}))
"""


def tiny_model() -> dict[str, str]:
    """The files of a tokenizer that knows four words, and a config."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {word: number for number, word in enumerate(["[UNK]", "select", "name", "from"])}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    settings = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]"}
    return {
        "tokenizer.json": tokenizer.to_str(),
        "tokenizer_config.json": json.dumps(settings),
        "chat_template.jinja": "{% for message in messages %}<{{ message.content }}>{% endfor %}",
        "config.json": json.dumps({"model_type": "llama", "vocab_size": 4}),
    }


def test_transformers_in_this_process_follow_from_one_server_to_the_next(monkeypatch, tmp_path):
    from transformers import AutoTokenizer

    for number in range(2):
        with HubServer() as hub:
            hub.put("model", "team/tiny", tiny_model())
            hub.online(monkeypatch, tmp_path / str(number))
            assert AutoTokenizer.from_pretrained("team/tiny").tokenize("name of") == ["name", "[UNK]"]
            assert hub.seen("^GET /api/models/team/tiny$") and hub.unknown == []


def test_another_process_has_all_it_needs_in_its_environment(tmp_path):
    """A push and loads of all kinds, also of a private model, where the environment at first says to stay offline."""
    home = tmp_path / "home"
    with HubServer() as hub:
        hub.put("model", "team/tiny", tiny_model(), private=True)
        hub.repos["model", "team/tiny"].tags["v1"] = hub.put("model", "team/tiny", {"weights.bin": LARGE})
        offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_TOKEN": "other", "HF_HUB_CACHE": "/none"}
        environment = {**os.environ, **offline, **hub.environment(home)}
        run = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
        assert run.returncode == 0, run.stderr
        found = json.loads(run.stdout)
        snapshot = Path(found.pop("snapshot"))
        assert snapshot.is_relative_to(home / "hub") and (snapshot / "weights.bin").read_bytes() == LARGE
        assert found == {
            "rows": [1, 2, 3],
            "dtype": "int64",
            "model_type": "llama",
            "tokens": ["select", "name", "from", "[UNK]"],
            "chat": "<name>",
            "user": "tester",
            "token": hub.token,
        }
        assert "questions/train-00000-of-00001.parquet" in added(hub, repo="team/numbers")
        assert hub.unknown == []
    assert not any(hub.token.encode() in path.read_bytes() for path in home.rglob("*") if path.is_file())
