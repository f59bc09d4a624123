"""``excot compare``: two scored systems on the same questions, and whether their difference is more than noise."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..config import CompareConfig
from ..errors import ExcotError
from ..run import Run
from .scoring import Scores
from .statistics import mcnemar, paired_bootstrap_interval
from .systems import known_systems, read_scores
from .table import align, difficulty_order, percent

_SHOWN = 5  # flipped questions of each kind; all of them go to --out
_NOISE = 0.05


def compare_runs(config: CompareConfig) -> str:
    """Compare two systems that `score_run` has scored. Returns the lines to show.

    Of several samples of a question, the one that the vote chooses is the system's answer.

    Raises:
        ExcotError: there are no such scores, or they were not made on the same questions, golds and rule.
    """
    baseline, system = _read(config.baseline), _read(config.system)
    pairs = _pairs(baseline, system)
    if config.out:
        _write(Path(config.out), pairs)
    return _report(baseline, system, pairs, config.out)


@dataclass(frozen=True)
class _Scored:
    """A system's scores, and how the user names it."""

    given: str
    name: str
    scores: Scores

    @property
    def label(self) -> str:
        """The user's words, its name if they do not say it, and how its answers were chosen if there are several."""
        most = max(len(row["samples"]) for row in self.scores.details)
        notes = [] if self.given.endswith(self.name) else [self.name]
        notes += [f"vote of {most}"] if most > 1 else []
        return f"{self.given} ({', '.join(notes)})" if notes else self.given


@dataclass(frozen=True)
class _Pair:
    """One question: both systems' rows of ``details``, and whether both are right."""

    baseline: dict[str, Any]
    system: dict[str, Any]
    rule: str

    @cached_property
    def before(self) -> bool:
        return _is_right(self.baseline, self.rule)

    @cached_property
    def after(self) -> bool:
        return _is_right(self.system, self.rule)


@dataclass(frozen=True)
class Difference:
    """What two systems make of some questions."""

    pairs: Sequence[_Pair]

    @cached_property
    def gained(self) -> list[_Pair]:
        return [pair for pair in self.pairs if pair.after and not pair.before]

    @cached_property
    def lost(self) -> list[_Pair]:
        return [pair for pair in self.pairs if pair.before and not pair.after]

    @cached_property
    def shares(self) -> tuple[float, float]:
        count = len(self.pairs)
        return sum(pair.before for pair in self.pairs) / count, sum(pair.after for pair in self.pairs) / count

    @property
    def points(self) -> float:
        """The gain in percentage points."""
        return 100 * (len(self.gained) - len(self.lost)) / len(self.pairs)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Its 95% interval, in percentage points."""
        before, after = ([float(getattr(pair, name)) for pair in self.pairs] for name in ("before", "after"))
        low, high = paired_bootstrap_interval(before, after)
        return 100 * low, 100 * high

    @cached_property
    def p(self) -> float:
        """Of McNemar's exact test."""
        return mcnemar(len(self.lost), len(self.gained))

    @property
    def p_in_words(self) -> str:
        return "<0.0001" if self.p < 0.0001 else f"{self.p:.4f}"


def difference(baseline: str, system: str) -> Difference:
    """What two scored systems make of the same questions; each is ``FOLDER`` or ``FOLDER:SYSTEM``.

    Raises:
        ExcotError: as `compare_runs`.
    """
    return Difference(_pairs(_read(baseline), _read(system)))


def _read(given: str) -> _Scored:
    """Find a system by ``FOLDER`` or ``FOLDER:SYSTEM``; either may hold colons."""
    cuts = [place for place, character in enumerate(given) if character == ":"]
    for cut in (len(given), *cuts):
        folder, name = given[:cut], given[cut + 1 :]
        if (Path(folder) / "manifest.json").is_file():
            break
    else:
        raise ExcotError(
            f"{given} is no run folder", "give FOLDER, or FOLDER:SYSTEM, into which `excot score` has scored"
        )
    run = Run(folder)
    run.entry("details")  # says what to run first
    known = list(known_systems(run))
    if not name and len(known) > 1:
        raise ExcotError(
            f"{folder} holds {len(known)} systems, {', '.join(known)}", f"give one, as {folder}:{known[0]}"
        )
    name = name or known[0]
    if name not in known:
        raise ExcotError(f"{folder} has no scores of {name}", f"it has those of {', '.join(known)}")
    return _Scored(given, name, read_scores(run, name))


def _pairs(baseline: _Scored, system: _Scored) -> list[_Pair]:
    """The questions that both have answered, in the baseline's order."""
    rules = baseline.scores.rule, system.scores.rule
    if rules[0] != rules[1]:
        raise ExcotError(
            f"{baseline.given} was scored by rule {rules[0]} and {system.given} by {rules[1]}",
            "score one of them again with the other's --rule",
        )
    others = {row["id"]: row for row in system.scores.details}
    pairs = [_Pair(row, others[row["id"]], rules[0]) for row in baseline.scores.details if row["id"] in others]
    if not pairs:
        raise ExcotError(
            f"{baseline.given} and {system.given} have no question in common",
            f"theirs are such as {baseline.scores.details[0]['id']} and {system.scores.details[0]['id']}",
        )
    differing = [pair for pair in pairs if pair.baseline["gold_sql"] != pair.system["gold_sql"]]
    if differing:
        raise ExcotError(
            f"{len(differing):,} of {len(pairs):,} common questions have different golds, first "
            f"{differing[0].baseline['id']}",
            "score both on the same questions",
        )
    return pairs


