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
    """

    text: str | None
    finish_reason: str | None = None
    completion_tokens: int | None = None


@dataclass(frozen=True)
class Completion:
    """All candidates of one question, in sampling order.

    Attributes:
        candidates: exactly as many as were asked for, unless the backend can only give what exists (replay).
        prompt_tokens: tokens of the prompt, or ``None`` where nobody knows.
        model: the model's name as the endpoint reports it.
    """

    candidates: tuple[Candidate, ...]
    prompt_tokens: int | None = None
    model: str = ""


class BackendError(ExcotError):
    """This question could not be answered; others may. It is recorded, and asked again on the next start."""


class FatalBackendError(ExcotError):
    """No question can be answered until the user has changed something (a key, an address, a model's name)."""


class Backend(Protocol):
    """Where completions come from. One instance serves many questions, concurrently, within one event loop."""

    model: str
    """The model's name or path as the user gave it; recorded in the dataset."""

    async def complete(
        self, messages: list[Message], n: int, sampling: Sampling, question: dict[str, Any]
    ) -> Completion:
        """Answer one prompt ``n`` times.

        Args:
            messages: the rendered chat prompt.
            n: how many candidates to sample.
            sampling: temperature, length and seed.
            question: the row of the ``questions`` dataset that the prompt was made from. Real models never look at
                it; the teacher takes its ``gold_sql``, replay its ``id``.

        Raises:
            BackendError: this question failed for good (after the backend's own retries).
            FatalBackendError: every question would fail in the same way.
        """
        ...

    async def close(self) -> None:
        """Give back connections and memory. Called once, also after a failure."""
        ...
