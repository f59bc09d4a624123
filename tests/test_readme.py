"""What the README shows is what happens: its console sessions are run, its other commands are checked."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from command import done

from excot import cli
from excot.options import from_dict

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text("utf-8")
TRAINING = (ROOT / "docs" / "training.md").read_text("utf-8")
GENERATION = (ROOT / "docs" / "generation.md").read_text("utf-8")
AUDIT = (ROOT / "docs" / "audit.md").read_text("utf-8")
HUB = (ROOT / "docs" / "hub.md").read_text("utf-8")
LOOP = (ROOT / "docs" / "loop.md").read_text("utf-8")
VERIFICATION = (ROOT / "docs" / "verification.md").read_text("utf-8")
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").glob("*.md")),
    ROOT / "benchmarks" / "README.md",
]


def blocks(language: str, page: str = README) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[str]:
    """Every command of the bash blocks that are not scripts, on one line each."""
    shown = [block for block in blocks("bash", page) if not block.startswith("#!")]
    return [line for line in "".join(shown).replace("\\\n", " ").splitlines() if line.strip()]


def console_steps(page: str) -> list[tuple[str, list[str]]]:
    """Every ``$ command`` of the console blocks with the lines shown below it."""
    steps: list[tuple[str, list[str]]] = []
    for line in "".join(blocks("console", page)).splitlines():
        if line.startswith("$ "):
            steps.append((line[2:], []))
        else:
            steps[-1][1].append(line)
    return steps


def as_pattern(lines: list[str]) -> str:
    """A line of three dots stands for any lines; within a line they stand for any text."""
    patterns = (re.escape(line).replace(re.escape("..."), ".*") + "\n" for line in lines)
    return "".join(r"(?:.*\n)*" if line == ".*\n" else line for line in patterns)


def run_console(page: str, folder: Path, **environment: str) -> int:
    """Run a page's console sessions in a folder; how many commands there were."""
    environment = {**os.environ, "HF_DATASETS_DISABLE_PROGRESS_BARS": "1", **environment}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    ran = 0
    for command, shown in console_steps(page):
        if command.startswith("source ") or command == "make demo":
            continue  # the test runs in that environment already; and a quick demo has a test of its own
        ended = subprocess.run(
            ["bash", "-c", command], cwd=folder, env=environment, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=120, check=False,
        )  # fmt: skip
        assert ended.returncode == 0, ended.stdout
        assert re.fullmatch(as_pattern(shown), ended.stdout), f"$ {command}\n{ended.stdout}"
        ran += 1
    return ran


def test_console_sessions_print_what_the_readme_shows(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "spider").symlink_to(shared_data / "spider")
    assert run_console(README, tmp_path, HF_HUB_OFFLINE="1") >= 6


def test_the_page_of_the_audit_shows_what_is_printed(tmp_path: Path, shared_data: Path) -> None:
    (tmp_path / "bird").symlink_to(shared_data / "bird")
    (tmp_path / "answers.jsonl").symlink_to(shared_data / "candidates" / "bird_dev_superhero.jsonl")
    assert run_console(AUDIT, tmp_path, HF_HUB_OFFLINE="1") == 5


def test_the_page_of_the_hub_shows_what_is_printed(tmp_path: Path) -> None:
    from hub import HubServer

    done("demo", "--data-only", "--out", tmp_path / "runs" / "demo")
    with HubServer() as hub:
        assert run_console(HUB, tmp_path, **hub.environment(tmp_path / "home")) == 3


PAGES_OF_COMMANDS = (README, TRAINING, HUB, GENERATION, VERIFICATION, AUDIT, LOOP)


@pytest.mark.parametrize("line", [line for page in PAGES_OF_COMMANDS for line in commands(page)])
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
    for page in (TRAINING, HUB):
        for block in blocks("python", page):
            compile(block, "page", "exec")
    for block in blocks("python"):
        compile(block, "README.md", "exec")
        imports = "\n".join(line for line in block.splitlines() if line.startswith(("from ", "import ")))
        exec(imports, {})


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}-{page.name}")
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / target).exists(), target
