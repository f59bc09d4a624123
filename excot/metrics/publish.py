"""``excot metric``: put the metric where `evaluate` looks for it, on this machine or on the Hub.

``evaluate.load("NAME/exec_acc")`` takes the first of three that is there: the folder ``NAME/exec_acc`` below the
working directory (a checkout of excot has it), the Space ``NAME/exec_acc`` of the Hub, and what lies in its module
cache under that name.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from .. import __version__
from ..config import MetricConfig
from ..errors import import_error
from ..hub.asking import asking

FOLDER = Path(__file__).parent / "exec_acc"
SCRIPT = "exec_acc.py"
SPACE = ("README.md", SCRIPT, "app.py", "requirements.txt")
"""What a Space consists of; the rest of excot is installed there by its requirements."""


def publish(config: MetricConfig) -> str:
    """Do what is asked for. Returns the lines to show.

    Raises:
        ExcotError: `evaluate` is not installed, or the Hub does not take it.
    """
    return install() if config.action == "install" else push(str(config.org), config.public, config.package)


def install() -> str:
    """Put the script into the module cache of `evaluate`, from where it is loaded without a network.

    Raises:
        ExcotError: `evaluate` is not installed.
    """
    try:
        from evaluate.loading import files_to_hash, init_dynamic_modules
    except ImportError:
        raise import_error("evaluate", "metric") from None
    script = FOLDER / SCRIPT
    versions = Path(init_dynamic_modules()) / "metrics" / "excot--exec_acc"
    folder = versions / files_to_hash([str(script)])
    folder.mkdir(parents=True, exist_ok=True)
    for package in (versions.parent, versions, folder):
        (package / "__init__.py").touch()
    # In one step, as another process may be loading it; and always, as the youngest of all versions is the one loaded.
    scratch = folder / f".{os.getpid()}.new"
    shutil.copyfile(script, scratch)
    os.replace(scratch, folder / SCRIPT)
    return f'evaluate.load("excot/exec_acc") works in every folder now, by {folder}'


def push(org: str, public: bool = False, package: str | None = None) -> str:
    """Upload the metric, its card and its app to the Space ``ORG/exec_acc``.

    Args:
        org: the organisation or user whose Space it is.
        public: whether a new Space is for everybody to see.
        package: from where the Space installs excot, as pip takes it; by its name by default.

    Raises:
        ExcotError: the Hub cannot be reached, or refuses.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api, space = HfApi(), f"{org}/exec_acc"
    contents = {name: (FOLDER / name).read_bytes() for name in SPACE}
    if package:
        contents["requirements.txt"] = f"{package}\n".encode()
    files = [CommitOperationAdd(name, content) for name, content in contents.items()]
    with asking(space, "space"):
        api.create_repo(space, repo_type="space", space_sdk="gradio", private=not public, exist_ok=True)
        api.create_commit(space, files, repo_type="space", commit_message=f"excot {__version__}")
        private = api.space_info(space).private
    seen = "private" if private else "public"
    lines = [f"excot {__version__} is in the {seen} Space {space}"]
    if private == public:  # who may see what was there before is its owner's decision, not an upload's side effect
        lines.append(f"it was {seen} before and stays so: its settings on the Hub say who sees it")
    return "\n".join([*lines, f'next: evaluate.load("{space}")'])
