"""The training data: which right answers are learnt, and which pairs are preferred."""

from __future__ import annotations

import random
import string
from collections import Counter
from pathlib import Path
from typing import Any

import editdistance
import pytest
from chain import cot, judge, make_data, make_run, read_data, replay, rows_of, write_questions
from hypothesis import given
from hypothesis import strategies as st

from excot.builders.generations import generate
from excot.builders.pairs import choose_pairs, make_pairs
from excot.builders.questions import make_questions
from excot.builders.sft import make_sft
from excot.builders.training import right_answers, wrong_answers
from excot.builders.verified import verify
from excot.config import GenerateConfig, PairsConfig, QuestionsConfig, SftConfig, VerifyConfig
from excot.errors import ExcotError
from excot.execution import RULES
from excot.prompts import load_prompt
from excot.run import Run

GOLD = "SELECT name FROM item WHERE price > 0"  # of question 0


def sft(out: str, **options: Any) -> list[dict[str, Any]]:
    make_sft(SftConfig(out=out, overwrite=True, **options))
    return rows_of(out, "sft")


def pairs(out: str, **options: Any) -> list[dict[str, Any]]:
    make_pairs(PairsConfig(out=out, overwrite=True, **options))
    return rows_of(out, "pairs")


def said(messages: list[dict[str, str]]) -> str:
    (message,) = messages
    assert message["role"] == "assistant"
    return message["content"]


# -- sft


RIGHT = [
    cot(GOLD, "The first, and it is rather long-winded about it."),
    cot("SELECT name FROM item ORDER BY id", "Short."),
    cot(GOLD, "Brief."),
    cot("SELECT name FROM item", "A fourth answer."),
]
WRONG = [cot("SELECT kind FROM item", "No."), cot("SELECT nome FROM item", "Oh.")]


@pytest.fixture
def answered(tmp_path: Path) -> str:
    """Question 0 with right and wrong answers, question 1 with wrong ones only, question 2 with none."""
    out = make_run(tmp_path, 3)
    cut = (cot(GOLD, "Right, but cut off behind its end.") + "\nLet me al", "length")
    replay(out, {0: [None, WRONG[0], cut, RIGHT[0], RIGHT[1], RIGHT[0], *RIGHT[2:], WRONG[1]], 1: [*WRONG, ""]})
    judge(out)
    return out


@pytest.mark.parametrize(
    ("options", "chosen"),
    [
        ({}, [0]),
        ({"choose": "first", "max_per_question": 3}, [0, 1, 2]),
        ({"choose": "shortest"}, [3]),
        ({"choose": "shortest", "max_per_question": 2}, [3, 1]),
        ({"choose": "all"}, [0, 1, 2, 3]),
        ({"choose": "all", "max_per_question": 2}, [0, 1]),
        ({"choose": "all", "limit": 3}, [0, 1, 2]),
    ],
)
def test_right_answers_are_chosen_first_shortest_or_all(
    answered: str, options: dict[str, Any], chosen: list[int]
) -> None:
    assert len(RIGHT[3]) < len(RIGHT[1]) < len(RIGHT[2]) < len(RIGHT[0])
    rows = sft(answered, **options)
    assert [said(row["completion"]) for row in rows] == [RIGHT[k] for k in chosen]
    assert {(row["id"], row["db_id"]) for row in rows} == {("data-train-0000", "shop")}
    assert all(f"\n{row['sql']}\n" in said(row["completion"]) for row in rows)


def test_an_answer_that_was_cut_off_is_never_chosen_though_its_sql_is_right(answered: str) -> None:
    (row, *_) = rows_of(answered, "verified")
    (cut,) = [candidate for candidate in row["candidates"] if candidate["finish_reason"] == "length"]
    assert cut["matches"]["set"]
    chosen = [said(row["completion"]) for row in sft(answered, choose="all")]
    chosen += [said(row["chosen"]) for row in pairs(answered, max_per_question=99)]
    assert len(chosen) == 4 + 4 * 2
    assert cut["text"] not in chosen


def test_equal_lengths_keep_their_order(tmp_path: Path) -> None:
    out = make_run(tmp_path, 1)
    replay(out, {0: [cot(GOLD, "Aaaa."), cot(GOLD, "Bb."), cot(GOLD, "Cc."), cot(GOLD, "Dd.")]})
    judge(out)
    rows = sft(out, choose="shortest", max_per_question=3)
    assert [said(row["completion"])[:2] for row in rows] == ["Bb", "Cc", "Dd"]


