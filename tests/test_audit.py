"""The stage ``audit``: golds that show themselves wrong, the evidence, and the list that leaves them out."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import yaml
from chain import cot, make_database, read_data, replay, rows_of, write_questions
from command import done, excot
from stages import load

from excot.builders.audit import audit
from excot.builders.exclusion import read_exclusion
from excot.builders.pairs import make_pairs
from excot.builders.sft import make_sft
from excot.builders.verified import verify
from excot.config import AuditConfig, PairsConfig, SftConfig, VerifyConfig
from excot.errors import ExcotError
from excot.execution import Measures, Task, Verifier
from excot.execution.task import GOLD
from excot.run import Run

STOCK = """
    CREATE TABLE item (id INTEGER PRIMARY KEY, name TEXT, price REAL, sold TEXT);
    INSERT INTO item VALUES (1, 'lamp', 0.1, '2020-01-01'), (2, 'desk', 0.2, '2021-05-05'),
                            (3, 'pen', 0.3, '2022-09-09'), (4, 'cup', 0.7, NULL);
    CREATE VIEW today AS SELECT date('now') AS day;
"""
ALL, DEAR = "SELECT name FROM item", "SELECT name FROM item WHERE price > 0.25"
FOUR = "SELECT count(*) FROM item"
HALF = {"majority": 0.5, "slow": 60}  # a busy machine is slow with everything
SAME = ("--majority", 0.5, "--slow", 60)
ENDLESS = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"


def audited(folder: Path, cases: list[tuple[str, list[str]]], script: str = STOCK, **options: Any) -> str:
    """A run folder that was audited: each question's gold, and the SQL of its answers."""
    out = verified(folder, cases, script)
    audit(AuditConfig(out=out, processes=1, **{**HALF, **options}))
    return out


def verified(folder: Path, cases: list[tuple[str, list[str]]], script: str = STOCK) -> str:
    make_database(folder / "data" / "database" / "stock" / "stock.sqlite", script)
    golds = [{"question": f"Number {k}?", "db_id": "stock", "gold_sql": gold} for k, (gold, _) in enumerate(cases)]
    write_questions(folder / "data", golds)
    out = read_data(folder / "data", folder / "run")
    replay(out, {k: [cot(sql, f"Thought {n}.") for n, sql in enumerate(a)] for k, (_, a) in enumerate(cases)})
    verify(VerifyConfig(out=out, processes=1, timeout=2))
    return out


def found(out: str) -> dict[int, list[str]]:
    """The reasons by the question's place."""
    return {int(row["id"][-4:]): row["reasons"] for row in rows_of(out, "audit")}


def card_of(out: str) -> dict[str, Any]:
    """The front matter of the folder's card."""
    return yaml.safe_load((Path(out) / "README.md").read_text("utf-8").split("---\n")[1])


def listed(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (Path(out) / "audit.jsonl").read_text("utf-8").splitlines()]


# What is found


PLANTED = {
    "SELECT nme FROM item": ["fails"],
    DEAR.replace("0.25", "99"): ["empty"],
    "SELECT max(name) FROM item WHERE price > 99": ["empty"],
    "SELECT name FROM item LIMIT 2": ["unordered"],
    "SELECT group_concat(name) FROM item": ["unordered"],
    "SELECT name, count(*) FROM item": ["unordered"],
    "SELECT name FROM item ORDER BY random() LIMIT 1": ["random"],
    "SELECT name FROM item WHERE sold < current_date": ["clock"],
    "SELECT strftime('%Y', 'now') - strftime('%Y', sold) FROM item": ["clock"],
    "SELECT name FROM item, today WHERE sold < day": ["clock"],
    "SELECT date(), abs(random()) FROM item": ["random", "clock"],
    ENDLESS: ["slow"],
}
SOUND = [
    ALL,
    "SELECT name FROM item ORDER BY price LIMIT 2",
    "SELECT sum(price), avg(price) FROM item",  # the last digits depend on the order; that is no other result
    "SELECT date(sold), strftime('%Y', sold), julianday(sold, '+1 day') FROM item",
    "SELECT 'now', 'random()' -- date('now')",
    "SELECT 0 FROM item",
    "SELECT name FROM item WHERE id IN (SELECT id FROM item ORDER BY price LIMIT 2)",
]


