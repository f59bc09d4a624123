"""Training moves what it is meant to move, by more than noise could: seeded, on models of a few layers."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from statistics import mean
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from chain import make_database, read_data, write_questions
from training import CPU, make_world, train, words

from excot.demo.model import make_llama

torch = pytest.importorskip("torch")
pytest.importorskip("trl")

ANIMALS = """
    CREATE TABLE animal (weight INTEGER);
    INSERT INTO animal WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 50) SELECT x FROM n;
"""
THRESHOLDS = range(3, 48, 2)
SHORT = {"logging_steps": 1, "max_length": 256, "save_strategy": "no", "seed": 0}


class Zoo:
    """Questions of one kind, and a model that answers them right about as often as with the opposite comparison."""

    def __init__(self, folder: Path):
        self.prompt = folder / "short.jinja"
        self.prompt.write_text("{{ question }}")
        data = folder / "data"
        make_database(data / "database" / "zoo" / "zoo.sqlite", ANIMALS)
        rows = [
            {"question": f"How many animals weigh more than {k}?", "db_id": "zoo", "gold_sql": self.sql(">", k)}
            for k in THRESHOLDS
        ]
        write_questions(data, rows)
        self.run = read_data(data, folder / "run")
        texts = [row["question"] for row in rows] + [self.answer(op, k) for op in "<>" for k in THRESHOLDS]
        sizes = {"vocab_size": 512, "hidden_size": 96, "intermediate_size": 192, "num_hidden_layers": 2}
        base = make_llama(folder / "base", texts, **sizes)
        self.undecided = folder / "undecided"
        self.teach(base, "<>", self.undecided, max_steps=400, learning_rate=3e-3)

    @staticmethod
    def sql(comparison: str, threshold: int) -> str:
        return f"SELECT count(*) FROM animal WHERE weight {comparison} {threshold}"

    def answer(self, comparison: str, threshold: int) -> str:
        return f"```sql\n{self.sql(comparison, threshold)}\n```"

    def teach(self, model: str | Path, comparisons: str, out: Path, **options: Any) -> str:
        """SFT on the answers with these comparisons; what was logged."""
        questions = {"question": [], "answer": []}
        for comparison in comparisons:
            for k in THRESHOLDS:
                questions["question"].append([{"role": "user", "content": f"How many animals weigh more than {k}?"}])
                questions["answer"].append([{"role": "assistant", "content": self.answer(comparison, k)}])
        data = out.parent / f"{out.name}-data"
        data.mkdir()
        table = pa.table({"prompt": questions["question"], "completion": questions["answer"]})
        pq.write_table(table, data / "train.parquet")
        settings = {"per_device_train_batch_size": 16, "lr_scheduler_type": "cosine", **SHORT, **options}
        return self.train("sft", out, model_name_or_path=model, dataset_name=data, **settings)

    def train(self, stage: str, out: Path, **options: Any) -> str:
        done = train(stage, words({**CPU, "output_dir": out, **options}))
        assert done.code == 0, done.err
        return done.out

    @property
    def exec_acc(self) -> dict[str, Any]:
        """Greedy answers to all questions at every evaluation."""
        return {"ex_dataset": self.run, "ex_max_new_tokens": 40, "prompt": self.prompt, "eval_strategy": "steps"}


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Zoo:
    return Zoo(tmp_path_factory.mktemp("zoo"))


def logged(name: str, out: str) -> list[float]:
    """What the trainer said of a quantity, in order."""
    return [float(value) for value in re.findall(rf"'{name}': '([^']*)'", out)]


@pytest.fixture(scope="module")
def rewarded(zoo: Zoo, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """The undecided model after sixty steps of GRPO, and what was logged."""
    path = tmp_path_factory.mktemp("grpo") / "model"
    out = zoo.train(
        "grpo",
        path,
        model_name_or_path=zoo.undecided,
        dataset_name=zoo.run,
        learning_rate=3e-4,
        max_steps=60,
        per_device_train_batch_size=32,
        per_device_eval_batch_size=8,
        num_generations=8,
        max_completion_length=40,
        test_split_size=0.2,
        eval_steps=60,
        eval_on_start=True,
        **{**SHORT, "max_length": None},
        **zoo.exec_acc,
    )
    return path, out


@pytest.mark.slow
def test_grpo_raises_the_reward_and_the_execution_accuracy(rewarded, zoo):
    _, out = rewarded
    rewards = logged("rewards/execution_reward/mean", out)
    assert len(rewards) == 60
    # 96 and 640 answers: the standard errors of the two means are below 0.05 and 0.02.
    assert mean(rewards[:3]) < 0.65
    assert mean(rewards[-20:]) - mean(rewards[:3]) > 0.2
    before, after = logged("eval_rewards/execution_reward/mean", out)
    assert after - before > 0.15  # on questions that were held out
    before, after = logged("eval_exec_acc", out)
    assert after > 0.9 and after >= before  # between two equally likely answers, the greedy one may be either
    assert logged("eval_exec_acc_low", out)[1] < after <= logged("eval_exec_acc_high", out)[1]


@pytest.mark.slow
def test_execution_accuracy_is_what_the_saved_model_scores(rewarded, zoo, tmp_path):
    """The answers of plain transformers, judged one by one, give the number in the log and on the card."""
    import asyncio

    from excot.execution import Databases, Task, verify_all
    from excot.llm.base import Sampling
    from excot.llm.transformers import Transformers
    from excot.prompts import extract_sql, load_prompt
    from excot.run import Run

    path, _ = rewarded
    prompt = load_prompt(str(zoo.prompt))
    backend = Transformers(str(path), device="cpu", torch_threads=1)
    rows = list(Run(zoo.run).read("questions"))

    async def ask() -> list[str]:
        sampling = Sampling(temperature=0, max_tokens=40)
        calls = (backend.complete(prompt.messages(row["question"], ""), 1, sampling, {}) for row in rows)
        answers = [answer.candidates[0].text for answer in await asyncio.gather(*calls)]
        await backend.close()
        return answers

    databases = Databases(Run(zoo.run).local["databases"])
    tasks = [
        Task(row["id"], databases.paths("zoo"), row["gold_sql"], (extract_sql(answer).sql or "",))
        for row, answer in zip(rows, asyncio.run(ask()), strict=True)
    ]
    right = sum(verdict.candidates[0].matches.set for _, verdict in verify_all(tasks, 1))
    record = json.loads((path / "training.json").read_text())
    assert record["exec_acc"]["value"] == pytest.approx(right / len(rows))
    assert record["exec_acc"]["questions"] == len(rows) == 23
    assert f"| execution accuracy | {100 * right / len(rows):.1f}% (95% interval" in (path / "README.md").read_text()


@pytest.mark.slow
def test_the_checkpoint_with_the_best_execution_accuracy_is_kept(rewarded, zoo, tmp_path):
    """A good model is taught the wrong comparison: what is kept is what it was before that took hold."""
    from safetensors.torch import load_file

    out = tmp_path / "taught"
    log = zoo.teach(
        rewarded[0],
        "<",
        out,
        max_steps=40,
        learning_rate=1e-3,
        lr_scheduler_type="constant_with_warmup",
        warmup_steps=20,
        test_split_size=0.2,
        eval_steps=2,
        save_strategy="steps",
        save_steps=2,
        save_total_limit=1,
        load_best_model_at_end=True,
        metric_for_best_model="exec_acc",
        **zoo.exec_acc,
    )
    scores = logged("eval_exec_acc", log)
    kept = json.loads((out / "training.json").read_text())["exec_acc"]
    assert len(scores) == 20 and scores[-1] < 0.2 < 0.8 < max(scores) == kept["value"]
    (checkpoint,) = out.glob("checkpoint-*")
    assert checkpoint.name == f"checkpoint-{kept['step']}"
    one, other = load_file(out / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.slow
def test_dpo_tells_right_from_wrong_answers_to_questions_it_has_not_seen(tmp_path):
    """The demo's databases and the teacher's pairs; three pairs in ten are held out, by question."""
    prompt = tmp_path / "short.jinja"
    prompt.write_text("{{ question }}")
    sizes = {"vocab_size": 512, "hidden_size": 64, "intermediate_size": 128}
    sizes |= {"num_hidden_layers": 1, "num_attention_heads": 2}
    world = make_world(tmp_path, prompt=str(prompt), n=12, max_per_question=4, model=sizes)
    common = {"per_device_train_batch_size": 8, "test_split_size": 0.3, **SHORT, "max_length": 1024}
    sft = train("sft", world.recipe(output_dir=tmp_path / "sft", max_steps=30, **{**common, "learning_rate": 5e-3}))
    assert sft.code == 0, sft.err
    steps = {"max_steps": 20, "eval_steps": 20, "eval_strategy": "steps"}
    settings = {**common, **steps, "learning_rate": 2e-3, "model_name_or_path": tmp_path / "sft"}
    done = train("dpo", world.recipe(output_dir=tmp_path / "dpo", **settings))
    assert done.code == 0, done.err
    # It starts as its own reference: every margin is 0, and a guess would be right in half of the cases. With 150 or
    # more pairs of some 45 questions, guessing does not come to 0.65, nor the mean margin far from 0.
    (accuracy,), (margin,) = (logged(f"eval_rewards/{name}", done.out) for name in ("accuracies", "margins"))
    assert accuracy > 0.65 and margin > 0.25
    losses = logged("loss", done.out)
    assert mean(losses[-10:]) < mean(losses[:5]) - 0.05
    shutil.rmtree(tmp_path / "sft")