def test_a_gold_that_failed_or_is_empty_gives_no_data(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", 1)
    golds = ["SELECT name FROM item WHERE id > 99", "SELECT nome FROM item", GOLD]
    write_questions(data, [{"question": "Which?", "db_id": "shop", "gold_sql": gold} for gold in golds])
    out = read_data(data, tmp_path / "run")
    replay(out, {k: ["SELECT name FROM item WHERE id < 0", "SELECT 1", GOLD] for k in range(3)})
    assert judge(out)[0]["candidates"][0]["matches"]["set"]  # an empty result equals the empty one
    assert [row["id"] for row in sft(out, choose="all")] == ["data-train-0002"]
    assert {row["id"] for row in pairs(out, max_per_question=9)} == {"data-train-0002"}


def test_the_prompt_is_the_one_that_a_student_is_sampled_with(tmp_path: Path) -> None:
    data = make_data(tmp_path / "data", 1)
    rows = [{"question": "Which?", "db_id": "shop", "gold_sql": GOLD, "evidence": hint} for hint in (None, "A hint.")]
    write_questions(data, rows)
    out = read_data(data, tmp_path / "run")
    replay(out, {0: [GOLD, "SELECT 1"], 1: [GOLD, "SELECT 1"]}, prompt="cot", few_shots=2)
    judge(out)
    prompt = load_prompt("cot")
    expected = [prompt.messages(q["question"], q["schema"], q["evidence"]) for q in rows_of(out, "questions")]
    assert [row["prompt"] for row in sft(out)] == expected
    assert [row["prompt"] for row in pairs(out)] == expected
    assert [message["role"] for message in expected[0]] == ["system", "user"]


def test_trl_takes_the_rows_as_conversations(answered: str) -> None:
    pytest.importorskip("trl")
    from datasets import load_dataset
    from trl.data_utils import is_conversational

    sft(answered), pairs(answered)
    for stage, kind in (("sft", {"prompt", "completion"}), ("pairs", {"prompt", "chosen", "rejected"})):
        (row,) = load_dataset(answered, stage, split="train")
        assert is_conversational(row)
        assert all(is_conversational({name: row[name]}) for name in kind)


# -- pairs


def candidate(text: str, sql: str | None) -> dict[str, Any]:
    return {"text": text, "sql": sql}


def brute_force(right: list[dict[str, Any]], wrong: list[dict[str, Any]], strategy: str, most: int) -> list[tuple]:
    """Every pair measured by another library, in candidate order, sorted."""
    found = []
    for i, chosen in enumerate(right):
        for j, rejected in enumerate(wrong):
            if chosen["sql"] != rejected["sql"] and chosen["text"] != rejected["text"]:
                found.append((editdistance.eval(chosen["text"], rejected["text"]), i, j))
    sign = -1 if strategy == "farthest" else 1
    return sorted(found, key=lambda pair: (sign * pair[0], pair[1], pair[2]))[:most]


@pytest.fixture(scope="module")
def spider_run(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Real predictions for Spider's dev questions, verified."""
    out = str(tmp_path_factory.mktemp("spider") / "run")
    make_questions(QuestionsConfig(benchmark="spider", data=str(shared_data / "spider"), split="dev", out=out))
    file = str(shared_data / "candidates" / "spider_dev.jsonl")
    generate(GenerateConfig(out=out, backend="replay", replay_from=file))
    verify(VerifyConfig(out=out))
    return out


@pytest.mark.parametrize("strategy", ["nearest", "farthest"])
@pytest.mark.parametrize("most", [1, 3])
def test_on_real_answers_the_pairs_are_those_of_an_exhaustive_search(
    spider_run: str, strategy: str, most: int
) -> None:
    config = PairsConfig(out=spider_run, strategy=strategy, max_per_question=most)
    sides = [
        (row["id"], right_answers(row, "set"), wrong_answers(row, "set", config.rejected))
        for row in rows_of(spider_run, "verified")
        if row["gold"]["status"] == "ok"
    ]
    sides = [(id, right, wrong) for id, right, wrong in sides if right and wrong]
    for id, right, wrong in random.Random(most).sample(sides, 200):
        assert choose_pairs(right, wrong, config, id) == brute_force(right, wrong, strategy, most), id


@pytest.mark.parametrize("rule", RULES)
def test_on_real_answers_every_pair_is_right_and_wrong_by_the_rule_asked(spider_run: str, rule: str) -> None:
    verified = {row["id"]: row for row in rows_of(spider_run, "verified")}
    rows = pairs(spider_run, rule=rule, max_per_question=2, strategy="random")
    assert len(rows) > 1000
    assert max(Counter(row["id"] for row in rows).values()) == 2
    assert len({(row["id"], said(row["chosen"]), said(row["rejected"])) for row in rows}) == len(rows)
    for row in rows:
        by_text = {candidate["text"]: candidate for candidate in verified[row["id"]]["candidates"]}
        chosen, rejected = by_text[said(row["chosen"])], by_text[said(row["rejected"])]
        assert chosen["matches"][rule] and not rejected["matches"][rule]
        assert (chosen["sql"], rejected["sql"]) == (row["chosen_sql"], row["rejected_sql"])
        assert chosen["sql"] != rejected["sql"]
        assert row["rejected_status"] == rejected["status"] in ("ok", "error")
        assert row["distance"] == editdistance.eval(chosen["text"], rejected["text"])


def test_a_stricter_rule_rejects_what_a_kinder_one_calls_right(tmp_path: Path) -> None:
    out = make_run(tmp_path, 1)
    twice = "SELECT name FROM item UNION ALL SELECT name FROM item"
    replay(out, {0: [GOLD, twice]})
    judge(out)
    with pytest.raises(ExcotError, match="no row of pairs"):
        pairs(out, rule="set")
    (row,) = pairs(out, rule="multiset")
    assert (row["chosen_sql"], row["rejected_sql"], row["strategy"]) == (GOLD, twice, "nearest")


SIDES = st.lists(
    st.tuples(st.text("ab", max_size=5), st.sampled_from("xyz")), unique_by=lambda pair: pair[0], max_size=7
)


@given(right=SIDES, wrong=SIDES, strategy=st.sampled_from(["nearest", "farthest"]), most=st.integers(1, 5))
def test_among_equal_distances_the_first_candidates_win(
    right: list[tuple], wrong: list[tuple], strategy: str, most: int
) -> None:
    sides = [[candidate(*pair) for pair in side] for side in (right, wrong)]
    config = PairsConfig(out="x", strategy=strategy, max_per_question=most)
    assert choose_pairs(*sides, config, "q") == brute_force(*sides, strategy, most)


@given(right=SIDES, wrong=SIDES, most=st.integers(1, 60), seed=st.integers(0, 2**32))
def test_random_pairs_are_different_allowed_and_as_many_as_there_are(
    right: list[tuple], wrong: list[tuple], most: int, seed: int
) -> None:
    sides = [[candidate(*pair) for pair in side] for side in (right, wrong)]
    config = PairsConfig(out="x", strategy="random", max_per_question=most, seed=seed)
    found = choose_pairs(*sides, config, "q")
    allowed = brute_force(*sides, "nearest", 999)
    assert set(found) <= set(allowed)
    assert len(set(found)) == len(found) == min(most, len(allowed))
    assert found == choose_pairs(*sides, config, "q")


@pytest.mark.parametrize("strategy", ["nearest", "farthest", "random"])
def test_long_answers_are_measured_to_the_last_character(strategy: str) -> None:
    dice = random.Random(0)
    text = "".join(dice.choices(string.ascii_letters, k=30_000))
    near = text[:20_000] + "#####" + text[20_005:] + "##"  # 5 replaced, 2 added
    far = text[:-10_000] + "#" * 10_500
    right, wrong = [candidate(text, "a")], [candidate(far, "b"), candidate(near, "c")]
    config = PairsConfig(out="x", strategy=strategy, max_per_question=2)
    found = {wrong[number]["sql"]: distance for distance, _, number in choose_pairs(right, wrong, config, "q")}
    assert found == {"b": 10_500, "c": 7}
    (first, *_) = choose_pairs(right, wrong, PairsConfig(out="x", strategy=strategy), "q")
    assert strategy == "random" or first.rejected == {"nearest": 1, "farthest": 0}[strategy]


def test_a_long_rejected_answer_reaches_the_dataset_whole(tmp_path: Path) -> None:
    out = make_run(tmp_path, 1)
    long = cot("SELECT 1", "thought " * 3_000)
    replay(out, {0: [cot(GOLD, "thought " * 2_000), long]})
    judge(out)
    for strategy in ("nearest", "farthest", "random"):
        (row,) = pairs(out, strategy=strategy)
        assert said(row["rejected"]) == long
        assert row["distance"] == editdistance.eval(said(row["chosen"]), long)


def test_random_takes_every_pair_about_equally_often() -> None:
    right = [candidate(f"right {k}", f"r{k}") for k in range(3)]
    wrong = [candidate(f"wrong {k}", f"w{k}") for k in range(4)]
    for most in (1, 3):
        drawn: Counter[tuple[int, int]] = Counter()
        first: Counter[tuple[int, int]] = Counter()
        for seed in range(4_000):
            config = PairsConfig(out="x", strategy="random", max_per_question=most, seed=seed)
            found = [(pair.chosen, pair.rejected) for pair in choose_pairs(right, wrong, config, "q")]
            drawn.update(found)
            first[found[0]] += 1
        assert len(drawn) == 12
        for counts in (drawn, first):  # chi-square with 11 degrees of freedom: 1 in 10,000 lies above 37.4
            expected = counts.total() / 12
            assert sum((count - expected) ** 2 / expected for count in counts.values()) < 37.4


def test_random_pairs_hang_on_the_seed_and_the_question_alone(tmp_path: Path) -> None:
    out = make_run(tmp_path, 30)
    golds = [row["gold_sql"] for row in rows_of(out, "questions")]
    replay(
        out,
        {k: [*(cot(golds[k], f"Way {i}") for i in range(4)), *(f"SELECT -{i}" for i in range(4))] for k in range(30)},
    )
    judge(out)
    by_seed = {seed: pairs(out, strategy="random", seed=seed) for seed in (0, 1)}
    places = [(said(row["chosen"])[:5], row["rejected_sql"]) for row in by_seed[0]]
    assert len(set(places)) > 8  # not the first of each question, nor the same place in each
    assert places[:9] != places[9:18]
    assert by_seed[0] == pairs(out, strategy="random", seed=0)
    assert sum(a != b for a, b in zip(by_seed[0], by_seed[1], strict=True)) > 20
    assert pairs(out, strategy="random", seed=0, limit=7) == by_seed[0][:7]


def test_neither_the_same_sql_nor_the_same_text_stands_on_both_sides(tmp_path: Path) -> None:
    out = make_run(tmp_path, 1)
    # The same bare SQL twice: once as a finished answer, and once cut off, so that nobody knows how it went on.
    replay(out, {0: [GOLD, (GOLD, "length"), cot("SELECT 1"), (cot("SELECT 1"), "length"), cot("SELECT 1")]})
    judge(out)
    rows = pairs(out, rejected=["ok", "truncated"], max_per_question=9)
    assert [(row["chosen_sql"], said(row["rejected"])) for row in rows] == [(GOLD, cot("SELECT 1"))]


def test_only_the_statuses_asked_for_are_rejected(tmp_path: Path) -> None:
    out = make_run(tmp_path, 1)
    wrong = {
        "ok": cot("SELECT 1"),
        "error": cot("SELECT nome FROM item"),
        "refused": cot("DELETE FROM item"),
        "no_sql": "I do not know.",
        "truncated": (cot("SELECT na")[:-4], "length"),
    }
    replay(out, {0: [GOLD, *wrong.values(), None]})
    judge(out)
    everything = ["ok", "error", "timeout", "too_large", "refused", "no_sql", "truncated"]
    for asked, expected in ((None, ["ok", "error"]), (["refused"], ["refused"]), (everything, list(wrong))):
        rows = pairs(out, max_per_question=9, strategy="farthest", **({"rejected": asked} if asked else {}))
        assert sorted(row["rejected_status"] for row in rows) == sorted(expected)
        for row in rows:
            text = wrong[row["rejected_status"]]
            assert said(row["rejected"]) == (text[0] if isinstance(text, tuple) else text)


def test_when_nothing_can_be_chosen_it_is_said_and_nothing_is_written(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    replay(out, {k: ["SELECT 'never right'"] for k in range(3)})
    judge(out)
    for make, config in ((make_sft, SftConfig(out=out)), (make_pairs, PairsConfig(out=out))):
        with pytest.raises(ExcotError, match=r"no row of (sft|pairs) comes of the 3 questions"):
            make(config)
    assert {"sft", "pairs"}.isdisjoint(Run(out).manifest["stages"])
