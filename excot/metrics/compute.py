"""The metric as one call, in the form of the `evaluate` library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..execution import Databases
from .scoring import Prediction, score


def compute(
    predictions: Sequence[Prediction],
    references: Sequence[Mapping[str, Any]],
    databases: str | Path | Databases,
    rule: str = "set",
    return_details: bool = False,
    **options: Any,
) -> dict[str, Any]:
    """Execution accuracy, with its interval and much beside it, as one flat mapping.

    A database to ask, and two questions about it:

    >>> import sqlite3
    >>> from contextlib import closing
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> folder = TemporaryDirectory()
    >>> with closing(sqlite3.connect(Path(folder.name) / "shop.sqlite")) as connection:
    ...     _ = connection.execute("CREATE TABLE item AS SELECT 'pen' AS name, 1 AS price UNION ALL SELECT 'cup', 4")
    >>> references = [
    ...     {"db_id": "shop", "gold_sql": "SELECT name FROM item WHERE price > 2", "difficulty": "simple"},
    ...     {"db_id": "shop", "gold_sql": "SELECT name FROM item ORDER BY price"},
    ... ]

    One answer to each:

    >>> answers = ["SELECT name FROM item WHERE price >= 4", "SELECT name FROM item ORDER BY price DESC"]
    >>> result = compute(answers, references, folder.name)
    >>> result["exec_acc"], result["exec_acc_test_suite"], result["exec_acc_difficulty_simple"]
    (1.0, 0.5, 1.0)
    >>> [round(result[end], 3) for end in ("exec_acc_low", "exec_acc_high")]
    [0.342, 1.0]

    Several samples of each, of which the last question has none; and what became of every one:

    >>> samples = ["SELECT 'cup'", "SELECT name FROM item", "Let me see.\\n```sql\\nSELECT min(name) FROM item\\n```"]
    >>> result = compute([samples, []], references, folder.name, return_details=True)
    >>> result["exec_acc"], result["exec_acc_vote"], result["best_of_n"]
    (0.3333333333333333, 0.5, 0.5)
    >>> [sample["matches"]["set"] for sample in result["details"][0]["samples"]]
    [True, False, True]
    >>> folder.cleanup()

    Args:
        predictions: one for each reference: SQL, a model's whole answer, ``None``, or a list of n samples.
        references: with ``gold_sql`` and ``db_id``, and optionally ``id`` and ``difficulty``.
        databases: the folder that holds ``<db_id>/<db_id>.sqlite``.
        rule: ``set``, ``multiset``, ``ordered`` or ``test_suite``.
        return_details: whether to add ``details``, the rows of `Scores.details`.
        options: what else `score` takes.

    Raises:
        ExcotError: the input is wrong; the first offender and how many there are.
    """
    scores = score(predictions, references, databases, rule=rule, **options)
    return {**scores.summary(), **({"details": scores.details} if return_details else {})}
