"""What every source of completions has in common: the request, the answer, and the two ways to fail."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Protocol

from ..errors import ExcotError

Message = dict[str, str]
"""One chat message: ``{"role": "system" | "user" | "assistant", "content": text}``."""


@dataclass(frozen=True)
class Sampling:
    """How to sample one question's candidates.

    Attributes:
        temperature: softmax temperature; 0 is greedy.
        top_p: nucleus size, in (0, 1].
        max_tokens: the most new tokens of one candidate.
        seed: the seed of this question's samples; every question gets its own, derived from the run's seed and the
            question's id, so that a resumed run asks exactly what an undisturbed one would have asked.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    max_tokens: int = 4096
    seed: int = 0

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Candidate:
    """One sampled answer.

    Attributes:
        text: the answer as the model gave it; ``None`` where the endpoint gave no content (a content filter, say).
        finish_reason: ``"stop"``, ``"length"`` (cut off at ``max_tokens``), another word of the endpoint's, or
            ``None`` where nobody knows (replayed SQL).
        completion_tokens: tokens of this answer, or ``None`` where the endpoint does not say.
        seed: what its request was seeded with: every sample's own, or that of the request which gave several;
            ``None`` where nothing was seeded.
    """

    text: str | None
    finish_reason: str | None = None
    completion_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Completion:
    """All candidates of one question, in sampling order.

    Attributes:
        candidates: as many as were asked for; fewer, but at least one, where one request gives no more (the rest is
            then asked for by another one), or where no more exist (replay, which may give none).
        prompt_tokens: tokens of the prompt, or ``None`` where nobody knows.
        model: the model's name as the endpoint reports it.
        billed_prompt_tokens: of all requests that it took, or ``None`` where nobody knows.
        billed_completion_tokens: of all candidates together, hidden reasoning included, or ``None``.
    """

    candidates: tuple[Candidate, ...]
    prompt_tokens: int | None = None
    model: str = ""
    billed_prompt_tokens: int | None = None
    billed_completion_tokens: int | None = None


class BackendError(ExcotError):
    """This question could not be answered; others may. It is recorded, and asked again on the next start."""


class UnanswerableError(BackendError):
    """This question will never be answered as it is asked: it is recorded as such, and not asked again.

    Args:
        kind: ``too_long`` (prompt and answer do not fit the model) or ``content_filter`` (the endpoint refuses it).
        problem: what happened, with the value seen (the prompt's tokens, say).
        remedy: what would help.
        prompt_tokens: tokens of the prompt, where somebody counted them.
    """

    def __init__(self, kind: str, problem: str, remedy: str = "", prompt_tokens: int | None = None):
        super().__init__(problem, remedy)
        self.kind = kind
        self.prompt_tokens = prompt_tokens


class FatalBackendError(ExcotError):
    """No question can be answered until the user has changed something (a key, an address, a model's name)."""


class Backend(Protocol):
    """Where completions come from. One instance serves many questions, concurrently, within one event loop.

    It may have two things more: ``describe()``, what a manifest may record of it, without secrets; and
    ``order(question)``, what to sort questions by before they are asked.
    """

    model: str
    """The model's name or path as the user gave it; recorded in the dataset."""

    async def complete(
        self, messages: list[Message], n: int, sampling: Sampling, question: dict[str, Any]
    ) -> Completion:
        """Answer one prompt ``n`` times, or as often as one request gives answers: the rest is asked for again.

        Args:
            messages: the rendered chat prompt.
            n: how many candidates to sample.
            sampling: temperature, length and seed.
            question: the row of the ``questions`` dataset that the prompt was made from. Real models never look at
                it; the teacher takes its ``gold_sql``, replay its ``id``.

        Raises:
            BackendError: this question failed for good (after the backend's own retries).
            UnanswerableError: it will never be answered as it is asked.
            FatalBackendError: every question would fail in the same way.
        """
        ...

    async def close(self) -> None:
        """Give back connections and memory. Called once, also after a failure."""
        ...
