"""``excot train``: a recipe in this process, or handed to ``accelerate launch``."""

from __future__ import annotations

import os
import sys
from importlib import import_module

from ..errors import ExcotError
from ..terminal import fail

USAGE = """usage: excot train {sft,dpo,grpo} [--accelerate_config FILE] [--num_processes N] OPTIONS

Train by a recipe: excot train dpo --config recipes/smollm2-135m/dpo_offpolicy.yaml --dataset_name runs/demo

With --accelerate_config or --num_processes this is `accelerate launch` of the recipe, else one process. All other
options are the recipe's own and TRL's: excot train dpo --help lists them.
"""
# --quiet: the recipe has said why it failed, and the launcher's traceback would bury that.
LAUNCH = [sys.executable, "-m", "accelerate.commands.launch", "--quiet"]
"""`accelerate launch` by this interpreter, whatever the PATH says."""
_LAUNCHER = {"accelerate_config": "config_file", "num_processes": "num_processes"}


def main(argv: list[str]) -> int:
    """Run ``excot train``.

    Args:
        argv: the words behind ``train``.

    Returns:
        The exit code; none where the launcher takes this process's place.
    """
    try:
        from .settings import STAGES, check_settings

        if not argv or argv[0] in ("-h", "--help"):
            print(USAGE, end="")
            return 0 if argv else 2
        stage, *words = argv
        if stage not in STAGES:
            raise ExcotError(f"no recipe {stage!r}", f"train takes {', '.join(STAGES)}")
        launcher, words = _split(words)
        check_settings(stage, words)  # before the launcher has imported torch as well
    except ExcotError as error:
        return fail(error, code=2)
    if not launcher:
        recipe = import_module(f"excot.recipes.{stage}")
        from .script import run

        return run(stage, recipe.make_parser, recipe.main, words)
    # In this process's place, so that signals and the exit code are the launcher's.
    program = [*LAUNCH, *launcher]
    os.execv(sys.executable, [*program, "-m", f"excot.recipes.{stage}", *words])


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The launcher's options as it names them, and the recipe's."""
    launcher: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        name, equals, value = word.removeprefix("--").partition("=")
        name = name.replace("-", "_")
        if not word.startswith("--") or name not in _LAUNCHER:
            rest.append(word)
            continue
        value = value if equals else next(left, "")
        if not value or value.startswith("--"):
            raise ExcotError(f"--{name} has no value", "give it one")
        if name == "accelerate_config" and not os.path.isfile(value):
            raise ExcotError(f"--{name}: there is no {value}", "give one of accelerate_configs/")
        launcher += [f"--{_LAUNCHER[name]}", value]
    return launcher, rest
