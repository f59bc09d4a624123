"""A manifest of two rounds by hand, and the golden files of what is made of it."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from excot.stages import dataset_name

DATABASES = {"concert": {"concert.sqlite": "a" * 64}, "pets": {"pets.sqlite": "b" * 64}}
SAMPLING = {"n": 32, "temperature": 1.0, "top_p": 1.0, "max_tokens": 4096, "seed": 0}


def make_manifest() -> dict[str, Any]:
    """Two rounds on questions of Spider: a teacher behind an endpoint, and a student that learned from its pairs."""
    options = {"limit": None, "benchmark": "spider", "split": "train", "descriptions": False}
    return {
        "stages": {
            "questions": entry("questions", 400, arguments=options, databases=DATABASES, without_database=0),
            **_student(),
            **_teacher(),
        }
    }


def _teacher() -> dict[str, Any]:
    answers = entry(
        "generations",
        400,
        "questions",
        arguments={"backend": "openai", "model": "gpt-4o", "limit": None, **SAMPLING},
        model="gpt-4o-2024-08-06",
        prompt_id="divide_and_conquer-6b00a24c",
        few_shots=3,
        endpoint={"endpoint": "https://api.openai.com/v1"},
        candidates=12_796,
        without_candidates=2,
        failed={"spider-train-0007": "the content filter refused this question"},
        prompt_tokens=1_234_567,
        completion_tokens=9_876_543,
        cost={"currency": "USD", "amount": 104.25},
    )
    statuses = {"ok": 11_825, "error": 483, "no_sql": 300, "truncated": 188}
    return _round(0, answers, statuses, matched=8_910, solved=371, sft=368, pairs=305)


def _student() -> dict[str, Any]:
    trained = {
        "stage": "dpo",
        "model": {"name": "meta-llama/Llama-3.1-8B-Instruct"},
        "data": [{"name": "team/spider-pairs", "config": "pairs", "fingerprint": fingerprint_of("pairs")}],
    }
    answers = entry(
        "generations_round1",
        400,
        "questions",
        arguments={"backend": "transformers", "model": "student", "limit": None, **SAMPLING},
        model="/home/somebody/models/student",
        revision="0f1e2d3c",
        trained=trained,
        prompt_id="divide_and_conquer-6b00a24c",
        few_shots=0,
        endpoint={},
        candidates=12_800,
        without_candidates=0,
        failed={},
    )
    statuses = {"ok": 12_402, "error": 310, "no_sql": 60, "truncated": 28}
    return _round(1, answers, statuses, matched=9_904, solved=383, sft=380, pairs=260)


def _round(
    number: int, answers: dict[str, Any], statuses: dict[str, int], matched: int, solved: int, sft: int, pairs: int
) -> dict[str, Any]:
    generations, verified, *chosen = (dataset_name(s, number) for s in ("generations", "verified", "sft", "pairs"))
    options = {"rule": "set", "max_per_question": 1, "limit": None}
    return {
        generations: answers,
        verified: entry(
            verified,
            400,
            generations,
            arguments={"timeout": 5.0, "limit": None},
            limits={"seconds": 5.0, "rows": 1_000_000, "result_bytes": 200_000_000},
            databases=DATABASES,
            statuses=statuses,
            golds={"ok": 396, "empty": 3, "error": 1},
            matches={"set": matched, "multiset": matched - 9, "ordered": matched - 11, "test_suite": matched},
            questions_with_a_match={"set": solved, "multiset": solved, "ordered": solved - 1, "test_suite": solved},
            versions={"python": "3.11.7", "sqlite": "3.40.1"},
        ),
        chosen[0]: entry(chosen[0], sft, verified, arguments={**options, "choose": "first"}),
        chosen[1]: entry(
            chosen[1], pairs, verified, arguments={**options, "strategy": "farthest", "rejected": ["ok", "error"]}
        ),
    }


def entry(name: str, rows: int, *inputs: str, **facts: Any) -> dict[str, Any]:
    """What a manifest says of a dataset."""
    fingerprint = fingerprint_of(name)
    return {
        "excot": "0.1.0",
        "arguments": {},
        "inputs": {source: fingerprint_of(source) for source in inputs},
        "rows": rows,
        "split": "train",
        "fingerprint": fingerprint,
        "files": {f"{name}/train-00000-of-00001-{fingerprint[:8]}.parquet": "0" * 64},
        "seconds": 12.3,
        **facts,
    }


def fingerprint_of(name: str) -> str:
    """A fingerprint for a dataset of that name."""
    return hashlib.sha256(name.encode()).hexdigest()


def only(manifest: dict[str, Any], *names: str) -> dict[str, Any]:
    """The manifest of a repository that holds these datasets alone."""
    stages = manifest["stages"]
    ancestors = {name: made for name, made in stages.items() if name not in names}
    return {"stages": {name: stages[name] for name in names}, "ancestors": ancestors}


def put_rows(folder: Path, manifest: dict[str, Any], name: str, *rows: dict[str, Any]) -> None:
    """Write the file of a dataset that the manifest names."""
    (path,) = (folder / file for file in manifest["stages"][name]["files"])
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.Table.from_pylist(list(rows)), path)


def check_golden(name: str, text: str) -> None:
    """Hold a text against a file of ``tests/golden``.

    After a wanted change, write the files anew with ``RENEW_GOLDEN=1 pytest tests/test_dataset_card.py
    tests/test_funnel.py``, and read the difference before you keep it.
    """
    path = Path(__file__).parent / "golden" / name
    if os.environ.get("RENEW_GOLDEN"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode())
    assert text == path.read_bytes().decode(), f"{path} differs; RENEW_GOLDEN=1 writes it anew"
