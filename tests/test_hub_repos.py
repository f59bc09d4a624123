"""The tests' Hub: repositories, their files, and how these are listed."""

from __future__ import annotations

from pathlib import Path

import pytest
from committed import BIRDS, KINDS, LARGE, QUIET, add, added, commit, commit_lines, refused, send
from huggingface_hub import HfApi, RepoFile, snapshot_download
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import get_session
from huggingface_hub.utils.sha import git_hash

pytestmark = QUIET


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
        "README.md": b"---\nlicense: mit\n---\n# Birds\n",
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


# Listings


def test_listings_come_in_pages(hub, api, tmp_path):
    for n in range(7):
        commit(api, add(f"data/{n}.txt", str(n)))
    hub.page_sizes = dict.fromkeys(hub.page_sizes, 4)
    paths = [".gitattributes", "data", *(f"data/{n}.txt" for n in range(7))]
    for expand in (False, True):
        listed = api.list_repo_tree(BIRDS, recursive=True, expand=expand, repo_type="dataset")
        assert [entry.path for entry in listed] == paths
    assert len(hub.seen("/tree/main$")) == 2 * 3
    history = api.list_repo_commits(BIRDS, repo_type="dataset")
    assert len(history) == 8 and len(hub.seen("/commits/")) == 2  # no third one: the second is full and the last
    assert len([*Path(snapshot_download(BIRDS, repo_type="dataset"), "data").iterdir()]) == 7


def test_the_link_to_the_next_page_is_as_the_request_was(hub, api):
    files = [add(f"näme {n}.txt", "x") for n in range(3)]
    commit(api, *files, create_pr=True)
    hub.page_sizes["tree"] = 2
    first = f"{hub.url}/api/datasets/{BIRDS}/tree/refs%2Fpr%2F1?recursive=true"
    reply = get_session().get(first)
    assert reply.links["next"]["url"] == f"{first}&cursor=2"
    assert [entry["path"] for entry in reply.json()] == [".gitattributes", "näme 0.txt"]
    last = get_session().get(reply.links["next"]["url"])
    assert [entry["path"] for entry in last.json()] == ["näme 1.txt", "näme 2.txt"] and not last.links


@pytest.mark.parametrize("kind", KINDS)
def test_details_name_the_commit_that_changed_each_path_last(hub, kind):
    hub.put(kind, BIRDS, {"a.txt": "1"})
    api, where = HfApi(), {"repo_id": BIRDS, "repo_type": kind}
    one = commit(api, add("a.txt", "2"), add("data/b.txt", "1"), add("data/c/d.txt", "1"), kind=kind).oid
    two = commit(api, add("data/b.txt", "2"), add("a.txt", "2"), kind=kind).oid
    api.delete_file("data/b.txt", **where)
    three = hub.repos[kind, BIRDS].branches["main"].oid
    listed = {entry.path: entry for entry in api.list_repo_tree(recursive=True, expand=True, **where)}
    assert {path: entry.last_commit.oid for path, entry in listed.items() if path != ".gitattributes"} == {
        "a.txt": one,
        "data": three,
        "data/c": one,
        "data/c/d.txt": one,
    }
    assert listed["a.txt"].security.safe and listed["a.txt"].last_commit.title == "Change"
    assert api.get_paths_info(paths=["data", "a.txt", "none"], expand=True, **where) == [
        listed["data"],
        listed["a.txt"],
    ]
    (earlier,) = api.get_paths_info(paths="data/b.txt", expand=True, revision=two, **where)
    assert earlier.last_commit.oid == two
    assert all(entry.last_commit is None for entry in api.list_repo_tree(recursive=True, **where))


def test_the_history_of_any_revision_is_listed(hub, api):
    commit(api, add("a.txt", "1"))
    api.create_tag(BIRDS, tag="v1", repo_type="dataset")
    hub.put("dataset", BIRDS, {"a.txt": "2"})
    commit(HfApi(token=hub.other_token), add("a.txt", "3"), create_pr=True, commit_description="Because")

    def history(revision: str) -> list[tuple[str, list[str]]]:
        commits = api.list_repo_commits(BIRDS, revision=revision, repo_type="dataset")
        return [(entry.title, entry.authors) for entry in commits]

    begun = [("Change", ["tester"]), ("initial commit", ["system"])]
    assert history("v1") == begun
    assert history("main") == [("Add files", ["somebody"]), *begun]
    assert history("refs/pr/1") == [("Change", ["stranger"]), *history("main")]
    newest = api.list_repo_commits(BIRDS, revision="refs/pr/1", repo_type="dataset")[0]
    assert newest.message == "Because"


def test_a_folder_of_ones_own_is_brought_up_to_date(hub, api, tmp_path):
    commit(api, add("a.txt", "1"), add("data/b.parquet", LARGE), add("data/c.txt", "1"))

    def fetch(**options: str) -> int:
        asked = len(hub.seen("^GET .*/resolve/"))
        snapshot_download(BIRDS, repo_type="dataset", local_dir=tmp_path / "mine", **options)
        return len(hub.seen("^GET .*/resolve/")) - asked

    assert fetch(allow_patterns="*.txt") == 2 and fetch(ignore_patterns=".git*") == 1 and fetch() == 1
    assert (tmp_path / "mine/data/b.parquet").read_bytes() == LARGE
    commit(api, add("data/c.txt", "2"))
    assert fetch() == 1 and (tmp_path / "mine/data/c.txt").read_text() == "2"
