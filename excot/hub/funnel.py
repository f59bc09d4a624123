"""The funnel: how many questions, answers and pairs each step of a round leaves, as numbers and as a figure."""

from __future__ import annotations

from collections.abc import Iterator
from html import escape
from typing import Any, NamedTuple

from ..stages import ROUNDED, dataset_name, parse_name
from .card import known_as

Entry = dict[str, Any]


class Step(NamedTuple):
    """A step of the funnel.

    Attributes:
        label: what it is called.
        unit: what is counted: ``questions``, ``answers`` or ``pairs``.
        count: how many are left.
        change: how that compares with the step before: a share, or how many there are per question where the step
            before counts something else. Empty where there is nothing to compare with.
        questions: how many questions still have at least one; ``None`` where the manifest does not say.
    """

    label: str
    unit: str
    count: int
    change: str = ""
    questions: int | None = None

    @property
    def noun(self) -> str:
        """What is counted, in the number that fits the count."""
        return self.unit if self.count != 1 else self.unit.removesuffix("s")


def known_entries(manifest: dict[str, Any]) -> dict[str, Entry]:
    """What a manifest says of its datasets, and of those that they were made from and that are elsewhere."""
    return {**manifest.get("ancestors", {}), **manifest["stages"]}


def by_round(manifest: dict[str, Any]) -> dict[int, dict[str, Entry]]:
    """The entries of every round by stage, `ROUNDED` in each; empty where there is none."""
    known = known_entries(manifest)
    places = [place for place in map(parse_name, known) if place and place[0] in ROUNDED]
    return {
        round: {stage: known.get(dataset_name(stage, round), {}) for stage in ROUNDED}
        for round in sorted({round for _, round in places})
    }


def funnel(manifest: dict[str, Any]) -> dict[int, list[Step]]:
    """The steps of every round, from the questions to the pairs.

    A step that the manifest has no count of is absent, and so is a round with a single one.

    Args:
        manifest: of a run folder.
    """
    questions = known_entries(manifest).get("questions", {})
    steps = {round: list(_steps(questions, entries)) for round, entries in by_round(manifest).items()}
    return {round: found for round, found in steps.items() if len(found) > 1}


def deciding_rules(entries: dict[str, Entry]) -> list[str]:
    """The comparators by which a round's training data was chosen; ``set`` where none was yet."""
    used = [entries[stage].get("arguments", {}).get("rule") for stage in ("sft", "pairs")]
    return list(dict.fromkeys(filter(None, used))) or ["set"]


def _steps(questions: Entry, entries: dict[str, Entry]) -> Iterator[Step]:
    made, judged, sft, pairs = (entries[stage] for stage in ("generations", "verified", "sft", "pairs"))
    asked = made.get("rows", judged.get("rows", questions.get("rows")))
    if questions:
        yield Step("questions", "questions", questions["rows"], "", questions["rows"])
    if "candidates" in made:
        if questions and asked != questions["rows"]:
            yield Step("asked", "questions", asked, _share(asked, questions["rows"]), asked)
        answered = asked - made["without_candidates"] if "without_candidates" in made else None
        yield Step("candidates", "answers", made["candidates"], _each(made["candidates"], asked), answered)
    if "statuses" in judged:
        statuses, total = judged["statuses"], sum(judged["statuses"].values())
        before = made.get("candidates", total)
        if total != before:
            yield Step("judged", "answers", total, _share(total, before))
        extracted, executed = total - statuses.get("no_sql", 0) - statuses.get("truncated", 0), statuses.get("ok", 0)
        yield Step("extracted", "answers", extracted, _share(extracted, total))
        yield Step("executed", "answers", executed, _share(executed, extracted))
        for rule in deciding_rules(entries):
            matched, solved = judged["matches"].get(rule, 0), judged.get("questions_with_a_match", {}).get(rule)
            yield Step(f"matched ({rule})", "answers", matched, _share(matched, executed), solved)
    if sft:
        options = sft.get("arguments", {})
        most = options.get("max_per_question") or (1 if options.get("choose") in ("first", "shortest") else None)
        right = judged["matches"].get(options.get("rule")) if "matches" in judged else None
        yield Step("sft", "answers", sft["rows"], _share(sft["rows"], right), sft["rows"] if most == 1 else None)
    if pairs:
        one_each = pairs.get("arguments", {}).get("max_per_question") == 1
        yield Step("paired", "pairs", pairs["rows"], _each(pairs["rows"], asked), pairs["rows"] if one_each else None)


def _share(part: int, whole: int | None) -> str:
    """A share in percent that says neither all nor nothing unless it is."""
    if not whole:
        return ""
    text = f"{part / whole:.1%}"
    return {"100.0%": ">99.9%", "0.0%": "<0.1%"}.get(text, text) if 0 < part < whole else text


def _each(count: int, questions: int | None) -> str:
    return f"{count / questions:,.2f}".rstrip("0").rstrip(".") + " per question" if questions else ""


