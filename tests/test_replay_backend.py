"""Replaying candidates from files: real ones, batch results, and files with every mistake."""

from __future__ import annotations

import asyncio
import json
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from excot.llm.base import Candidate, Completion, FatalBackendError, Sampling
from excot.llm.replay import Replay

QUESTIONS = [
    {"id": f"spider-dev-{i:04d}", "db_id": f"db_{i}", "question": f"How many of {i}?", "gold_sql": f"SELECT {i}"}
    for i in range(20)
]


def row(question_id: int, *candidates: str | None, **more: Any) -> dict[str, Any]:
    return {"question_id": question_id, "candidates": list(candidates), **more}


def batch_line(custom_id: Any, *texts: str | None, status: int = 200, error: Any = None) -> dict[str, Any]:
    choices = [{"message": {"content": text}, "finish_reason": "stop"} for text in texts]
    usage = {"prompt_tokens": 31, "completion_tokens": 9 * len(texts)}
    body = {"choices": choices, "usage": usage, "model": "gpt-4o-2024-11-20"}
    return {"custom_id": custom_id, "response": {"status_code": status, "body": body}, "error": error}


def write(folder: Path, *lines: Any) -> Path:
    file = folder / "candidates.jsonl"
    file.write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines), encoding="utf-8")
    return file


def answers(replay: Replay, ids: Iterable[str], n: int = 0) -> list[Completion]:
    async def run() -> list[Completion]:
        return [await replay.complete([], n, Sampling(), {"id": i}) for i in ids]

    return asyncio.run(run())


def texts(replay: Replay, place: int, n: int = 0) -> list[str | None]:
    return [candidate.text for candidate in answers(replay, [f"spider-dev-{place:04d}"], n)[0].candidates]


def refusal(file: Path, questions: list[dict[str, Any]] = QUESTIONS) -> str:
    with pytest.raises(FatalBackendError) as caught:
        Replay(file, questions)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    assert file.name in str(caught.value)
    return str(caught.value)


# -- real candidates


def test_the_real_spider_candidates_join_with_their_questions(shared_data: Path) -> None:
    dev = json.loads((shared_data / "spider" / "dev.json").read_text())
    questions = [
        {"id": f"spider-dev-{i:04d}", "db_id": row["db_id"], "question": row["question"]} for i, row in enumerate(dev)
    ]
    file = shared_data / "candidates" / "spider_dev.jsonl"
    replay = Replay(file, questions)
    assert (replay.answered, replay.not_in_run, replay.failed) == (972, 0, 0)
    found = {q["id"]: c for q, c in zip(questions, answers(replay, [q["id"] for q in questions]), strict=True)}
    assert sum(len(completion.candidates) for completion in found.values()) == 31_104
    for line in file.read_text().splitlines():
        expected = json.loads(line)
        completion = found[f"spider-dev-{expected['question_id']:04d}"]
        assert completion == Completion(
            tuple(Candidate(sql) for sql in expected["candidates"]), None, "replay:spider_dev.jsonl"
        )


def test_real_candidates_of_another_split_are_refused(shared_data: Path) -> None:
    train = json.loads((shared_data / "spider" / "train_spider.json").read_text())
    questions = [
        {"id": f"spider-train-{i:04d}", "db_id": row["db_id"], "question": row["question"]}
        for i, row in enumerate(train)
    ]
    message = refusal(shared_data / "candidates" / "spider_dev.jsonl", questions)
    assert "line 1: db_id is 'concert_singer', but that of question spider-train-0000" in message
    assert "another split" in message


# -- rows of predictions


def test_rows_join_by_place_or_id_and_never_by_position(tmp_path: Path) -> None:
    file = write(tmp_path, row(7, "SELECT 7"), {"id": "spider-dev-0003", "candidates": ["SELECT 3"]}, "", row(0, "S"))
    replay = Replay(file, QUESTIONS)
    assert (texts(replay, 7), texts(replay, 3), texts(replay, 0)) == (["SELECT 7"], ["SELECT 3"], ["S"])
    assert replay.answered == 3


