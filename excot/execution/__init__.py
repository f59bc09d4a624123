"""Everything that touches a database, and the only place that decides right from wrong."""

from .compare import RULES, GoldRows, Matches, compare
from .database import (
    Column,
    DatabaseError,
    Databases,
    MissingDatabase,
    Table,
    connect,
    describe,
    file_hash,
    signature,
)
from .measure import Measured, Measures
from .pool import available_cores, verify_all
from .sandbox import Execution, Limits, Sandbox
from .verify import GoldOutcome, Outcome, Task, Verdict, Verifier

__all__ = [
    "RULES",
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
    "signature",
    "verify_all",
]
