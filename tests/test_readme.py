"""What the README shows is what happens: its console sessions are run, its other commands are checked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from excot import cli, config

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def console_steps() -> list[tuple[str, list[str]]]:
    """Every ``$ command`` of the console blocks with the lines shown below it."""
    steps: list[tuple[str, list[str]]] = []
    for line in "".join(blocks("console")).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


def as_pattern(lines: list[str]) -> str:
    """A line of three dots stands for any lines."""
    return "".join(r"(?:.*\n)*" if line == "..." else re.escape(line) + "\n" for line in lines)


def test_console_sessions_print_what_the_readme_shows(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "spider").symlink_to(shared_data / "spider")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_DATASETS_DISABLE_PROGRESS_BARS": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    ran = 0
    for command, shown in console_steps():
        if command.startswith("source "):
            continue  # the test runs in that environment already
        command = command.replace("make demo", "excot demo --out runs/demo")
        done = subprocess.run(
            ["bash", "-c", command], cwd=tmp_path, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=120, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout
        assert re.fullmatch(as_pattern(shown), done.stdout), f"$ {command}\n{done.stdout}"
        ran += 1
    assert ran >= 7


@pytest.mark.parametrize("line", [line for block in blocks("bash") for line in block.splitlines() if line.strip()])
def test_every_other_command_of_the_readme_is_accepted(line: str) -> None:
    words = shlex.split(line)
    assert words[0] == "excot"
    flags = vars(cli._parser().parse_args(words[1:]))
    verb = flags.pop("verb")
    del flags["debug"]
    options = config.from_dict(cli.VERBS[verb].options, flags, line)
    assert isinstance(options, cli.VERBS[verb].options)


def test_the_python_of_the_readme_compiles_and_its_names_exist() -> None:
    for block in blocks("python"):
        compile(block, "README.md", "exec")
        imports = "\n".join(line for line in block.splitlines() if line.startswith(("from ", "import ")))
        exec(imports, {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
