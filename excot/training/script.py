"""A recipe as a program: settings checked before torch is imported, every failure one line, said once."""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import ExcotError, first_line
from ..parent import end_with_parent
from ..terminal import fail, talk_on_stderr
from .recipe import given_options
from .settings import check_settings

if TYPE_CHECKING:
    from trl import TrlParser

# A secret on a command line would end in `training_args.bin` beside the model, which is pushed.
_SECRETS = ("hub_token", "push_to_hub_token")

# How libraries that write by themselves put it; the last one is torch's, of a file that ends before what was written.
_DISK_FULL = ("No space left", "File too large", "PytorchStreamWriter failed", "unexpected pos")


def run(
    stage: str, make_parser: Callable[[], TrlParser], main: Callable[..., None], argv: list[str] | None = None
) -> int:
    """Run a recipe; the exit code is 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C.

    Args:
        stage: ``sft``, ``dpo`` or ``grpo``.
        make_parser: makes TRL's parser of the recipe's options; called once they are seen to be right.
        main: the recipe, which takes the parser's dataclasses.
        argv: the command line without the program's name.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    end_with_parent()
    # All processes meet the same errors; one of them says so. (A worker's own, such as a full disk, it says itself.)
    talk_on_stderr(logging.INFO if _is_first() else logging.CRITICAL)
    try:
        values = check_settings(stage, argv)
        _refuse_secrets(argv, values)
        plans = bool(values.get("plan")) or any(word.split("=")[0] == "--plan" for word in argv)
        # A plan for eight GPUs is made on a laptop, too.
        args = _parse(make_parser(), [*argv, "--use_cpu", "true"] if plans else argv)
        args[0].given = given_options(make_parser(), argv, values)  # kept beside the model
    except ExcotError as error:
        return _fail(error, code=2)
    try:
        main(*args)
    except KeyboardInterrupt:
        print("\nstopped: start the same command again to go on from the last checkpoint", file=sys.stderr)
        return 130
    except ExcotError as error:
        return _fail(error)
    except Exception as error:
        explained = _explained(error)
        if explained is None:
            raise
        return _fail(explained)
    return 0


def _explained(error: Exception) -> ExcotError | None:
    """What users can mend among the errors of the libraries; ``None`` for all others, whose traceback is wanted."""
    from huggingface_hub.errors import HfHubHTTPError

    if is_disk_full(error):
        return ExcotError(
            f"the disk is full ({first_line(error)})",
            "make room, then start the same command again: it goes on from the last complete checkpoint",
        )
    if isinstance(error, HfHubHTTPError):
        return ExcotError(f"the Hub refused ({error})", "check the repository's name, and the permissions of HF_TOKEN")
    return None


def is_disk_full(error: BaseException | None) -> bool:
    """Whether this, or what it came from, is a write that failed for want of room; libraries say it in many ways."""
    while error is not None:
        words = str(error)
        if getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            return True
        if any(sign in words for sign in _DISK_FULL):
            return True
        error = error.__cause__ or error.__context__
    return False


def _parse(parser: TrlParser, argv: list[str]) -> tuple[Any, ...]:
    def refuse(message: str) -> None:
        raise ExcotError(message, "see --help")

    parser.error = refuse  # argparse would print the usage of two hundred options first
    # Private unless told, and nothing is published, nor copied to where the final model belongs, before the end.
    parser.set_defaults(hub_private_repo=True, hub_strategy="end")
    try:
        args = parser.parse_args_and_config(argv)
    except (ValueError, ImportError) as error:  # what the dataclasses find wrong when they are made
        raise ExcotError(first_line(error), "change the recipe or the flags") from error
    return args


def _refuse_secrets(argv: list[str], values: dict[str, Any]) -> None:
    flags = {word.lstrip("-").partition("=")[0].replace("-", "_") for word in argv if word.startswith("--")}
    for name in _SECRETS:
        if name in flags or name in values:
            raise ExcotError(f"{name} is not taken from files or flags", "set the environment variable HF_TOKEN")


def _is_first() -> bool:
    return int(os.environ.get("RANK", "0")) == 0


def _fail(error: ExcotError, code: int = 1) -> int:
    return fail(error, code=code) if _is_first() else code
