"""Everything that touches a database, and the only place that decides right from wrong."""

from .cache import Cache
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
from .pool import available_cores, verify_all
from .preview import Preview
from .sandbox import Execution, Limits, Sandbox
from .verify import GoldOutcome, Outcome, Task, Verdict, Verifier

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
