"""The offline teacher over Spider's dev questions: what it means to be right is right when it is executed."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from chain import rows_of

from excot.builders.generations import generate
from excot.builders.questions import make_questions
from excot.builders.verified import verify
from excot.config import GenerateConfig, QuestionsConfig, VerifyConfig
from excot.llm.teacher import Answer, Teacher


@pytest.mark.slow
def test_answers_meant_to_be_right_are_right_and_most_of_those_meant_to_be_wrong_are_wrong(
    shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans: dict[str, list[Answer]] = {}
    plan = Teacher.plan

    def remember(self: Teacher, question: dict[str, Any], n: int, seed: int) -> list[Answer]:
        plans[question["id"]] = plan(self, question, n, seed)
        return plans[question["id"]]

    monkeypatch.setattr(Teacher, "plan", remember)
    out = str(tmp_path / "run")
    make_questions(QuestionsConfig(benchmark="spider", data=str(shared_data / "spider"), split="dev", out=out))
    generate(GenerateConfig(out=out, backend="teacher", n=8, error_rate=0.5))
    verify(VerifyConfig(out=out))

    right_in_vain, wrong, mistakes, golds = [], Counter(), Counter(), Counter()
    for row in rows_of(out, "verified"):
        golds[row["gold"]["status"]] += 1
        if row["gold"]["status"] not in ("ok", "empty"):
            assert row["gold"]["error"].startswith("no database")
            continue
        for meant, candidate in zip(plans[row["id"]], row["candidates"], strict=True):
            assert candidate["text"] == meant.text
            matches = candidate["matches"]["set"]
            if meant.mistake is None:
                if not matches:
                    right_in_vain.append((row["id"], candidate["sql"], candidate["status"], candidate["error"]))
                continue
            for mistake in (meant.mistake, None):
                mistakes[mistake] += 1
                wrong[mistake] += not matches
    print(f"\ngolds {dict(golds)}; meant to be wrong and wrong: {wrong[None]} of {mistakes[None]}")
    for mistake in sorted(filter(None, mistakes), key=lambda name: wrong[name] / mistakes[name])[:10]:
        print(f"  {mistake}: {wrong[mistake]} of {mistakes[mistake]}")
    assert right_in_vain == []
    assert golds.total() - golds["error"] == 972
    assert 3_500 < mistakes[None] < 4_300
    assert wrong[None] >= 0.8 * mistakes[None]
