"""The tests' Hub: who one is, and who may do what."""

from __future__ import annotations

from pathlib import Path

import pytest
from committed import BIRDS, KINDS, LARGE, QUIET, add, added, commit, refused
from datasets import Dataset
from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError

pytestmark = QUIET


@pytest.mark.parametrize("kind", KINDS)
def test_a_private_repo_is_not_there_for_others(hub, kind, tmp_path):
    hub.put(kind, BIRDS, {"a.txt": "secret"}, private=True)
    hub.put(kind, "stranger/birds", {"a.txt": "theirs"}, private=True)
    hub.put(kind, "stranger/open", {"a.txt": "for all"})

    def read(repo: str, token: str | bool) -> str:
        return Path(HfApi(token=token).hf_hub_download(repo, "a.txt", repo_type=kind, cache_dir=tmp_path)).read_text()

    with refused(RepositoryNotFoundError, 401):
        read(BIRDS, False)
    with refused(RepositoryNotFoundError, 401):
        HfApi(token=False).repo_info(BIRDS, repo_type=kind)
    with refused(RepositoryNotFoundError, 404):
        read("stranger/birds", hub.token)
    assert [read(BIRDS, token) for token in (hub.token, hub.read_token)] == ["secret"] * 2
    assert read("stranger/open", False) == "for all"
    assert not HfApi(token=False).repo_exists(BIRDS, repo_type=kind)


def test_only_the_owner_writes(hub):
    hub.put("dataset", BIRDS, {"a.txt": "1"})
    hub.put("dataset", "stranger/birds", {"a.txt": "1"})
    before = {key: repo.branches["main"].oid for key, repo in hub.repos.items()}
    writes = [
        lambda api, repo: commit(api, add("b.txt", "2"), repo=repo),
        lambda api, repo: api.create_repo(repo + "2", repo_type="dataset"),
        lambda api, repo: api.create_tag(repo, tag="v1", repo_type="dataset"),
        lambda api, repo: api.create_branch(repo, branch="b", repo_type="dataset"),
    ]
    for token, repo, status in [(False, BIRDS, 401), (hub.read_token, BIRDS, 403), (hub.token, "stranger/birds", 403)]:
        for write in writes:
            with refused(status=status):
                write(HfApi(token=token), repo)
    assert {key: repo.branches["main"].oid for key, repo in hub.repos.items()} == before
    assert not any(repo.tags or len(repo.branches) > 1 for repo in hub.repos.values())


def test_who_one_is(hub):
    assert get_token() == hub.token
    me = HfApi().whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("tester", ["team"])
    assert HfApi(token=hub.read_token).whoami()["auth"]["accessToken"]["role"] == "read"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        HfApi(token="hf_wrong").whoami()
    hub.put("model", "team/birds", {})
    with refused(status=401) as raised:
        HfApi(token="hf_wrong").model_info("team/birds")
    assert not isinstance(raised.value, RepositoryNotFoundError)


def test_nobody_is_somebody_without_a_token(hub, monkeypatch, tmp_path):
    hub.online(monkeypatch, tmp_path, token="")
    hub.put("dataset", BIRDS, {}, private=True)
    assert get_token() is None
    with refused(RepositoryNotFoundError, 401):
        HfApi().dataset_info(BIRDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_stranger_opens_pull_requests_on_what_is_public_and_no_more(hub, kind):
    main = hub.put(kind, BIRDS, {"a.txt": "1"})
    stranger, owner = HfApi(token=hub.other_token), HfApi()
    assert [api.whoami()["name"] for api in (stranger, owner)] == ["stranger", "tester"]
    where = {"repo_id": BIRDS, "repo_type": kind}
    owner.create_tag(tag="v1", **where)

    with pytest.raises(HfHubHTTPError, match="pass `create_pr=1` as a query parameter") as raised:
        commit(stranger, add("a.txt", "2"), kind=kind)
    assert raised.value.response.status_code == 403
    for write in (
        lambda: stranger.create_tag(tag="v2", **where),
        lambda: stranger.delete_tag(tag="v1", **where),
        lambda: stranger.create_branch(branch="mine", **where),
    ):
        with refused(status=403):
            write()

    opened = commit(stranger, add("a.txt", "2"), add("b.parquet", LARGE), kind=kind, create_pr=True)
    assert (opened.pr_revision, len(hub.seen("^PUT "))) == ("refs/pr/1", 1)
    commit(stranger, add("c.bin", LARGE[::-1]), kind=kind, revision="refs/pr/1")  # it is theirs
    commit(owner, add("d.txt", "ours"), kind=kind, revision="refs/pr/1")  # and in our repo
    commit(owner, add("a.txt", "3"), kind=kind, create_pr=True)
    with refused(status=403):
        commit(stranger, add("a.txt", "4"), kind=kind, revision="refs/pr/2")

    repo = hub.repos[kind, BIRDS]
    assert {*added(hub, "refs/pr/1", kind)} == {"a.txt", "b.parquet", "c.bin", "d.txt"}
    assert (repo.branches, {*repo.tags}) == ({"main": main}, {"v1"})
    authors = [entry.authors for entry in owner.list_repo_commits(revision="refs/pr/1", **where)]
    assert authors == [["tester"], ["stranger"], ["stranger"], ["somebody"], ["system"]]


def test_who_may_not_write_at_all_opens_no_pull_requests(hub):
    hub.put("dataset", BIRDS, {"a.txt": "1"})
    hub.put("dataset", "team/nest", {"a.txt": "1"}, private=True)
    for token, repo, status in [
        (False, BIRDS, 401),
        (hub.read_token, BIRDS, 403),
        (hub.read_token, "team/nest", 403),
        (hub.other_token, "team/nest", 404),  # it is not there for them
    ]:
        with refused(status=status):
            commit(HfApi(token=token), add("a.txt", "2"), repo=repo, create_pr=True)
    assert not any(repo.pull_requests for repo in hub.repos.values())


def test_a_dataset_is_offered_to_others(hub):
    rows = Dataset.from_dict({"n": [1, 2, 3]})
    rows.push_to_hub("team/numbers")
    before = hub.repos["dataset", "team/numbers"].branches["main"]
    offer = rows.select([0, 1]).push_to_hub("team/numbers", create_pr=True, token=hub.other_token)
    assert offer.pr_revision == "refs/pr/1"
    with refused(status=403):
        rows.select([0]).push_to_hub("team/numbers", token=hub.other_token)
    assert hub.repos["dataset", "team/numbers"].branches["main"] is before
    rows.push_to_hub("numbers", token=hub.other_token)
    assert ("dataset", "stranger/numbers") in hub.repos
