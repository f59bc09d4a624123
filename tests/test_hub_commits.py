"""The tests' Hub: commits, branches, tags and pull requests."""

from __future__ import annotations

import threading
from pathlib import Path
from random import Random
from typing import Any

import pytest
from committed import BIRDS, KINDS, QUIET, add, added, commit, refused
from huggingface_hub import CommitOperationDelete as Delete
from huggingface_hub import HfApi
from huggingface_hub.errors import BadRequestError, EntryNotFoundError, RevisionNotFoundError
from huggingface_hub.utils import get_session

pytestmark = QUIET


@pytest.mark.parametrize("seed", range(3))
def test_commits_are_what_a_plain_dictionary_says(hub, api, seed):
    """Random commits beside a dictionary; at the end every commit still has the files of its own time."""
    random, files, states = Random(seed), {}, {}
    names = [f"{folder}{name}" for folder in ("", "a/", "a/b/", "ab/") for name in ("x.txt", "y.parquet")]
    for step in range(12):
        operations: list[Any] = []
        for name in random.sample(names, 3):
            content = random.randbytes(random.randrange(1, 20)) + str(step).encode()
            operations.append(add(name, content))
            files = {**files, name: content}
        if removable := sorted(files.keys() - {operation.path_in_repo for operation in operations}):
            name = random.choice(removable)
            operations.insert(0, Delete(name))
            files = {path: content for path, content in files.items() if path != name}
        if random.random() < 0.3 and any(path.startswith("a/") for path in files):
            operations.append(Delete("a/"))
            files = {path: content for path, content in files.items() if not path.startswith("a/")}
        states[commit(api, *operations).oid] = files
    assert {oid: added(hub, oid) for oid in states} == states
    history = api.list_repo_commits(BIRDS, repo_type="dataset")
    assert [entry.commit_id for entry in history[:-1]] == [*states][::-1]
    assert history[-1].title == "initial commit" and history[0].authors == ["tester"]


def test_what_is_not_there_cannot_be_deleted(hub, api):
    commit(api, add("data/a.txt", "a"), add("data.txt", "b"))
    for gone in (Delete("none.txt"), Delete("none/"), Delete("data", is_folder=False), Delete("dat/")):
        with refused(EntryNotFoundError, 404):
            commit(api, add("new.txt", "never"), gone)
    api.delete_folder("data", BIRDS, repo_type="dataset")
    assert added(hub) == {"data.txt": b"b"}


def test_a_commit_onto_an_old_parent_is_refused(hub, api):
    old = commit(api, add("a.txt", "1")).oid
    new = hub.put("dataset", BIRDS, {"a.txt": "by somebody else"}).oid
    with refused(status=412):
        commit(api, add("a.txt", "2"), parent_commit=old)
    assert added(hub) == {"a.txt": b"by somebody else"}
    commit(api, add("a.txt", "3"), parent_commit=new[:7])
    assert added(hub) == {"a.txt": b"3"}
    with refused(RevisionNotFoundError, 404):
        commit(api, add("a.txt", "4"), parent_commit="0" * 40)


def test_a_pull_request_stands_beside_the_branch(hub, api):
    old = commit(api, add("a.txt", "1")).oid
    commit(api, add("a.txt", "2"))
    first = commit(api, add("b.txt", "new"), create_pr=True)
    second = commit(api, add("c.txt", "new"), create_pr=True, parent_commit=old)
    assert [first.pr_revision, second.pr_revision, second.pr_num] == ["refs/pr/1", "refs/pr/2", 2]
    commit(api, add("d.txt", "more"), revision="refs/pr/1")
    assert added(hub) == {"a.txt": b"2"}
    assert added(hub, "refs/pr/1") == {"a.txt": b"2", "b.txt": b"new", "d.txt": b"more"}
    assert added(hub, "refs/pr/2") == {"a.txt": b"1", "c.txt": b"new"}
    refs = api.list_repo_refs(BIRDS, repo_type="dataset", include_pull_requests=True)
    assert [ref.ref for ref in refs.pull_requests] == ["refs/pr/1", "refs/pr/2"]
    assert api.dataset_info(BIRDS, revision="refs/pr/2").sha == second.oid
    path = api.hf_hub_download(BIRDS, "d.txt", repo_type="dataset", revision="refs/pr/1")
    assert Path(path).read_text() == "more"
    url = f"{hub.url}/datasets/{BIRDS}/resolve/refs/pr/1/d.txt"
    assert get_session().get(url).content == get_session().get(url.replace("refs/pr/1", "refs%2Fpr%2F1")).content


