"""What an audit says: the table that is printed, and the list of questions to leave out."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ..run import Run

Row = Mapping[str, Any]

REASONS = {
    "fails": "the gold fails, or its result is too large",
    "outvoted": "most answers agree on another result",
    "permuted": "most answers agree on the same rows with the columns in another order",
    "unordered": "the result hangs on an order that was not asked for",
    "random": "the gold calls random()",
    "clock": "the gold asks for the current date or time",
    "empty": "the result is empty, or nothing but NULLs",
    "slow": "the gold takes long; that alone is not wrong",
}
"""The reasons to doubt a gold, in the order in which a row has them."""

_NOT_WRONG = {"slow"}
_WIDTH = 100  # columns
_EXAMPLES = 3  # questions shown of each reason


def list_text(rows: Iterable[Row]) -> str:
    """The list of questions to leave out, a JSON object a line, without golds that are only slow.

    Args:
        rows: of the dataset ``audit``.
    """
    return "".join(json.dumps(_line(row), ensure_ascii=False) + "\n" for row in rows if _is_wrong(row))


def audit_report(run: Run, path: Path) -> str:
    """The lines to show of a run's finished audit.

    Args:
        run: the run folder.
        path: where the list lies.
    """
    entry = run.entry("audit")
    rows = list(run.read("audit")) if entry["rows"] else []
    golds, listed = entry["golds"], sum(map(_is_wrong, rows))
    notes = [
        f"{entry[name]:,} {words}"
        for name, words in (
            ("without_database", "questions were not audited: they have no database file"),
            ("not_repeated", "golds could not be executed again within the limits: whether they change is not known"),
        )
        if entry[name]
    ]
    exclude = f" --exclude {path}" if listed else ""
    next_line = "next: " + ", or ".join(run.command(verb) + exclude for verb in ("sft", "pairs"))
    if not rows:
        return "\n".join([f"nothing to doubt in {golds:,} golds, in {run.folder}", *notes, next_line])
    parts = [f"{len(rows):,} of {golds:,} golds are doubtful ({len(rows) / golds:.1%}), in {run.folder}", ""]
    for reason, count in entry["reasons"].items():
        parts.append(f"  {count:>5,}  {reason:<9}  {REASONS[reason]}")
    for reason in entry["reasons"]:
        parts += ["", f"{reason}:", *_examples(reason, [row for row in rows if reason in row["reasons"]])]
    parts += ["", *notes]
    if listed:
        parts.append(f"the {listed:,} that may be wrong are listed in {path}: take out what you do not believe")
    return "\n".join([*parts, next_line])


def _is_wrong(row: Row) -> bool:
    return not _NOT_WRONG.issuperset(row["reasons"])


def _line(row: Row) -> dict[str, Any]:
    shown = {name: row[name] for name in ("id", "reasons")}
    shown["why"] = "; ".join(_why(row, reason) for reason in row["reasons"])
    return shown | {name: row[name] for name in ("question", "gold_sql", "majority_sql") if row[name] is not None}


def _why(row: Row, reason: str) -> str:
    """A reason with its evidence; of some the statement itself is all there is."""
    tell = _EVIDENCE[reason]
    return REASONS[reason] if tell in (_sql, _end_of_sql) else tell(row, 10_000)


def _examples(reason: str, rows: list[Row]) -> list[str]:
    """The clearest of a reason, one a line."""
    if reason in ("outvoted", "permuted"):
        rows = sorted(rows, key=lambda row: -row["agree"] / row["voters"])
    elif reason == "slow":
        rows = sorted(rows, key=lambda row: -(row["gold"]["seconds"] or 0))
    shown = rows[:_EXAMPLES]
    width = max(len(row["id"]) for row in shown)
    lines = [_cut(f"  {row['id']:<{width}}  {_EVIDENCE[reason](row, _WIDTH - width - 4)}", _WIDTH) for row in shown]
    if len(rows) > len(shown):
        lines.append(f"  and {len(rows) - len(shown):,} more")
    return lines


# What speaks against a gold, in words of about so many characters


def _vote(row: Row, width: int) -> str:
    agree = f"{row['agree']} of {row['voters']} answers: "
    gold = f", gold with {row['right']}: "
    results = [(row[f"{whose}_rows"], row[f"{whose}_result"]) for whose in ("majority", "gold")]
    room = width - len(agree) - len(gold)
    left = [room - len(_result(*result, room)) for result in results]  # what the other one may have
    ours, theirs = (_result(*result, max(room // 2, left[not place])) for place, result in enumerate(results))
    return f"{agree}{ours}{gold}{theirs}"


def _failure(row: Row, width: int) -> str:
    error = _cut(" ".join(str(row["gold"]["error"]).split()), 300)
    if row["agree"] is None:
        return error
    error = _cut(error, max(width // 2, 20))
    vote = f"; {row['agree']} of {row['voters']} answers: "
    return error + vote + _result(row["majority_rows"], row["majority_result"], width - len(error) - len(vote))


def _seconds(row: Row, width: int) -> str:
    gold = row["gold"]
    return str(gold["error"]) if gold["status"] == "timeout" else f"{gold['seconds']:.1f} s"


def _empty(row: Row, width: int) -> str:
    gold = "no row" if row["gold"]["status"] == "empty" else "NULL alone"
    return f"{gold}; {row['right']} of {row['voters']} answers have none either"


def _sql(row: Row, width: int) -> str:
    return _cut(" ".join(row["gold_sql"].split()), width)


def _end_of_sql(row: Row, width: int) -> str:
    """Where a LIMIT stands."""
    sql = _sql(row, len(row["gold_sql"]))
    return sql if len(sql) <= width else "..." + sql[3 - width :]


_EVIDENCE: dict[str, Callable[[Row, int], str]] = {
    "fails": _failure,
    "outvoted": _vote,
    "permuted": _vote,
    "unordered": _end_of_sql,
    "random": _sql,
    "clock": _sql,
    "empty": _empty,
    "slow": _seconds,
}


def _result(rows: int | None, text: str | None, width: int) -> str:
    """A result's preview, after how many rows it has where it is not one."""
    if rows is None or text is None:
        return "unknown"
    if rows == 0:
        return "no row"
    return _cut(text if rows == 1 else f"{rows:,} rows {text}", width)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: max(width - 3, 1)] + "..."