@given(
    rows=st.dictionaries(
        st.integers(0, 25), st.lists(st.none() | st.text(st.characters(codec="utf-8")), max_size=4), min_size=1
    ),
    n=st.integers(0, 5),
)
def test_what_stands_in_the_file_comes_out_untouched(
    rows: dict[int, list[str | None]], n: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("replay") / "c.jsonl"
    lines = [json.dumps(row(place, *candidates), ensure_ascii=False) for place, candidates in rows.items()]
    file.write_bytes("\r\n".join([*lines, "  "]).encode())
    replay = Replay(file, QUESTIONS)
    for place in range(20):
        assert texts(replay, place, n) == (rows.get(place, [])[: n or None])
    assert replay.not_in_run == sum(place >= 20 for place in rows)
    assert replay.answered == sum(bool(candidates) for place, candidates in rows.items() if place < 20)


def test_n_takes_the_first_and_zero_takes_all(tmp_path: Path) -> None:
    replay = Replay(write(tmp_path, row(1, "a", "b", "c")), QUESTIONS)
    assert (texts(replay, 1, 2), texts(replay, 1, 0), texts(replay, 1, 9)) == (["a", "b"], ["a", "b", "c"], [*"abc"])


def test_a_question_without_candidates_gets_none(tmp_path: Path) -> None:
    assert texts(Replay(write(tmp_path, row(1, "a")), QUESTIONS), 2) == []


def test_white_space_does_not_make_questions_differ(tmp_path: Path) -> None:
    file = write(tmp_path, row(1, "a", question="  How many\n of 1? ", db_id="db_1"))
    assert texts(Replay(file, QUESTIONS), 1) == ["a"]


@pytest.mark.parametrize(("field", "value"), [("db_id", "db_2"), ("question", "Who?")])
def test_a_row_that_contradicts_its_question_is_refused(field: str, value: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path, row(0, "a"), row(1, "a", **{field: value})))
    assert f"line 2: {field} is {value!r}, but that of question spider-dev-0001 is {QUESTIONS[1][field]!r}" in message
    assert "another split" in message


def test_a_question_given_twice_names_both_lines(tmp_path: Path) -> None:
    message = refusal(write(tmp_path, row(0, "a"), row(1, "b"), {"id": "spider-dev-0000", "candidates": ["c"]}))
    assert "line 3: a second row for question spider-dev-0000; line 1 is the first" in message


def test_a_place_that_two_benchmarks_share_is_not_guessed(tmp_path: Path) -> None:
    both = [*QUESTIONS, {"id": "bird-dev-0001", "db_id": "b", "question": "B?"}]
    assert "question 1 could be of more than one benchmark" in refusal(write(tmp_path, row(1, "a")), both)
    replay = Replay(write(tmp_path, {"id": "bird-dev-0001", "candidates": ["a"]}, row(2, "c")), both)
    assert replay.answered == 2


# -- batch results


def test_lines_of_a_batch_add_their_choices_up_in_file_order(tmp_path: Path) -> None:
    file = write(tmp_path, batch_line("run-a-12", "x", None), batch_line("q3", "z"), batch_line("run-b-12", "y"))
    completion = answers(Replay(file, QUESTIONS), ["spider-dev-0012"])[0]
    assert completion == Completion(
        (Candidate("x", "stop"), Candidate(None, "stop"), Candidate("y", "stop", 9)), 31, "gpt-4o-2024-11-20"
    )
    assert texts(Replay(file, QUESTIONS), 12, n=1) == ["x"]


def test_a_given_model_name_wins(tmp_path: Path) -> None:
    replay = Replay(write(tmp_path, batch_line("1", "x"), row(2, "y")), QUESTIONS, model="my-model")
    assert [c.model for c in answers(replay, ["spider-dev-0001", "spider-dev-0002"])] == ["my-model"] * 2
    assert replay.model == "my-model"


def test_failed_batch_lines_are_counted_and_skipped(tmp_path: Path) -> None:
    expired = {"custom_id": "r-3", "response": None, "error": {"code": "batch_expired"}}
    file = write(tmp_path, batch_line("r-1", "x", status=429), expired, batch_line("r-2", "y", error={"code": "z"}))
    replay = Replay(file, QUESTIONS)
    assert (replay.failed, replay.answered) == (3, 0)


