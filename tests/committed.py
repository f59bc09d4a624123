"""Commits to the tests' Hub by its real client, and what came of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from httpx2 import NetworkError, RemoteProtocolError
from hub import HubServer
from huggingface_hub import CommitOperationAdd as Add
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.utils import get_session, hf_raise_for_status

KINDS = ["model", "dataset", "space"]
BROKEN = (NetworkError, RemoteProtocolError)
BIRDS = "team/birds"
LARGE = b"PAR1" + bytes(range(256)) * 1000
QUIET = [
    pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning"),  # between two of the clients' libraries
    pytest.mark.filterwarnings("ignore:It seems that you are about to commit a data file"),
    pytest.mark.filterwarnings("ignore:About to delete a file"),
    pytest.mark.filterwarnings("ignore:About to delete a folder"),
]


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
