"""What became of every question: answered, answered in part, never answerable, failed; all but the last is journaled.

Whoever asks, one question after the other or in batches, asks this object what is due and gives it what came back:

    for question in ledger.waiting():
        if not ledger.reserve(question):     # the budget is used up
            break
        n, sampling = ledger.due(question)
        completion = ...                     # of ledger.prompt(question)
        ledger.keep(question, completion)    # or ledger.refuse(question, error), or ledger.fail(question, error)
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from ..config import GenerateConfig
from ..journal import Journal, digest_of
from ..llm.base import BackendError, Candidate, Completion, Message, Sampling, UnanswerableError
from .budget import Budget

CHARACTERS_PER_TOKEN = 4  # of English and SQL, roughly; for estimates only

Question = dict[str, Any]
Record = dict[str, Any]


class Ledger:
    """The questions of a run and their answers.

    A question whose answers come by several requests has a record for each of them, so that a kill loses no more than
    what is in flight. Parts, and questions that are recorded as unanswerable, hold for the options they were asked
    with; whole answers hold for their prompt.

    Args:
        config: how questions are asked.
        questions: the rows that shall be asked.
        messages: renders a question's prompt.
        journal: what is finished.
        budget: what the answers may take.

    Attributes:
        questions: as given.
        failed: why questions failed that are to be asked again on the next start, by id.
        exhausted: whether a question could not be asked for want of budget.
    """

    def __init__(
        self,
        config: GenerateConfig,
        questions: list[Question],
        messages: Callable[[Question], list[Message]],
        journal: Journal,
        budget: Budget,
    ):
        self.questions = questions
        self.failed: dict[str, str] = {}
        self.exhausted = False
        self.prompt = messages
        self._config = config
        self._journal = journal
        self._budget = budget
        # The teacher's answers hang on the gold as well.
        gold = config.backend == "teacher"
        self._whole = {q["id"]: digest_of(messages(q), *([q["gold_sql"]] if gold else [])) for q in questions}
        self._options = (
            *(config.backend, config.model, config.adapter, config.provider, config.max_model_len),
            *(config.n, config.temperature, config.top_p, config.max_tokens, config.seed),
        )

    def waiting(self) -> list[Question]:
        """The questions that are not finished, in order."""
        return [question for question in self.questions if not self._is_finished(question["id"])]

    def reserve(self, question: Question) -> bool:
        """Whether the budget allows to ask a question; what that is expected to take is then kept back.

        Once one has been refused, all are.
        """
        if self._budget.limited and not self.exhausted:
            tokens = tokens_about(message["content"] for message in self.prompt(question))
            self.exhausted = not self._budget.reserve(question["id"], tokens, self.due(question)[0])
        return not self.exhausted

    def due(self, question: Question, ahead: int = 0) -> tuple[int, Sampling]:
        """How many answers a question still lacks (0: all that exist), and how to sample them in one request.

        Args:
            question: its row.
            ahead: how many requests of this question are under way already.
        """
        parts = self._parts(question["id"])
        missing = (self._config.n or 0) - sum(len(part["candidates"]) for part in parts)
        seed = seed_of(self._config.seed, question["id"])
        return missing, sampling_of(self._config, request_seed(seed, len(parts) + ahead))

    def keep(self, question: Question, completion: Completion) -> bool:
        """Keep what one request gave; whether the question is finished with it.

        Candidates beyond those that were due are dropped. From a file a question may get fewer; one that gets none is
        not recorded, since another file may have some.

        Raises:
            BackendError: there was no answer at all, which asking again and again would not mend.
        """
        id, (missing, _) = question["id"], self.due(question)
        candidates = completion.candidates[: missing or None]
        replayed = self._config.backend == "replay"
        if not candidates and replayed:
            return True
        if not candidates:
            raise BackendError("a reply without any answer", "look into the server's log, then start again")
        parts = len(self._parts(id))
        usage = self._usage(question, completion)
        record = {
            "candidates": [_candidate(candidate) for candidate in candidates],
            "prompt_tokens": completion.prompt_tokens,
            "model": completion.model,
            "usage": usage,
            "sampling": self.sampling(question),
        }
        finished = replayed or len(candidates) == missing
        if finished:
            self._journal.add(id, self._whole[id], {**record, "parts": parts})
        else:
            self._journal.add(_part(id, parts), self._partial(id), record)
        self._budget.add(usage["prompt_tokens"], usage["completion_tokens"], len(candidates))
        if finished:
            self._budget.release(id)
        return finished

    def refuse(self, question: Question, error: UnanswerableError) -> None:
        """Record that a question will never be answered as it is asked."""
        record = {
            "candidates": [],
            "failure": error.kind,
            "error": str(error),
            "prompt_tokens": error.prompt_tokens,
            "sampling": self.sampling(question),
        }
        self._journal.add(question["id"], self._partial(question["id"]), record)
        self._budget.release(question["id"])

    def fail(self, question: Question, error: Exception) -> None:
        """Note that a question failed; it is asked again on the next start."""
        self.failed[question["id"]] = str(error)
        self._budget.release(question["id"])

    def read(self, question: Question) -> Record | None:
        """All that is known of a finished question, its parts put together; ``None`` where it is not finished."""
        id = question["id"]
        if not self._is_finished(id):
            return None
        last = self._journal.read(id)
        records = [*(self._journal.read(_part(id, k)) for k in range(last.get("parts", 0))), last]
        usages = [record.get("usage", {"estimated": True}) for record in records]
        known = not any(usage["estimated"] for usage in usages)
        return {
            **last,
            **{name: records[0].get(name) for name in ("prompt_tokens", "model")},
            "candidates": [candidate for record in records for candidate in record["candidates"]],
            "usage": {
                name: sum(usage[name] for usage in usages) if known else None
                for name in ("prompt_tokens", "completion_tokens")
            },
        }

    def errors(self) -> dict[str, str]:
        """Why questions have no answers, by id: those that failed, and those that never will have any."""
        refused = {
            id: self._journal.read(id)["error"] for id in self._whole if self._journal.has(id, self._partial(id))
        }
        return refused | self.failed

    def answered(self) -> int:
        """How many questions have all their answers."""
        return sum(self._journal.has(id, digest) for id, digest in self._whole.items())

    def sampling(self, question: Question) -> dict[str, Any]:
        """The settings that a question's answers are sampled with, for its row; nobody knows those of a file."""
        config = self._config
        if config.backend == "replay":
            return {"n": config.n}
        settings = sampling_of(config, seed_of(config.seed, question["id"])).to_dict()
        return {"n": config.n, "few_shots": config.few_shots, **settings}

    def _is_finished(self, id: str) -> bool:
        # Under --resume the journal may hold answers to an earlier form of the question: those are none.
        return id in self._whole and (
            self._journal.has(id, self._whole[id]) or self._journal.has(id, self._partial(id))
        )

    def _parts(self, id: str) -> list[Record]:
        parts: list[Record] = []
        while self._journal.has(_part(id, len(parts)), self._partial(id)):
            parts.append(self._journal.read(_part(id, len(parts))))
        return parts

    def _partial(self, id: str) -> str:
        return digest_of(self._whole[id], self._options)

    def _usage(self, question: Question, completion: Completion) -> dict[str, Any]:
        """The tokens that are paid for; estimated where the endpoint does not say, for budgets only."""
        prompt, answers = completion.billed_prompt_tokens, completion.billed_completion_tokens
        estimated = prompt is None or answers is None
        if prompt is None:
            prompt = tokens_about(message["content"] for message in self.prompt(question))
        if answers is None:
            answers = tokens_about(candidate.text or "" for candidate in completion.candidates)
        return {"prompt_tokens": prompt, "completion_tokens": answers, "estimated": estimated}


