"""Packaging and launch files: accelerate reads every config, and a wheel holds every file that the package needs."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path
from zipfile import ZipFile

import pytest
import yaml
from command import ROOT
from packaging.requirements import Requirement

CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
EXPECTED = {  # kind, precision, more than one process
    "cpu": ("NO", "no", False),
    "single_gpu": ("NO", "bf16", False),
    "multi_gpu": ("MULTI_GPU", "bf16", True),
    "fsdp2": ("FSDP", "bf16", True),
    "zero2": ("DEEPSPEED", "bf16", True),
    "zero3": ("DEEPSPEED", "bf16", True),
}


def setup() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements(text: str) -> list[Requirement]:
    return [Requirement(line) for line in text.split("\n") if line.strip()]


@pytest.mark.parametrize("path", CONFIGS, ids=[path.stem for path in CONFIGS])
def test_accelerate_reads_every_config_and_knows_all_its_keys(path):
    pytest.importorskip("accelerate")
    from accelerate.commands.config.config_args import load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    config = load_config_from_file(str(path))  # refuses unknown keys of the first level
    kind, precision, several = EXPECTED[path.stem]
    assert (config.distributed_type.value, config.mixed_precision, config.num_processes > 1) == (
        kind,
        precision,
        several,
    )
    assert config.use_cpu == (path.stem == "cpu") and config.num_machines == 1
    known = {action.dest for action in launch_command_parser()._actions}
    written = yaml.safe_load(path.read_text())
    inner = {**written.get("deepspeed_config", {}), **written.get("fsdp_config", {})}
    assert inner.keys() <= known
    assert inner.get("zero_stage") == {"zero2": 2, "zero3": 3}.get(path.stem)
    assert inner.get("fsdp_version") == {"fsdp2": 2}.get(path.stem)


def test_there_is_a_config_for_each_kind_of_machine_and_it_says_what_it_is_for():
    assert {path.stem for path in CONFIGS} == EXPECTED.keys()
    assert all(path.read_text().startswith("# ") for path in CONFIGS)


def test_the_recipes_are_reachable_from_the_root():
    assert (ROOT / "recipes").is_symlink()
    assert (ROOT / "recipes").readlink() == Path("excot/recipes")
    assert (ROOT / "recipes" / "__init__.py").is_file()


def test_what_the_package_needs_is_pinned_at_a_version_that_it_takes():
    pinned = {}
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        if line.strip() and not line.startswith("#"):
            name, version = re.fullmatch(r"([\w.-]+)==([\w.+]+)", line).groups()
            pinned[name.lower().replace("_", "-")] = version
    options, extras = setup()["options"], setup()["options.extras_require"]
    for requirement in requirements("\n".join([options["install_requires"], extras["train"], extras["dev"]])):
        version = pinned[requirement.name.lower().replace("_", "-")]
        assert requirement.specifier.contains(version), f"{requirement} excludes the pinned {version}"


@pytest.mark.skipif(find_spec("setuptools") is None, reason="building a wheel without the network needs setuptools")
def test_a_wheel_holds_every_file_of_the_package_and_asks_for_no_training_library(tmp_path):
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(ROOT / "excot", source / "excot", ignore=ignored)
    for name in ("setup.cfg", "pyproject.toml", "LICENSE", "README.md"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(tmp_path), str(source)], check=True, capture_output=True)
    with ZipFile(next(tmp_path.glob("excot-*.whl"))) as wheel:
        names = set(wheel.namelist())
        (about,) = (name for name in names if name.endswith("METADATA"))
        metadata = message_from_bytes(wheel.read(about))
        (entry_points,) = (wheel.read(name) for name in names if name.endswith("entry_points.txt"))
    package = {str(path.relative_to(ROOT)) for path in (ROOT / "excot").rglob("*") if path.is_file()}
    assert {name for name in package if "__pycache__" not in name} <= names
    assert b"excot = excot.cli:main" in entry_points
    assert metadata["Requires-Python"] == ">=3.10"
    assert "Apache-2.0" in (metadata["License"], metadata["License-Expression"])
    assert {"train", "deepspeed", "vllm", "ray", "report", "dev"} <= set(metadata.get_all("Provides-Extra"))
    needed = [Requirement(text) for text in metadata.get_all("Requires-Dist")]
    always = {requirement.name for requirement in needed if requirement.marker is None}
    assert {"datasets", "pyarrow", "sqlglot", "openai"} <= always
    assert always.isdisjoint({"torch", "transformers", "trl", "accelerate", "vllm", "ray", "matplotlib", "deepspeed"})