def test_each_reason_is_shown_by_a_gold_that_has_it_and_a_sound_gold_is_not_listed(tmp_path):
    golds = [*PLANTED, *SOUND]
    out = audited(tmp_path, [(gold, [gold]) for gold in golds])
    assert {golds[place]: reasons for place, reasons in found(out).items()} == PLANTED
    entry = Run(out).entry("audit")
    assert entry["reasons"] == Counter(reason for reasons in PLANTED.values() for reason in reasons)
    assert (entry["golds"], entry["not_repeated"]) == (len(golds), 0)
    # One that is only slow is not known to be wrong.
    assert [row["gold_sql"] for row in listed(out)] == [gold for gold in PLANTED if gold != ENDLESS]
    assert load(Path(out), "audit") == rows_of(out, "audit")


def test_a_gold_is_slow_from_so_many_seconds_and_one_without_a_database_is_not_judged(tmp_path):
    out = audited(tmp_path, [(ALL, [ALL])], slow=0)
    assert found(out) == {0: ["slow"]}
    write_questions(
        tmp_path / "data", [{"question": "?", "db_id": db_id, "gold_sql": ALL} for db_id in ("stock", "gone")]
    )
    out = read_data(tmp_path / "data", tmp_path / "other")
    replay(out, {0: [cot(ALL)], 1: [cot(DEAR)]})
    verify(VerifyConfig(out=out, processes=1))
    said = audit(AuditConfig(out=out, processes=1, slow=60))
    assert "nothing to doubt in 1 golds" in said and "1 questions were not audited" in said


def test_a_second_execution_is_within_the_limits_and_watched_like_every_other(tmp_path):
    """Read backwards, this gold comes to its one row only after some hundred million steps."""
    steps = "(WITH RECURSIVE c(x) AS (SELECT id UNION ALL SELECT x + 1 FROM c WHERE x < 1e8) SELECT count(*) FROM c)"
    gold = f"SELECT name FROM item WHERE id = 1 OR {steps} < 0 LIMIT 1"
    out = audited(tmp_path, [(gold, [gold])], timeout=0.3)
    assert found(out) == {} and Run(out).entry("audit")["not_repeated"] == 1
    started: list[int] = []
    verifier = Verifier(on_statement=started.append)
    path = tmp_path / "data" / "database" / "stock" / "stock.sqlite"
    outcomes = dict(verifier.verify(Task("q", (path,), ALL, (ALL,), measures=Measures(stability=True))))
    verifier.close()
    assert outcomes[0].measured.unstable == () and started == [GOLD, 0, 0]


@pytest.mark.parametrize(
    ("answers", "outvoted"),
    [
        ([DEAR] * 3, True),
        ([DEAR] * 2, False),  # too few to tell
        ([DEAR] * 2 + [f"{DEAR} ORDER BY price"], True),  # different statements, one result
        ([DEAR] * 3 + [ALL] * 3, False),  # half is no majority
        ([DEAR] * 4 + [ALL] * 3, True),
        ([DEAR] * 3 + [FOUR] * 3, False),  # wrong in two ways
        ([DEAR] * 3 + ["SELECT nme FROM item"] * 9, True),  # what failed has no vote
        (["SELECT nme FROM item"] * 9, False),
        ([f"{ALL} WHERE 0"] * 9, False),  # nor do results in which nothing is found win
        (["SELECT count(*) FROM item WHERE name = 'Lamp'"] * 9, False),
        (["SELECT max(name) FROM item WHERE 0"] * 9, False),
        ([DEAR] * 3 + [f"{ALL} WHERE 0"] * 3, False),  # but they voted
    ],
)
def test_a_gold_is_outvoted_by_more_than_a_share_of_the_answers_that_ran(tmp_path, answers, outvoted):
    assert found(audited(tmp_path, [(ALL, answers)])) == ({0: ["outvoted"]} if outvoted else {})


def test_by_default_it_takes_more_than_two_thirds(tmp_path):
    cases = [(ALL, [DEAR] * 6 + [FOUR] * 3), (ALL, [DEAR] * 7 + [FOUR] * 3)]
    assert set(found(audited(tmp_path, cases, majority=AuditConfig(out="x").majority))) == {1}