@pytest.mark.parametrize("kind", KINDS)
def test_branches_and_tags(hub, kind):
    hub.put(kind, BIRDS, {"a.txt": "1"})
    api, where = HfApi(), {"repo_id": BIRDS, "repo_type": kind}
    api.create_tag(tag="v1", tag_message="first", **where)
    api.create_branch(branch="next/try", **where)
    commit(api, add("a.txt", "2"), kind=kind)
    commit(api, add("a.txt", "3"), kind=kind, revision="next/try")
    api.create_tag(tag="v2", revision="next/try", **where)
    api.create_branch(branch="old", revision="v1", **where)
    found = {name: added(hub, name, kind)["a.txt"] for name in ("main", "v1", "v2", "next/try", "old")}
    assert found == {"main": b"2", "v1": b"1", "v2": b"3", "next/try": b"3", "old": b"1"}

    repo, refs = hub.repos[kind, BIRDS], api.list_repo_refs(**where)
    for listed, known in [(refs.branches, repo.branches), (refs.tags, repo.tags)]:
        assert {ref.name: ref.target_commit for ref in listed} == {name: to.oid for name, to in known.items()}
    assert {*repo.branches} == {"main", "next/try", "old"} and {*repo.tags} == {"v1", "v2"}
    assert [ref.ref for ref in refs.tags] == ["refs/tags/v1", "refs/tags/v2"]

    for create, name in [(api.create_tag, {"tag": "v1"}), (api.create_branch, {"branch": "old"})]:
        with refused(status=409):
            create(**name, **where)
        create(**name, **where, exist_ok=True)
    assert repo.tags["v1"].files["a.txt"].content == b"1"  # a tag does not move
    api.delete_tag(tag="v1", **where)
    with refused(RevisionNotFoundError):
        api.delete_tag(tag="v1", **where)
    with refused(RevisionNotFoundError):
        api.create_tag(tag="v3", revision="v1", **where)
    with refused(RevisionNotFoundError):
        commit(api, add("a.txt", "4"), kind=kind, revision="v2")  # a tag takes no commits
    with refused(BadRequestError):
        api.create_branch(branch="refs/pr/1", **where)


def test_many_ask_at_once(hub, api):
    """The commits of several clients form one line, and nobody's files are lost."""

    def work(name: str) -> None:
        for step in range(5):
            commit(api, add(f"{name}.parquet", f"{name}{step}"), add(f"{name}/{step}", "x"))

    workers = [threading.Thread(target=work, args=(name,)) for name in "abcd"]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(api.list_repo_commits(BIRDS, repo_type="dataset")) == 21
    assert {path: data for path, data in added(hub).items() if "/" not in path} == {
        f"{name}.parquet": f"{name}4".encode() for name in "abcd"
    }
    assert len(added(hub)) == 24


def test_a_test_may_step_in_between(hub, api):
    """Somebody else commits after a client has looked and before its own commit arrives."""
    parent = commit(api, add("a.txt", "1")).oid

    def somebody_else(request: Any) -> None:
        if "/commit/" in request.path:
            hub.put("dataset", BIRDS, {"a.txt": "stolen"})

    hub.watch = somebody_else
    with refused(status=412):
        commit(api, add("a.txt", "2"), parent_commit=parent)
    assert added(hub) == {"a.txt": b"stolen"}
