"""How options are declared and read: fields of a dataclass, filled from YAML, from flags, or by hand, and checked."""

from __future__ import annotations

import difflib
import math
import types
import typing
from dataclasses import MISSING, Field, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

from .errors import ExcotError

C = TypeVar("C")


def option(
    default: Any = MISSING,
    help: str = "",
    *,
    name: str | None = None,
    affects_output: bool = True,
    positional: bool = False,
) -> Any:
    """A dataclass field with what the command line needs to know of it.

    Args:
        default: the default value; without one the option must be given.
        help: one line for ``--help``.
        name: the option's name for users, where Python cannot have it (``from``).
        affects_output: whether other output comes from another value. What does not may change between the start of a
            stage and its going on.
        positional: whether the command line takes it without a flag.
    """
    metadata = {"help": help, "name": name, "affects_output": affects_output, "positional": positional}
    if isinstance(default, list):
        return field(default_factory=lambda: list(default), metadata=metadata)
    return field(default=default, metadata=metadata)


def from_dict(cls: type[C], values: dict[str, Any], source: str) -> C:
    """Make a config from names and values.

    Raises:
        ExcotError: an unknown name (with the nearest known one), a missing option, or a value that does not fit.
    """
    known = {public_name(f): f.name for f in fields(cls)}
    for name in values:
        if name not in known:
            near = difflib.get_close_matches(str(name).replace("-", "_"), known, n=1)
            raise ExcotError(
                f"{source}: unknown option {name!r}",
                f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(known))}",
            )
    for f in fields(cls):
        if f.default is MISSING and f.default_factory is MISSING and public_name(f) not in values:
            shown = f.name.upper() if f.metadata["positional"] else flag(f.name)
            raise ExcotError(f"{source}: {shown} is missing", f"give it, or write {f.name}: ... in a --config file")
    return cls(**{known[name]: value for name, value in values.items()})


def public_name(f: Field) -> str:
    """What users call an option, in YAML and, with dashes, as a flag."""
    return f.metadata["name"] or f.name


def read_yaml(path: str) -> dict[str, Any]:
    """The options in a YAML file, with dashes in names taken for underscores.

    Raises:
        ExcotError: no such file, no YAML, or no mapping.
    """
    import yaml

    try:
        values = yaml.safe_load(Path(path).read_text("utf-8"))
    except OSError as error:
        raise ExcotError(f"cannot read {path} ({error.strerror})", "check the path given to --config") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExcotError(f"{path} is not YAML ({error})", "mend the file") from None
    if not isinstance(values, dict):
        raise ExcotError(f"{path} holds no options", "write one `name: value` a line")
    return {str(name).replace("-", "_"): value for name, value in values.items()}


def check(config: Any) -> None:
    """See that every value has its option's type; an int is taken for a float.

    Raises:
        ExcotError: naming the option, the value seen and what it may be.
    """
    hints = typing.get_type_hints(type(config))
    for f in fields(config):
        value = getattr(config, f.name)
        hint = hints[f.name]
        if isinstance(value, int) and not isinstance(value, bool) and float in (hint, *typing.get_args(hint)):
            setattr(config, f.name, float(value))
        elif not _fits(value, hint):
            shown = f.name.upper() if f.metadata["positional"] else flag(public_name(f))
            raise ExcotError(f"{shown} is {value!r}", f"it takes {_words(hint)}")


def at_least(config: Any, **bounds: float) -> None:
    _bounded(config, bounds, lambda value, bound: value < bound, "at least")


def at_most(config: Any, **bounds: float) -> None:
    _bounded(config, bounds, lambda value, bound: value > bound, "at most")


def _bounded(config: Any, bounds: dict[str, float], violates: typing.Callable, words: str) -> None:
    for name, bound in bounds.items():
        value = getattr(config, name)
        if value is not None and violates(value, bound):
            raise ExcotError(f"{flag(name)} is {value}", f"it takes {words} {bound}")


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def element_type(hint: Any) -> tuple[type, tuple[Any, ...], bool]:
    """What one word of an option on the command line is: its type, its choices, and whether several may be given."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):
        hint = next(arg for arg in typing.get_args(hint) if arg is not type(None))
    several = typing.get_origin(hint) is list
    if several:
        (hint,) = typing.get_args(hint)
    if typing.get_origin(hint) is Literal:
        return str, typing.get_args(hint), several
    return hint, (), several


def _fits(value: Any, hint: Any) -> bool:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, arg) for arg in args)
    if origin is list:
        return isinstance(value, list) and all(_fits(item, args[0]) for item in value)
    if origin is Literal:
        return value in args
    if hint is str:
        return isinstance(value, str) and bool(value.strip())  # an unset variable of a shell script, most of the time
    if hint is float:
        return isinstance(value, float) and math.isfinite(value)
    return type(value) is hint


def _words(hint: Any) -> str:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        return " or ".join(_words(arg) for arg in args)
    if origin is list:
        return f"a list of {_words(args[0])}"
    if origin is Literal:
        return ", ".join(map(str, args))
    return {int: "a whole number", float: "a number", str: "some text", bool: "true or false", dict: "a mapping"}.get(
        hint, "nothing"
    )
