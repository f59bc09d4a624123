"""Prompts in, SQL out: render a question for a model, and find the query in its answer."""

from .examples import few_shots
from .extract import Extraction, extract_sql
from .template import STYLES, Prompt, PromptError, load_prompt, stored_prompt

__all__ = ["STYLES", "Extraction", "Prompt", "PromptError", "extract_sql", "few_shots", "load_prompt", "stored_prompt"]
