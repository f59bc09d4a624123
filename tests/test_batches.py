"""Questions through a batch API: whatever the service does, each candidate once or a recorded failure."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from batch_server import KEY, BatchServer, End, Lines, fault
from batched import batch, notes
from chain import answers, ask, finished, make_data, make_run, place, read_data, rows_of
from servers import ChatServer, Reply, Request, chat, failure, obedient

from excot.builders.generations import seed_of
from excot.errors import ExcotError
from excot.run import Run

pytestmark = pytest.mark.usefixtures("clean_environment", "no_backoff")


@pytest.fixture(params=["openai", "azure"])
def azure(request: pytest.FixtureRequest) -> bool:
    return request.param == "azure"


def unlike(rows: list[dict[str, Any]], others: list[dict[str, Any]]) -> set[str]:
    """The columns in which two datasets differ."""
    assert len(rows) == len(others)
    return {name for row, other in zip(rows, others, strict=True) for name in row if row[name] != other[name]}


def directly(tmp_path: Path, count: int, model: Callable[[Request], Reply] | Reply = obedient, **options: Any) -> list:
    """The rows that the same model gives when it is asked one question after the other."""
    out = read_data(make_data(tmp_path / "directly" / "data", count), tmp_path / "directly" / "run")
    with ChatServer(otherwise=model) as server:
        ask(out, server, **options)
    return rows_of(out, "generations")


# -- the rows


def test_the_rows_are_those_that_the_same_model_gives_directly(tmp_path: Path, azure: bool) -> None:
    out = make_run(tmp_path, 12)
    with BatchServer(azure=azure) as server:
        text = batch(out, server, temperature=0.7, max_tokens=99, seed=5)
    assert text.startswith("36 answers to 12 of 12 questions by tiny-2026")
    assert text.endswith(f"in {out}\nnext: excot verify --out {out}")
    rows = rows_of(out, "generations")
    assert unlike(rows, directly(tmp_path, 12, temperature=0.7, max_tokens=99, seed=5)) == set()
    assert (server.made("files"), server.made("batches")) == (1, 1)
    assert sum(server.paid.values()) == 12
    assert Run(out).entry("generations")["endpoint"]["batch"] is True
    body = server.sent[4]
    assert {name: body[name] for name in body if name not in ("messages", "seed")} == {
        "model": "tiny",
        "n": 3,
        "temperature": 0.7,
        "top_p": 1.0,
        "max_tokens": 99,
    }


def test_a_batch_says_whose_it_is_and_a_request_what_it_asks(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with BatchServer() as server:
        batch(out, server, submit=True)
    noted = notes(out)
    (made,) = server.batches.values()
    assert made["metadata"] == {"excot_run": noted["run"], "excot_chunk": noted["chunks"][0]["tag"]}
    assert server.files[made["input_file_id"]]["filename"] == f"excot-{noted['chunks'][0]['tag']}.jsonl"
    for id, name in zip(noted["chunks"][0]["questions"], server.paid, strict=True):
        assert re.fullmatch(f"[0-9a-f]{{16}}-{id}", name)


@pytest.mark.parametrize(("limit", "files"), [({"most_requests": 5}, 3), ({"most_bytes": 9000}, None)])
def test_files_are_as_large_as_the_service_takes_them(
    tmp_path: Path, limit: dict[str, int], files: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in limit.items():
        given = {"openai": value} if name == "most_requests" else value
        monkeypatch.setattr(f"excot.llm.batch.{name.upper()}", given)
    out = make_run(tmp_path, 12)
    with BatchServer() as server:
        batch(out, server)
    sent = [row["content"] for row in server.files.values() if row["purpose"] == "batch"]
    assert len(sent) == (files or len(sent)) > 1
    assert all(len(text.splitlines()) <= limit.get("most_requests", 100) for text in sent)
    assert all(len(text) <= limit.get("most_bytes", 1_000_000) for text in sent)
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 12)) == set()


def test_results_are_joined_by_name_whatever_their_order(tmp_path: Path) -> None:
    def shuffle(output: Lines, errors: Lines) -> tuple[Lines, Lines]:
        random.Random(3).shuffle(output)
        return output, errors

    out = make_run(tmp_path, 30)
    with BatchServer(ends=[End(edit=shuffle)]) as server:
        batch(out, server)
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 30)) == set()


def test_content_that_is_null_and_lone_surrogates_are_answers(tmp_path: Path) -> None:
    reply = chat(None, "", "SELECT '\ud83d' 'né 😀'")
    out = make_run(tmp_path, 3)
    with BatchServer(reply) as server:
        batch(out, server)
    assert [answers(row) for row in rows_of(out, "generations")] == [[None, "", "SELECT '?' 'né 😀'"]] * 3


# -- fewer answers than asked for


def test_what_is_missing_is_asked_for_in_one_more_batch(tmp_path: Path) -> None:
    """An endpoint that gives one choice whatever it is asked for: 4 questions, 5 answers each."""

    def one(request: Request) -> Reply:
        return chat(f"{request.json['seed']}", completion_tokens=11)

    out = make_run(tmp_path, 4)
    with BatchServer(one) as server:
        batch(out, server, n=5)
    assert server.made("batches") == 2
    assert sum(server.paid.values()) == 20
    assert set(server.paid.values()) == {1}
    rows = rows_of(out, "generations")
    assert unlike(rows, directly(tmp_path, 4, one, n=5)) == set()
    assert len({text for row in rows for text in answers(row)}) == 20


def test_answers_stand_in_the_order_of_their_requests_though_one_of_them_came_later(tmp_path: Path) -> None:
    failing = {"armed": True}

    def one(request: Request) -> Reply:
        if request.json["n"] == 1 and place(request) == 1 and failing.pop("armed", False):
            return failure(500, "for now")
        return chat(f"{request.json['seed']}")

    out = make_run(tmp_path, 3)
    with BatchServer(one) as server:
        batch(out, server, n=4)
    assert server.made("batches") == 3
    assert sum(server.paid.values()) == 13
    calm = directly(tmp_path, 3, lambda request: chat(f"{request.json['seed']}"), n=4)
    assert unlike(rows_of(out, "generations"), calm) == set()
    assert len({text for row in rows_of(out, "generations") for text in answers(row)}) == 12


@pytest.mark.parametrize("strict", ["max_tokens", "n", "seed", "temperature"])
def test_what_the_model_does_not_take_is_learnt_from_its_first_batch(tmp_path: Path, strict: str) -> None:
    def picky(request: Request) -> Reply:
        refused = request.json.get("n", 1) > 1 if strict == "n" else strict in request.json
        if refused:
            return failure(400, f"Unsupported parameter: '{strict}' is not supported.", param=strict)
        return chat(*(f"{request.json.get('seed')} {i}" for i in range(request.json.get("n", 1))))

    out = make_run(tmp_path, 4)
    with BatchServer(picky) as server:
        batch(out, server)
    assert server.made("batches") == (3 if strict == "n" else 2) - (strict == "n")
    rows = rows_of(out, "generations")
    assert [len(row["candidates"]) for row in rows] == [3] * 4
    assert notes(out)["learnt"]["length_name"] == ("max_completion_tokens" if strict == "max_tokens" else "max_tokens")
    if strict == "seed":
        assert {candidate["seed"] for row in rows for candidate in row["candidates"]} == {None}
    else:
        assert rows[1]["candidates"][0]["seed"] == seed_of(0, rows[1]["id"])


# -- requests that fail


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_asked_again(tmp_path: Path, status: int) -> None:
    seen: Counter[int] = Counter()

    def moody(request: Request) -> Reply:
        seen[place(request)] += 1
        return failure(status, "busy") if seen[place(request)] <= place(request) % 3 else obedient(request)

    out = make_run(tmp_path, 9)
    with BatchServer(moody) as server:
        batch(out, server)
    assert server.made("batches") == 3
    assert seen == {k: 1 + k % 3 for k in range(9)}
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 9)) == set()


def test_a_request_is_made_three_times_and_its_question_then_recorded_as_failed_until_the_next_start(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer(lambda r: failure(500, "down") if place(r) == 2 else obedient(r)) as server:
        batch(out, server)
        assert sorted(server.paid.values()) == [1, 1, 1, 3]
        server.model = obedient
        assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [3, 3, 0, 3]
        (id, said), *others = Run(out).entry("generations")["failed"].items()
        assert (id, others) == ("data-train-0002", []) and "HTTP 500: down" in said
        assert "start the same command again to retry them" in caplog.text
        batch(out, server)
        assert sorted(server.paid.values()) == [1, 1, 1, 4]
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 4)) == set()
    assert Run(out).entry("generations")["failed"] == {}


@pytest.mark.parametrize(
    ("message", "code", "kind"),
    [
        (
            "maximum context length is 8192 tokens; you have 9001 in the messages",
            "context_length_exceeded",
            "too_long",
        ),
        ("The response was filtered", "content_filter", "content_filter"),
    ],
)
def test_what_will_never_be_answered_is_recorded_and_not_asked_again(
    tmp_path: Path, message: str, code: str, kind: str
) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer(lambda r: failure(400, message, code=code) if place(r) == 1 else obedient(r)) as server:
        batch(out, server)
        batch(out, server)
    assert server.made("batches") == 1
    assert [row["failure"] for row in rows_of(out, "generations")] == [None, kind, None, None]
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [3, 0, 3, 3]


def test_what_is_refused_for_another_reason_is_not_asked_again_in_this_start(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer(lambda r: failure(400, "odd") if place(r) == 1 else obedient(r)) as server:
        batch(out, server)
    assert server.made("batches") == 1
    assert list(Run(out).entry("generations")["failed"]) == ["data-train-0001"]


def test_no_credit_ends_the_run_with_all_that_was_answered_kept(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    broke = failure(429, "You exceeded your current quota", code="insufficient_quota")
    with BatchServer(lambda r: obedient(r) if place(r) < 2 else broke) as server:
        with pytest.raises(ExcotError, match="no credit left"):
            batch(out, server)
        server.model = obedient
        batch(out, server)
    assert sorted(server.paid.values()) == [1, 1, 2, 2]
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 4)) == set()


# -- how batches end

GARBAGE = [b'{"custom_id": \n', b"\xff\n", b"[]\n", b"\n"]


def spoil(output: Lines, errors: Lines) -> tuple[Lines, Lines]:
    return output[:5] + GARBAGE, errors


def mistake(output: Lines, errors: Lines) -> tuple[Lines, Lines]:
    return output[:5] + [line.replace(b'"choices"', b'"chosen"') for line in output[5:]], errors


PARTLY = {
    "expired": End("expired", answered=5),
    "expired without an answer": End("expired", answered=0),
    "failed without a word": End("failed", answered=5, silent=True),
    "completed with lines missing": End("completed", answered=5, silent=True),
    "lines twice": End("completed", edit=lambda output, errors: (output[:5] * 2, errors)),
    "lines that are no results": End("completed", edit=spoil),
    "replies without choices": End("completed", edit=mistake),
}


@pytest.mark.parametrize("end", PARTLY.values(), ids=PARTLY)
def test_whatever_is_missing_at_a_batchs_end_is_asked_again(tmp_path: Path, end: End, azure: bool) -> None:
    out = make_run(tmp_path, 8)
    with BatchServer(ends=[end], azure=azure) as server:
        batch(out, server)
    assert server.made("batches") == 2
    again = server.files[[*server.batches.values()][1]["input_file_id"]]["content"].splitlines()
    assert len(again) == (8 if end.answered == 0 else 3)
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 8)) == set()


def test_a_batch_that_ends_early_again_and_again_leaves_recorded_failures(tmp_path: Path) -> None:
    out = make_run(tmp_path, 6)
    with BatchServer(ends=[End("expired", answered=2), *[End("expired", answered=0)] * 2]) as server:
        batch(out, server)
    assert server.made("batches") == 3
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [3, 3, 0, 0, 0, 0]
    said = Run(out).entry("generations")["failed"]
    assert len(said) == 4 and all("batch_expired" in text for text in said.values())


def test_what_was_cancelled_by_hand_is_kept_as_far_as_it_came_and_not_asked_again_unasked(tmp_path: Path) -> None:
    out = make_run(tmp_path, 6)
    with BatchServer(ends=[End("cancelled", answered=4)]) as server:
        batch(out, server)
        assert server.made("batches") == 1
        assert list(Run(out).entry("generations")["failed"]) == ["data-train-0004", "data-train-0005"]
        batch(out, server)
    assert set(server.paid.values()) == {1}
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 6)) == set()


def test_lines_that_the_service_found_wanting_fail_and_the_others_are_asked_again(tmp_path: Path) -> None:
    out = make_run(tmp_path, 5)
    with BatchServer(ends=[End("failed", faults=[fault("invalid_request", "odd", 2)])]) as server:
        batch(out, server)
    assert sum(server.paid.values()) == 4
    said = Run(out).entry("generations")["failed"]
    assert list(said) == ["data-train-0001"] and "odd" in said["data-train-0001"]
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [3, 0, 3, 3, 3]


def test_a_batch_that_is_not_taken_at_all_is_one_line_and_the_next_start_hands_it_in_again(tmp_path: Path) -> None:
    out = make_run(tmp_path, 5)
    with BatchServer(
        ends=[End("failed", faults=[fault("model_not_found", "The model `tiny` is not here")])]
    ) as server:
        with pytest.raises(ExcotError, match=r"did not take the batch batch_2 \(model_not_found: The model `tiny`"):
            batch(out, server)
        batch(out, server)
    assert set(server.paid.values()) == {1}
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 5)) == set()


def test_a_batch_that_ends_the_run_keeps_no_other_from_being_collected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("excot.llm.batch.MOST_REQUESTS", {"openai": 2})
    out = make_run(tmp_path, 6)
    with BatchServer(ends=[End(), End("failed", faults=[fault("billing_hard_limit_reached", "pay")])]) as server:
        with pytest.raises(ExcotError, match="billing_hard_limit_reached: pay"):
            batch(out, server)
        assert finished(out) == {0, 1, 4, 5}
        batch(out, server)
    assert set(server.paid.values()) == {1}


def test_results_that_are_gone_are_recorded_failures(tmp_path: Path) -> None:
    out = make_run(tmp_path, 4)
    with BatchServer() as server:
        server.open = False
        batch(out, server, submit=True)
        server.open = True
        (made,) = server.batches
        server._look(made), server._look(made)
        del server.files[server.batches[made]["output_file_id"]]
        with pytest.raises(ExcotError, match="all 4 questions failed.*are no longer at"):
            batch(out, server)


# -- the service's queue


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("excot.builders.batch_steps.SMALLEST", 1)
    monkeypatch.setattr("excot.llm.batch.MOST_REQUESTS", {"openai": 4, "azure": 4})


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("room", [8, 5, 4, 2, 1])
def test_where_the_queue_has_room_for_less_it_is_handed_in_little_by_little(
    tmp_path: Path, room: int, azure: bool
) -> None:
    out = make_run(tmp_path, 12)
    with BatchServer(room=room, azure=azure) as server:
        batch(out, server)
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 12)) == set()
    assert set(server.paid.values()) == {1}
    assert server.made("batches") < 60


@pytest.mark.usefixtures("small_batches")
def test_handing_in_leaves_what_the_queue_has_no_room_for_and_collecting_hands_it_in(tmp_path: Path) -> None:
    out = make_run(tmp_path, 12)
    with BatchServer(room=4) as server:
        text = batch(out, server, submit=True)
        assert "12 are handed in; 3 batches" in text  # the service says later that two are too many
        said = [
            batch(out, server, collect=True) for _ in range(12) if "generations" not in Run(out).manifest["stages"]
        ]
    assert any("more when the queue has room" in text for text in said)
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 12)) == set()
    assert set(server.paid.values()) == {1}


@pytest.mark.parametrize("status", [400, 429])
def test_a_service_that_says_at_once_that_its_queue_is_full_is_asked_later(
    tmp_path: Path, status: int, azure: bool
) -> None:
    out, full = make_run(tmp_path, 4), failure(status, "The number of enqueued tokens", code="token_limit_exceeded")
    making = range(3, 7) if azure else range(2, 6)
    with BatchServer(troubles={k: full for k in making if k % 2 == azure}, azure=azure) as server:
        batch(out, server)
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 4)) == set()
    assert (set(server.paid.values()), server.made("files")) == ({1}, 1)


# -- the service's manners


@pytest.mark.parametrize("status", [429, 500, 502])
def test_errors_of_every_request_but_one_change_nothing(tmp_path: Path, status: int) -> None:
    out, troubles = make_run(tmp_path, 6), {k: failure(status, "busy") for k in range(60) if k % 3}
    with BatchServer(troubles=troubles) as server:
        batch(out, server)
    assert set(server.paid.values()) == {1}
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 6)) == set()


def test_replies_that_are_no_json_change_nothing(tmp_path: Path) -> None:
    out, troubles = make_run(tmp_path, 6), {k: Reply('{"id": ') for k in range(60) if k % 3}
    with BatchServer(troubles=troubles) as server:
        batch(out, server)
    assert unlike(rows_of(out, "generations"), directly(tmp_path, 6)) == set()


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (failure(401, f"Incorrect API key provided: {KEY}"), "refused the key"),
        (failure(404, "Not Found"), "no such path"),
        (Reply("<html>hello</html>"), "sent a web page"),
        (failure(400, "odd"), "refused the request"),
        (failure(500, "down"), "down"),
        (Reply(reset=True), "HTTP|broke"),
    ],
)
def test_a_service_that_takes_nothing_is_one_line_without_the_key(tmp_path: Path, reply: Reply, said: str) -> None:
    out = make_run(tmp_path, 3)
    troubles: Any = dict.fromkeys(range(2000), "cut before" if reply.reset else reply)
    with BatchServer(troubles=troubles) as server, pytest.raises(ExcotError, match=said) as caught:
        batch(out, server)
    assert "\n" not in str(caught.value) and caught.value.remedy
    assert KEY not in str(caught.value)
    assert server.paid == {}


def test_a_service_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with BatchServer() as server:
        pass
    with pytest.raises(ExcotError, match=f"cannot connect to {server.url}"):
        batch(out, server)


def test_neither_key_nor_prompt_is_in_the_notes(tmp_path: Path, azure: bool) -> None:
    out = make_run(tmp_path, 3)
    with BatchServer(azure=azure) as server:
        batch(out, server, submit=True)
    text = json.dumps(notes(out))
    assert KEY not in text and "What about number" not in text
    for path in Path(out).rglob("*"):
        assert not path.is_file() or KEY.encode() not in path.read_bytes()
