"""Writing the answer: the two parts of a divide-and-conquer chain of thought, in varying words.

The form is the one that the ``divide_and_conquer`` prompt asks for: every query but the last stands in a ``pseudo``
fence, so that the only ``sql`` block is the answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from .phrases import ANALYSES, ASSEMBLED, CLOSINGS, LEADS, QUESTIONS, REMARKS, SET_MEANINGS, SIMPLIFICATIONS
from .takeapart import SubQuestion


def explain(main: SubQuestion, question: str, evidence: str | None, final_sql: str, rng: Random) -> str:
    """The whole answer.

    Args:
        main: the query, taken apart.
        question: the question in the user's words.
        evidence: the question's hint, or ``None``.
        final_sql: the text of the answer, in whatever hand it is written.
        rng: chooses the words and how many of them.
    """
    return _Answer(rng).write(main, _unfenced(question), _unfenced(evidence or ""), final_sql)


def explain_briefly(question: str, final_sql: str, rng: Random) -> str:
    """The answer to a question whose SQL cannot be parsed: one step, no sub-questions."""
    question = _unfenced(question)
    analysis = rng.choice(("This is answered in one go.", "One query is enough here.", "There is nothing to split."))
    return "\n".join(
        [
            "## Divide and Conquer",
            "",
            f"**Main question:** {question}",
            f"Analysis: {analysis}",
            _fence("pseudo", "SELECT what is asked FROM the tables that hold it"),
            "",
            "## Assembling SQL",
            "",
            rng.choice(CLOSINGS),
            _fence("sql", final_sql),
        ]
    )


def outline(main: SubQuestion, final_sql: str) -> str:
    """The answer in the fewest words: the pseudo SQL of every sub-question, one a line, and the query."""
    steps = [f"{part.number}. {_on_one_line(part.pseudo)}" for part in _top_down(main)]
    return "\n".join([*steps, _on_one_line(main.pseudo), _fence("sql", final_sql)])


class _Answer:
    """One answer in the making. How talkative it is, is drawn once: answers differ in length, not only in words."""

    def __init__(self, rng: Random):
        self._rng = rng
        self._talkative = rng.random()

    def write(self, main: SubQuestion, question: str, evidence: str, final_sql: str) -> str:
        lines = ["## Divide and Conquer", ""]
        lines += self._main(main, question, evidence)
        for part in _top_down(main):
            lines += self._sub_question(part)
        lines += ["## Assembling SQL", ""]
        for part in _bottom_up(main):
            lines += [
                f"**Sub-question {part.number}**{self._choose(LEADS[part.kind])}",
                _fence("pseudo", part.sql),
                "",
            ]
        lines += [f"**Main question:** {self._fill(ASSEMBLED[main.kind], main)}", ""]
        lines += [f"**Simplification:** {self._simplification(main)}", ""]
        lines += [self._choose(CLOSINGS), _fence("sql", final_sql)]
        return "\n".join(lines)

    def _main(self, main: SubQuestion, question: str, evidence: str) -> list[str]:
        sentences = [self._fill(ANALYSES[main.kind], main)]
        if evidence and self._rng.random() < 0.7:
            sentences.append(f"{self._choose(('The hint says', 'By the hint', 'Given'))}: {evidence.rstrip('.')}.")
        if main.facts.get("columns") and self._says_more():
            sentences.append(f"{self._choose(('In the schema,', 'As for the columns,'))} {main.facts['columns']}.")
        return [
            f"**Main question:** {question}",
            f"Analysis: {' '.join(sentences)}",
            _fence("pseudo", main.pseudo),
            "",
        ]

    def _sub_question(self, part: SubQuestion) -> list[str]:
        sentences = [self._fill(ANALYSES[part.kind], part)]
        for fact, phrases in REMARKS.items():
            if part.facts.get(fact) and (fact == "outer" or self._says_more()):
                sentences.append(self._fill(phrases, part))
        return [
            f"**Sub-question {part.number}:** {self._fill(QUESTIONS[part.kind], part)}",
            f"Analysis: {' '.join(sentences)}",
            _fence("pseudo", part.pseudo),
            "",
        ]

    def _simplification(self, main: SubQuestion) -> str:
        kinds = {part.kind for part in _bottom_up(main)}
        fitting = [phrases for kind, phrases in SIMPLIFICATIONS.items() if kind in kinds or kind == main.kind]
        sentences = [self._fill(phrases, main) for phrases in fitting]
        kept = [sentence for sentence in sentences if self._says_more()]
        return " ".join(kept or sentences[:1])

    def _says_more(self) -> bool:
        return self._rng.random() < self._talkative

    def _choose(self, phrases: tuple[str, ...]) -> str:
        return self._rng.choice(phrases)

    def _fill(self, phrases: tuple[str, ...], part: SubQuestion) -> str:
        """A phrase with the facts put in; one that needs a fact which is not there is never chosen."""
        facts = {name: value for name, value in part.facts.items() if value}
        if "word" in facts:
            facts["meaning"] = SET_MEANINGS[facts["word"].split()[0]].format(**facts)
        facts["steps"] = str(len(part.parts))
        fitting = [phrase for phrase in phrases if all(name in facts for name in _fields(phrase))]
        text = self._rng.choice(fitting).format(**facts)
        return text[0].upper() + text[1:]


def _fields(phrase: str) -> Iterator[str]:
    return (piece.partition("}")[0] for piece in phrase.split("{")[1:])


def _top_down(question: SubQuestion) -> Iterator[SubQuestion]:
    for part in question.parts:
        yield part
        yield from _top_down(part)


def _bottom_up(question: SubQuestion) -> Iterator[SubQuestion]:
    for part in question.parts:
        yield from _bottom_up(part)
        yield part


def _fence(mark: str, text: str) -> str:
    return f"```{mark}\n{text}\n```"


def _on_one_line(text: str) -> str:
    return " ".join(text.split())


def _unfenced(text: str) -> str:
    """On one line and without fences, so that nothing in the user's words can open or close a block."""
    return _on_one_line(text.replace("```", "'''"))
