"""``excot push``: a run folder's datasets, card and manifest to the Hub in one commit, and then the tag.

A push can be cut off anywhere and started again: what was uploaded is not uploaded twice, a commit whose confirmation
was lost is recognised, and nobody ever sees half of it. What others have done to the repository is not written over
unless the user says so.
"""

from __future__ import annotations

import logging
import sys

from ..atomic import replace_text
from ..config import PushConfig, StageConfig
from ..errors import ExcotError
from ..run import Run, locked
from .asking import Conflict, NoSuchRepo, asking, patiently
from .card import own_words, read_card
from .dataset_card import write_card
from .plan import Plan, files, in_bytes, make_plan
from .remote import CARD, Remote
from .sync import Sync

log = logging.getLogger("excot")


def push(config: PushConfig) -> str:
    """Push a run folder. Returns the lines to show.

    Raises:
        ExcotError: the folder is incomplete or another process is at work in it, the Hub cannot be asked or refuses,
            the tag exists, or others have changed the repository.
    """
    run = Run(config.run)
    if not run.manifest["stages"]:
        raise ExcotError(f"{run.folder} is no run folder, or an empty one", "see: excot questions --help")
    read_card(run.folder / CARD)  # a card that is not YAML stops it before the Hub is asked for anything
    _check_tag(config.tag)
    if config.dry_run:
        return _dry_run(run, config)
    with locked(run):
        return patiently(lambda: (_open_request if config.create_pr else _push)(Run(config.run), config))


def check_before(config: StageConfig) -> None:
    """See before a stage's work that its output can be pushed afterwards: name, token and permission, and that nobody
    else has changed the repository.

    Raises:
        ExcotError: it cannot.
    """
    run, options = Run(config.out), push_options(config)
    _check_tag(options.tag)
    _refuse_moved(run, options, Sync.read(run, options.repo), patiently(lambda: _open(options)))


def push_options(config: StageConfig) -> PushConfig:
    """How a stage's ``--push-to-hub`` pushes."""
    return PushConfig(run=config.out, repo=str(config.push_to_hub), tag=config.tag, public=config.public)


def _push(run: Run, config: PushConfig) -> str:
    remote, sync = _open(config), Sync.read(run, config.repo)
    plan = make_plan(run, config, remote, sync)
    if not config.overwrite_remote:
        _refuse_moved(run, config, sync, remote, plan)
    tagged = _tagged(config, plan, remote)
    if plan.changes:
        try:
            commit, _ = _commit(run, config, plan, remote, sync)
        except Conflict:  # whoever commits first wins: the Hub takes no commit onto one that is no longer the last
            _refuse_moved(run, config, sync, Remote.open(config.repo), plan)
            raise
        remote = Remote.open(config.repo, commit)
    run.set_local(repo=config.repo)
    replace_text(run.folder / CARD, plan.card)
    if not plan.is_whole:
        write_card(run.folder, run.manifest)
    sync.settled(run, remote, own_words(plan.card))
    if config.tag and tagged != remote.commit:
        _tag(config, remote.commit, tagged is not None)
    return _summary(config, plan, remote)


def _open_request(run: Run, config: PushConfig) -> str:
    """Push into a new pull request, which grows from what this folder was last in step with."""
    from huggingface_hub import HfApi

    sync = Sync.read(run, config.repo)
    remote = Remote.open(config.repo, sync.commit)
    plan = make_plan(run, config, remote, sync)
    if not plan.changes:
        return f"{config.repo} holds all of it already"
    if sync.sent == plan.after:  # one was cut off, or is there
        with asking(config.repo):
            requests = HfApi().list_repo_refs(config.repo, repo_type="dataset", include_pull_requests=True)
        for request in requests.pull_requests or []:
            if plan.is_there(Remote.open(config.repo, request.ref)):
                url = f"{remote.url}/discussions/{request.ref.rpartition('/')[2]}"
                return f"a pull request with this content is there already: {url}"
    _, url = _commit(run, config, plan, remote, sync)
    return f"opened a pull request, {plan.counts(done=True)}\nnext: have it merged at {url}"


