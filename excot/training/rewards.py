"""The reward functions that a GRPO recipe names."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ..errors import ExcotError
from ..rewards import ExecutionReward, format_reward
from .arguments import GrpoArguments
from .data import Data

DEFAULT = ["execution_reward"]


@contextmanager
def open_rewards(script_args: GrpoArguments, data: Data) -> Iterator[list[Callable | str]]:
    """The rewards that ``reward_funcs`` names, the execution reward if it names none.

    A name is ``execution_reward``, ``format_reward``, one of ``trl.rewards``, or a dotted path; what
    ``reward_model_name_or_path`` names comes first, as in TRL's script.

    Raises:
        ExcotError: an unknown name, or no databases.
    """
    opened: list[ExecutionReward] = []

    def find(name: str) -> Callable:
        if name == "execution_reward":
            opened.append(_execution_reward(script_args, data))
            return opened[-1]
        return format_reward if name == "format_reward" else _imported(name)

    model = script_args.reward_model_name_or_path
    try:
        yield [*([model] if model else []), *map(find, script_args.reward_funcs or DEFAULT)]
    finally:
        for reward in opened:
            reward.close()


def _execution_reward(script_args: GrpoArguments, data: Data) -> ExecutionReward:
    return ExecutionReward(
        data.databases,
        right=script_args.reward_right,
        executes=script_args.reward_executes,
        wrong=script_args.reward_wrong,
        rule=script_args.reward_rule,
        timeout=script_args.reward_timeout,
        processes=script_args.reward_processes,
    )


def _imported(name: str) -> Any:
    module, _, function = name.rpartition(".")
    try:
        if os.getcwd() not in sys.path:
            sys.path.insert(0, os.getcwd())  # one's own file beside the recipe, as TRL's script finds it
        return getattr(import_module(module or "trl.rewards"), function)
    except (ImportError, AttributeError) as error:
        raise ExcotError(
            f"no reward function {name!r} ({error})",
            "reward_funcs takes execution_reward, format_reward, a name in trl.rewards, or a dotted path",
        ) from None
