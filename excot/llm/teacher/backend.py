"""The teacher: answers from the gold SQL, with reasoning, and wrong at a rate of your choice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from typing import Any

import sqlglot
from sqlglot import exp

from ..base import BackendError, Candidate, Completion, FatalBackendError, Message, Sampling
from .explain import explain, explain_briefly, outline
from .habits import give_in
from .mistakes import make_mistake
from .rendering import as_written, in_backticks, render, same_tokens
from .schema import Schema, read_schema
from .takeapart import SubQuestion, take_apart
from .text_mistakes import make_text_mistake


@dataclass(frozen=True)
class Answer:
    """One answer, with what a real model would not tell.

    Attributes:
        text: the chain of thought; its last ``sql`` block is ``sql``.
        sql: the final query.
        mistake: what was done to the gold (one of ``mistakes.MISTAKES``' kinds, or two joined by ``"; "``); ``None``
            where the answer is meant to be right.
    """

    text: str
    sql: str
    mistake: str | None


class Teacher:
    """A backend for demos and tests that needs no model: it writes its answers from each question's gold SQL.

    It stands in for a strong model that is asked for divide-and-conquer reasoning: most candidates are right, some
    hold a mistake that such models make, and the reasoning of a wrong candidate leads to its wrong query. It has seen
    the gold: data made with it says nothing about any model.

    Candidate ``k`` of a question depends on the sampling's seed, the question and ``k`` alone. Temperature, top-p and
    the prompt play no part.

    Args:
        error_rate: the probability, from 0 to 1, that a candidate is meant to be wrong. (Some mistakes make no
            difference on a given database; such a candidate is right in spite of itself.)
        habit_rate: the probability that a candidate gives in to a habit (`habits`) where there is a place for it.
        brief: whether the reasoning is the sub-questions' pseudo SQL alone, for models too small for more.

    Raises:
        FatalBackendError: a rate is not a probability.
    """

    model = "teacher (has seen the gold)"

    def __init__(self, error_rate: float = 0.3, habit_rate: float = 0.0, brief: bool = False):
        for name, rate in (("error_rate", error_rate), ("habit_rate", habit_rate)):
            if not 0 <= rate <= 1:
                raise FatalBackendError(f"{name} is {rate}", "give a probability from 0 to 1")
        self.error_rate, self.habit_rate, self.brief = error_rate, habit_rate, brief

    async def complete(
        self, messages: list[Message], n: int, sampling: Sampling, question: dict[str, Any]
    ) -> Completion:
        """Answer ``question`` ``n`` times; ``messages`` are not looked at. Tokens are not counted.

        Raises:
            BackendError: the question has no gold SQL.
        """
        answers = self.plan(question, n, sampling.seed)
        return Completion(tuple(Candidate(answer.text, "stop") for answer in answers), model=self.model)

    def plan(self, question: dict[str, Any], n: int, seed: int) -> list[Answer]:
        """What ``complete`` will say, and which of it is meant to be wrong."""
        write = _writer(question, self.brief)
        answers = []
        for k in range(n):
            rng = Random(f"{seed}/{question.get('id')}/{k}")
            wrong = rng.random() < self.error_rate
            answers.append(write(rng, wrong, self.habit_rate > 0 and rng.random() < self.habit_rate))
        return answers

    async def close(self) -> None:
        """Nothing to give back."""


def answer(question: dict[str, Any], rng: Random, wrong: bool) -> Answer:
    """One answer to a question.

    Args:
        question: a row of the ``questions`` dataset: ``gold_sql`` and ``question``; ``schema`` and ``evidence`` where
            there are any.
        rng: the only source of chance.
        wrong: whether to make a mistake.

    Raises:
        BackendError: the question has no gold SQL.
    """
    return _writer(question)(rng, wrong)


def _writer(question: dict[str, Any], brief: bool = False) -> Callable[..., Answer]:
    """A function that writes answers to one question; what all of them share is done once."""
    gold = (question.get("gold_sql") or "").strip().rstrip("; \n")
    if not gold:
        raise BackendError(f"question {question.get('id')} has no gold SQL", "the teacher answers from the gold")
    with suppress(sqlglot.errors.SqlglotError, RecursionError):
        tree = sqlglot.parse_one(gold, read="sqlite")
        if isinstance(tree, (exp.Select, exp.SetOperation)):
            return _Author(question, gold, tree, brief).write
    return lambda rng, wrong, habit=False: _unparsed(question, gold, rng, wrong)


class _Author:
    """Writes answers to one question whose gold is understood."""

    def __init__(self, question: dict[str, Any], gold: str, tree: exp.Query, brief: bool):
        self._question, self._gold, self._tree, self._brief = question, gold, tree, brief
        self._schema: Schema = read_schema(question.get("schema"))
        self._right: SubQuestion = take_apart(tree, self._schema, gold)
        self._faithful = {pretty: same_tokens(self._text(tree, pretty), gold) for pretty in (False, True)}

    def write(self, rng: Random, wrong: bool, habit: bool = False) -> Answer:
        hand = "gold" if self._brief else rng.choice(("gold", "gold", "line", "pretty"))
        made = give_in(self._tree) if habit else None
        if wrong:
            tree, mistakes = made or (self._tree, None)
            made = make_mistake(tree, self._schema, rng)
            if made is None:
                return _unparsed(self._question, self._gold, rng, wrong)
            made = made[0], "; ".join(filter(None, (mistakes, made[1])))
        if made is None:
            sql = self._gold
            if hand != "gold" and self._faithful[hand == "pretty"]:
                sql = self._text(self._tree, hand == "pretty")
            return Answer(self._explained(self._right, sql, rng), sql, None)
        tree, mistake = made
        sql = self._text(tree, hand == "pretty")
        if hand == "gold" and self._faithful[False]:
            sql = as_written(self._gold, sql)
        return Answer(self._explained(take_apart(tree, self._schema, self._gold), sql, rng), sql, mistake)

    def _text(self, tree: exp.Query, pretty: bool) -> str:
        return in_backticks(render(tree, pretty), self._gold)

    def _explained(self, main: SubQuestion, sql: str, rng: Random) -> str:
        if self._brief:
            return outline(main, sql)
        return explain(main, self._question.get("question") or "", self._question.get("evidence"), sql, rng)


def _unparsed(question: dict[str, Any], gold: str, rng: Random, wrong: bool) -> Answer:
    sql, mistake = make_text_mistake(gold, rng) if wrong else (gold, None)
    return Answer(explain_briefly(question.get("question") or "", sql, rng), sql, mistake)