# The figure. All text has room for nine digits in a wide font.

_WIDTH, _MARGIN, _ROW, _BAR = 800, 20, 26, 14
_BARS, _LONGEST = 184, 290  # where bars begin, and how long one can be
_COUNTS, _CHANGES = 574, _WIDTH - _MARGIN  # where these columns end
_STYLE = """
  text { font: 13px system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; fill: #1f2328 }
  .number { text-anchor: end; font-variant-numeric: tabular-nums }
  .round { font-weight: 600 }
  .quiet { fill: #59636e; font-size: 12px }
  .ground { fill: #ffffff; stroke: #d1d9e0 }
  .track { fill: #eff2f5 }
  .questions { fill: #8250df }
  .answers { fill: #0969da }
  .pairs { fill: #1a7f37 }
  @media (prefers-color-scheme: dark) {
    text { fill: #f0f6fc }
    .quiet { fill: #9198a1 }
    .ground { fill: #0d1117; stroke: #3d444d }
    .track { fill: #212830 }
    .questions { fill: #ab7df8 }
    .answers { fill: #4493f8 }
    .pairs { fill: #3fb950 }
  }
"""


def funnel_svg(manifest: dict[str, Any]) -> str | None:
    """The funnel as an SVG that follows the reader's light or dark scheme; ``None`` before there are answers.

    Questions, answers and pairs are different things: each has a colour and a scale of its own, whose full length
    the legend gives. For pairs that is at least one per question, so that a short bar means what it says.

    Args:
        manifest: of a run folder.
    """
    rounds = funnel(manifest)
    if not rounds:
        return None
    full: dict[str, int] = {}
    for step in (step for steps in rounds.values() for step in steps):
        full[step.unit] = max(full.get(step.unit, 1), step.count)
    if "pairs" in full:
        full["pairs"] = max(full["pairs"], full.get("questions", 1))
    parts, y = list(_legend(full)), 36
    entries = by_round(manifest)
    for round, steps in rounds.items():
        y += 34
        heading = f"Round {round}{_by(entries[round])}"
        parts.append(f'<text class="round" x="{_MARGIN}" y="{y}">{escape(_shortened(heading))}</text>')
        y += 10
        for step in steps:
            parts += _bar(step, y, full[step.unit])
            y += _ROW
    height = y + 14
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" '
            f'viewBox="0 0 {_WIDTH} {height}" role="img" aria-labelledby="title description">',
            '<title id="title">From questions to pairs: what each step leaves</title>',
            f'<desc id="description">{escape(_in_words(rounds))}</desc>',
            f"<style>{_STYLE}</style>",
            f'<rect class="ground" x="0.5" y="0.5" width="{_WIDTH - 1}" height="{height - 1}" rx="6"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _legend(full: dict[str, int]) -> Iterator[str]:
    yield f'<text class="quiet" x="{_MARGIN}" y="32">A full bar:</text>'
    for place, (unit, count) in enumerate(full.items()):
        x = 104 + 226 * place
        yield f'<rect class="{unit}" x="{x}" y="22" width="11" height="11" rx="2"/>'
        yield f'<text class="quiet" x="{x + 18}" y="32">{count:,} {unit}</text>'


def _bar(step: Step, y: int, full: int) -> Iterator[str]:
    length = max(step.count / full * _LONGEST, 1.5 if step.count else 0)
    base, top = y + 17, y + (_ROW - _BAR) // 2
    yield f'<text x="{_MARGIN}" y="{base}">{escape(step.label)}</text>'
    yield f'<rect class="track" x="{_BARS}" y="{top}" width="{_LONGEST}" height="{_BAR}" rx="3"/>'
    yield f'<rect class="{step.unit}" x="{_BARS}" y="{top}" width="{length:.1f}" height="{_BAR}" rx="3"/>'
    yield f'<text class="number" x="{_COUNTS}" y="{base}">{step.count:,}</text>'
    yield f'<text class="quiet" x="{_COUNTS + 6}" y="{base}">{step.noun}</text>'
    yield f'<text class="number quiet" x="{_CHANGES}" y="{base}">{escape(step.change)}</text>'


def _by(entries: dict[str, Entry]) -> str:
    model = entries["generations"].get("model")
    return f": answers by {known_as(model)}" if model else ""


def _shortened(text: str, most: int = 56) -> str:
    """One line of characters that XML can hold, short enough for the figure."""
    text = " ".join("".join(character if character.isprintable() else " " for character in text).split())
    return text if len(text) <= most else text[: most - 1] + "…"


def _in_words(rounds: dict[int, list[Step]]) -> str:
    told = []
    for round, steps in rounds.items():
        counts = (f"{step.label} {step.count:,}" + (f" ({step.change})" if step.change else "") for step in steps)
        told.append(f"Round {round}: {', '.join(counts)}.")
    return " ".join(told)
