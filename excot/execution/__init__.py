"""Everything that touches a database, and the only place that decides right from wrong."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .compare import RULES, GoldRows, Matches, compare
from .database import (
    Column,
    DatabaseError,
    Databases,
    MissingDatabase,
    Table,
    connect,
    describe,
)
from .files import file_hash, known_hash, signature
from .measure import Measured, Measures
from .preview import Preview
from .sandbox import Execution, Limits, Sandbox
from .task import GoldOutcome, Outcome, Task, Verdict
from .verify import Verifier

if TYPE_CHECKING:
    from .cache import Cache
    from .pool import available_cores, verify_all

__all__ = [
    "RULES",
    "Cache",
    "Column",
    "DatabaseError",
    "Databases",
    "Execution",
    "GoldOutcome",
    "GoldRows",
    "Limits",
    "Matches",
    "Measured",
    "Measures",
    "MissingDatabase",
    "Outcome",
    "Preview",
    "Sandbox",
    "Table",
    "Task",
    "Verdict",
    "Verifier",
    "available_cores",
    "compare",
    "connect",
    "describe",
    "file_hash",
    "known_hash",
    "signature",
    "verify_all",
]

# What workers do not need is imported when it is first used: it is a third of the time in which one starts.
_HOMES = {"Cache": "cache", "available_cores": "pool", "verify_all": "pool"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    return value
