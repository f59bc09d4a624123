"""The ``excot`` command: verbs become stage functions, flags become configs, failures become one line and a remedy."""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Any, get_type_hints

from . import __version__, config
from .errors import ExcotError, UsageError
from .options import element_type, flag, from_dict, public_name, read_yaml
from .parent import end_with_parent
from .terminal import explain, fail, talk_on_stderr


@dataclass(frozen=True)
class Verb:
    """A verb: its options, and where the function is that takes them and returns the lines to print."""

    options: type
    module: str
    function: str


VERBS = {
    "questions": Verb(config.QuestionsConfig, "builders.questions", "make_questions"),
    "generate": Verb(config.GenerateConfig, "builders.generations", "generate"),
    "verify": Verb(config.VerifyConfig, "builders.verified", "verify"),
    "audit": Verb(config.AuditConfig, "builders.audit", "audit"),
    "sft": Verb(config.SftConfig, "builders.sft", "make_sft"),
    "pairs": Verb(config.PairsConfig, "builders.pairs", "make_pairs"),
    "score": Verb(config.ScoreConfig, "metrics.score", "score_run"),
    "compare": Verb(config.CompareConfig, "metrics.comparison", "compare_runs"),
    "run": Verb(config.RunConfig, "recipes.loop", "run_loop"),
    "push": Verb(config.PushConfig, "hub.push", "push"),
    "pull": Verb(config.PullConfig, "hub.pull", "pull"),
    "lineage": Verb(config.LineageConfig, "hub.lineage", "lineage"),
    "doctor": Verb(config.DoctorConfig, "doctor", "doctor"),
    "metric": Verb(config.MetricConfig, "metrics.publish", "publish"),
    "demo": Verb(config.DemoConfig, "demo", "demo"),
}


def main(argv: list[str] | None = None) -> int:
    """Run one verb; the exit code is 0, 1 for a failure, 2 for wrong usage, 130 after Ctrl-C."""
    argv = sys.argv[1:] if argv is None else argv
    end_with_parent()
    if argv[:1] == ["train"]:  # whose options are TRL's, in the hundreds
        from .training.launch import main as train

        return train(argv[1:])
    flags = _parse(argv)
    verb, yaml_path, debug = flags.pop("verb"), flags.pop("config", None), flags.pop("debug")
    talk_on_stderr()
    try:
        values = read_yaml(yaml_path) if yaml_path else {}
        options = from_dict(VERBS[verb].options, {**values, **flags}, yaml_path or f"excot {verb}")
    except ExcotError as error:
        return fail(error, debug, code=2)
    try:
        # Imported late: `excot --help` and wrong usage must not wait for the libraries that the stages need.
        run = getattr(import_module(f".{VERBS[verb].module}", __package__), VERBS[verb].function)
        if not getattr(options, "push_to_hub", None) or options.dry_run:
            print(run(options), flush=True)
        else:
            from .hub.push import check_before, push, push_options

            check_before(options)
            print(run(options), flush=True)
            print(push(push_options(options)), flush=True)
    except KeyboardInterrupt:
        print("\nstopped; what is finished is kept: start the same command again to go on", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stdout = open(os.devnull, "w")  # the reader (head, say) has left: nothing more can be said to it
        return 0
    except ExcotError as error:
        return fail(error, debug, code=2 if isinstance(error, UsageError) else 1)
    except OSError as error:
        return fail(explain(error), debug)
    return 0


def _parse(argv: list[str]) -> dict[str, Any]:
    """The options given. Words without a flag are taken in order wherever they stand among the flags."""
    parser = _parser()
    namespace, rest = parser.parse_known_args(argv)
    found = vars(namespace)
    # argparse gives up on optional positionals once a flag has stood between them.
    for f in fields(VERBS[found["verb"]].options):
        if f.metadata["positional"] and f.name not in found and rest and not rest[0].startswith("-"):
            found[f.name] = rest.pop(0)
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="excot", description="Text-to-SQL training data and models by execution feedback."
    )
    parser.add_argument("--version", action="version", version=f"excot {__version__}")
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, verb in VERBS.items():
        about = (verb.options.__doc__ or "").strip()
        _add_options(verbs.add_parser(name, help=about, description=about), verb.options)
    verbs.add_parser("train", help="Train a model by a recipe: SFT, DPO or GRPO, alone or by accelerate.")
    return parser


def _add_options(parser: argparse.ArgumentParser, options: type) -> None:
    # Nothing has a default here: what was not given must not override what a --config file says.
    parser.argument_default = argparse.SUPPRESS
    hints = get_type_hints(options)
    for f in fields(options):
        type_, choices, several = element_type(hints[f.name])
        name = public_name(f)
        text = f.metadata["help"] + _default_text(f)
        settings: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS}
        if f.metadata["positional"]:
            # Without `choices`: argparse would hold the absent default against them. The config checks the value.
            metavar = "{" + ",".join(choices) + "}" if choices else name.upper()
            parser.add_argument(name, nargs="?", metavar=metavar, **settings)
        elif type_ is bool:
            parser.add_argument(flag(name), dest=name, action="store_true", **settings)
        else:
            if several:
                settings["nargs"] = "+"
            if choices:
                settings["choices"] = choices
            else:
                settings["metavar"] = {int: "N", float: "X"}.get(type_, name.upper())
            parser.add_argument(flag(name), dest=name, type=type_, **settings)
    parser.add_argument("--config", metavar="FILE.yaml", help="options from a file; flags win")
    parser.add_argument("--debug", action="store_true", default=False, help="show the traceback of a failure")


def _default_text(f: Any) -> str:
    default = f.default_factory() if callable(f.default_factory) else f.default
    if default is None or default is False or not isinstance(default, (str, int, float, list)):
        return ""
    return f" (default: {' '.join(default) if isinstance(default, list) else default})"


if __name__ == "__main__":
    sys.exit(main())