def test_share_and_number_of_the_votes_are_options_and_the_gold_must_have_fewer(tmp_path):
    out = verified(tmp_path, [(ALL, [DEAR] * 2 + [ALL] * 2 + [FOUR]), (ALL, [DEAR] * 2 + [ALL] + [FOUR] * 2)])
    for options, expected in (({"votes": 2, "majority": 0.3}, {1}), ({"votes": 2}, set()), ({"majority": 0.3}, set())):
        audit(AuditConfig(out=out, processes=1, overwrite=True, **{**HALF, **options}))
        assert set(found(out)) == expected, options


def test_the_evidence_has_both_results_the_shortest_statement_and_the_votes(tmp_path):
    longer = f"{DEAR} ORDER BY price DESC"
    out = audited(tmp_path, [(ALL, [longer] * 2 + [DEAR, ALL, "SELECT 1 FROM nothing", FOUR])])
    (row,) = rows_of(out, "audit")
    assert (row["majority_sql"], row["agree"], row["voters"], row["right"]) == (DEAR, 3, 5, 1)
    assert json.loads(row["gold_result"]) == [["lamp"], ["desk"], ["pen"], ["cup"]] and row["gold_rows"] == 4
    assert json.loads(row["majority_result"]) == [["pen"], ["cup"]] and row["majority_rows"] == 2
    (line,) = listed(out)
    assert line["why"] == '3 of 5 answers: 2 rows [["pen"], ["cup"]], gold with 1: ' + f"4 rows {row['gold_result']}"


def test_columns_in_another_order_are_no_other_result(tmp_path):
    gold, answers = "SELECT name, price FROM item", ["SELECT price, name FROM item"] * 3
    counted = "SELECT count(DISTINCT price > 0) FROM item", ["SELECT count(price > 0) FROM item"] * 3
    out = audited(tmp_path, [(gold, answers), counted])
    assert found(out) == {0: ["permuted"], 1: ["outvoted"]}
    assert listed(out)[0]["why"].startswith('3 of 3 answers: 4 rows [[0.1, "lamp"], [0.2, "desk"]')


def test_a_gold_that_fails_is_shown_with_what_most_answers_agree_on(tmp_path):
    out = audited(tmp_path, [("SELECT nme FROM item", [FOUR] * 3)])
    (row,) = rows_of(out, "audit")
    assert (row["reasons"], row["majority_sql"], row["gold_result"]) == (["fails"], FOUR, None)
    assert listed(out)[0]["why"] == "no such column: nme; 3 of 3 answers: [[4]]"


def test_rows_that_the_gold_has_not_are_shown_first(tmp_path):
    more = "SELECT name FROM item UNION ALL SELECT 'vase'"
    (row,) = rows_of(audited(tmp_path, [(ALL, [more] * 3)]), "audit")
    assert json.loads(row["majority_result"])[0] == ["vase"]


def test_the_evidence_is_short_whatever_a_database_holds(tmp_path):
    script = """
        CREATE TABLE odd (v, n);
        INSERT INTO odd VALUES (randomblob(100000), NULL), (printf('%.*c', 100000, 'x'), 9e999),
                               (x'00ff', 1.5), (NULL, 7), ('ü"' || char(10), 2), ('more', 3), ('still more', 4);
    """
    wide = "SELECT " + ", ".join(f"{k} AS c{k}" for k in range(500))
    out = audited(tmp_path, [("SELECT v, n FROM odd", [wide] * 3)], script)
    (row,) = rows_of(out, "audit")
    blob, text, *rest = json.loads(row["gold_result"])
    assert blob[0].startswith("x'") and blob[0].endswith("...'") and len(blob[0]) <= 60 and blob[1] is None
    assert text == ["x" * 57 + "...", "inf"]
    assert rest == [["x'00ff'", 1.5], [None, 7], ['ü"\n', 2]] and row["gold_rows"] == 7
    assert json.loads(row["majority_result"]) == [[*range(12), "... 488 more"]]


# The stage


def test_a_second_start_finds_it_there_and_other_options_are_refused(tmp_path):
    out = audited(tmp_path, [(ALL, [DEAR] * 3)])
    (Path(out) / "audit.jsonl").unlink()
    again = done("audit", "--out", out, "--processes", 2, *SAME)
    assert again.startswith("already there: 1 of 1 golds are doubtful (100.0%)")
    assert listed(out)[0]["id"] == rows_of(out, "audit")[0]["id"], "the list is made anew from the dataset"
    assert "already holds audit made with votes=3 (now 4)" in excot("audit", "--out", out, "--votes", 4, *SAME).error()


