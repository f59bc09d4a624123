"""What goes wrong between a run folder and the Hub is said in one line, with the remedy; both stay as they were."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command import done, excot
from pushed import REPO, copy, here, make_finished, there


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_finished(tmp_path_factory.mktemp("finished"))


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    return copy(finished, tmp_path / "run")


def refused(*words: object) -> str:
    """The one line by which a command is refused."""
    finished = excot(*words)
    assert finished.code == 1, finished.out
    (line,) = (line for line in finished.err.splitlines() if line.startswith("excot: "))
    assert "Traceback" not in finished.err
    return line.removeprefix("excot: ")


# Who one is, and where to


@pytest.mark.parametrize(
    ("token", "expected"),
    [
        ("", "the Hub does not know who you are: hf auth login, or set HF_TOKEN"),
        ("hf_isNoTokenOfAnybody", "the Hub does not know your token: make another one"),
        ("read", "you may not write to the dataset team/shop ("),
    ],
)
def test_a_push_needs_a_token_that_may_write(hub, run, monkeypatch, tmp_path, token, expected):
    token = hub.read_token if token == "read" else token
    hub.online(monkeypatch, tmp_path / "other", token=token)
    error = refused("push", run, REPO)
    assert error.startswith(expected) and (not token or token not in error)
    assert hub.repos == {}


def test_a_repository_of_others_is_not_written_to(hub, run):
    assert "you may not write to the dataset stranger/shop" in refused("push", run, "stranger/shop")
    hub.put("dataset", "stranger/shop", {"README.md": "# Theirs\n"})
    assert "you may not write" in refused("push", run, "stranger/shop")
    assert there(hub, repo="stranger/shop") == {"README.md": b"# Theirs\n"}


@pytest.mark.parametrize("name", ["no name!/x", "a/b/c", "team/..", "team/-x-", "-", "team/" + "x" * 120])
def test_a_name_that_no_repository_can_have(hub, run, tmp_path, name):
    assert "cannot be the name of a repository" in refused("push", run, name)
    assert "cannot be the name of a repository" in refused("pull", name, tmp_path / "new")
    assert hub.writes == [] and not (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", ["model", "space"])
def test_a_name_that_is_taken_by_something_else(hub, run, tmp_path, kind):
    hub.put(kind, REPO, {"README.md": "# No dataset\n"})
    for words in (("push", run, REPO), ("pull", REPO, tmp_path / "new"), ("lineage", REPO)):
        assert (
            refused(*words) == f"{REPO} is a {kind} on the Hub, not a dataset: give another name, such as {REPO}-data"
        )
    assert ("dataset", REPO) not in hub.repos


def test_what_is_not_there_is_named(hub, run, monkeypatch, tmp_path):
    new = tmp_path / "new"
    assert refused("pull", "team/gone", new).startswith("there is no dataset team/gone on the Hub that your token may")
    done("push", run, REPO)
    assert refused("pull", f"{REPO}@v9", new).startswith(f"the dataset {REPO} has no revision 'v9'")
    assert refused("lineage", f"{REPO}@v9").startswith(f"the dataset {REPO} has no revision 'v9'")
    hub.online(monkeypatch, tmp_path / "home", token="")
    assert "without a token" in refused("pull", REPO, new)
    assert not new.exists()


# What is pushed


def test_a_folder_that_is_no_run_folder(hub, run, tmp_path):
    (tmp_path / "empty").mkdir()
    for folder in ("empty", "missing"):
        assert "is no run folder" in refused("push", tmp_path / folder, REPO)
    assert "no dataset" in refused("push", run, REPO, "--stages", "pears")
    assert "has no pairs_round1 yet" in refused("push", run, REPO, "--stages", "pairs_round1")
    assert [request for request in hub.writes if "create" not in request] == []


def test_data_that_is_not_what_the_manifest_says_is_not_pushed(hub, run):
    (shard,) = (run / "pairs").glob("*.parquet")
    shard.write_bytes(shard.read_bytes() + b"x")
    assert f"{shard} is not the file that the manifest describes" in refused("push", run, REPO)
    assert REPO not in str(hub.seen("/commit/"))


def test_stale_data_is_not_pushed(hub, run):
    done("verify", "--timeout", 4, "--overwrite", "--out", run, "--processes", 1)
    error = refused("push", run, REPO)
    assert "was made from an earlier verified" in error and "anew" in error


# What the Hub answers


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (409, "changed while it was being written"),
        (412, "changed while it was being written"),
        (413, "a file is too large for the Hub"),
        (429, "the Hub takes no more requests for now"),
        (500, "the Hub fails (status 500"),
        (503, "the Hub fails (status 503"),
        (418, "the Hub refused team/shop (status 418"),
    ],
)
def test_a_commit_that_fails_can_be_repeated(hub, run, status, expected):
    hub.fail_next("/commit/", status, times=100)
    assert expected in refused("push", run, REPO)
    hub.mend()
    done("push", run, REPO)
    assert there(hub) == here(run)


@pytest.mark.parametrize(
    "pattern", ["validate-yaml", "preupload", "objects/batch", "PUT /lfs", "repos/create", "/tag/"]
)
@pytest.mark.parametrize("status", [500, 429, None])
def test_whatever_fails_it_is_one_line_and_can_be_repeated(hub, run, pattern, status):
    hub.fail_next(pattern, status, times=100)
    assert "Hub" in refused("push", run, REPO, "--tag", "v1")
    hub.mend()
    done("push", run, REPO, "--tag", "v1")
    assert there(hub, "v1") == here(run)


@pytest.mark.parametrize("status", [429, 503, None])
def test_failures_that_pass_are_waited_out(hub, run, monkeypatch, tmp_path, status):
    monkeypatch.setattr("excot.hub.asking.PAUSES", (0, 0, 0))
    for pattern in ("preupload", "objects/batch", "PUT /lfs", "/tree/", "/refs", "/commit/", "/tag/"):
        hub.fail_next(pattern, status)
    finished = excot("push", run, REPO, "--tag", "v1")
    assert finished.code == 0 and "trying again" in finished.err
    assert there(hub, "v1") == here(run)
    hub.fail_next("/resolve/", status, times=3)
    done("pull", REPO, tmp_path / "new")
    assert here(tmp_path / "new") == here(run)


def test_a_machine_that_is_told_to_stay_offline(run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert refused("push", run, REPO) == "the Hub is not asked while HF_HUB_OFFLINE is set: unset it"


def test_a_signed_address_never_reaches_an_error(hub, run):
    from excot.hub.asking import without_queries

    text = "403 for url 'https://s3.example/lfs/1?X-Amz-Signature=abc&x=1' (try https://x.example/y?token=z)."
    assert without_queries(text) == "403 for url 'https://s3.example/lfs/1' (try https://x.example/y)."


# What others have put there


def manifest_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "manifest.json").read_text())


@pytest.mark.parametrize(
    "text", ["[]", "{", '{"stages": []}', '{"stages": {"pairs": {}}}', '{"stages": {"pears": {}}}', "null"]
)
def test_a_manifest_that_is_not_excots_is_refused(hub, run, tmp_path, text):
    hub.put("dataset", REPO, {"manifest.json": text})
    for words in (("pull", REPO, tmp_path / "new"), ("push", run, REPO), ("lineage", REPO)):
        assert f"manifest.json of {REPO} is not one of excot's" in refused(*words)


def test_a_dataset_without_a_manifest_is_no_run_folder(hub, tmp_path):
    hub.put("dataset", REPO, {"train.csv": "a,b\n1,2\n"})
    assert f"{REPO} is no dataset of excot's: it has no manifest.json" in refused("pull", REPO, tmp_path / "new")


@pytest.mark.parametrize(
    "name", ["pairs/../../../evil.parquet", "/etc/evil.parquet", "pairs/..", "../pairs/x.parquet"]
)
def test_a_manifest_cannot_lead_out_of_the_folder(hub, run, tmp_path, name):
    manifest = manifest_of(run)
    manifest["stages"]["pairs"]["files"] = {name: "0" * 64}
    hub.put("dataset", REPO, {"manifest.json": json.dumps(manifest)})
    assert "is not one of excot's" in refused("pull", REPO, tmp_path / "new")


def test_a_machines_own_files_are_not_taken_from_others(hub, run, tmp_path):
    done("push", run, REPO)
    hub.put("dataset", REPO, {".excot/local.json": '{"databases": "/theirs"}', ".bashrc": "rm -rf /"})
    done("pull", REPO, tmp_path / "new")
    assert "theirs" not in (tmp_path / "new" / ".excot" / "local.json").read_text()
    assert not (tmp_path / "new" / ".bashrc").exists()


def test_a_file_that_is_not_what_its_manifest_says_is_not_taken_over(hub, run, tmp_path):
    done("push", run, REPO)
    (name,) = (path for path in there(hub) if path.startswith("pairs/"))
    hub.put("dataset", REPO, {name: b"PAR1 something else"})
    assert f"{name} of {REPO} is not the file that its manifest.json describes" in refused(
        "pull", REPO, tmp_path / "new"
    )
    assert not (tmp_path / "new" / "manifest.json").exists()
