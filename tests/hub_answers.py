"""What the tests' Hub says to each request: who may do it, and what comes of it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import hub_cards
from hub_contents import Content, OnDisk, checksum
from hub_listings import entries, page
from hub_store import Commit, File, Repo, UnknownRevision, is_lfs
from hub_wire import Refusal, Reply, Request

if TYPE_CHECKING:
    from hub import HubServer

KINDS = {"models": "model", "datasets": "dataset", "spaces": "space"}


@dataclass(frozen=True)
class Account:
    """Who a token belongs to, and what it is good for."""

    name: str
    namespaces: tuple[str, ...]
    may_write: bool = True


class Answers:
    """The Hub in front of one request; an action on a repo is named after the method and the word in the path."""

    def __init__(self, hub: HubServer, request: Request):
        self.hub, self.request = hub, request
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        self.who = hub.accounts.get(token)
        if token and self.who is None:
            raise Refusal(401, "Invalid credentials in Authorization header")

    def find(self) -> Reply:
        """Find who answers this path."""
        match [self.request.method, *self.request.segments]:
            case ["GET", "api", "whoami-v2"]:
                return self.whoami()
            case ["POST", "api", "repos", "create"]:
                return self.create()
            case ["POST", "api", "validate-yaml"]:
                return self.validate_yaml()
            case ["PUT", "lfs", kind, owner, name, oid]:
                return self.put_lfs(self.hub.repos[kind, f"{owner}/{name}"], oid)
            case ["GET", "api", kinds, name] if kinds in KINDS:
                return self.act(KINDS[kinds], name, [])  # a name alone; no repo here has one
            case [_, "api", kinds, owner, name, *rest] if kinds in KINDS:
                return self.act(KINDS[kinds], f"{owner}/{name}", rest)
            case [_, ("datasets" | "spaces") as kinds, owner, name, *rest]:
                return self.act(KINDS[kinds], f"{owner}/{name}", rest)
            case [_, owner, name, *rest]:
                return self.act("model", f"{owner}/{name}", rest)
        raise self.no_such_page()

    def act(self, kind: str, repo_id: str, rest: list[str]) -> Reply:
        """Find the action on a repo, and do it; those that change something see for themselves that they may."""
        method = "get" if self.request.method == "HEAD" else self.request.method.lower()
        verb, *rest = rest or ["revision"]
        action = getattr(self, f"{method}_{verb.replace('-', '_')}", None)
        if action is None:
            raise self.no_such_page()
        repo = self.readable(kind, repo_id.removesuffix(".git"))
        parts = 3 if rest[:1] == ["refs"] else 1  # refs/pr/1 may come with its slashes encoded, or not
        return action(repo, "/".join(rest[:parts]) or "main", "/".join(rest[parts:]))

    def no_such_page(self) -> Refusal:
        self.hub.unknown.append(str(self.request))
        return Refusal(404, "Sorry, we can't find the page you are looking for.")

    # Who may do what

    def owns(self, namespace: str) -> bool:
        return self.who is not None and namespace in self.who.namespaces

    def readable(self, kind: str, repo_id: str) -> Repo:
        """The repo; one that may not be read looks as if it were not there."""
        repo = self.hub.repos.get((kind, repo_id))
        if repo is None or (repo.private and not self.owns(repo.namespace)):
            # by the code the clients know what a 401 means, other than at the address of the real Hub
            raise Refusal(404 if self.who else 401, "Repository not found", "RepoNotFound")
        return repo

    def known(self) -> Account:
        if self.who is None:
            raise Refusal(401, "Invalid username or password.")
        return self.who

    def see_that_one_may_write(self, namespace: str) -> None:
        if not (self.known().may_write and self.owns(namespace)):
            raise Refusal(403, f'You don\'t have the rights to write under the namespace "{namespace}"')

    def see_that_one_may_commit(self, repo: Repo, ref: str | None) -> None:
        """Who writes to the repo may commit anywhere; others to their pull requests, and everybody opens new ones."""
        who = self.known()
        if not who.may_write:
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
        if not (ref is None or self.owns(repo.namespace) or repo.opened_by.get(ref) == who.name):
            raise Refusal(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")

    @property
    def opens(self) -> bool:
        """Whether the request opens a pull request."""
        return self.request.query.get("create_pr") == "1"

    # The Hub as a whole

    def whoami(self) -> Reply:
        who = self.known()
        orgs = [{"type": "org", "name": name} for name in who.namespaces if name != who.name]
        role = "write" if who.may_write else "read"
        auth = {"type": "access_token", "accessToken": {"displayName": "tests", "role": role}}
        return Reply({"type": "user", "name": who.name, "orgs": orgs, "auth": auth})

    def create(self) -> Reply:
        wanted = self.request.json
        kind, owner = wanted.get("type") or "model", wanted.get("organization") or self.known().name
        repo = Repo(kind, f"{owner}/{wanted['name']}", wanted.get("visibility") == "private", wanted.get("sdk"))
        self.see_that_one_may_write(owner)
        url = f"{self.hub.url}/{repo.path}"
        if (kind, repo.id) in self.hub.repos:
            raise Refusal(409, f"You already created this {kind} repo", url=url)
        self.hub.repos[kind, repo.id] = repo
        return Reply({"url": url, "name": repo.id})

    def validate_yaml(self) -> Reply:
        asked = self.request.json
        errors, warnings = hub_cards.check(asked["content"], asked.get("repoType") or "model")
        found = {
            "errors": [{"message": text} for text in errors],
            "warnings": [{"message": text} for text in warnings],
        }
        return Reply(found, 400 if errors else 200)

    # What a repo shows

    def get_revision(self, repo: Repo, revision: str, _: str) -> Reply:
        commit = repo.find(revision)
        shown = {path: file.about if "blobs" in self.request.query else {} for path, file in commit.files.items()}
        about = {"_id": repo.id, "id": repo.id, "author": repo.namespace, "sha": commit.oid}
        about |= {"private": repo.private, "gated": False, "disabled": False, "downloads": 0, "likes": 0, "tags": []}
        about |= {"lastModified": commit.date, "cardData": hub_cards.front_matter(_card(commit.files))[0]}
        siblings = [{"rfilename": path, **shown[path]} for path in sorted(shown)]
        return Reply({**about, "sdk": repo.sdk, "siblings": siblings})

    def get_tree(self, repo: Repo, revision: str, folder: str) -> Reply:
        expand = self.request.query.get("expand") == "true"
        start = f"{folder}/" if folder else ""
        found = {path: entry for path, entry in entries(repo.find(revision), expand).items() if path.startswith(start)}
        if folder and not found:
            raise Refusal(404, f"{folder} does not exist on {revision}", "EntryNotFound")
        everything = self.request.query.get("recursive") == "true"
        listed = [entry for path, entry in found.items() if everything or "/" not in path[len(start) :]]
        return self.paged(listed, "expanded tree" if expand else "tree")

    def paged(self, items: list[Any], listing: str) -> Reply:
        return page(items, self.hub.page_sizes[listing], self.request, self.hub.url)

    def post_paths_info(self, repo: Repo, revision: str, _: str) -> Reply:
        asked = parse_qs(bytes(self.request.body).decode())
        shown = entries(repo.find(revision), asked.get("expand") == ["true"])
        return Reply([shown[path] for path in asked.get("paths", []) if path in shown])

    def get_refs(self, repo: Repo, *_: str) -> Reply:
        def listed(refs: Mapping[str, Commit], prefix: str = "") -> list[dict[str, str]]:
            return [{"name": name, "ref": prefix + name, "targetCommit": commit.oid} for name, commit in refs.items()]

        refs = {"branches": listed(repo.branches, "refs/heads/"), "tags": listed(repo.tags, "refs/tags/")}
        return Reply(refs | {"converts": [], "pullRequests": listed(repo.pull_requests)})

    def get_commits(self, repo: Repo, revision: str, _: str) -> Reply:
        def shown(commit: Commit) -> dict[str, Any]:
            about = {"id": commit.oid, "title": commit.title, "message": commit.message, "date": commit.date}
            return about | {"authors": [{"user": commit.author}]}

        return self.paged([*map(shown, repo.find(revision).history())], "commits")

    def get_resolve(self, repo: Repo, revision: str, path: str) -> Reply:
        """A file, or the part of it that was asked for."""
        commit = repo.find(revision)
        headers = {"X-Repo-Commit": commit.oid}
        if path not in commit.files:
            raise Refusal(404, "Entry not found", "EntryNotFound", headers)  # with the commit the clients remember it
        file = commit.files[path]
        headers |= {"ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.lfs:
            headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.stored))}
        return _part(file.stored, self.request.headers.get("range", ""), headers)

    # What changes a repo

    def post_info(self, repo: Repo, *_: str) -> Reply:
        """The LFS batch: where to upload each object that is not there yet; for a pull request it names no ref."""
        asked = self.request.json
        self.see_that_one_may_commit(repo, asked["ref"]["name"] if "ref" in asked else None)

        def instruction(wanted: dict[str, Any]) -> dict[str, Any]:
            href = f"{self.hub.url}/lfs/{repo.kind}/{repo.id}/{wanted['oid']}"
            return wanted if wanted["oid"] in repo.lfs else {**wanted, "actions": {"upload": {"href": href}}}

        return Reply({"transfer": "basic", "objects": list(map(instruction, asked["objects"]))})

    def put_lfs(self, repo: Repo, oid: str) -> Reply:
        """Take what a batch announced; to have been given the address is permission enough."""
        content = self.request.body
        if checksum(content) != oid:
            raise Refusal(400, "The content does not match its checksum")
        repo.lfs[oid] = content.moved(content.path.with_name(oid)) if isinstance(content, OnDisk) else content
        return Reply()

    def post_preupload(self, repo: Repo, revision: str, _: str) -> Reply:
        """Say of each file how it shall come, and what lies in its place, so that nothing is sent twice."""
        self.see_that_one_may_commit(repo, None if self.opens else revision)
        present = repo.find(revision).files

        def decision(file: dict[str, Any]) -> dict[str, Any]:
            lfs = is_lfs(file["path"], base64.b64decode(file["sample"]), file["size"])
            oid = present[file["path"]].etag if file["path"] in present else None
            return {"path": file["path"], "uploadMode": "lfs" if lfs else "regular", "shouldIgnore": False, "oid": oid}

        return Reply({"files": list(map(decision, self.request.json["files"]))})

    def post_commit(self, repo: Repo, revision: str, _: str) -> Reply:
        """Make a commit on a branch or pull request, or with ``create_pr`` on a new pull request beside it."""
        self.see_that_one_may_commit(repo, None if self.opens else revision)
        header, *operations = map(json.loads, bytes(self.request.body).splitlines())
        about = header["value"]
        head = (repo.branches | repo.pull_requests).get(revision)
        if head is None:
            raise UnknownRevision(revision)
        parent = repo.find(about["parentCommit"]) if "parentCommit" in about else head
        if parent is not head and not self.opens:
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        number = len(repo.pull_requests) + 1
        files = self.changed(repo, parent.files, operations)
        ref = f"refs/pr/{number}" if self.opens else revision
        made = repo.record(ref, files, about["summary"], about.get("description", ""), parent, self.known().name)
        url = f"{self.hub.url}/{repo.path}"
        answer = {"success": True, "commitOid": made.oid, "commitUrl": f"{url}/commit/{made.oid}"}
        return Reply(answer | ({"pullRequestUrl": f"{url}/discussions/{number}"} if self.opens else {}))

    @staticmethod
    def changed(repo: Repo, before: Mapping[str, File], operations: Iterable[dict[str, Any]]) -> dict[str, File]:
        """The files after the operations of a commit."""
        files = dict(before)
        for key, value in ((operation["key"], operation["value"]) for operation in operations):
            path = value["path"].rstrip("/")
            if key == "file":
                files[path] = File(base64.b64decode(value["content"]))
            elif key == "lfsFile" and value["oid"] in repo.lfs:
                files[path] = File(repo.lfs[value["oid"]], lfs=True)
            elif key in ("deletedFile", "deletedFolder"):
                gone = [p for p in files if (p == path if key == "deletedFile" else p.startswith(f"{path}/"))]
                if not gone:
                    raise Refusal(404, "A file with this name doesn't exist", "EntryNotFound")
                files = {p: file for p, file in files.items() if p not in gone}
            else:
                raise Refusal(400, f"Not an operation, or its content was never uploaded: {key} of {path}")
        if files.get("README.md") is not before.get("README.md"):
            errors, _ = hub_cards.check(_card(files), repo.kind)
            if errors:
                raise Refusal(400, "\n- ".join(["Invalid metadata in README.md.", *errors]))
        return files

    def post_branch(self, repo: Repo, branch: str, _: str) -> Reply:
        return self.create_ref(repo, repo.branches, branch, self.request.json.get("startingPoint", "main"))

    def post_tag(self, repo: Repo, revision: str, _: str) -> Reply:
        return self.create_ref(repo, repo.tags, self.request.json["tag"], revision)

    def create_ref(self, repo: Repo, refs: dict[str, Commit], name: str, revision: str) -> Reply:
        self.see_that_one_may_write(repo.namespace)
        if name.startswith("refs/"):
            raise Refusal(400, f"Invalid reference name: {name}")
        if name in refs:
            raise Refusal(409, f"{name} exists already")
        refs[name] = repo.find(revision)
        return Reply()

    def delete_tag(self, repo: Repo, tag: str, _: str) -> Reply:
        self.see_that_one_may_write(repo.namespace)
        if repo.tags.pop(tag, None) is None:
            raise UnknownRevision(tag)
        return Reply()


def _card(files: Mapping[str, File]) -> str:
    return files["README.md"].content.decode(errors="replace") if "README.md" in files else ""


def _part(content: Content, wanted: str, headers: dict[str, str]) -> Reply:
    """The bytes that a ``Range`` header asks for; all of them without one."""
    size, asked = len(content), re.fullmatch(r"bytes=(\d+)-(\d*)|bytes=-(\d+)", wanted)
    if not asked:
        return Reply(content, 200, headers)
    start = max(size - int(asked[3]), 0) if asked[3] else int(asked[1])
    stop = min(int(asked[2]) + 1, size) if asked[2] else size
    if start >= stop:
        return Reply(b"", 416, {**headers, "Content-Range": f"bytes */{size}"})
    return Reply(content[start:stop], 206, {**headers, "Content-Range": f"bytes {start}-{stop - 1}/{size}"})