def _answer(row: dict[str, Any]) -> dict[str, Any] | None:
    """What counts as the system's answer: the voted sample, or the only one."""
    return row["samples"][row.get("vote") or 0] if row["samples"] else None


def _is_right(row: dict[str, Any], rule: str) -> bool:
    answer = _answer(row)
    return answer is not None and answer["matches"][rule]


def _write(path: Path, pairs: Sequence[_Pair]) -> None:
    """Write every flipped question, one JSON object a line."""

    def said(row: dict[str, Any]) -> dict[str, Any]:
        answer = _answer(row) or {}
        return {name: answer.get(name) for name in ("sql", "status", "error")}

    try:
        with path.open("w", encoding="utf-8") as file:
            for pair in pairs:
                if pair.before != pair.after:
                    question = {
                        name: pair.baseline[name] for name in ("id", "db_id", "difficulty", "question", "gold_sql")
                    }
                    change = "gained" if pair.after else "lost"
                    both = {"baseline": said(pair.baseline), "system": said(pair.system)}
                    file.write(json.dumps({**question, "change": change, **both}, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ExcotError(f"cannot write {path} ({error.strerror})", "give another file to --out") from None


def _report(baseline: _Scored, system: _Scored, pairs: Sequence[_Pair], out: str | None) -> str:
    all_ = Difference(pairs)
    only = [
        f"{len(scored.scores.details) - len(pairs):,} of {scored.given}"
        for scored in (baseline, system)
        if len(scored.scores.details) > len(pairs)
    ]
    left_out = f"; left out, as the other has not answered them: {', '.join(only)}" if only else ""
    head = (
        f"baseline  {baseline.label}\nsystem    {system.label}\n"
        f"{len(pairs):,} questions, by rule {pairs[0].rule}{left_out}"
    )
    flips = [
        _flips("gained (wrong in the baseline, right in the system)", all_.gained, out),
        _flips("lost (right in the baseline, wrong in the system)", all_.lost, out),
    ]
    names = (baseline.name, system.name) if baseline.name != system.name else (baseline.given, system.given)
    parts = [head, _table(all_), _verdict(*names, all_), *filter(None, flips)]
    if out:
        parts.append(f"all {len(all_.gained) + len(all_.lost):,} of them are in {out}")
    return "\n\n".join(parts)


def _table(all_: Difference) -> str:
    groups = {"all": all_}
    for name in sorted({pair.baseline["difficulty"] for pair in all_.pairs} - {None}, key=difficulty_order):
        groups[name] = Difference([pair for pair in all_.pairs if pair.baseline["difficulty"] == name])
    rows = []
    for name, group in groups.items():
        low, high = group.interval
        rows.append(
            [
                name,
                f"{len(group.pairs):,}",
                *map(percent, group.shares),
                f"{group.points:+.1f}",
                f"{low:+.1f} to {high:+.1f}",
                group.p_in_words,
                f"{len(group.gained):,}",
                f"{len(group.lost):,}",
            ]
        )
    head = ["", "questions", "baseline", "system", "difference", "95% interval", "p", "gained", "lost"]
    return align(rows, head)


def _verdict(baseline: str, system: str, found: Difference) -> str:
    """In words, whether the difference is more than noise."""
    low, high = found.interval
    by_test, by_interval = found.p < _NOISE, low > 0 or high < 0
    if not found.gained and not found.lost:
        words = "No difference: both are right on the same questions."
    elif by_test and by_interval:
        kind, change = ("better", "gain") if found.points > 0 else ("worse", "loss")
        words = f"{system} is {kind} than {baseline}: a {change} of {abs(found.points):.1f} points is more than noise."
    elif by_test or by_interval:
        words = f"{found.points:+.1f} points are at the edge of noise: interval and test disagree."
    else:
        words = (
            f"{found.points:+.1f} points cannot be told from noise: on {len(found.pairs):,} questions like these it "
            f"takes about {(high - low) / 2:.1f}."
        )
    return (
        f"{words}\nInterval: paired bootstrap. p: McNemar's exact test. "
        f"More than noise: p below {_NOISE} and 0 outside the interval."
    )


def _flips(title: str, pairs: Sequence[_Pair], out: str | None) -> str | None:
    if not pairs:
        return None
    questions = [pair.baseline for pair in pairs[:_SHOWN]]
    rows = [[question["id"], question["db_id"], _shortened(question["question"])] for question in questions]
    text = f"{len(pairs):,} {title}\n{align(rows, words=3)}"
    if len(pairs) > _SHOWN:
        text += f"\n  and {len(pairs) - _SHOWN:,} more{'' if out else '; --out FILE.jsonl writes all of them'}"
    return text


def _shortened(question: str, length: int = 70) -> str:
    text = " ".join(question.split())
    return text if len(text) <= length else text[: length - 3] + "..."
