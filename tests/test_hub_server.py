"""The Hub that other tests talk to, seen through the clients that real users have."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, load_dataset
from httpx2 import ConnectError, NetworkError, RemoteProtocolError
from hub import HubServer
from huggingface_hub import CommitOperationAdd as Add
from huggingface_hub import CommitOperationDelete as Delete
from huggingface_hub import DatasetCard, HfApi, HfFileSystem, RepoFile, get_token, metadata_update, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session, hf_raise_for_status
from huggingface_hub.utils.sha import git_hash

KINDS = ["model", "dataset", "space"]
BROKEN = (NetworkError, RemoteProtocolError)
BIRDS = "team/birds"
CARD = "---\nlicense: mit\n---\n# Birds\n"
LARGE = b"PAR1" + bytes(range(256)) * 1000

pytestmark = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # between two of the clients' libraries
    pytest.mark.filterwarnings("ignore:It seems that you are about to commit a data file"),
    pytest.mark.filterwarnings("ignore:About to delete a file"),
    pytest.mark.filterwarnings("ignore:About to delete a folder"),
]


@pytest.fixture
def api(hub: HubServer) -> HfApi:
    """A client that has a dataset to write to."""
    api = HfApi()
    api.create_repo(BIRDS, repo_type="dataset")
    return api


def commit(api: HfApi, *operations: Any, repo: str = BIRDS, kind: str = "dataset", **options: Any) -> Any:
    return api.create_commit(repo, operations, commit_message="Change", repo_type=kind, **options)


def add(path: str, content: bytes | str) -> Add:
    return Add(path, content.encode() if isinstance(content, str) else content)


def added(hub: HubServer, revision: str = "main", kind: str = "dataset", repo: str = BIRDS) -> dict[str, bytes]:
    """The files of a repo but for the one that it began with."""
    files = hub.repos[kind, repo].files(revision)
    assert files.pop(".gitattributes")
    return files


@contextmanager
def refused(error: type[HfHubHTTPError] = HfHubHTTPError, status: int | None = None) -> Iterator[Any]:
    """What is done inside ends in this error with this status."""
    with pytest.raises(error) as raised:
        yield raised
    assert status in (None, raised.value.response.status_code)


def send(hub: HubServer, path: str, body: str, method: str = "POST") -> None:
    headers = {"authorization": f"Bearer {hub.token}"}
    hf_raise_for_status(get_session().request(method, hub.url + path, content=body.encode(), headers=headers))


def commit_lines(hub: HubServer, *operations: Any) -> None:
    """A commit as the clients would not send it."""
    lines = [{"key": "header", "value": {"summary": "Change"}}, *operations]
    send(hub, f"/api/datasets/{BIRDS}/commit/main", "\n".join(map(json.dumps, lines)))


# Repos


@pytest.mark.parametrize("kind", KINDS)
def test_a_repo_is_made_once(hub, kind):
    api, options = HfApi(), {"repo_type": kind, "space_sdk": "static" if kind == "space" else None}
    url = api.create_repo("team/birds", private=True, **options)
    assert (url.repo_id, url.repo_type, url.endpoint) == ("team/birds", kind, hub.url)
    assert api.create_repo("birds", **options).repo_id == "tester/birds"  # the user's own namespace
    with refused(status=409) as raised:
        api.create_repo("team/birds", **options)
    assert raised.value.response.json()["url"] == url
    assert api.create_repo("team/birds", exist_ok=True, **options) == url

    assert {key: repo.private for key, repo in hub.repos.items()} == {
        (kind, "team/birds"): True,
        (kind, "tester/birds"): False,
    }
    info = api.repo_info("team/birds", repo_type=kind)
    assert (info.id, info.author, info.private) == ("team/birds", "team", True)
    assert info.sha == hub.repos[kind, "team/birds"].branches["main"].oid
    assert [(file.rfilename, file.size) for file in info.siblings] == [(".gitattributes", None)]
    assert kind != "space" or info.sdk == "static"
    assert [api.repo_exists("team/birds", repo_type=other) for other in KINDS] == [kind == other for other in KINDS]


@pytest.mark.parametrize("kind", KINDS)
def test_files_come_back_as_they_were_sent(hub, kind, tmp_path):
    hub.put(kind, BIRDS, {"old.txt": "old"})
    repo = hub.repos[kind, BIRDS]
    sent = {
        "README.md": CARD.encode(),
        "data/train.parquet": LARGE,
        "data/deep/er/näme with space.txt": b"\xc3\xa4",
        "binary": b"a\0b",
        "empty.parquet": b"",
    }
    for path, content in sent.items():
        (tmp_path / "folder" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "folder" / path).write_bytes(content)
    api = HfApi()
    done = api.upload_folder(repo_id=BIRDS, folder_path=tmp_path / "folder", repo_type=kind)

    assert added(hub, kind=kind) == {"old.txt": b"old", **sent}
    assert (done.oid, done.repo_url.repo_id) == (repo.branches["main"].oid, BIRDS)
    large = {path for path, file in repo.branches["main"].files.items() if file.lfs}
    assert large == {"data/train.parquet", "binary"}
    assert len(hub.seen("^PUT ")) == 2 and len(hub.seen("POST .*/commit/main$")) == 1

    entries = {entry.path: entry for entry in api.list_repo_tree(BIRDS, recursive=True, repo_type=kind)}
    files = {path: entry for path, entry in entries.items() if isinstance(entry, RepoFile)}
    assert {path: entry.size for path, entry in files.items()} == {k: len(v) for k, v in repo.files().items()}
    assert {path for path, entry in files.items() if entry.lfs} == large
    assert set(entries) - set(files) == {"data", "data/deep", "data/deep/er"}
    about = files["data/train.parquet"]
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{about.lfs.sha256}\nsize {about.size}\n"
    assert about.blob_id == git_hash(pointer.encode()) and about.lfs.pointer_size == len(pointer)
    below = [entry.path for entry in api.list_repo_tree(BIRDS, "data", repo_type=kind)]
    assert below == ["data/deep", "data/train.parquet"]
    details = api.repo_info(BIRDS, repo_type=kind, files_metadata=True)
    assert {file.rfilename: file.size for file in details.siblings} == {k: len(v) for k, v in repo.files().items()}
    assert {entry.path: entry for entry in api.get_paths_info(BIRDS, ["binary", "none"], repo_type=kind)} == {
        "binary": entries["binary"]
    }

    folder = Path(snapshot_download(BIRDS, repo_type=kind))
    assert folder.is_relative_to(tmp_path / "home" / "hub")
    assert {path: (folder / path).read_bytes() for path in sent} == sent
    assert api.verify_repo_checksums(BIRDS, repo_type=kind).mismatches == []  # by their own sums of what they hold


def test_what_lies_there_already_is_not_sent_again(hub, api):
    first = commit(api, add("a.parquet", LARGE), add("notes.txt", "one"))
    assert len(hub.seen("^PUT ")) == 1
    again = commit(api, add("a.parquet", LARGE), add("notes.txt", "one"))
    assert again.oid == first.oid and len(hub.seen("/commit/")) == 1
    commit(api, add("b.parquet", LARGE), add("notes.txt", "two"))
    assert len(hub.seen("^PUT ")) == 1 and len(hub.seen("/commit/")) == 2
    assert added(hub) == {"a.parquet": LARGE, "b.parquet": LARGE, "notes.txt": b"two"}
    upload, send = hub.seen("^PUT ")[0], f"POST /api/datasets/{BIRDS}/commit/main"
    assert hub.writes == ["POST /api/repos/create", upload, send, send]


def test_large_files_are_told_by_their_names_contents_and_sizes(hub, api):
    hub.put("dataset", BIRDS, {"a.parquet": LARGE})
    big = b"x" * (10 * 2**20 + 1)
    commit(api, add("same", LARGE), add("big.txt", big), add("small.txt", big[:100]))
    known = hub.repos["dataset", BIRDS].branches["main"].files
    assert {path for path, file in known.items() if file.lfs} == {"a.parquet", "same", "big.txt"}
    assert len(hub.seen("^PUT ")) == 1  # the other content was there, however it came


def test_a_large_file_must_have_come_whole(hub, api):
    """What the clients never do."""
    oid = "0" * 64
    with refused(BadRequestError):
        send(hub, f"/lfs/dataset/{BIRDS}/{oid}", "something else", "PUT")
    with refused(BadRequestError):
        commit_lines(hub, {"key": "lfsFile", "value": {"path": "a.parquet", "algo": "sha256", "oid": oid}})
    assert added(hub) == {} and hub.repos["dataset", BIRDS].lfs == {}


# Commits


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


def test_the_head_of_a_card_must_be_a_mapping(hub, api):
    for wrong in ("---\n- a list\n---\n", "---\nlicense: [mit\n---\n"):
        with pytest.raises(ValueError, match="Invalid metadata in README.md"):
            commit(api, add("README.md", wrong))
    assert hub.seen("/commit/") == [] and len(hub.seen("validate-yaml")) == 2
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        commit(api, add("README.md", "# No metadata"))
    metadata_update(BIRDS, {"license": "mit", "configs": []}, repo_type="dataset")
    assert DatasetCard.load(BIRDS).data.license == "mit"
    assert api.dataset_info(BIRDS).card_data.license == "mit"
    with refused(BadRequestError):  # past the client's own check
        content = b64encode(b"---\n- a list\n---\n").decode()
        commit_lines(hub, {"key": "file", "value": {"path": "README.md", "content": content, "encoding": "base64"}})


# Who may do what


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


def test_going_online_again_forgets_what_was_looked_up(hub, api, monkeypatch, tmp_path):
    for name in ("a.txt", "b.txt"):
        hub.put("dataset", BIRDS, {name: "1"})
        hub.online(monkeypatch, tmp_path)
        assert f"datasets/{BIRDS}/{name}" in HfFileSystem().ls(f"datasets/{BIRDS}", detail=False)


def test_nobody_is_somebody_without_a_token(hub, monkeypatch, tmp_path):
    hub.online(monkeypatch, tmp_path, token="")
    hub.put("dataset", BIRDS, {}, private=True)
    assert get_token() is None
    with refused(RepositoryNotFoundError, 401):
        HfApi().dataset_info(BIRDS)


def test_what_the_server_does_not_know_is_noted(hub, api):
    with refused(status=404):
        api.list_lfs_files(BIRDS, repo_type="dataset").__next__()
    with refused(status=404):
        api.delete_repo(BIRDS, repo_type="dataset")
    assert hub.unknown == [f"GET /api/datasets/{BIRDS}/lfs-files", "DELETE /api/repos/delete"]
    hub.unknown.clear()


def test_what_is_missing_is_named(hub, api):
    commit(api, add("a.txt", "1"))
    where = {"repo_id": BIRDS, "repo_type": "dataset"}
    with refused(RepositoryNotFoundError, 404):
        api.dataset_info("team/none")
    with refused(RepositoryNotFoundError, 404):
        commit(api, add("a.txt", "1"), repo="team/none")
    with refused(RevisionNotFoundError, 404):
        api.dataset_info(BIRDS, revision="v9")
    with refused(RevisionNotFoundError, 404):
        api.hf_hub_download(**where, filename="a.txt", revision="v9")
    with refused(EntryNotFoundError, 404):
        api.hf_hub_download(**where, filename="b.txt")
    with refused(EntryNotFoundError, 404):
        list(api.list_repo_tree(BIRDS, "none", repo_type="dataset"))
    assert [api.file_exists(filename=name, **where) for name in ("a.txt", "b.txt")] == [True, False]
    assert [api.revision_exists(revision=name, **where) for name in ("main", "v9")] == [True, False]


# What goes over the wire


def test_a_file_comes_with_its_headers_and_in_parts(hub):
    commit = hub.put("dataset", BIRDS, {"a.txt": "0123456789", "a.parquet": LARGE})

    def get(name: str, part: str = "", method: str = "GET") -> Any:
        headers = {"range": part} if part else {}
        return get_session().request(method, f"{hub.url}/datasets/{BIRDS}/resolve/main/{name}", headers=headers)

    small, large = get("a.txt", method="HEAD"), get("a.parquet", method="HEAD")
    assert {reply.headers["x-repo-commit"] for reply in (small, large)} == {commit.oid}
    assert (small.content, small.headers["content-length"]) == (b"", "10")
    assert small.headers["etag"] == '"ad471007bd7f5983d273b9584e5629230150fd54"'  # git hash-object
    assert large.headers["x-linked-etag"] == large.headers["etag"] and len(large.headers["etag"]) == 66
    assert large.headers["x-linked-size"] == str(len(LARGE)) and "x-linked-size" not in small.headers

    parts = {"bytes=2-4": b"234", "bytes=7-": b"789", "bytes=-2": b"89", "bytes=8-99": b"89"}
    for part, expected in parts.items():
        reply = get("a.txt", part)
        assert (reply.status_code, reply.content) == (206, expected)
        start = 10 - len(expected) if expected != b"234" else 2
        assert reply.headers["content-range"] == f"bytes {start}-{start + len(expected) - 1}/10"
    assert (get("a.txt", "bytes=10-").status_code, get("a.txt").content) == (416, b"0123456789")
    missing = get("none")
    assert (missing.headers["x-error-code"], missing.headers["x-repo-commit"]) == ("EntryNotFound", commit.oid)
    assert HfFileSystem().read_bytes(f"datasets/{BIRDS}/a.parquet", start=10, end=1000) == LARGE[10:1000]


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


# What can go wrong


def test_a_passing_failure_is_got_over(hub, api):
    hub.fail_next("/preupload/", 503, times=2)
    hub.fail_next("^PUT ", None)
    hub.fail_next("objects/batch", 429, headers={"Retry-After": "60"})
    commit(api, add("a.parquet", LARGE))
    assert added(hub) == {"a.parquet": LARGE}
    assert [len(hub.seen(pattern)) for pattern in ("/preupload/", "^PUT ", "objects/batch")] == [3, 2, 2]


@pytest.mark.parametrize("status", [500, 403, None])
def test_a_failed_commit_leaves_the_branch_as_it_was(hub, api, status):
    commit(api, add("a.txt", "1"))
    hub.fail_next("/commit/", status)
    with pytest.raises(BROKEN if status is None else HfHubHTTPError):
        commit(api, add("a.parquet", LARGE), add("a.txt", "2"))
    assert added(hub) == {"a.txt": b"1"}
    commit(api, add("a.parquet", LARGE), add("a.txt", "2"))
    assert added(hub) == {"a.txt": b"2", "a.parquet": LARGE}
    assert len(hub.seen("^PUT ")) == 1  # what the first attempt had uploaded still counts


def test_a_failure_waits_for_its_turn(hub, api):
    hub.fail_next("/commit/", 403, skip=1)
    commit(api, add("a.txt", "1"))
    with refused(status=403):
        commit(api, add("a.txt", "2"))
    commit(api, add("a.txt", "3"))
    assert added(hub) == {"a.txt": b"3"}


def test_the_line_breaks_off_midway(hub, api):
    """Somewhere in the requests of two commits; whatever was said done is done, and the rest can be made up."""

    def two_commits(name: str) -> None:
        commit(api, add(f"one/{name}", name), add("one.txt", name))
        commit(api, add(f"two/{name}", name[::-1]), add("two.txt", name))

    for requests in range(8):  # each commit is four of them
        before, name = added(hub), f"{requests}.parquet"
        hub.drop_after(requests)
        with pytest.raises((*BROKEN, RuntimeError)):
            two_commits(name)
        first = {f"one/{name}": name.encode(), "one.txt": name.encode()}
        assert added(hub) == {**before, **(first if requests >= 4 else {})}
        hub.mend()
        two_commits(name)
        assert added(hub) == {**before, **first, f"two/{name}": name[::-1].encode(), "two.txt": name.encode()}


def test_the_line_breaks_off_within_a_file(hub, api):
    hub.drop_after(n_bytes=len(LARGE) // 2)
    with pytest.raises(RuntimeError, match="Error while uploading") as raised:
        commit(api, add("a.parquet", LARGE))
    assert isinstance(raised.value.__cause__, BROKEN)
    upload = next(request for request in hub.requests if request.method == "PUT")
    assert 0 < len(upload.body) < len(LARGE)
    assert hub.repos["dataset", BIRDS].lfs == {} and hub.seen("/commit/") == []
    hub.mend()
    commit(api, add("a.parquet", LARGE))
    assert added(hub) == {"a.parquet": LARGE}


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
