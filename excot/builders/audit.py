"""Audit: questions whose gold shows itself wrong when it and the candidates are executed, with the evidence."""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from ..atomic import replace_text
from ..config import AuditConfig
from ..errors import ExcotError
from ..execution import Cache, Limits, Measures, Outcome, Task, file_hash, verify_all
from ..journal import digest_of
from ..progress import Progress
from ..run import Run
from .audit_report import REASONS, audit_report, list_text
from .columns import AUDIT
from .majority import Ballot, Rule, cast, find_majority
from .verified import Files, find_files

log = logging.getLogger("excot")

SHOWN_ROWS = 5
"""Rows of a result that are kept as evidence."""

_COLUMNS = ["id", "db_id", "question", "evidence", "gold_sql", "gold", "candidates"]
_MEASURES = Measures(fingerprint=True, preview=SHOWN_ROWS, permuted=True, stability=True)


def audit(config: AuditConfig) -> str:
    """The stage ``audit``: list doubtful golds, in a dataset and in a file to exclude them by.

    What the verified questions say of a gold is taken from there. Golds that ran are executed again, for their result
    and for whether it changes, and so are wrong candidates where there are enough of them to outvote the gold.
    Returns the lines to show.

    Raises:
        ExcotError: there is no verified data, or the databases are not there or have changed.
    """
    run = Run(config.out, config.round)
    made = run.entry("verified")
    total = made["rows"] if config.limit is None else min(config.limit, made["rows"])
    db_ids = [row["db_id"] for row in islice(run.read("verified", ["db_id"]), total)]
    files = find_files(run, config.databases, db_ids)
    if config.dry_run:
        return f"would audit the golds of {total:,} questions on {len(files.paths)} databases"

    sources = {"databases": digest_of(files.hashes)}
    with run.begin("audit", config.arguments(), ("verified",), sources, config.on_existing) as stage:
        path = run.folder / f"{stage.name}.jsonl"
        if stage.finished:
            if not path.exists():
                _write_list(path, list_text(run.read("audit")))
        else:
            rows, facts = _examine(run, files, config, total)
            text = list_text(rows)
            # Before the manifest: whatever ends this process, a finished audit has its own list.
            _write_list(path, text, run.manifest["stages"].get(stage.name, {}).get("list"))
            stage.write(rows, AUDIT, made["split"], **facts, list=_hash(text))
    return ("already there: " if stage.finished else "") + audit_report(run, path)


def _examine(run: Run, files: Files, config: AuditConfig, total: int) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """The rows of the doubtful golds in the questions' order, and what the manifest shall say."""
    limits, rule = Limits(seconds=config.timeout), Rule(config.majority, config.votes)
    verified_on = run.entry("verified")["databases"]
    under_way: dict[str, tuple[int, dict[str, Any], Ballot]] = {}
    found: dict[int, dict[str, Any]] = {}
    facts = {"golds": 0, "without_database": 0, "not_repeated": 0}
    progress = Progress("audit", total)

    def conclude(place: int, row: dict[str, Any], ballot: Ballot, outcomes: tuple[Outcome, ...]) -> None:
        facts["golds"] += 1
        judged = _judge(row, ballot, outcomes, rule, config.slow)
        facts["not_repeated"] += judged.pop("not_repeated")
        if judged["reasons"]:
            found[place] = judged
        progress.advance(doubtful=bool(judged["reasons"]))

    def tasks() -> Iterator[Task]:
        for place, row in enumerate(islice(run.read("verified", _COLUMNS), total)):
            ballot = cast(row.pop("candidates"))
            # A gold whose database was missing has failed without its fault.
            if not files.paths[row["db_id"]] or not verified_on.get(row["db_id"]):
                facts["without_database"] += 1
                progress.advance()
                continue
            statements = tuple(ballot.statements) if rule.may_win(ballot) else ()
            if not statements and row["gold"]["status"] not in ("ok", "empty"):
                conclude(place, row, ballot, ())
                continue
            under_way[row["id"]] = place, row, ballot
            candidates = (row["gold_sql"], *statements)
            yield Task(row["id"], files.paths[row["db_id"]][:1], row["gold_sql"], candidates, limits, _MEASURES)

    try:
        for id, verdict in verify_all(tasks(), config.processes, None if config.no_cache else Cache()):
            conclude(*under_way.pop(id), verdict.candidates)
    finally:
        progress.close()
    rows = [found[place] for place in sorted(found)]
    reasons = Counter(reason for row in rows for reason in row["reasons"])
    return rows, {**facts, "reasons": {reason: reasons[reason] for reason in REASONS if reasons[reason]}}


def _judge(
    row: dict[str, Any], ballot: Ballot, outcomes: tuple[Outcome, ...], rule: Rule, slow: float
) -> dict[str, Any]:
    """A question's row of the dataset, with the reasons to doubt its gold, which may be none.

    Args:
        row: the verified question.
        ballot: its candidates' votes.
        outcomes: of the gold, and of the ballot's statements if they can outvote it; empty where nothing was executed.
        rule: what it takes to outvote the gold.
        slow: seconds from which a gold is slow.
    """
    gold = row["gold"]
    measured = outcomes[0].measured if outcomes else None
    look = measured and measured.preview
    majority = find_majority(ballot, outcomes[1:], rule) if len(outcomes) > 1 else None
    ran = gold["status"] in ("ok", "empty")
    holds = {
        "fails": gold["status"] in ("error", "too_large"),
        "outvoted": ran and majority is not None and not majority.permuted,
        "permuted": ran and majority is not None and majority.permuted,
        "empty": gold["status"] == "empty" or bool(look and look.only_nulls),
        # What takes too long is not known to be wrong.
        "slow": gold["status"] == "timeout" or (gold["seconds"] or 0) >= slow,
        **dict.fromkeys((measured and measured.unstable) or (), True),
    }
    return {
        **{name: row[name] for name in ("id", "db_id", "question", "evidence", "gold_sql", "gold")},
        "reasons": [reason for reason in REASONS if holds.get(reason)],
        "gold_result": look.text if look else None,
        "gold_rows": look.rows if look else None,
        "majority_sql": majority.sql if majority else None,
        "majority_result": majority.result.text if majority else None,
        "majority_rows": majority.result.rows if majority else None,
        "agree": majority.agree if majority else None,
        "voters": ballot.voters,
        "right": ballot.right,
        "not_repeated": ran and (measured is None or measured.unstable is None),
    }


def _write_list(path: Path, text: str, written: str | None = None) -> None:
    """Write the list; a file there that is not as an audit wrote it, edited by hand most likely, is kept beside it.

    Args:
        path: the file.
        text: what it shall hold.
        written: the hash of what the last audit wrote.
    """
    try:
        if path.exists() and file_hash(path) not in (written, _hash(text)):
            kept = path.with_name(path.name + ".edited")
            os.replace(path, kept)
            log.warning("%s was edited by hand: it is kept as %s", path, kept)
        replace_text(path, text)
    except OSError as error:
        raise ExcotError(f"cannot write {path} ({error.strerror})", "make room or check permissions") from None


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
