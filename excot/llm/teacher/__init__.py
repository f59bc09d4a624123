"""An offline stand-in for a strong teacher model: it writes its reasoning from the gold SQL, and errs on purpose."""

from __future__ import annotations

from ...errors import import_error

try:
    import sqlglot  # noqa: F401
except ImportError:
    raise import_error("sqlglot", "teacher") from None

from .backend import Answer, Teacher, answer

__all__ = ["Answer", "Teacher", "answer"]
