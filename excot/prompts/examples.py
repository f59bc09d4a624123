"""Few-shot examples that show a teacher how to answer; they never reach a student."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from typing import Any

from .template import STYLES, Example, PromptError


def few_shots(style: str, count: int = 3) -> tuple[Example, ...]:
    """The first examples of a style, for ``Prompt.messages``.

    Args:
        style: one of ``STYLES``: an example shows the form of an answer, so that a user's own template has none.
        count: how many.

    Raises:
        PromptError: there are no examples for this prompt, or not so many.
    """
    if style not in STYLES:
        raise PromptError(f"no few-shot examples for prompt {style!r}", f"ask for none, or use {', '.join(STYLES)}")
    examples = _examples()
    if not 0 <= count <= len(examples):
        raise PromptError(f"{count} few-shot examples asked for", f"ask for 0 to {len(examples)}")
    return tuple(
        Example(example["question"], example["schema"].strip(), example["evidence"], example["answers"][style].strip())
        for example in examples[:count]
    )


@lru_cache(maxsize=1)
def _examples() -> list[dict[str, Any]]:
    import yaml

    return yaml.safe_load((files(__package__) / "examples.yaml").read_text("utf-8"))
