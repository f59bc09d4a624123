"""Packaging and launch files: accelerate reads every config, and a wheel holds every file that the package needs."""

from __future__ import annotations

import configparser
import re
import shutil
import subprocess
import sys
import warnings
from email import message_from_bytes
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest
import yaml
from command import ROOT
from packaging.requirements import Requirement

CONFIGS = sorted((ROOT / "accelerate_configs").glob("*.yaml"))
EXPECTED = {  # kind, precision, processes, machines
    "cpu": ("NO", "no", 1, 1),
    "single_gpu": ("NO", "bf16", 1, 1),
    "multi_gpu": ("MULTI_GPU", "bf16", 8, 1),
    "fsdp2": ("FSDP", "bf16", 8, 1),
    "zero2": ("DEEPSPEED", "bf16", 8, 1),
    "zero3": ("DEEPSPEED", "bf16", 8, 1),
    "zero3_two_nodes": ("DEEPSPEED", "bf16", 16, 2),
}
ZERO = {"zero2": 2, "zero3": 3, "zero3_two_nodes": 3}


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
    found = (config.distributed_type.value, config.mixed_precision, config.num_processes, config.num_machines)
    assert found == EXPECTED[path.stem]
    assert config.use_cpu == (path.stem == "cpu") and config.machine_rank == 0
    known = {action.dest for action in launch_command_parser()._actions}
    written = yaml.safe_load(path.read_text())
    inner = {**written.get("deepspeed_config", {}), **written.get("fsdp_config", {})}
    assert inner.keys() <= known
    assert inner.get("zero_stage") == ZERO.get(path.stem)
    assert inner.get("fsdp_version") == {"fsdp2": 2}.get(path.stem)


def launched(name: str, *flags: str) -> tuple[Any, dict[str, str]]:
    """What `accelerate launch` makes of a config and flags: its arguments, and the environment of every process."""
    from accelerate.commands import launch
    from accelerate.utils.launch import prepare_deepspeed_cmd_env, prepare_multi_gpu_env

    words = ["--config_file", str(ROOT / "accelerate_configs" / f"{name}.yaml"), "--main_process_port", "0", *flags]
    args, defaults, _ = launch._validate_launch_command(launch.launch_command_parser().parse_args([*words, "x.py"]))
    if not args.use_deepspeed:
        return args, prepare_multi_gpu_env(args)
    args.deepspeed_fields_from_accelerate_config = ",".join(defaults.deepspeed_config)
    command, environment = prepare_deepspeed_cmd_env(args)
    assert command is None  # or DeepSpeed's own launcher would go over ssh
    return args, environment


@pytest.mark.parametrize("name", ZERO)
@pytest.mark.parametrize("offload", ["none", "cpu"])
def test_accelerates_deepspeed_plugin_takes_what_the_config_says(monkeypatch, name, offload):
    pytest.importorskip("accelerate")
    from accelerate.utils import DeepSpeedPlugin

    _, environment = launched(name, "--offload_optimizer_device", offload)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    plugin = DeepSpeedPlugin()
    zero = plugin.deepspeed_config["zero_optimization"]
    assert (zero["stage"], zero["offload_optimizer"]["device"]) == (ZERO[name], offload)
    assert zero["stage3_gather_16bit_weights_on_model_save"] == (ZERO[name] == 3)
    assert plugin.zero3_init_flag == (ZERO[name] == 3)
    assert plugin.gradient_clipping == "auto"  # the trainer fills it in with the recipe's max_grad_norm


def test_accelerates_fsdp_plugin_takes_what_the_config_says_without_a_warning(monkeypatch, caplog):
    pytest.importorskip("accelerate")
    from accelerate.utils import FullyShardedDataParallelPlugin

    args, environment = launched("fsdp2")
    assert args.use_fsdp
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plugin = FullyShardedDataParallelPlugin()
    written = yaml.safe_load((ROOT / "accelerate_configs" / "fsdp2.yaml").read_text())["fsdp_config"]
    found = {
        "fsdp_version": plugin.fsdp_version,
        "fsdp_reshard_after_forward": plugin.reshard_after_forward,
        "fsdp_cpu_ram_efficient_loading": plugin.cpu_ram_efficient_loading,
        "fsdp_offload_params": "CPU" in type(plugin.cpu_offload).__name__,
        "fsdp_state_dict_type": plugin.state_dict_type.name,
        "fsdp_activation_checkpointing": plugin.activation_checkpointing,
        "fsdp_auto_wrap_policy": {"transformer_auto_wrap_policy": "TRANSFORMER_BASED_WRAP"}.get(
            plugin.auto_wrap_policy.__name__
        ),
    }
    assert found == written
    assert not caplog.records


@pytest.mark.parametrize(
    ("flags", "machines", "rank"),
    [((), "2", 0), (("--machine_rank", "1"), "2", 1)]
    + [(("--machine_rank", "3", "--num_machines", "4", "--num_processes", "32"), "4", 3)],
)
def test_flags_place_each_machine_among_several(flags, machines, rank):
    pytest.importorskip("accelerate")
    args, _ = launched("zero3_two_nodes", "--main_process_ip", "node0", *flags)
    assert (args.nnodes, args.node_rank, args.nproc_per_node) == (machines, rank, "8")
    assert args.rdzv_backend == "static" and args.rdzv_endpoint == f"node0:{args.main_process_port}"


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
