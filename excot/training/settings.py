"""The settings of a recipe, checked before torch is imported.

A mistyped key in a recipe should not cost the minutes that eight processes need to import torch and load a model. TRL
itself reads unknown keys of a file without a word. What TRL's and transformers' option classes know is read off their
sources, because importing them imports torch.
"""

from __future__ import annotations

import ast
import difflib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args, get_type_hints

from ..errors import ExcotError
from ..options import read_yaml
from .arguments import GrpoArguments, RecipeArguments

STAGES = ("sft", "dpo", "grpo")

_OURS = {"sft": RecipeArguments, "dpo": RecipeArguments, "grpo": GrpoArguments}
_THEIRS = (  # package, file, class; what comes later overrides what comes before
    ("trl", "scripts/utils.py", "DatasetMixtureConfig"),
    ("trl", "trainer/model_config.py", "ModelConfig"),
    ("transformers", "training_args.py", "TrainingArguments"),
    ("trl", "trainer/base_config.py", "_BaseConfig"),
)
_FOLDERS = ("databases", "ex_databases")
_FILES = ("chat_template_path", "deepspeed")
_REPOSITORIES = ("model_name_or_path", "dataset_name", "ex_dataset")

Kinds = frozenset[str]
"""What an option takes: names of Python's types, ``None`` among them; an enumeration counts as ``str``."""


def check_settings(stage: str, argv: list[str]) -> dict[str, Any]:
    """Read ``--config`` and the flags, and refuse what the recipe does not understand.

    Args:
        stage: ``sft``, ``dpo`` or ``grpo``.
        argv: the command line without the program's name.

    Returns:
        What the file says, by option; the flags' values are not among it.

    Raises:
        ExcotError: a file that cannot be read, an unknown option (with the nearest known one), a value of another
            type, a path that does not exist, or no model or dataset.
    """
    options = known_options(stage)
    path = _config_path(argv)
    values = read_yaml(path) if path else {}
    flags = _flags(argv)
    for name in values.keys() - {"env"}:
        _known(name, options, path or "")
    for name in flags.keys() - {"config", "help", "h"}:
        _known(name.removeprefix("no_") if name not in options else name, options, f"recipe {stage}")
    if {"help", "h"} & flags.keys():
        return values
    for name, value in values.items():
        if name != "env" and not _fits(value, options[name]):
            raise ExcotError(f"{path}: {name} is {value!r}", f"it takes {_words(options[name])}")
    given = {**values, **{name: value for name, value in flags.items() if value is not None}}
    _check_paths(given)
    for name, others in (("model_name_or_path", ()), ("dataset_name", ("datasets",))):
        if not any(given.get(known) for known in (name, *others)):
            raise ExcotError(f"{name} is missing", f"give --{name}, or write {name}: ... in the --config file")
    return values


@lru_cache
def known_options(stage: str) -> dict[str, Kinds]:
    """Every option of a recipe and what it takes, without importing torch."""
    theirs = (*_THEIRS, ("trl", f"trainer/{stage}_config.py", f"{stage.upper()}Config"))
    options: dict[str, Kinds] = {}
    for package, file, name in theirs:
        options |= _fields_in_source(package, file, name)
    for name, hint in get_type_hints(_OURS[stage]).items():
        text = hint.__name__ if isinstance(hint, type) and not get_args(hint) else str(hint)
        options[name] = _kinds(ast.parse(text, mode="eval").body)
    return options


