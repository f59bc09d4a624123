"""An offline stand-in for a strong teacher model: it writes its reasoning from the gold SQL, and errs on purpose."""

from __future__ import annotations

from .backend import Answer, Teacher, answer

__all__ = ["Answer", "Teacher", "answer"]
