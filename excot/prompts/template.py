"""Turn a question into chat messages: a prompt is a named Jinja template whose text is part of its identity."""

from __future__ import annotations

import difflib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ExcotError

if TYPE_CHECKING:
    from jinja2 import Template, nodes

STYLES = ("divide_and_conquer", "cot", "direct")
"""The prompt styles that come with excot, the default first (arXiv 2503.19988 trains on divide and conquer)."""

VARIABLES = ("question", "schema", "evidence")
"""What a template may use. ``evidence`` is ``None`` where a benchmark gives no hint."""


class PromptError(ExcotError):
    """A prompt template or a few-shot example that cannot be found or used."""


@dataclass(frozen=True)
class Example:
    """One few-shot example for a teacher: a question and the answer it should have got."""

    question: str
    schema: str
    evidence: str | None
    answer: str


@dataclass(frozen=True)
class Prompt:
    """A chat prompt, checked when it is made: one that exists can be rendered.

    ``Prompt(name, text)`` also makes one again from a template's text that was stored beside a dataset.

    Attributes:
        name: the style, or the stem of the user's file.
        text: the Jinja source: two blocks, ``system`` and ``user``, or no blocks at all, which is a user message only.

    Raises:
        PromptError: the text is no Jinja template, uses other variables than ``question``, ``schema`` and
            ``evidence``, never uses ``question``, or cannot be rendered.
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        _check(self)

    @property
    def id(self) -> str:
        """The name and a hash of the text: what travels with datasets and models as ``prompt_id``."""
        return f"{self.name}-{hashlib.sha256(self.text.encode()).hexdigest()[:8]}"

    def messages(
        self, question: str, schema: str, evidence: str | None = None, examples: Sequence[Example] = ()
    ) -> list[dict[str, str]]:
        """Render the chat messages of one question.

        Args:
            question: the question in natural language.
            schema: the text that describes the database.
            evidence: the benchmark's hint, or ``None``.
            examples: few-shot examples, for a teacher only. A student learns the way of answering from its training
                and is sampled and scored without them; a training prompt that held them would teach it to need them,
                and every question would pay for their tokens.

        Returns:
            The system message where the template has one, a user and an assistant message per example, and the user
            message of this question.

        Raises:
            PromptError: the template fails on these values (it can do so only through expressions of its own).
        """
        system = self._render("system", question, schema, evidence)
        messages = [{"role": "system", "content": system}] if system else []
        for example in examples:
            shown = self._render("user", example.question, example.schema, example.evidence)
            messages += [{"role": "user", "content": shown}, {"role": "assistant", "content": example.answer}]
        return [*messages, {"role": "user", "content": self._render("user", question, schema, evidence)}]

    def _render(self, role: str, question: str, schema: str, evidence: str | None) -> str:
        template = _compile(self.text)
        context = template.new_context({"question": question, "schema": schema, "evidence": evidence})
        render = template.blocks.get(role)
        if not template.blocks and role == "user":
            render = template.root_render_func
        try:
            return "".join(render(context)).strip() if render else ""
        except Exception as error:  # a user's template may hold any expression, and fail in any way
            raise PromptError(
                f"prompt template {self.name} cannot be rendered: {type(error).__name__}: {error}",
                "mend the template; evidence is None for questions without a hint",
            ) from error


def load_prompt(name_or_path: str) -> Prompt:
    """Load a style by its name, or a user's own Jinja template by its path.

    Args:
        name_or_path: one of ``STYLES``, or a file; its stem becomes the prompt's name.

    Raises:
        PromptError: no such style, no such file, or a template that ``Prompt`` refuses.
    """
    if name_or_path in STYLES:
        return Prompt(name_or_path, (files(__package__) / "templates" / f"{name_or_path}.jinja").read_text("utf-8"))

    path = Path(os.path.expanduser(name_or_path))
    styles = ", ".join(STYLES)
    if not path.suffix and not any(separator in name_or_path for separator in (os.sep, os.altsep) if separator):
        raise PromptError(
            f"unknown prompt style {name_or_path!r}",
            f"{_nearest(name_or_path, STYLES)}use {styles} or the path of a .jinja file",
        )
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise PromptError(f"prompt template {path} is not UTF-8 text", "save it as UTF-8") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise PromptError(
            f"prompt template {path} cannot be read: {reason}", f"give an existing .jinja file or one of {styles}"
        ) from error
    return Prompt(path.stem, text)


def stored_prompt(path: Path, prompt_id: str) -> Prompt:
    """Read a template that was kept beside the data or the model that was made with it.

    Raises:
        PromptError: it cannot be read, or is not the one of that id.
    """
    try:
        prompt = Prompt(prompt_id.rpartition("-")[0], path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise PromptError(f"cannot read the prompt template {path} ({error})", "restore the file") from None
    if prompt.id != prompt_id:
        raise PromptError(f"{path} was changed: its text has the id {prompt.id}", "restore the file")
    return prompt


@lru_cache(maxsize=32)
def _compile(text: str) -> Template:
    # Sandboxed, because a template's text may have come from the Hub beside somebody's dataset.
    from jinja2 import StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, autoescape=False, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(text)


def _check(prompt: Prompt) -> None:
    """Find out now what would otherwise fail, or silently go missing, thousands of questions later."""
    from jinja2 import TemplateSyntaxError, meta, nodes

    def refuse(what: str, remedy: str, line: int | None = None) -> PromptError:
        return PromptError(f"prompt template {prompt.name}{f', line {line}' if line else ''}: {what}", remedy)

    try:
        template = _compile(prompt.text)
    except TemplateSyntaxError as error:
        raise refuse(error.message or "syntax error", "mend the Jinja syntax", error.lineno) from error

    tree = template.environment.parse(prompt.text)
    # Read off the source rather than from a trial: a trial does not see the branches that it does not take.
    used = meta.find_undeclared_variables(tree)
    for name in sorted(used - set(VARIABLES)):
        line = next((node.lineno for node in tree.find_all(nodes.Name) if node.name == name), None)
        raise refuse(
            f"unknown variable {name!r}", f"{_nearest(name, VARIABLES)}a template has {', '.join(VARIABLES)}", line
        )
    if "question" not in used:
        raise refuse("it never uses the question", "write {{ question }} where the question belongs")

    if template.blocks:
        if "user" not in template.blocks:
            found = ", ".join(sorted(template.blocks))
            raise refuse(f"no block user among its blocks ({found})", "put the user message into {% block user %}")
        line = _first_line_outside_blocks(tree)
        if line is not None:
            raise refuse("text outside the blocks is never sent", "move it into a block", line)

    for evidence in ("A hint.", None):
        prompt.messages("How many are there?", "Table t\n  c (TEXT)", evidence)


def _first_line_outside_blocks(tree: nodes.Template) -> int | None:
    from jinja2 import nodes

    for node in tree.body:
        for part in node.nodes if isinstance(node, nodes.Output) else [node]:
            blank = isinstance(part, nodes.TemplateData) and not part.data.strip()
            if not blank and not isinstance(part, nodes.Block):
                return part.lineno
    return None


def _nearest(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name.lower(), known, n=1)
    return f"did you mean {close[0]}? " if close else ""