def _fields_in_source(package: str, file: str, name: str) -> dict[str, Kinds]:
    spec = find_spec(package)
    source = Path(spec.origin).with_name("__init__.py").parent / file if spec and spec.origin else None
    if source is None or not source.is_file():
        raise ExcotError(
            f"{package} has no {file}: this version is not known to excot", "pip install 'excot[train]' again"
        )
    (node,) = (
        node
        for node in ast.parse(source.read_text("utf-8")).body
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    return {
        part.target.id: _kinds(part.annotation)
        for part in node.body
        if isinstance(part, ast.AnnAssign) and isinstance(part.target, ast.Name) and _is_option(part)
    }


def _is_option(part: ast.AnnAssign) -> bool:
    """Not a class variable, nor a field that the class fills in by itself."""
    if "ClassVar" in ast.unparse(part.annotation):
        return False
    keywords = part.value.keywords if isinstance(part.value, ast.Call) else []
    return not any(word.arg == "init" and ast.unparse(word.value) == "False" for word in keywords)


def _kinds(annotation: ast.expr) -> Kinds:
    """``dict[str, Any] | str | None`` is ``{"dict", "str", "None"}``."""
    if isinstance(annotation, ast.BinOp):
        return _kinds(annotation.left) | _kinds(annotation.right)
    if isinstance(annotation, ast.Subscript):
        outer = ast.unparse(annotation.value)
        return frozenset({"bool", "str"}) if outer == "Literal" else _kinds(annotation.value)
    if isinstance(annotation, ast.Constant) and isinstance(annotation.value, str):
        return _kinds(ast.parse(annotation.value, mode="eval").body)
    name = ast.unparse(annotation)
    return frozenset({name if name in ("bool", "int", "float", "list", "dict", "None") else "str"})


def _fits(value: Any, kinds: Kinds) -> bool:
    if value is None or isinstance(value, (bool, list, dict)):
        return type(value).__name__.replace("NoneType", "None") in kinds
    if isinstance(value, str) and "str" not in kinds:
        return _reads_as(value, kinds)  # YAML takes 1e-6 for text, and argparse reads it as the number it is
    if isinstance(value, int):
        return bool(kinds & {"int", "float"})
    return type(value).__name__ in kinds


def _reads_as(text: str, kinds: Kinds) -> bool:
    for kind, type_ in (("int", int), ("float", float)):
        if kind in kinds:
            try:
                type_(text)
                return True
            except ValueError:
                pass
    return "bool" in kinds and text.lower() in ("true", "false", "yes", "no")


def _words(kinds: Kinds) -> str:
    words = {
        "bool": "true or false",
        "int": "a whole number",
        "float": "a number",
        "str": "some text",
        "list": "a list, such as [a, b]",
        "dict": "a mapping",
        "None": "null",
    }
    return " or ".join(word for kind, word in words.items() if kind in kinds)


def _config_path(argv: list[str]) -> str | None:
    for place, word in enumerate(argv):
        if word == "--config":
            if place + 1 == len(argv):
                raise ExcotError("--config has no file", "give the path of a recipe")
            return argv[place + 1]
    return None


def _flags(argv: list[str]) -> dict[str, str | None]:
    """The flags that are there, with dashes as underscores; the one word behind each, or ``None``."""
    found: dict[str, str | None] = {}
    for place, word in enumerate(argv):
        if word.startswith("--") or word == "-h":
            name, _, value = word.lstrip("-").partition("=")
            following = argv[place + 1] if place + 1 < len(argv) else "--"
            found[name.replace("-", "_")] = value or (None if following.startswith("--") else following)
    return found


def _known(name: str, options: dict[str, Kinds], source: str) -> None:
    if name not in options:
        near = difflib.get_close_matches(name, options, n=1)
        remedy = f"did you mean {near[0]!r}?" if near else "see --help for what there is"
        raise ExcotError(f"{source}: unknown option {name!r}", remedy)


def _check_paths(given: dict[str, Any]) -> None:
    for name in (*_FOLDERS, *_FILES, *_REPOSITORIES):
        value = given.get(name)
        if not isinstance(value, str):
            continue
        path = Path(value).expanduser()
        # "org/name" may be a repository; nothing else may.
        local = name in _FOLDERS or value.startswith((".", "/", "~")) or value.count("/") > 1
        if local and not path.exists():
            raise ExcotError(f"{name}: there is no {value}", "check the path")
        if name in _FOLDERS and not path.is_dir():
            raise ExcotError(f"{name}: {value} is not a folder", "give the folder that holds the databases")
