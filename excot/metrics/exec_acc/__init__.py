"""The metric ``excot/exec_acc``: `evaluate` loads ``exec_acc.py``; without it, call the function ``compute``."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def __getattr__(name: str) -> Any:
    # By its full name, for this folder has another one: excot/exec_acc is a link to it, as `evaluate` looks there.
    if name == "compute":
        return import_module("excot.metrics.compute").compute
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