def seed_of(seed: int, id: str) -> int:
    """A question's own seed: the same on every start, whatever else is asked beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed}:{id}".encode()).digest()[:4], "big") >> 1


def sampling_of(config: GenerateConfig, seed: int) -> Sampling:
    """How a config samples, with a question's seed."""
    return Sampling(config.temperature, config.top_p, config.max_tokens, seed)


def tokens_about(texts: Any) -> int:
    """The tokens of some texts, roughly."""
    return sum(map(len, texts)) // CHARACTERS_PER_TOKEN


def request_seed(seed: int, request: int) -> int:
    """The seed of a question's further requests: a hash, since ``seed + 1`` may be another question's seed."""
    if request == 0:
        return seed
    return int.from_bytes(hashlib.sha256(f"{seed}:{request}".encode()).digest()[:4], "big") >> 1


def _part(id: str, number: int) -> str:
    return f"{id}#{number}"


def _candidate(candidate: Candidate) -> dict[str, Any]:
    # Without the lone surrogates that JSON can hold and UTF-8 cannot.
    text = candidate.text and candidate.text.encode("utf-8", "replace").decode("utf-8")
    return {
        "text": text,
        "finish_reason": candidate.finish_reason,
        "completion_tokens": candidate.completion_tokens,
        "seed": candidate.seed,
    }
