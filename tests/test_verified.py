"""The stage ``verified``: what becomes of an answer, rows that join by id, and going on after a kill."""

from __future__ import annotations

import hashlib
import json
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chain import (
    SHOP,
    ZOO,
    cot,
    judge,
    make_data,
    make_database,
    make_run,
    read_data,
    replay,
    rows_of,
    write_questions,
)
from hostile import ENDLESS

from excot import cli
from excot.builders import verified
from excot.builders.verified import verify
from excot.config import VerifyConfig
from excot.errors import ExcotError
from excot.execution import Task, file_hash
from excot.run import Run

GOLD = "SELECT name FROM item WHERE price > 0"  # of question 0: all five items
NOTHING = {"set": False, "multiset": False, "ordered": False, "test_suite": False}
EVERYTHING = dict.fromkeys(NOTHING, True)


def only(row: dict[str, Any], name: str) -> list[Any]:
    return [candidate[name] for candidate in row["candidates"]]


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    for row in rows:
        for judged in (row["gold"], *row["candidates"]):
            judged.pop("seconds")
    return rows


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids of the questions that were executed, as they are."""
    ids: list[str] = []
    verify_all = verified.verify_all

    def counting(tasks: Iterable[Task], processes: int | None, cache: Any) -> Iterator[Any]:
        def noted() -> Iterator[Task]:
            for task in tasks:
                ids.append(task.id)
                yield task

        return verify_all(noted(), processes, cache)

    monkeypatch.setattr(verified, "verify_all", counting)
    return ids


# -- what becomes of an answer


def test_each_answer_gets_the_status_it_deserves(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    cases = [
        (cot(GOLD), "ok", EVERYTHING, None),
        (cot("SELECT name FROM item ORDER BY name"), "ok", EVERYTHING, None),
        (cot("SELECT name, 1 FROM item"), "ok", NOTHING, None),
        (cot("SELECT name FROM item UNION ALL SELECT name FROM item"), "ok", {**NOTHING, "set": True}, None),
        (cot("SELECT nome FROM item"), "error", NOTHING, "no such column: nome"),
        (cot("DELETE FROM item"), "refused", NOTHING, "not authorized (delete)"),
        (cot(ENDLESS), "timeout", NOTHING, "more than 0.3 s"),
        ("I do not know.", "no_sql", NOTHING, None),
        ("", "no_sql", NOTHING, None),
        (None, "no_sql", NOTHING, None),
        ((None, "content_filter"), "no_sql", NOTHING, None),
        (("Let me think.\n```sql\nSELECT na", "length"), "truncated", NOTHING, None),
        ((GOLD, "length"), "truncated", NOTHING, None),
        ((cot(GOLD) + "\nBut wai", "length"), "ok", EVERYTHING, None),
    ]
    replay(out, {0: [answer for answer, *_ in cases]})
    assert cli.main(["verify", "--out", out, "--timeout", "0.3", "--processes", "1"]) == 0
    row, unanswered = rows_of(out, "verified")
    seen = list(zip(only(row, "status"), only(row, "matches"), only(row, "error"), strict=True))
    assert seen == [tuple(expected) for _, *expected in cases]
    assert [
        (sql is None, rows is None, seconds is None)
        for sql, rows, seconds in zip(only(row, "sql"), only(row, "rows"), only(row, "seconds"), strict=True)
    ] == [
        (status in ("no_sql", "truncated"), status != "ok", status in ("no_sql", "truncated"))
        for _, status, *_ in cases
    ]
    assert (row["gold"]["status"], row["gold"]["rows"]) == ("ok", 5)
    assert (unanswered["candidates"], unanswered["gold"]["status"]) == ([], "ok")
    entry = Run(out).entry("verified")
    assert entry["statuses"] == {"ok": 5, "no_sql": 4, "truncated": 2, "error": 1, "refused": 1, "timeout": 1}
    assert entry["matches"] == {"set": 4, "multiset": 3, "ordered": 3, "test_suite": 3}


def test_a_gold_that_fails_or_takes_too_long_makes_no_answer_right_and_an_empty_one_the_empty(tmp_path: Path) -> None:
    data = tmp_path / "data"
    make_database(data / "shop.sqlite", SHOP)
    golds = ["SELECT nome FROM item", "SELECT name FROM item WHERE id > 99", ENDLESS, "DROP TABLE item", GOLD]
    write_questions(data, [{"question": "Which?", "db_id": "shop", "gold_sql": gold} for gold in golds])
    out = read_data(data, tmp_path / "run")
    others = ["SELECT kind FROM item WHERE id < 0", "SELECT nope FROM item", cot("DROP  TABLE item")]
    replay(out, {k: [gold, *others] for k, gold in enumerate(golds[:3])} | {3: others, 4: [GOLD, *others]})
    rows = judge(out, timeout=0.3)
    assert [row["gold"]["status"] for row in rows] == ["error", "empty", "timeout", "error", "ok"]
    assert [row["gold"]["rows"] for row in rows] == [None, 0, None, None, 5]
    rest = ["ok", "error", "refused"]
    assert [only(row, "status") for row in rows] == [
        ["error", *rest],
        ["ok", *rest],
        ["timeout", *rest],
        rest,
        ["ok", *rest],
    ]
    right = [[any(matches.values()) for matches in only(row, "matches")] for row in rows]
    assert right == [[False] * 4, [True, True, False, False], [False] * 4, [False] * 3, [True, False, False, False]]
    assert Run(out).entry("verified")["golds"] == {"error": 2, "empty": 1, "timeout": 1, "ok": 1}


def test_further_instances_of_a_database_count_for_test_suite_alone(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", 1)
    other = SHOP.replace("(4, 'cup', 4.0, 'home')", "(4, 'cup', 0, 'home')")
    make_database(data / "database" / "shop" / "other.sqlite", other)
    out = read_data(data, tmp_path / "run")
    replay(out, {0: ["SELECT name FROM item", "SELECT name FROM item WHERE price >= 0.5"]})
    (row,) = judge(out)
    assert only(row, "matches") == [{**EVERYTHING, "test_suite": False}, EVERYTHING]
    assert set(Run(out).entry("verified")["databases"]["shop"]) == {"shop.sqlite", "other.sqlite"}


# -- rows and questions


def test_rows_stand_in_question_order_and_join_by_id_not_by_position(tmp_path: Path) -> None:
    out = make_run(tmp_path, 9)
    golds = [row["gold_sql"] for row in rows_of(out, "questions")]
    # The answers come in reverse order, two questions have none, and the first question's is another one's gold.
    given = {k: [golds[k], "SELECT 0"] for k in reversed(range(9)) if k not in (3, 7)}
    replay(out, {**given, 0: [golds[2], "SELECT 0"]})
    rows = judge(out, processes=2)
    assert [row["id"] for row in rows] == [f"data-train-{k:04d}" for k in range(9)]
    for k, row in enumerate(rows):
        assert row["gold_sql"] == golds[k]
        assert only(row, "text") == only(row, "sql") == ([] if k in (3, 7) else [golds[k or 2], "SELECT 0"])
        assert [matches["set"] for matches in only(row, "matches")] == ([] if k in (3, 7) else [k > 0, False])


def test_the_result_does_not_depend_on_the_number_of_processes(tmp_path: Path) -> None:
    out = make_run(tmp_path, 40)
    sqls = ["SELECT name FROM item", "SELECT 1", "SELECT 4", "SELECT kind, price FROM item ORDER BY price", "SELEC"]
    replay(out, {k: [sqls[(k + i) % 5] for i in range(6)] for k in range(40)})
    found = [without_times(judge(out, processes=processes, overwrite=True)) for processes in (1, 2, 5)]
    assert found[0] == found[1] == found[2]


def test_a_limit_verifies_the_first_questions_and_looks_at_their_databases_alone(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, executed: list[str]
) -> None:
    out = make_run(tmp_path, 12)
    replay(out, {k: ["SELECT 1"] for k in range(12)})
    (tmp_path / "data" / "database" / "zoo" / "zoo.sqlite").unlink()  # of question 1
    assert len(judge(out, limit=1)) == 1
    assert caplog.records == []
    assert Run(out).entry("verified")["without_database"] == 0
    assert len(judge(out, resume=True)) == 12
    assert executed == [f"data-train-{k:04d}" for k in range(12) if k % 3 != 1]


# -- databases


def test_questions_without_a_database_keep_their_rows_as_errors(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    out = make_run(tmp_path, 6)
    replay(out, {k: ["SELECT 1", "no sql here"] for k in range(6)})
    shutil.rmtree(tmp_path / "data" / "database" / "zoo")
    rows = judge(out)
    assert [record.getMessage() for record in caplog.records] == ["2 questions have no database file: zoo"]
    for k in (1, 4):
        assert rows[k]["gold"] == {"status": "error", "rows": None, "seconds": None, "error": "no database zoo"}
        assert only(rows[k], "status") == ["error", "no_sql"]
        assert only(rows[k], "matches") == [NOTHING] * 2
    assert {rows[k]["gold"]["status"] for k in (0, 2, 3, 5)} == {"ok"}

    make_database(tmp_path / "data" / "database" / "zoo" / "zoo.sqlite", ZOO)  # it is there again: the same command
    assert [row["gold"]["status"] for row in judge(out)] == ["ok"] * 6


def test_no_database_at_all_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    out = make_run(tmp_path, 3)
    replay(out, {0: ["SELECT 1"]})
    (tmp_path / "empty").mkdir()
    for folder, words in (("empty", "none of the databases is in"), ("nowhere", "no such databases folder")):
        assert cli.main(["verify", "--out", out, "--databases", str(tmp_path / folder)]) == 1
        assert words in capsys.readouterr().err.splitlines()[-1]
    assert "verified" not in Run(out).manifest["stages"]


def test_a_database_that_has_changed_since_the_questions_is_refused(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    replay(out, {0: ["SELECT 1"]})
    make_database(tmp_path / "data" / "database" / "zoo" / "zoo.sqlite", "DELETE FROM animal")
    with pytest.raises(ExcotError, match=r"^database zoo in .* has changed since the questions were made: ") as caught:
        verify(VerifyConfig(out=out))
    assert "\n" not in str(caught.value)


def test_databases_may_have_moved(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    replay(out, {0: [GOLD]})
    shutil.move(tmp_path / "data" / "database", tmp_path / "elsewhere")
    with pytest.raises(ExcotError, match="no such databases folder"):
        verify(VerifyConfig(out=out))
    assert judge(out, databases=str(tmp_path / "elsewhere"))[0]["candidates"][0]["matches"]["set"]


def test_a_damaged_database_fails_the_stage_once_all_others_are_finished(tmp_path: Path, executed: list[str]) -> None:
    data = make_data(tmp_path / "data", 3)
    zoo = data / "database" / "zoo" / "zoo.sqlite"
    whole = zoo.read_bytes()
    damaged = whole[:4096] + b"\xff" * (len(whole) - 4096)  # the schema can be read, the rows cannot
    out = read_data(data, tmp_path / "run")
    replay(out, {0: ["SELECT 1"]})
    zoo.write_bytes(damaged)
    manifest = Path(out) / "manifest.json"  # as if it had been so from the start
    manifest.write_text(manifest.read_text().replace(hashlib.sha256(whole).hexdigest(), file_hash(zoo)))
    with pytest.raises(ExcotError, match=r"database .*zoo.sqlite cannot be read \(database disk image is malformed\)"):
        judge(out)
    assert not (Path(out) / "verified").exists()
    executed.clear()
    with pytest.raises(ExcotError, match="malformed"):
        judge(out)
    assert executed == ["data-train-0001"]  # the others were executed all the same


# -- going on


def test_only_the_questions_whose_answers_changed_are_executed_again(tmp_path: Path, executed: list[str]) -> None:
    out = make_run(tmp_path, 6)
    given = {k: ["SELECT 1", "SELECT 2"] for k in range(6)}
    replay(out, given)
    before = judge(out)
    assert executed == [f"data-train-{k:04d}" for k in range(6)]
    executed.clear()

    given[2] = ["SELECT 1", rows_of(out, "questions")[2]["gold_sql"]]
    given[4] = [("SELECT 1", "length"), "SELECT 2"]  # the same text, now known to be cut off
    replay(out, given, overwrite=True)
    with pytest.raises(ExcotError, match=r"verified in .* was made from an earlier generations"):
        Run(out).entry("verified")
    rows = judge(out)
    assert executed == ["data-train-0002", "data-train-0004"]
    assert [k for k in range(6) if rows[k] != before[k]] == [2, 4]
    assert rows[2]["candidates"][1]["matches"]["set"]
    assert only(rows[4], "status") == ["truncated", "ok"]

    executed.clear()
    assert judge(out) == rows
    assert executed == []


def test_another_timeout_is_refused_and_resume_keeps_what_was_executed(tmp_path: Path, executed: list[str]) -> None:
    out = make_run(tmp_path, 3)
    replay(out, {k: ["SELECT 1"] for k in range(3)})
    judge(out)
    with pytest.raises(ExcotError, match=r"timeout=5.0 \(now 1.0\)"):
        judge(out, timeout=1.0)
    executed.clear()
    judge(out, timeout=1.0, resume=True)
    assert executed == []
    judge(out, timeout=1.0, overwrite=True)
    assert len(executed) == 3


def test_killed_at_any_moment_it_goes_on_to_the_rows_of_an_undisturbed_run(tmp_path: Path) -> None:
    data, dice = make_data(tmp_path / "data", 30), random.Random()
    slow = "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n LIMIT {}) SELECT count(*) FROM n"
    found = []
    for name in ("killed", "undisturbed"):
        out = read_data(data, tmp_path / name)
        golds = [row["gold_sql"] for row in rows_of(out, "questions")]
        replay(out, {k: [golds[k], slow.format(200_000 + k), golds[k - 3], "SELEC"] for k in range(30)})
        if name == "killed":
            _kill_and_go_on(out, dice)
        else:
            judge(out, no_cache=True)
        found.append((without_times(rows_of(out, "verified")), Run(out).entry("verified")["matches"]))
    assert found[0] == found[1]


def _kill_and_go_on(out: str, dice: random.Random) -> None:
    command = [sys.executable, "-m", "excot.cli", "verify", "--out", out, "--processes", "2"]
    journal = Path(out) / ".excot" / "verified.jsonl"
    lines = []
    for kill in [*sorted(dice.sample(range(1, 31), 3)), None]:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while kill is not None and process.poll() is None and _lines(journal)[kill:] == []:
            time.sleep(0.001)
        if kill is not None:
            process.send_signal(signal.SIGKILL)
        output, _ = process.communicate(timeout=60)
        complete = [line for line in _lines(journal) if line.endswith(b"\n")]
        assert complete[: len(lines)] == lines  # what was finished stays as it is
        lines = complete
    assert process.returncode == 0, output
    ids = [json.loads(line)["id"] for line in lines[1:]]
    assert sorted(ids) == [f"data-train-{k:04d}" for k in range(30)]  # each was judged once


def _lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []
