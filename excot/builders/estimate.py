"""What a run would ask, and about how much that would take: the text of ``--dry-run``."""

from __future__ import annotations

from typing import Any

from ..config import GenerateConfig
from ..errors import ExcotError
from ..llm.base import Message
from ..llm.prices import money
from ..prompts import Prompt
from .budget import Budget
from .ledger import CHARACTERS_PER_TOKEN

_COUNTED = 200  # prompts that the tokenizer sees; the others are taken to be like them


def estimate(config: GenerateConfig, prompt: Prompt, prompts: list[list[Message]], budget: Budget) -> str:
    """The lines of ``--dry-run``: how many questions, tokens and dollars, and the first prompt.

    Raises:
        ExcotError: there is no question to ask, or the model's folder has no tokenizer.
    """
    if not prompts:
        raise ExcotError("no question can be asked: none has a schema text", "check the databases of the questions")
    answers = "all answers that exist" if config.n is None else f"{config.n} answers"
    shown = "\n\n".join(f"[{message['role']}]\n{message['content']}" for message in prompts[0])
    return (
        f"would ask {len(prompts):,} questions for {answers} each with prompt {prompt.id}, "
        f"{_tokens(config, prompts, budget)}; the first prompt:\n\n{shown}"
    )


def _tokens(config: GenerateConfig, prompts: list[list[Message]], budget: Budget) -> str:
    count, how = _prompt_tokens(config, prompts)
    said = f"about {count:,} prompt tokens ({how})"
    if config.backend in ("teacher", "replay"):
        return said
    _, completions = budget.expect(0, len(prompts) * (config.n or 1))
    assumed = round(completions / (len(prompts) * (config.n or 1)))
    said += f" and {completions:,} answer tokens (if an answer has {assumed})"
    if budget.price is None:
        return said
    price = budget.price
    cost = money(price.cost(count, completions, config.batched))
    halved = f", {price.batch:g} of it in batches" if config.batched else ""
    return f"{said}, {cost} (at {price.prompt:g} and {price.completion:g} USD per million{halved})"


def _prompt_tokens(config: GenerateConfig, prompts: list[list[Message]]) -> tuple[int, str]:
    """The tokens of all prompts, and how they were counted."""
    lengths = [sum(len(message["content"]) for message in messages) for messages in prompts]
    if config.backend not in ("transformers", "vllm"):
        return sum(lengths) // CHARACTERS_PER_TOKEN, f"{CHARACTERS_PER_TOKEN} characters each"
    from ..llm.local import encode, load_tokenizer

    tokenizer: Any = load_tokenizer(config.model, config.adapter)
    sample = range(0, len(prompts), -(-len(prompts) // _COUNTED))
    counted = sum(len(encode(tokenizer, prompts[k], config.model)) for k in sample)
    characters = sum(lengths[k] for k in sample)
    return round(counted * sum(lengths) / characters), "by the model's own tokenizer"
