"""The official evaluators, as the package `nl2sql360` ships them: a program for `scoring.py`, in a process of its own.

``python official.py {bird,spider} QUESTIONS ANSWERS`` reads JSON and writes JSON. It imports nothing of excot.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import Any

Pair = dict[str, Any]


def bird(pairs: list[Pair]) -> list[dict[str, Any]]:
    """BIRD's verdicts on each pair of gold and answer, and its efficiency scores for the times that come with it."""
    from nl2sql360.evaluator.bird_eval import bird_ex, bird_rves, bird_ves, evaluation_f1

    found = []
    for pair in pairs:
        place = (pair["answer"], pair["gold"], pair["database"], 0, 30.0, "SQLite")
        result = {"ex": bird_ex.execute_model(*place)["res"], "soft_f1": evaluation_f1.execute_model(*place)["res"]}
        # The shipped version pairs rows in the order of a set, which is another in each process where there is text;
        # the official one has since been changed to keep the order of the results.
        evaluation_f1.set = dict.fromkeys
        result["soft_f1_in_order"] = evaluation_f1.execute_model(*place)["res"]
        del evaluation_f1.set
        for name, module, key in (("time_ratio", bird_ves, "time_ratio"), ("reward", bird_rves, "reward")):
            with _clock(module, pair.get("times", ())) as repetitions:
                scored = module.execute_model(*place[:4], repetitions, 30.0, "SQLite", None)
            result[name] = scored[key]
        found.append(result)
    return found


@contextlib.contextmanager
def _clock(module: Any, given: Sequence[tuple[float, float]]) -> Iterator[int]:
    """In place of measured times, given ones of gold and answer; how many repetitions they are for."""
    execute = module.execute_sql
    times = iter([seconds for gold, own in given for seconds in (own, gold)])

    def execute_sql(*args: Any, return_time: bool = False, **kwargs: Any) -> Any:
        return next(times) if return_time else execute(*args, **kwargs)

    module.execute_sql = execute_sql
    try:
        yield len(given)
    finally:
        module.execute_sql = execute


def spider(pairs: list[Pair]) -> list[dict[str, Any]]:
    """Spider's test-suite verdicts."""
    from nl2sql360.evaluator.test_suite_sql_eval import evaluation, process_sql
    from nltk.tokenize import NLTKWordTokenizer

    # nltk's own function cuts a text into sentences first, with data that is not part of any package.
    process_sql.word_tokenize = NLTKWordTokenizer().tokenize
    golds = [f"{pair['gold']}\t{pair['db_id']}" for pair in pairs]
    answers = [pair["answer"] for pair in pairs]
    entries = evaluation.evaluate(golds, answers, pairs[0]["folder"], "exec", None, False, False, False)
    return [{"test_suite": entry["exec"]} for entry in entries]


if __name__ == "__main__":
    kind, source, target = sys.argv[1:]
    with open(source) as file:
        pairs = json.load(file)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        answers = {"bird": bird, "spider": spider}[kind](pairs)
    with open(target, "w") as file:
        json.dump(answers, file)
