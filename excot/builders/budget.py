"""What a run may take in money and tokens: counted over all its starts, and enough kept back for what is in flight."""

from __future__ import annotations

import json
from pathlib import Path

from ..config import GenerateConfig
from ..errors import ExcotError
from ..llm.prices import Price, money, price_of

ANSWER_TOKENS = 700
"""How long an answer is taken to be before any is known: the paper's grow from 560 to 910 tokens on average."""


class Budget:
    """What a run has taken, what the questions in flight are expected to take, and what it may take.

    Args:
        config: its options ``max_cost``, ``max_tokens_total`` and ``prices``.

    Attributes:
        price: of the model, where it is known; answers that exist already cost nothing.
        limited: whether anything is limited at all.

    Raises:
        ExcotError: the cost is limited and the model has no price, or the table of prices cannot be read.
    """

    def __init__(self, config: GenerateConfig):
        exists = config.backend in ("teacher", "replay")
        self.price: Price | None = None if exists else price_of(config.model or "", config.prices)
        self.limited = config.max_cost is not None or config.max_tokens_total is not None
        self._config = config
        self._prompts = self._completions = self._answers = 0
        self._expected: dict[str, tuple[int, int]] = {}
        if config.max_cost is not None and self.price is None:
            raise ExcotError(
                f"--max-cost {config.max_cost:g}: the price of {config.model or config.backend!r} is unknown",
                "give it in a file by --prices, or limit --max-tokens-total",
            )

    def add(self, prompt_tokens: int, completion_tokens: int, answers: int) -> None:
        """Count what was taken."""
        self._prompts += prompt_tokens
        self._completions += completion_tokens
        self._answers += answers

    def add_journal(self, path: Path) -> None:
        """Count what earlier starts took: every record, also those that later ones stand in for."""
        with open(path, "rb") as lines:
            next(lines, None)  # the journal's header
            for line in lines:
                record = json.loads(line)["record"]
                if usage := record.get("usage"):
                    self.add(usage["prompt_tokens"], usage["completion_tokens"], len(record["candidates"]))

    def reserve(self, id: str, prompt_tokens: int, answers: int) -> bool:
        """Keep back what a question is expected to take; false where that is more than is left."""
        if self.limited:
            self._expected[id] = self.expect(prompt_tokens, answers)
            if self._over(reserved=True):
                del self._expected[id]
                return False
        return True

    def release(self, id: str) -> None:
        """The question is no longer in flight: what it took has been counted."""
        self._expected.pop(id, None)

    def expect(self, prompt_tokens: int, answers: int) -> tuple[int, int]:
        """The tokens that a question will take: prompt, and answers as long as those so far."""
        mean = self._completions / self._answers if self._answers else min(ANSWER_TOKENS, self._config.max_tokens)
        return prompt_tokens, round(mean * answers)

    def spent(self) -> str:
        """What the run has taken beside what it may take, in words."""
        parts = []
        if self._config.max_cost is not None:
            parts.append(f"{money(self._cost(*self._taken()))} of --max-cost {self._config.max_cost:g}")
        if self._config.max_tokens_total is not None:
            parts.append(f"{sum(self._taken()):,} tokens of --max-tokens-total {self._config.max_tokens_total:,}")
        return " and ".join(parts)

    def _taken(self, reserved: bool = False) -> tuple[int, int]:
        expected = self._expected.values() if reserved else ()
        return self._prompts + sum(p for p, _ in expected), self._completions + sum(c for _, c in expected)

    def _over(self, reserved: bool) -> bool:
        taken, config = self._taken(reserved), self._config
        over_tokens = config.max_tokens_total is not None and sum(taken) > config.max_tokens_total
        return over_tokens or (config.max_cost is not None and self._cost(*taken) > config.max_cost)

    def _cost(self, prompt_tokens: int, completion_tokens: int) -> float:
        return self.price.cost(prompt_tokens, completion_tokens, self._config.batched) if self.price else 0.0
