"""Text-to-SQL models trained on what executes: sample chains of thought, run their SQL, learn from right and wrong.

Every public name is imported when it is first used, so that ``import excot`` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "Bird": "builders.bird",
    "Spider": "builders.spider",
    "Folder": "builders.folder",
    "make_questions": "builders.questions",
    "generate": "builders.generations",
    "verify": "builders.verified",
    "audit": "builders.audit",
    "make_sft": "builders.sft",
    "make_pairs": "builders.pairs",
    "score": "metrics.scoring",
    "score_run": "metrics.score",
    "compare_runs": "metrics.comparison",
    "QuestionsConfig": "config",
    "GenerateConfig": "config",
    "VerifyConfig": "config",
    "AuditConfig": "config",
    "SftConfig": "config",
    "PairsConfig": "config",
    "ScoreConfig": "config",
    "CompareConfig": "config",
    "ExcotError": "errors",
    "Run": "run",
    "extract_sql": "prompts",
    "load_prompt": "prompts",
    "verify_all": "execution",
    "ExecutionReward": "rewards",
    "format_reward": "rewards",
    "Task": "execution",
    "Limits": "execution",
}

__all__ = ["__version__", *sorted(_HOMES)]

if TYPE_CHECKING:
    from .builders.audit import audit
    from .builders.bird import Bird
    from .builders.folder import Folder
    from .builders.generations import generate
    from .builders.pairs import make_pairs
    from .builders.questions import make_questions
    from .builders.sft import make_sft
    from .builders.spider import Spider
    from .builders.verified import verify
    from .config import (
        AuditConfig,
        CompareConfig,
        GenerateConfig,
        PairsConfig,
        QuestionsConfig,
        ScoreConfig,
        SftConfig,
        VerifyConfig,
    )
    from .errors import ExcotError
    from .execution import Limits, Task, verify_all
    from .metrics.comparison import compare_runs
    from .metrics.score import score_run
    from .metrics.scoring import score
    from .prompts import extract_sql, load_prompt
    from .rewards import ExecutionReward, format_reward
    from .run import Run


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'excot' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
