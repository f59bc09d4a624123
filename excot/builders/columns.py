"""The columns of every dataset. They are the contract between the stages, and with everybody who loads the data.

One row per question everywhere; rows join on ``id``.
"""

from __future__ import annotations

import pyarrow as pa

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
MATCHES = pa.struct([(rule, pa.bool_()) for rule in ("set", "multiset", "ordered", "test_suite")])

_CANDIDATE = [
    ("text", pa.string()),
    ("finish_reason", pa.string()),
    ("completion_tokens", pa.int64()),
    ("seed", pa.int64()),
]
_VERDICT = [
    ("sql", pa.string()),
    ("status", pa.string()),
    ("matches", MATCHES),
    ("error", pa.string()),
    ("seconds", pa.float64()),
    ("rows", pa.int64()),
]
_JUDGED = [*_CANDIDATE, *_VERDICT]
_GOLD = pa.struct([("status", pa.string()), ("rows", pa.int64()), ("seconds", pa.float64()), ("error", pa.string())])

_QUESTION = [
    ("id", pa.string()),
    ("benchmark", pa.string()),
    ("split", pa.string()),
    ("db_id", pa.string()),
    ("question", pa.string()),
    ("evidence", pa.string()),
    ("gold_sql", pa.string()),
    ("difficulty", pa.string()),
    ("schema", pa.string()),
]
_GENERATION = [
    ("prompt_tokens", pa.int64()),
    ("completion_tokens", pa.int64()),
    ("failure", pa.string()),
    ("model", pa.string()),
    ("prompt_id", pa.string()),
    ("sampling", pa.string()),
]

_EXTRAS = [("soft_f1", pa.float64()), ("ves", pa.float64()), ("r_ves", pa.float64())]
_SAMPLE = [*_VERDICT, *_EXTRAS, ("time_ratio", pa.float64()), ("repetitions", pa.int64())]

QUESTIONS = pa.schema(_QUESTION)
GENERATIONS = pa.schema([*_QUESTION, ("candidates", pa.list_(pa.struct(_CANDIDATE))), *_GENERATION])
VERIFIED = pa.schema([*_QUESTION, ("gold", _GOLD), ("candidates", pa.list_(pa.struct(_JUDGED))), *_GENERATION])
AUDIT = pa.schema(
    [
        ("id", pa.string()),
        ("db_id", pa.string()),
        ("question", pa.string()),
        ("evidence", pa.string()),
        ("gold_sql", pa.string()),
        ("reasons", pa.list_(pa.string())),
        ("gold", _GOLD),
        ("gold_result", pa.string()),
        ("gold_rows", pa.int64()),
        ("majority_sql", pa.string()),
        ("majority_result", pa.string()),
        ("majority_rows", pa.int64()),
        ("agree", pa.int64()),
        ("voters", pa.int64()),
        ("right", pa.int64()),
    ]
)
SFT = pa.schema(
    [
        ("prompt", MESSAGES),
        ("completion", MESSAGES),
        ("id", pa.string()),
        ("db_id", pa.string()),
        ("sql", pa.string()),
    ]
)
PAIRS = pa.schema(
    [
        ("prompt", MESSAGES),
        ("chosen", MESSAGES),
        ("rejected", MESSAGES),
        ("id", pa.string()),
        ("db_id", pa.string()),
        ("chosen_sql", pa.string()),
        ("rejected_sql", pa.string()),
        ("rejected_status", pa.string()),
        ("distance", pa.int64()),
        ("strategy", pa.string()),
    ]
)
DETAILS = pa.schema(
    [
        ("system", pa.string()),
        ("rule", pa.string()),
        ("id", pa.string()),
        ("db_id", pa.string()),
        ("question", pa.string()),
        ("difficulty", pa.string()),
        ("gold_sql", pa.string()),
        ("gold", _GOLD),
        ("samples", pa.list_(pa.struct(_SAMPLE))),
        ("right", pa.float64()),
        ("vote", pa.int64()),
        *_EXTRAS,
    ]
)
