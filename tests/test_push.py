"""What is pushed is what others load, tag by tag and round by round; what they have done meanwhile is not lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chain import make_run
from command import done, excot
from datasets import Dataset, load_dataset
from pushed import CONFIGS, REPO, copy, go_on, here, make_finished, rows, there, write_words

from excot.hub.card import BEGIN
from excot.stages import dataset_name


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
    return [line for line in finished.err.splitlines() if line.startswith("excot: ")][0].removeprefix("excot: ")


# What others load


def test_every_config_loads_from_the_hub_at_its_tag_as_it_is_here_whole_and_streamed(hub, run):
    out = done("push", run, REPO, "--tag", "v1")
    assert f'next: load_dataset("{REPO}", "scores", revision="v1")' in out
    for name in CONFIGS:
        (whole,) = load_dataset(REPO, name, revision="v1").values()
        (streamed,) = load_dataset(REPO, name, revision="v1", streaming=True).values()
        assert list(whole) == list(streamed) == rows(run, name), name
    default = load_dataset(REPO, split="train")
    assert list(default) == rows(run, "pairs")
    assert there(hub, "v1") == here(run)


def test_a_push_is_one_commit_and_a_second_one_sends_nothing(hub, run):
    done("push", run, REPO, "--tag", "v1")
    assert len(hub.seen("POST .*/commit/")) == 1 and hub.repos["dataset", REPO].private
    before = len(hub.writes)
    assert "12 there already" in done("push", run, REPO, "--tag", "v1")
    assert hub.writes[before:] == []


def test_only_what_is_new_is_sent(hub, run):
    done("push", run, REPO)
    sent = len(hub.seen("PUT /lfs"))
    go_on(run)
    out = done("push", run, REPO)
    assert len(hub.seen("PUT /lfs")) - sent == 3  # generations, verified and pairs of the new round
    assert "6 files uploaded" in out and "9 there already" in out


def test_what_was_made_anew_takes_the_place_of_the_old(hub, run):
    done("push", run, REPO, "--tag", "v1")
    done("pairs", "--strategy", "farthest", "--overwrite", "--out", run)
    assert "1 removed" in done("push", run, REPO, "--tag", "v2")
    assert there(hub) == here(run)
    strategies = [load_dataset(REPO, "pairs", split="train", revision=tag)[0]["strategy"] for tag in ("v1", "v2")]
    assert strategies == ["nearest", "farthest"]


def test_rounds_stand_side_by_side_and_every_tag_keeps_loading(hub, run):
    done("push", run, REPO, "--tag", "round0")
    off_policy = rows(run, "pairs")
    for round in (1, 2):
        go_on(run, round=round, seed=round)
        done("push", run, REPO, "--tag", f"round{round}")
    for round in range(3):
        name = dataset_name("pairs", round)
        pairs = rows(run, name)
        assert list(load_dataset(REPO, name, revision="round2", split="train")) == pairs
        assert list(load_dataset(REPO, revision=f"round{round}", split="train")) == pairs  # the newest by default
    assert list(load_dataset(REPO, "pairs", revision="round0", split="train")) == off_policy
    with pytest.raises(ValueError, match="pairs_round1"):
        load_dataset(REPO, "pairs_round1", revision="round0")


# Going on elsewhere


def test_what_is_pulled_is_equal_to_the_byte_and_goes_on(hub, run, finished, tmp_path):
    done("push", run, REPO, "--tag", "v1")
    elsewhere = tmp_path / "elsewhere"
    out = done("pull", f"{REPO}@v1", elsewhere)
    assert "give --databases" in out
    assert here(elsewhere) == here(run)
    assert done("pairs", "--out", elsewhere).startswith("already there: ")
    go_on(elsewhere, finished.parent / "data" / "database")
    done("push", elsewhere, REPO, "--tag", "v2")
    assert here(elsewhere) == there(hub, "v2")
    assert list(load_dataset(REPO, "pairs_round1", revision="v2", split="train")) == rows(elsewhere, "pairs_round1")


def test_a_pull_brings_a_folder_up_to_date_and_keeps_what_it_has_of_its_own(hub, run, tmp_path):
    done("push", run, REPO)
    other = tmp_path / "other"
    done("pull", REPO, other)
    done("sft", "--choose", "shortest", "--overwrite", "--out", run)
    write_words(run, "Mind the third question.")
    done("push", run, REPO)
    done("pairs", "--strategy", "farthest", "--overwrite", "--out", other)
    own = rows(other, "pairs")
    assert "changed" in refused("push", other, REPO)
    done("pull", REPO, other)
    assert rows(other, "sft") == rows(run, "sft") and rows(other, "pairs") == own
    assert "Mind the third question." in (other / "README.md").read_text()
    done("push", other, REPO)
    assert here(other) == there(hub)


def test_what_both_have_changed_is_refused_and_taken_over_when_told(hub, run, tmp_path):
    done("push", run, REPO)
    other = tmp_path / "other"
    done("pull", REPO, other)
    done("pairs", "--strategy", "farthest", "--overwrite", "--out", run)
    done("pairs", "--strategy", "random", "--overwrite", "--out", other)
    for folder, words in ((run, "Ours."), (other, "Theirs.")):
        write_words(folder, words)
    done("push", run, REPO)
    before = here(other)
    error = refused("pull", REPO, other)
    assert "have changed pairs, your words in README.md" in error and "--overwrite" in error
    assert here(other) == before
    done("pull", "--overwrite", REPO, other)
    assert here(other) == here(run) == there(hub)


def test_a_repository_that_has_moved_is_refused_with_what_changed_and_replaced_when_told(hub, run, tmp_path):
    done("push", run, REPO)
    other = copy(run, tmp_path / "other")
    go_on(other)
    done("push", other, REPO)
    hub.put("dataset", REPO, {"notes.md": "From somebody else."})
    before = there(hub)
    done("pairs", "--strategy", "random", "--overwrite", "--out", run)
    error = refused("push", run, REPO)
    for words in ("generations_round1 new", "pairs_round1 new", "notes.md new", f"excot pull {REPO} {run}"):
        assert words in error
    assert there(hub) == before
    done("push", "--overwrite-remote", run, REPO)
    assert there(hub) == {**here(run), "notes.md": b"From somebody else."}


def test_a_pull_never_takes_the_place_of_something_else(hub, run, tmp_path):
    done("push", run, REPO)
    home = tmp_path / "home-folder"
    home.mkdir()
    (home / "thesis.tex").write_text("years of work")
    assert "holds something else" in refused("pull", REPO, home)
    stranger = make_run(tmp_path / "stranger", count=5)
    before = here(Path(stranger))
    assert "both" in refused("pull", REPO, stranger)
    assert here(Path(stranger)) == before


# Tags, visibility, parts, requests


def test_a_tag_is_moved_only_when_told(hub, run):
    done("push", run, REPO, "--tag", "v1")
    first = hub.repos["dataset", REPO].tags["v1"]
    go_on(run)
    commits = len(hub.repos["dataset", REPO].commits)
    assert f"{REPO} has a tag v1 already, at {first.oid[:7]}" in refused("push", run, REPO, "--tag", "v1")
    assert len(hub.repos["dataset", REPO].commits) == commits
    done("push", run, REPO, "--tag", "v1", "--overwrite-tag")
    assert hub.repos["dataset", REPO].tags["v1"] is hub.repos["dataset", REPO].branches["main"]
    go_on(run, round=2)
    assert "has a tag v1 already" in refused("push", run, REPO, "--tag", "v1", "--dry-run")


@pytest.mark.parametrize("tag", ["v 1", "-v1", "a..b", "v1.lock", "v/1", "ä b"])
def test_what_git_takes_for_no_tag_is_refused_before_anything_is_asked(hub, run, tag):
    assert "--tag is" in refused("push", run, REPO, f"--tag={tag}")
    assert hub.requests == []


def test_who_sees_a_repository_is_decided_once(hub, run):
    assert "public repository" in done("push", run, "team/open", "--public")
    assert "private repository" in done("push", run, REPO)
    assert "stays so" in done("push", run, REPO, "--public")
    assert (hub.repos["dataset", "team/open"].private, hub.repos["dataset", REPO].private) == (False, True)


def test_a_part_can_be_pushed_and_says_what_it_was_made_from(hub, run, tmp_path):
    done("push", run, REPO, "--stages", "pairs", "questions")
    assert {name.split("/")[0] for name in there(hub) if name.endswith(".parquet")} == {"pairs", "questions"}
    assert list(load_dataset(REPO, split="train")) == rows(run, "pairs")
    tree = done("lineage", REPO)
    assert "verified" in tree and "not in this repository" in tree and "shop.sqlite" in tree
    done("pull", REPO, tmp_path / "part")
    error = refused("sft", "--out", tmp_path / "part")
    assert "has no verified yet" in error
    go_on(run)
    done("pairs", "--strategy", "farthest", "--overwrite", "--out", run)
    done("push", run, REPO, "--stages", "pairs_round1")  # and what is there is brought up to date
    assert load_dataset(REPO, "pairs", split="train")[0]["strategy"] == "farthest"
    assert {*json.loads(there(hub)["manifest.json"])["stages"]} == {"questions", "pairs", "pairs_round1"}


def test_a_pull_request_stands_beside_the_branch_and_merged_it_is_in_step(hub, run):
    done("push", run, REPO)
    before = there(hub)
    go_on(run)
    out = done("push", "--create-pr", run, REPO)
    repo = hub.repos["dataset", REPO]
    assert f"/datasets/{REPO}/discussions/1" in out and there(hub) == before
    assert "there already" in done("push", "--create-pr", run, REPO) and len(repo.pull_requests) == 1
    repo.branches["main"] = repo.pull_requests["refs/pr/1"]
    done("push", run, REPO, "--tag", "v2")
    assert there(hub, "v2") == here(run)


def test_a_dry_run_asks_and_changes_nothing(hub, run):
    before = here(run)
    out = done("push", run, REPO, "--dry-run")
    assert "would push to the private new repository" in out and "upload  pairs/train-00000" in out
    done("push", run, REPO)
    after, writes = here(run), len(hub.writes)
    go_on(run)
    out = done("push", run, REPO, "--dry-run")
    assert "6 files to upload" in out and "pairs_round1/" in out
    assert "would download" in done("pull", REPO, run.parent / "new", "--dry-run")
    assert len(hub.writes) == writes and before != after and not (run.parent / "new").exists()


# Every stage pushes


def test_every_stage_pushes_what_it_has_made(hub, tmp_path):
    out, data = tmp_path / "run", Path(make_run(tmp_path)).parent / "data"
    to = ("--out", tmp_path / "new", "--push-to-hub", REPO)
    done("questions", "folder", "--data", data, *to)
    done("generate", "--backend", "teacher", "--n", 4, *to)
    done("verify", "--processes", 1, *to)
    done("sft", *to)
    done("pairs", *to)
    printed = done("score", "--processes", 1, *to, "--tag", "v1")
    assert f'next: load_dataset("{REPO}", "scores", revision="v1")' in printed
    assert there(hub, "v1") == here(tmp_path / "new")
    assert len(hub.seen("POST .*/commit/")) == 6 and out.is_dir()


def test_a_stage_that_could_not_push_afterwards_does_not_begin(hub, run, monkeypatch, tmp_path):
    hub.online(monkeypatch, tmp_path / "home", token=hub.read_token)
    before = here(run)
    error = refused("pairs", "--strategy", "random", "--overwrite", "--out", run, "--push-to-hub", REPO)
    assert "you may not write" in error and here(run) == before


# Cards


def test_a_hand_written_paragraph_survives_pushes_wherever_it_was_written(hub, run):
    write_words(run, "Question 7 is ambiguous. Ask *us*.")
    for _ in range(3):
        done("push", run, REPO)
        done("pairs", "--strategy", "random", "--seed", len(hub.requests), "--overwrite", "--out", run)
        assert there(hub)["README.md"].decode().count("Question 7 is ambiguous. Ask *us*.") == 1
    done("push", run, REPO)
    text = there(hub)["README.md"].decode().replace(BEGIN, f"Written at the Hub.\n\n{BEGIN}")
    hub.put("dataset", REPO, {"README.md": text})
    assert "README.md changed" in refused("push", run, REPO, "--tag", "v1")
    done("pull", REPO, run)
    done("push", run, REPO, "--tag", "v1")
    card = there(hub, "v1")["README.md"].decode()
    assert "Written at the Hub." in card and "Question 7 is ambiguous." in card


def test_a_card_written_at_the_hub_before_the_first_push_is_kept(hub, run):
    hub.put("dataset", REPO, {"README.md": "---\nlicense: mit\n---\n\nAsk Ann before you use this.\n"})
    done("push", run, REPO)
    card = there(hub)["README.md"].decode()
    assert "Ask Ann before you use this." in card and "license: mit" in card and "config_name: pairs" in card


def test_a_card_with_broken_yaml_stops_it_before_the_hub_is_asked(hub, run):
    (run / "README.md").write_text("---\nlicense: [mit\n---\n# Mine\n")
    assert "is not YAML" in refused("push", run, REPO)
    assert hub.requests == []


def test_a_card_that_the_hub_does_not_take_stops_it_before_anything_is_uploaded(hub, run):
    text = (run / "README.md").read_text()
    (run / "README.md").write_text(text.replace("---\n", "---\nlicense: [no, such, thing]\n", 1))
    hub.fail_next("validate-yaml", 400)
    assert "the Hub does not take the head of the card" in refused("push", run, REPO)
    assert there(hub) == {} and hub.seen("PUT /lfs") == []


def test_configs_that_users_push_themselves_stay_and_load(hub, run, tmp_path):
    done("push", run, REPO)
    Dataset.from_dict({"n": [1, 2, 3]}).push_to_hub(REPO, "mine")
    error = refused("push", run, REPO, "--tag", "v1")
    assert "mine new" in error
    done("pull", REPO, run)
    go_on(run)
    done("push", run, REPO, "--tag", "v1")
    assert load_dataset(REPO, "mine", revision="v1", split="train")["n"] == [1, 2, 3]
    assert list(load_dataset(REPO, revision="v1", split="train")) == rows(run, "pairs_round1")
    done("pull", f"{REPO}@v1", tmp_path / "other")
    done("push", tmp_path / "other", "team/copy")
    assert load_dataset("team/copy", "mine", split="train")["n"] == [1, 2, 3]
