"""Questions that will never be answered: recorded as such, not asked again, taken by the stages after it."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import ask, cot, judge, make_run, place, rows_of
from faulty import FINAL, truth
from servers import ChatServer, Reply, Request, chat

from excot import cli
from excot.builders.generations import seed_of
from excot.errors import ExcotError

pytestmark = pytest.mark.usefixtures("clean_environment")


def test_a_question_that_is_too_long_is_said_and_not_asked_again(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = make_run(tmp_path, 4)
    flags = ["generate", "--out", out, "--model", "tiny", "--n", "2", "--base-url"]

    def short(request: Request) -> Reply:
        fits = place(request) != 2 or request.json["max_tokens"] < 100
        return truth(request) if fits else FINAL["too long"](request)

    with ChatServer(otherwise=short) as server:
        assert cli.main([*flags, server.url]) == 0
        assert "warning: 1 questions are too long for the model: they are left without answers" in (
            capsys.readouterr().err
        )
        assert cli.main([*flags, server.url]) == 0
        assert len(server.requests) == 4
        assert "already there: 6 answers to 3 of 4 questions" in capsys.readouterr().out

        # Asked otherwise it may be answered: --resume keeps what is finished, and asks this one again.
        assert cli.main([*flags, server.url, "--max-tokens", "50", "--resume"]) == 0
        assert [place(request) for request in server.requests[4:]] == [2]
    assert [row["failure"] for row in rows_of(out, "generations")] == [None] * 4


def test_a_refused_question_is_asked_anew_under_overwrite(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with ChatServer(otherwise=lambda r: FINAL["filtered"](r) if place(r) == 0 else truth(r)) as server:
        ask(out, server)
    assert [row["failure"] for row in rows_of(out, "generations")] == ["content_filter", None, None]
    with ChatServer(otherwise=truth) as server:
        ask(out, server, overwrite=True)
    assert [row["failure"] for row in rows_of(out, "generations")] == [None] * 3


def test_a_run_of_nothing_but_refusals_is_an_error_and_asks_nothing_the_second_time(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    with ChatServer(otherwise=FINAL["too long"]) as server:
        for _ in range(2):
            with pytest.raises(ExcotError, match=r"all 3 questions failed, the first, .*is too long for 'tiny'"):
                ask(out, server)
    assert len(server.requests) == 3


def test_the_stages_after_it_take_refused_questions(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    golds = {k: row["gold_sql"] for k, row in enumerate(rows_of(out, "questions"))}

    def picky(request: Request) -> Reply:
        return FINAL["filtered"](request) if place(request) == 1 else chat(cot(golds[place(request)]))

    with ChatServer(otherwise=picky) as server:
        ask(out, server, n=1)
    rows = judge(out)
    assert [row["failure"] for row in rows] == [None, "content_filter", None]
    assert [[c["matches"]["set"] for c in row["candidates"]] for row in rows] == [[True], [], [True]]
    assert [c["seed"] for row in rows for c in row["candidates"]] == [seed_of(0, rows[k]["id"]) for k in (0, 2)]