def test_a_list_that_was_edited_is_not_lost(tmp_path):
    out = audited(tmp_path, [(ALL, [DEAR] * 3), (ALL, [DEAR] * 4)])
    path = Path(out) / "audit.jsonl"
    edited = path.read_text("utf-8").splitlines(keepends=True)[0]
    path.write_text(edited, "utf-8")
    done("audit", "--out", out, *SAME)
    assert path.read_text("utf-8") == edited
    _, _, said = excot("audit", "--out", out, "--votes", 2, *SAME, "--overwrite")
    assert said == f"warning: {path} was edited by hand: it is kept as {path}.edited\n"
    assert (Path(out) / "audit.jsonl.edited").read_text("utf-8") == edited and len(listed(out)) == 2


def test_an_audit_that_finds_nothing_says_so_and_is_no_config_of_the_folder(tmp_path):
    out = audited(tmp_path, [(ALL, [ALL, DEAR])])
    assert done("audit", "--out", out, *SAME) == (
        f"already there: nothing to doubt in 1 golds, in {out}\n"
        f"next: excot sft --out {out}, or excot pairs --out {out}\n"
    )
    assert listed(out) == [] and rows_of(out, "audit") == []
    assert "audit" not in {config["config_name"] for config in card_of(out)["configs"]}
    assert "| doubtful golds | 0 of 1 |" in (Path(out) / "README.md").read_text("utf-8")
    assert len(load(Path(out), "verified")) == 1


def test_the_report_fits_a_terminal_and_its_next_command_works(tmp_path):
    long = "SELECT name, price, sold, name, price, sold FROM item"
    out = audited(tmp_path, [(long, [f"{long} WHERE id > 1"] * 3 + [FOUR]), *((gold, [gold]) for gold in PLANTED)])
    said = done("audit", "--out", out, *SAME).removeprefix("already there: ")
    report, _, following = said.rpartition("\nnext: ")
    assert all(len(line) <= 100 or str(tmp_path) in line for line in report.splitlines()), report
    assert "1  outvoted   most answers agree on another result" in report
    assert "of 4 answers: 3 rows [[" in report and ", gold with 0: 4 rows [[" in report
    assert f"the 12 that may be wrong are listed in {out}/audit.jsonl" in report
    assert following.split(", or ")[0] == f"excot sft --out {out} --exclude {out}/audit.jsonl"


def test_each_round_has_an_audit_of_its_own(tmp_path):
    out = audited(tmp_path, [(ALL, [DEAR] * 3)])
    replay(out, {0: [cot(FOUR)] * 3}, round=1)
    verify(VerifyConfig(out=out, round=1, processes=1))
    said = done("audit", "--out", out, "--round", 1, *SAME)
    assert f"excot pairs --round 1 --out {out} --exclude {out}/audit_round1.jsonl" in said
    assert [row["majority_sql"] for row in rows_of(out, "audit")] == [DEAR]
    assert [row["majority_sql"] for row in Run(out, 1).read("audit")] == [FOUR]
    assert [config["config_name"] for config in card_of(out)["configs"] if "audit" in config["config_name"]] == [
        "audit", "audit_round1",
    ]  # fmt: skip


# The list


def chosen(out: str) -> set[int]:
    return {int(row["id"][-4:]) for stage in ("sft", "pairs") for row in rows_of(out, stage)}


