"""What the README shows is what happens: its console sessions are run, its other commands are checked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from excot import cli
from excot.options import from_dict

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text("utf-8")
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Every command of the bash blocks that are not scripts, on one line each."""
    shown = [block for block in blocks("bash", page) if not block.startswith("#!")]
    return [line for line in "".join(shown).replace("\\\n", " ").splitlines() if line.strip()]


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


@pytest.mark.parametrize("line", [*commands(README), *commands(TRAINING)])
def test_every_other_command_is_accepted(line: str) -> None:
    words = shlex.split(line)
    if words[0] != "excot" or words[1] == "train":
        _accept_training(words)
        return
    flags = vars(cli._parser().parse_args(words[1:]))
    verb = flags.pop("verb")
    del flags["debug"]
    options = from_dict(cli.VERBS[verb].options, flags, line)
    assert isinstance(options, cli.VERBS[verb].options)


def _accept_training(words: list[str]) -> None:
    """A recipe alone or under a launcher: its files are there, and its options exist."""
    line = " ".join(words)
    if words[:2] == ["pip", "install"] or words[:3] == ["python", "-m", "excot.demo.model"]:
        return
    pytest.importorskip("trl")
    from excot.training.settings import known_options

    found = re.search(r"(?:\brecipes/|^excot train )(sft|dpo|grpo)\b", line)
    assert found and words[0] in ("python", "accelerate", "torchrun", "excot"), line
    ours = {"config", "accelerate_config", "num_processes"} if words[0] == "excot" else {"config"}
    options = [word[2:] for word in shlex.split(line[found.end() :]) if word.startswith("--")]
    assert set(options) <= {*known_options(found[1]), *ours}
    for path in re.findall(r"(?:--config|--config_file|--accelerate_config) (\S+)", line):
        assert (ROOT / path).is_file(), path


def test_the_slurm_script_starts_one_launcher_a_node_with_the_rank_of_its_node(tmp_path: Path) -> None:
    (script,) = (block for block in blocks("bash", TRAINING) if block.startswith("#!"))
    programs = {
        "scontrol": "echo gpu-7; echo gpu-8",
        "srun": 'for SLURM_NODEID in 0 1; do export SLURM_NODEID; "$@"; done',
        "accelerate": "echo $*",
    }
    for name, text in programs.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{text}\n")
        (tmp_path / name).chmod(0o755)
    (tmp_path / ".venv" / "bin").mkdir(parents=True)
    (tmp_path / ".venv" / "bin" / "activate").touch()
    environment = {**os.environ, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    environment |= {"SLURM_NNODES": "2", "SLURM_JOB_NODELIST": "gpu-[7-8]"}
    done = subprocess.run(["bash"], input=script, cwd=tmp_path, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, done.stderr
    for rank, line in enumerate(done.stdout.splitlines()):
        _accept_training(["accelerate", *line.split()])
        assert f"--num_machines 2 --num_processes 16 --machine_rank {rank} --main_process_ip gpu-7 " in line
    assert rank == 1


def test_the_python_of_the_readme_compiles_and_its_names_exist() -> None:
    for block in blocks("python", TRAINING):
        compile(block, "training.md", "exec")
    for block in blocks("python"):
        compile(block, "README.md", "exec")
        imports = "\n".join(line for line in block.splitlines() if line.startswith(("from ", "import ")))
        exec(imports, {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