def _commit(run: Run, config: PushConfig, plan: Plan, remote: Remote, sync: Sync) -> tuple[str, str | None]:
    """Upload and commit; the commit, and the page of the pull request where it was one."""
    from huggingface_hub import HfApi
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars

    if not sys.stderr.isatty() and not are_progress_bars_disabled():
        disable_progress_bars()
    log.info("uploading %s (%s) to %s", files(len(plan.sent)), in_bytes(plan.size), config.repo)
    sync.sent = plan.after  # kept first: by it a commit is recognised whose confirmation gets lost
    sync.save(run)
    with asking(config.repo):
        made = HfApi().create_commit(
            config.repo,
            plan.operations(),
            repo_type="dataset",
            commit_message=config.message or plan.message,
            create_pr=config.create_pr,
            parent_commit=remote.commit,
        )
    return made.oid, made.pr_url


def _open(config: PushConfig) -> Remote:
    """The repository, made where there is none."""
    from huggingface_hub import HfApi

    try:
        return Remote.open(config.repo)
    except NoSuchRepo:
        if config.dry_run:
            raise
    with asking(config.repo):
        HfApi().create_repo(config.repo, repo_type="dataset", private=not config.public, exist_ok=True)
    return Remote.open(config.repo)


def _refuse_moved(run: Run, config: PushConfig, sync: Sync, remote: Remote, plan: Plan | None = None) -> None:
    changes = sync.moved(remote, plan.there(remote) if plan else {})
    if not changes:
        return
    problem = (
        f"{config.repo} has changed since this folder was last in step with it: {changes}"
        if sync.commit
        else f"{config.repo} holds what this folder was never in step with: {changes}"
    )
    raise ExcotError(
        problem,
        f"excot pull {config.repo} {run.folder} takes it over; or --overwrite-remote, --create-pr, another repository",
    )


def _check_tag(tag: str | None) -> None:
    """What git does not take as a tag's name is refused before anything is uploaded."""
    import re

    if tag and (not re.fullmatch(r"[\w][\w.+-]*", tag) or ".." in tag or tag.endswith((".", ".lock"))):
        raise ExcotError(f"--tag is {tag!r}", "give a name such as v1: letters, digits and . _ + -")


def _tagged(config: PushConfig, plan: Plan, remote: Remote) -> str | None:
    """The commit that the tag is at, if it exists; refused where it would have to move and may not."""
    from huggingface_hub import HfApi

    if not config.tag:
        return None
    with asking(config.repo):
        tags = HfApi().list_repo_refs(config.repo, repo_type="dataset").tags
    tagged = next((tag.target_commit for tag in tags if tag.name == config.tag), None)
    if tagged and not config.overwrite_tag and (tagged != remote.commit or plan.changes):
        raise ExcotError(
            f"{config.repo} has a tag {config.tag} already, at {tagged[:7]}", "give another --tag, or --overwrite-tag"
        )
    return tagged


def _tag(config: PushConfig, commit: str, exists: bool) -> None:
    from huggingface_hub import HfApi

    api = HfApi()
    with asking(config.repo, revision=config.tag):
        if exists:
            api.delete_tag(config.repo, tag=str(config.tag), repo_type="dataset")
        api.create_tag(config.repo, tag=str(config.tag), revision=commit, repo_type="dataset")


def _dry_run(run: Run, config: PushConfig) -> str:
    sync = Sync.read(run, config.repo)
    try:
        remote = _open(config)
    except NoSuchRepo:
        remote = Remote(config.repo, "", not config.public, {}, {"stages": {}})
    plan = make_plan(run, config, remote, sync)
    if not (config.overwrite_remote or config.create_pr):
        _refuse_moved(run, config, sync, remote, plan)
    if remote.commit:
        _tagged(config, plan, remote)
    kind = f"{'private' if remote.private else 'public'} {'repository' if remote.commit else 'new repository'}"
    lines = [f"would push to the {kind} {config.repo}: {plan.counts()}"]
    lines += [f"  upload  {path}  {in_bytes(plan.contents[path].size)}" for path in plan.sent]
    return "\n".join([*lines, *(f"  remove  {path}" for path in plan.removed)])


def _summary(config: PushConfig, plan: Plan, remote: Remote) -> str:
    seen = "private" if remote.private else "public"
    tag = f", tag {config.tag}" if config.tag else ""
    names = ", ".join(plan.datasets)
    lines = [f"{names} in the {seen} repository {config.repo}{tag}: {plan.counts(done=True)}"]
    if config.public and remote.private:  # who sees what was there before is its owner's decision
        lines.append("it was private before and stays so: its settings on the Hub say who sees it")
    revision = f', revision="{config.tag}"' if config.tag else ""
    return "\n".join([*lines, f'next: load_dataset("{config.repo}", "{plan.datasets[-1]}"{revision})'])
