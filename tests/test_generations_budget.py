"""What a run costs, before and after; and how it stops when it has taken what it may."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from chain import ask, finished, make_run, place, rows_of
from command import excot
from faulty import truth
from servers import ChatServer, Reply, Request, chat, failure

from excot.builders.generations import generate
from excot.config import GenerateConfig
from excot.errors import ExcotError
from excot.run import Run

pytestmark = pytest.mark.usefixtures("clean_environment")


@pytest.fixture
def prices(tmp_path: Path) -> str:
    """Ten dollars a thousand tokens of answers."""
    path = tmp_path / "prices.yaml"
    path.write_text("tiny: {prompt: 0, completion: 10000}\n")
    return str(path)


def costly(request: Request) -> Reply:
    """A token for each four characters of the prompt and ten for each choice: with `prices` 0.3 dollars a question."""
    prompt_tokens = sum(len(message["content"]) for message in request.json["messages"]) // 4
    usage = {"prompt_tokens": prompt_tokens, "completion_tokens": 10 * request.json["n"]}
    return Reply({**truth(request).body, "usage": usage}, delay=0.01)


# -- afterwards


def test_tokens_and_cost_are_in_the_manifest_and_the_summary(tmp_path: Path, prices: str) -> None:
    out = make_run(tmp_path, 4)
    with ChatServer(otherwise=costly) as server:
        text = ask(out, server, prices=prices)
    entry = Run(out).entry("generations")
    prompts = sum(row["prompt_tokens"] for row in rows_of(out, "generations"))
    assert (entry["prompt_tokens"], entry["completion_tokens"]) == (prompts, 120)
    assert entry["cost"] == {"currency": "USD", "amount": 1.2}
    assert f"by tiny-2026 ({prompts:,} prompt and 120 answer tokens, $1.20), in" in text


def test_the_built_in_prices_are_taken_where_the_model_has_one(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    with ChatServer(otherwise=costly) as server:
        ask(out, server, model="gpt-4o-2024-08-06")
    entry = Run(out).entry("generations")
    assert entry["cost"]["amount"] == pytest.approx((entry["prompt_tokens"] * 2.5 + 60 * 10) / 1e6, abs=1e-6)


def test_answers_that_exist_already_cost_nothing(tmp_path: Path) -> None:
    out = make_run(tmp_path, 3)
    generate(GenerateConfig(out=out, backend="teacher", model="gpt-4o", n=1))
    assert Run(out).entry("generations")["cost"] is None


# -- before


def test_a_dry_run_tells_tokens_and_cost_and_on_what_they_rest(tmp_path: Path) -> None:
    out = make_run(tmp_path)
    text = excot("generate", "--out", out, "--model", "gpt-4o", "--n", 8, "--dry-run").out
    assert "prompt tokens (4 characters each) and 67,200 answer tokens (if an answer has 700), $0." in text
    assert "(at 2.5 and 10 USD per million)" in text
    text = excot("generate", "--out", out, "--model", "gpt-4o", "--n", 8, "--max-tokens", 100, "--dry-run").out
    assert "and 9,600 answer tokens (if an answer has 100)" in text
    assert "$" not in excot("generate", "--out", out, "--model", "unheard-of", "--dry-run").out.partition("; the")[0]
    batch = excot("generate", "--out", out, "--model", "gpt-4o", "--backend", "openai-batch", "--dry-run").out
    assert "per million, 0.5 of it in batches)" in batch


def test_a_dry_run_of_a_local_model_counts_with_its_own_tokenizer(tmp_path: Path, llama_folder: Path) -> None:
    from transformers import AutoTokenizer

    from excot.builders.training import student_prompts

    out = make_run(tmp_path, 5)
    flags = ["generate", "--out", out, "--backend", "transformers", "--model", llama_folder, "--prompt", "direct"]
    text = excot(*flags, "--dry-run").out
    counted = int(text.split("about ")[1].split(" prompt tokens (by the model's own tokenizer)")[0].replace(",", ""))
    assert excot(*flags, "--n", 1, "--max-tokens", 4, "--device", "cpu").code == 0
    rows, tokenizer = rows_of(out, "generations"), AutoTokenizer.from_pretrained(llama_folder)
    lengths = [row["prompt_tokens"] for row in rows]
    assert counted == sum(lengths)
    messages = student_prompts(Run(out))(rows[0])
    encoded = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True)
    assert len(encoded["input_ids"]) == lengths[0]


def test_the_assumed_length_is_the_dry_runs_only_until_answers_are_known(tmp_path: Path) -> None:
    from excot.builders.budget import Budget

    budget = Budget(GenerateConfig(out="x", model="m", max_tokens_total=1000))
    assert budget.expect(5, 2) == (5, 1400)
    budget.add(100, 300, 3)
    assert budget.expect(5, 2) == (5, 200)


# -- limits


def test_a_run_stops_at_its_cost_and_goes_on_with_more(tmp_path: Path, prices: str) -> None:
    out = make_run(tmp_path, 40)
    options = {"prices": prices, "concurrency": 4, "max_tokens": 10}  # so that the first are not expected to be long
    stopped = r"^stopped at \$3.30 of --max-cost 3.5: 11 of 40 questions are finished: start again with more"
    with ChatServer(otherwise=costly) as server:
        for _ in range(2):  # what earlier starts took counts
            with pytest.raises(ExcotError, match=stopped):
                ask(out, server, **options, max_cost=3.5)
            assert len(finished(out)) == len(server.requests) == 11
            assert not (Path(out) / "generations").exists()
        ask(out, server, **options, max_cost=100.0)
        assert sorted(map(place, server.requests)) == list(range(40))
    assert [len(row["candidates"]) for row in rows_of(out, "generations")] == [3] * 40


def test_a_run_stops_at_its_tokens(tmp_path: Path) -> None:
    out = make_run(tmp_path, 40)
    with ChatServer(otherwise=costly) as server:
        with pytest.raises(ExcotError, match=r"^stopped at \d,\d\d\d tokens of --max-tokens-total 8,000: ") as caught:
            ask(out, server, concurrency=4, max_tokens=10, max_tokens_total=8000)
    taken = int(str(caught.value).split()[2].replace(",", ""))
    assert 8000 - 2 * taken / len(server.requests) < taken <= 8000


def test_a_limit_is_not_missed_by_what_is_in_flight(tmp_path: Path, prices: str) -> None:
    out = make_run(tmp_path, 60)
    with ChatServer(otherwise=lambda r: Reply(costly(r).body, delay=0.1)) as server:
        with pytest.raises(ExcotError, match=r"stopped at \$1.80 of --max-cost 2: 6 of 60 questions are finished"):
            ask(out, server, prices=prices, concurrency=30, max_tokens=10, max_cost=2.0)
    assert len(server.requests) == 6


def test_a_limit_that_is_enough_is_not_felt(tmp_path: Path, prices: str) -> None:
    out = make_run(tmp_path, 5)
    with ChatServer(otherwise=costly) as server:
        ask(out, server, prices=prices, max_tokens=10, max_cost=1.51, max_tokens_total=100_000)
    assert Run(out).entry("generations")["cost"]["amount"] == 1.5


def test_tokens_that_nobody_counts_are_estimated_for_a_limit(tmp_path: Path) -> None:
    def uncounted(request: Request) -> Reply:
        reply = chat("x" * 4000)
        del reply.body["usage"]
        return reply

    out = make_run(tmp_path, 30)
    with ChatServer(otherwise=uncounted) as server, pytest.raises(ExcotError, match="--max-tokens-total 20,000"):
        ask(out, server, n=1, concurrency=1, max_tokens_total=20_000)
    assert 5 < len(server.requests) < 20


def test_failed_questions_give_back_what_was_kept_for_them(tmp_path: Path, prices: str) -> None:
    out = make_run(tmp_path, 30)

    def picky(request: Request) -> Reply:
        return failure(400, "no") if place(request) < 25 else costly(request)

    with ChatServer(otherwise=picky) as server:
        ask(out, server, prices=prices, max_tokens=10, max_cost=2.0, concurrency=2)
    assert len(server.requests) == 30


def test_a_limit_of_cost_without_a_price_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    for dry_run in ((), ("--dry-run",)):
        result = excot("generate", "--out", out, "--model", "unheard-of", "--max-cost", 5, *dry_run)
        assert result.code == 1
        assert result.error() == (
            "--max-cost 5: the price of 'unheard-of' is unknown: give it in a file by --prices, "
            "or limit --max-tokens-total"
        )


def test_the_usage_of_every_question_is_journaled(tmp_path: Path) -> None:
    out = make_run(tmp_path, 2)
    with ChatServer(otherwise=costly) as server:
        ask(out, server)
    lines = (Path(out) / ".excot" / "generations.jsonl").read_text().splitlines()[1:]
    for line in lines:
        usage = json.loads(line)["record"]["usage"]
        assert usage["prompt_tokens"] > 50
        assert (usage["completion_tokens"], usage["estimated"]) == (30, False)
