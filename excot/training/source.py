"""Where training data comes from: a run folder, or a dataset repository on the Hub at one commit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ExcotError, first_line
from ..hub.asking import NoSuchRepo, Refused, asking
from ..prompts import Prompt, stored_prompt
from ..run import Run
from ..stages import dataset_name, parse_name

if TYPE_CHECKING:
    from datasets import DatasetDict


@dataclass(frozen=True)
class Source:
    """A dataset repository or a folder that holds what one does. Made by `Source.open`.

    Attributes:
        name: as the user gave it.
        revision: the tag, branch or commit that the user asked for.
        commit: what the Hub resolved it to; ``None`` for a folder, and where the Hub cannot be asked.
        folder: the folder, or ``None`` for a repository.
        manifest: what excot wrote of how the data was made; no stages where it is not excot's.
    """

    name: str
    revision: str | None
    commit: str | None
    folder: Path | None
    manifest: dict[str, Any] = field(repr=False)

    @classmethod
    def open(cls, name: str, revision: str | None = None) -> Source:
        """Find the data.

        Raises:
            ExcotError: there is neither such a folder nor such a repository or revision.
        """
        folder = Path(name).expanduser()
        if folder.is_dir():
            if revision is not None:
                raise ExcotError(
                    f"{name} is a folder, which has no revision {revision!r}", "revisions are for Hub repositories"
                )
            return cls(name, None, None, folder, Run(folder).manifest)
        commit = _commit(name, revision)
        path = _download(name, "manifest.json", commit or revision)
        manifest = json.loads(path.read_text("utf-8")) if path else {}
        return cls(name, revision, commit, None, manifest if "stages" in manifest else {"stages": {}})

    def load(self, config: str | None) -> DatasetDict:
        """The rows of one of its datasets, by split.

        Raises:
            ExcotError: there is no such config, it has no rows, or it does not fit the manifest.
        """
        from datasets import load_dataset

        stages = self.manifest["stages"]
        if stages and config not in stages:
            if self.folder and config and parse_name(config):
                Run(self.folder).dataset(config)  # says which stage to run first
            raise ExcotError(f"{self} has no dataset config {config!r}", f"it has {', '.join(stages)}")
        if stages and self.folder:
            Run(self.folder).dataset(config)  # refuses files that were changed or are stale
        try:
            rows = load_dataset(str(self.folder or self.name), config, revision=self.commit or self.revision)
        except Exception as error:  # of many kinds, by what the data's own files hold
            raise ExcotError(
                f"cannot load config {config!r} of {self} ({first_line(error)})",
                "check --dataset_name, --dataset_config and --dataset_revision",
            ) from error
        if not any(len(split) for split in rows.values()):
            raise ExcotError(f"config {config!r} of {self} has no rows", "look at how it was made")
        return rows

    def fingerprint(self, config: str | None) -> str | None:
        """Of a dataset's content; ``None`` where the data is not excot's."""
        return self.manifest["stages"].get(config, {}).get("fingerprint")

    def prompt_id(self, config: str | None) -> str | None:
        """The prompt that a dataset's answers were made with, or ``None`` where there are none or it is not known."""
        known = {**self.manifest.get("ancestors", {}), **self.manifest["stages"]}
        _, round = parse_name(config or "") or ("", 0)
        return known.get(dataset_name("generations", round), {}).get("prompt_id")

    def prompt(self, config: str | None) -> Prompt | None:
        """That prompt itself, from the data's own folder."""
        prompt_id = self.prompt_id(config)
        if prompt_id is None:
            return None
        if self.folder:
            return stored_prompt(Run(self.folder).prompt_path(prompt_id), prompt_id)
        path = _download(self.name, f"prompts/{prompt_id}.jinja", self.commit or self.revision)
        return stored_prompt(path, prompt_id) if path else None

    def databases(self, given: str | None, option: str) -> str:
        """Where the databases of its questions are.

        Args:
            given: what the user said.
            option: the option with which to say it.

        Raises:
            ExcotError: nobody knows.
        """
        folder = given or (Run(self.folder).local.get("databases") if self.folder else None)
        if folder is None:
            raise ExcotError(f"where the databases of {self} are is not known", f"give their folder to --{option}")
        return folder

    def __str__(self) -> str:
        return f"{self.name}@{self.revision}" if self.revision else self.name


def _commit(name: str, revision: str | None) -> str | None:
    from huggingface_hub import HfApi

    try:
        with asking(name, revision=revision):
            return HfApi().dataset_info(name, revision=revision).sha
    except NoSuchRepo as error:
        raise ExcotError(f"there is no folder {name}, and {error.problem}", error.remedy) from error
    except Refused:
        raise
    except ExcotError as error:  # the network, or the Hub itself
        if _is_cached(name, revision):
            return None
        raise ExcotError(f"there is no folder {name}, and {error.problem}", error.remedy) from error


def _is_cached(name: str, revision: str | None) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "README.md", revision=revision, repo_type="dataset"), str)


def _download(name: str, file: str, revision: str | None) -> Path | None:
    """A file of a dataset repository, or ``None`` where it has no such file."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        return Path(hf_hub_download(name, file, repo_type="dataset", revision=revision))
    except EntryNotFoundError:
        return None