def test_the_list_leaves_its_questions_out_of_training_data_and_scores(tmp_path):
    out = audited(tmp_path, [(ALL, [ALL] + [DEAR] * 3), (DEAR, [DEAR, ALL]), (FOUR, [FOUR, ALL])])
    path = f"{out}/audit.jsonl"
    assert make_sft(SftConfig(out=out, exclude=path)).startswith("3 questions, 1 of them left out, give 2 right")
    said = done("pairs", "--out", out, "--exclude", path)
    assert said.startswith("3 questions, 1 of them left out, give 2 nearest pairs")
    assert chosen(out) == {1, 2}
    # Only the ids count: the list may lie elsewhere and say other things, but not name other questions.
    elsewhere = tmp_path / "mine.jsonl"
    rows = [{"id": listed(out)[0]["id"], "note": 1}, {"id": "other-0001"}]
    elsewhere.write_text("\n" + "\n\n".join(map(json.dumps, rows)))
    code, again, warned = excot("pairs", "--out", out, "--exclude", elsewhere)
    assert code == 0 and again == "already there: " + said
    assert warned == f"warning: 1 of the 2 ids in {elsewhere} are no questions of {out}\n"
    assert "already holds pairs made with exclude=" in excot("pairs", "--out", out).error()
    scored = done("score", "--out", out, "--exclude", path, "--rule", "set")
    assert "of 4 answers to 2 questions right" in scored
    assert f"; 1 questions are left out, by {path}\n" in scored
    (system,) = Run(out).entry("details")["systems"].values()
    assert system["facts"]["excluded"] == 1 and {row["id"][-4:] for row in rows_of(out, "details")} == {"0001", "0002"}
    assert "already holds scores of" in excot("score", "--out", out, "--rule", "set").error()


def test_predictions_are_not_asked_for_questions_that_are_left_out(tmp_path):
    out = audited(tmp_path, [(ALL, [DEAR] * 3), (FOUR, [FOUR])])
    answers = tmp_path / "mine.jsonl"
    answers.write_text(json.dumps({"question_id": 1, "sql": FOUR}) + "\n")
    scored = done("score", "--out", out, "--predictions", answers, "--exclude", f"{out}/audit.jsonl")
    assert "100.0% of 1 questions right" in scored


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "lists no question: leave --exclude out"),
        ("SELECT 1\n", "line 1: not valid JSON (Expecting value): mend the line"),
        ('{"id": "data-train-0000"}\n["x"]\n', "line 2: no id: each line names one question"),
        ('{"id": 3}\n', "line 1: no id"),
        ('{"id": "b"}\n{"id": "a"}\n', "none of the 2 ids in "),
        (None, "cannot read "),
    ],
)
def test_a_bad_list_is_refused_in_one_line(tmp_path, text, problem):
    out = verified(tmp_path, [(ALL, [ALL])])
    path = tmp_path / "list.jsonl"
    if text is not None:
        path.write_text(text)
    for verb in ("sft", "pairs", "score"):
        assert problem in excot(verb, "--out", out, "--exclude", path).error()
    with pytest.raises(ExcotError):
        read_exclusion(str(path), Run(out))


def test_a_list_of_all_questions_leaves_nothing(tmp_path):
    out = verified(tmp_path, [(ALL, [ALL, DEAR])])
    path = tmp_path / "list.jsonl"
    path.write_text('{"id": "data-train-0000"}')
    with pytest.raises(ExcotError, match="no row of pairs comes of the 1 questions, 1 of them left out, in"):
        make_pairs(PairsConfig(out=out, exclude=str(path)))
    assert f"{path} leaves out all 1 questions" in excot("score", "--out", out, "--exclude", path).error()


# Real data


def test_birds_superhero_golds_that_take_any_five_rows_are_found(tmp_path, shared_data):
    run = tmp_path / "run"
    done("questions", "bird", "--data", shared_data / "bird", "--split", "dev", "--out", run)
    done(
        "generate", "--out", run, "--backend", "replay", "--from", shared_data / "candidates/bird_dev_superhero.jsonl"
    )
    done("verify", "--out", run)
    said = done("audit", "--out", run, "--slow", 60)
    rows = {row["id"]: row for row in rows_of(run, "audit")}
    assert [id for id, row in rows.items() if "unordered" in row["reasons"]] == ["bird-dev-0751", "bird-dev-0812"]
    assert all("LIMIT 5" in rows[id]["gold_sql"] for id in ("bird-dev-0751", "bird-dev-0812"))
    assert rows["bird-dev-0728"]["agree"] == 8 and json.loads(rows["bird-dev-0728"]["majority_result"]) == [[126]]
    assert said.startswith("6 of 129 golds are doubtful (4.7%)")
    said = done("pairs", "--out", run, "--exclude", run / "audit.jsonl")
    assert said.startswith("1,534 questions, 6 of them left out, give ")
    said = done("audit", "--out", run, *SAME, "--overwrite")
    assert said.startswith("12 of 129 golds are doubtful (9.3%)")
    assert "bird-dev-0765" not in {row["id"] for row in listed(run)}, "most answers count 0, of a name in another case"