def test_both_forms_may_stand_in_one_file(tmp_path: Path) -> None:
    replay = Replay(write(tmp_path, row(1, "a"), batch_line("r-2", "b")), QUESTIONS)
    assert (texts(replay, 1), texts(replay, 2)) == (["a"], ["b"])


def test_a_custom_id_in_the_form_of_another_splits_ids_is_not_taken_for_ours(tmp_path: Path) -> None:
    file = write(
        tmp_path,
        batch_line("spider-train-0001", "other"),
        batch_line("bird-mini_dev-0002", "other"),
        batch_line("spider-dev-3", "ours"),
        batch_line("spider-dev-0004", "ours"),
    )
    replay = Replay(file, QUESTIONS)
    assert [texts(replay, i) for i in (1, 2, 3, 4)] == [[], [], ["ours"], ["ours"]]
    assert replay.not_in_run == 2


# -- files with mistakes


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ('{"question_id": 1, "candidates": ["SELE', "not JSON"),
        ("[]", "not a JSON object but []"),
        ('"SELECT 1"', "not a JSON object"),
        ({"candidates": ["a"]}, "no question_id, id or custom_id among the keys ['candidates']"),
        ({"question_id": "one", "candidates": []}, "question_id is not a whole number but 'one'"),
        ({"question_id": True, "candidates": []}, "question_id is not a whole number but True"),
        ({"id": 5, "candidates": []}, "id is not text but 5"),
        ({"question_id": 1}, "no candidates"),
        ({"question_id": 1, "candidates": "SELECT 1"}, "candidates is not a list but 'SELECT 1'"),
        (row(1, "a", 5), "candidate 2 is neither text nor null but 5"),  # type: ignore[arg-type]
        (batch_line("request", "a"), "custom_id 'request' does not end in the question's number"),
        (batch_line("3f2a77c1-98de-4b1c-a8a3-0c12d4e5f692", "a"), "does not end in the question's number"),
        (batch_line(7, "a"), "custom_id 7 does not end"),
        (batch_line("r-1", 5), "content is neither text nor null but 5"),  # type: ignore[arg-type]
        ({"custom_id": "r-1", "response": {"status_code": 200, "body": {"choices": 3}}}, "not a chat completion"),
        ({"custom_id": "r-1", "response": {"status_code": 200, "body": None}}, "not a chat completion but None"),
    ],
)
def test_a_malformed_line_is_named_with_what_was_seen(line: Any, words: str, tmp_path: Path) -> None:
    message = refusal(write(tmp_path, row(0, "fine"), "", line))
    assert "line 3: " in message
    assert words in message
    assert len(message) < 400 + len(str(tmp_path))


def test_a_file_that_is_not_utf8_is_refused_and_a_byte_order_mark_is_not(tmp_path: Path) -> None:
    file = tmp_path / "c.jsonl"
    file.write_bytes(json.dumps(row(0, "a")).encode() + b"\n" + '{"candidates": ["Zürich"]}'.encode("latin-1"))
    assert "line 2: byte 0xfc at place 19 is not UTF-8" in refusal(file)
    file.write_bytes(b"\xef\xbb\xbf" + json.dumps(row(0, "a")).encode())
    assert texts(Replay(file, QUESTIONS), 0) == ["a"]


def test_files_that_cannot_be_read_are_one_line(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "none.jsonl")
    assert "Is a directory" in refusal(tmp_path)
    empty = tmp_path / "empty.jsonl"
    for content in ("", "\n \n"):
        empty.write_text(content)
        assert "is empty" in refusal(empty)


def test_the_file_is_not_held_in_memory(tmp_path: Path) -> None:
    file = write(tmp_path, *(batch_line(f"r-{i % 20}", "x" * 3000) for i in range(5000)))
    assert file.stat().st_size > 15e6
    tracemalloc.start()
    replay = Replay(file, QUESTIONS)
    assert len(texts(replay, 4)) == 250
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3e6


def test_close_closes_the_file(tmp_path: Path) -> None:
    replay = Replay(write(tmp_path, row(0, "a")), QUESTIONS)
    asyncio.run(replay.close())
    with pytest.raises(ValueError, match="closed file"):
        texts(replay, 0)
