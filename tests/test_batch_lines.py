"""The lines of a batch's files, and the backend that writes and understands them."""

from __future__ import annotations

import json
from contextlib import suppress
from functools import cache
from typing import Any

import pytest
from batch_server import KEY
from hypothesis import given
from hypothesis import strategies as st

from excot.builders.batch_notes import custom_id
from excot.llm.base import BackendError, FatalBackendError, Sampling, UnanswerableError
from excot.llm.batch import Learnt, OpenAIBatch
from excot.llm.batch_lines import read_result, request_line
from excot.llm.batch_service import Batch, MayPass, QueueFull
from excot.llm.replay import Replay

pytestmark = pytest.mark.usefixtures("clean_environment")

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
COMPLETIONS = st.fixed_dictionaries(
    {
        "choices": st.lists(
            st.fixed_dictionaries(
                {}, optional={"message": JSON | st.fixed_dictionaries({"content": JSON}), "finish_reason": JSON}
            ),
            max_size=3,
        )
    },
    optional={"model": JSON, "usage": JSON | st.fixed_dictionaries({"prompt_tokens": JSON})},
)
ROWS = st.fixed_dictionaries(
    {"custom_id": JSON},
    optional={
        "response": JSON
        | st.fixed_dictionaries(
            {"status_code": JSON | st.just(200) | st.integers(0, 600), "body": JSON | COMPLETIONS}
        ),
        "error": JSON | st.fixed_dictionaries({"code": JSON, "message": JSON}),
    },
)


def backend(url: str = "http://127.0.0.1:9/v1", **options: Any) -> OpenAIBatch:
    return OpenAIBatch("tiny", url, **options)


one_backend = cache(backend)


def result(status: int = 0, body: Any = None, error: Any = None) -> Any:
    response = {"status_code": status, "body": body} if status else None
    return read_result(json.dumps({"custom_id": "x", "response": response, "error": error}).encode())


def refused(message: str, code: str | None = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": code, **more}}


@given(st.binary() | JSON.map(lambda row: json.dumps(row).encode()))
def test_what_is_no_result_is_passed_over(line: bytes) -> None:
    assert read_result(line) is None


@given(ROWS)
def test_whatever_a_result_holds_it_is_an_answer_or_an_error_of_ours(row: dict[str, Any]) -> None:
    found = read_result(json.dumps(row).encode())
    assert found is None or isinstance(row["custom_id"], str)
    with suppress(BackendError, FatalBackendError):
        completion = one_backend().completion(found, {"n": 3, "seed": 1}) if found else None
        for candidate in completion.candidates if completion else ():
            assert candidate.text is None or candidate.text.encode("utf-8").decode("utf-8") == candidate.text


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (result(200, {"choices": []}), MayPass),
        (result(429, refused("slow")), MayPass),
        (result(503, "down"), MayPass),
        (result(500), MayPass),
        (result(error={"code": "batch_expired", "message": "late"}), MayPass),
        (result(200, {}, {"code": "server_error", "message": "odd"}), MayPass),
        (result(error={"code": "batch_cancelled", "message": "stop"}), BackendError),
        (result(error={"code": "content_filter", "message": "no"}), UnanswerableError),
        (result(400, refused("your context length is too small")), UnanswerableError),
        (result(400, refused("odd")), BackendError),
        (result(400, refused("'n' is not supported", param="n")), Learnt),
        (result(404, refused("no such deployment")), FatalBackendError),
        (result(401, refused("no")), FatalBackendError),
        (result(429, refused("pay", "insufficient_quota")), FatalBackendError),
    ],
)
def test_every_kind_of_failure_is_told_from_the_others(line: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind) as caught:
        backend().completion(line, {"n": 3})
    assert type(caught.value) is kind


@pytest.mark.parametrize("code", ["token_limit_exceeded", "request_limit_exceeded"])
def test_a_full_queue_is_told_from_a_batch_that_is_wrong(code: str) -> None:
    def batch(*faults: dict[str, Any]) -> Batch:
        rows = tuple({"code": None, "message": None, "param": None, "line": None, **fault} for fault in faults)
        return Batch("b", "failed", "f", (), rows, {}, 0)

    assert isinstance(backend().refusal(batch({"code": code, "message": "full"}))[0], QueueFull)
    assert backend().refusal(batch()) == (None, {})
    assert isinstance(backend().refusal(batch({"code": "model_not_found", "line": 1}))[0], FatalBackendError)
    whole, lines = backend().refusal(batch({"code": "odd", "line": 3}, {"code": "odd", "line": 7}))
    assert whole is None and list(lines) == [3, 7]


@given(st.text(min_size=1), st.text())
def test_a_custom_id_is_short_and_plain_and_of_one_form_of_a_question(id: str, form: str) -> None:
    name = custom_id(id, form)
    assert len(name) <= 64 and name.isascii() and name.isprintable()
    assert name == custom_id(id, form) != custom_id(id, form + "!")
    assert custom_id(id + "!", form) != name


def test_results_of_ours_that_are_replayed_by_hand_join_no_wrong_question(tmp_path: Any) -> None:
    rows = [{"id": f"data-train-{k:04d}", "db_id": "d", "question": "q"} for k in range(30)]
    response = {"status_code": 200, "body": {"choices": [{"message": {"content": "SELECT 1"}}]}}
    with open(tmp_path / "results.jsonl", "w") as file:
        for row in rows:
            line = {"custom_id": custom_id(row["id"], "form"), "response": response, "error": None}
            file.write(json.dumps(line) + "\n")
    replay = Replay(tmp_path / "results.jsonl", rows)
    assert (replay.answered, replay.not_in_run) == (0, 30)


def test_a_line_holds_what_a_direct_request_would(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    messages = [{"role": "user", "content": "né \ud83d?"}]
    for name, path in (("openai", "/v1/chat/completions"), ("azure", "/chat/completions")):
        azure = {"azure": True, "api_version": "2024-10-21"} if name == "azure" else {}
        line = backend(**azure).line("x", messages, 4, Sampling(0.5, 0.9, 77, 5))
        row = json.loads(line)
        assert (row["custom_id"], row["method"], row["url"]) == ("x", "POST", path)
        assert row["body"] == {
            "model": "tiny",
            "messages": [{"role": "user", "content": "né ??"}],
            "n": 4,
            "temperature": 0.5,
            "top_p": 0.9,
            "max_tokens": 77,
            "seed": 5,
        }
    assert request_line("x", "/", {}).count(b"\n") == 1


def test_openai_itself_is_asked_by_the_name_that_all_its_models_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    assert OpenAIBatch("gpt").learnt["length_name"] == "max_completion_tokens"
    assert backend().learnt["length_name"] == "max_tokens"


def test_what_was_learnt_is_taken_over() -> None:
    first, second = backend(), backend()
    with pytest.raises(Learnt):
        first.completion(result(400, refused("unsupported 'n'", param="n")), {"n": 2})
    second.learnt = json.loads(json.dumps(first.learnt))
    assert second.one_choice and second.settings(Sampling())["n"] == 1
