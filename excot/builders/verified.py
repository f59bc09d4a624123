"""Verified: every answer's SQL executed and compared with the gold. Execution is the only judge."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from ..config import VerifyConfig
from ..errors import ExcotError, named
from ..execution import (
    RULES,
    Cache,
    DatabaseError,
    Databases,
    GoldOutcome,
    Limits,
    Outcome,
    Task,
    Verdict,
    known_hash,
    verify_all,
)
from ..journal import Journal, digest_of
from ..progress import Progress
from ..prompts import Extraction, extract_sql
from ..run import Run
from .columns import VERIFIED

log = logging.getLogger("excot")
_NOT_EXECUTED = {"matches": dict.fromkeys(RULES, False), "error": None, "seconds": None, "rows": None}


def verify(config: VerifyConfig) -> str:
    """The stage ``verified``: execute every candidate and its gold. Returns the lines to show.

    A question without a database file keeps its row; its gold and its candidates have the status ``error``.

    Raises:
        ExcotError: no databases, or one that is damaged or is not the file that the questions were made from.
    """
    run = Run(config.out, config.round)
    made = run.entry("generations")
    total = made["rows"] if config.limit is None else min(config.limit, made["rows"])
    db_ids = [row["db_id"] for row in islice(run.read("generations", ["db_id"]), total)]
    files = find_files(run, config.databases, db_ids)
    if config.dry_run:
        return (
            f"would execute the SQL of {made['candidates']:,} answers to {total:,} questions "
            f"on {len(files.paths)} databases"
        )

    sources = {"databases": digest_of(files.hashes)}
    with run.begin("verified", config.arguments(), ("generations",), sources, config.on_existing) as stage:
        if stage.finished:
            return _summary(run, "already there: ")
        journal = stage.journal()
        try:
            tally = _Tally()
            _judge_all(islice(run.read("generations"), total), files, journal, config, total)
            rows = (
                tally.count(_joined(row, journal.read(row["id"]))) for row in islice(run.read("generations"), total)
            )
            facts = {"databases": files.hashes, "without_database": files.without.total()}
            facts["limits"] = asdict(Limits(seconds=config.timeout))
            stage.write(rows, VERIFIED, made["split"], tally.facts, **facts)
        finally:
            journal.close()
    return _summary(run)


@dataclass(frozen=True)
class Files:
    """The database files of a run's questions by ``db_id``; ``without`` counts the questions that have none."""

    databases: Databases
    paths: dict[str, tuple[Path, ...]]
    hashes: dict[str, dict[str, str]]
    without: Counter[str]


def find_files(run: Run, folder: str | None, db_ids: Sequence[str]) -> Files:
    """Find every database, and see that it is the one that the questions were made from.

    Args:
        run: where the questions are.
        folder: where the databases are; ``None`` for where the questions found them.
        db_ids: the database of each question.

    Raises:
        ExcotError: there is no such folder, none of the databases is in it, or one has changed.
    """
    folder = folder or run.local.get("databases")
    if folder is None:
        raise ExcotError(f"where the databases of {run.folder} are is not known", "give their folder to --databases")
    if not Path(folder).is_dir():
        raise DatabaseError(f"no such databases folder: {folder}", "give their folder to --databases")
    databases = Databases(folder)
    made_from = run.entry("questions")["databases"]
    files = Files(databases, {}, {}, Counter())
    for db_id in db_ids:
        if db_id not in files.paths:
            files.paths[db_id] = databases.find(db_id)
            found = files.hashes[db_id] = {path.name: known_hash(path) for path in files.paths[db_id]}
            if found and found != made_from.get(db_id, found):
                raise DatabaseError(
                    f"database {db_id} in {folder} has changed since the questions were made",
                    "restore it, or make the questions anew with --overwrite",
                )
        if not files.paths[db_id]:
            files.without[db_id] += 1
    if files.without:
        log.warning("%d questions have no database file: %s", files.without.total(), named(sorted(files.without)))
    if files.without.total() == len(db_ids):
        raise DatabaseError(f"none of the databases is in {folder}", "give their folder to --databases")
    return files


def _judge_all(
    rows: Iterable[dict[str, Any]], files: Files, journal: Journal, config: VerifyConfig, total: int
) -> None:
    """Bring every question's verdict into the journal."""
    limits = Limits(seconds=config.timeout)
    under_way: dict[str, tuple[str, list[Extraction]]] = {}
    progress = Progress("verify", total)

    def tasks() -> Iterator[Task]:
        for row in rows:
            id, db_id = row["id"], row["db_id"]
            answers = [(candidate["text"], candidate["finish_reason"]) for candidate in row["candidates"]]
            digest = digest_of(row["gold_sql"], answers, files.hashes[db_id])
            if journal.has(id, digest):
                progress.advance()
                continue
            found = [extract_sql(text, finish_reason) for text, finish_reason in answers]
            statements = tuple(extraction.sql for extraction in found if extraction.sql is not None)
            if not files.paths[db_id]:
                error = f"no database {db_id}"
                unexecuted = Verdict(GoldOutcome("error", error), (Outcome("error", error=error),) * len(statements))
                journal.add(id, digest, _record(found, unexecuted))
                progress.advance()
                continue
            under_way[id] = digest, found
            yield Task(id, files.paths[db_id], row["gold_sql"], statements, limits)

    try:
        for id, verdict in _execute(tasks(), config):
            digest, found = under_way.pop(id)
            journal.add(id, digest, _record(found, verdict))
            right = sum(outcome.matches.set for outcome in verdict.candidates)
            progress.advance(right=right, executed=len(verdict.candidates))
    finally:
        progress.close()


def _execute(tasks: Iterable[Task], config: VerifyConfig) -> Iterator[tuple[str, Verdict]]:
    cache = None if config.no_cache else Cache()
    if config.engine == "local":
        return verify_all(tasks, config.processes, cache)
    from ..execution.cluster import verify_on_cluster
    from ..hub.databases import fetch_database

    fetch = partial(fetch_database, config.databases_repo) if config.databases_repo else None
    return verify_on_cluster(tasks, config.address, cache=cache, fetch=fetch)


def _record(found: list[Extraction], verdict: Verdict) -> dict[str, Any]:
    """A question's verdict: candidates with SQL take the outcomes in order, the others were not executed."""
    outcomes = iter(verdict.candidates)
    candidates = []
    for extraction in found:
        judged = {"sql": extraction.sql, "status": extraction.status, **_NOT_EXECUTED}
        if extraction.sql is not None:
            judged |= next(outcomes).as_row()
        candidates.append(judged)
    return {"gold": verdict.gold.as_row(), "candidates": candidates}


def _joined(row: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    candidates = [{**said, **judged} for said, judged in zip(row["candidates"], record["candidates"], strict=True)]
    return {**row, "candidates": candidates, "gold": record["gold"]}


class _Tally:
    """Counts over the rows that pass, for the manifest and the summary."""

    def __init__(self) -> None:
        self._statuses: Counter[str] = Counter()
        self._golds: Counter[str] = Counter()
        self._matches: Counter[str] = Counter(dict.fromkeys(RULES, 0))
        self._solved: Counter[str] = Counter(dict.fromkeys(RULES, 0))

    def count(self, row: dict[str, Any]) -> dict[str, Any]:
        self._golds[row["gold"]["status"]] += 1
        self._statuses.update(candidate["status"] for candidate in row["candidates"])
        for rule in RULES:
            right = sum(candidate["matches"][rule] for candidate in row["candidates"])
            self._matches[rule] += right
            self._solved[rule] += right > 0
        return row

    def facts(self) -> dict[str, Any]:
        return {
            "statuses": dict(self._statuses.most_common()),
            "golds": dict(self._golds.most_common()),
            "matches": dict(self._matches),
            "questions_with_a_match": dict(self._solved),
        }


def _summary(run: Run, prefix: str = "") -> str:
    entry = run.entry("verified")
    candidates = sum(entry["statuses"].values())
    right, solved = entry["matches"]["set"], entry["questions_with_a_match"]["set"]
    share = f" ({right / candidates:.1%})" if candidates else ""
    answers, golds = (
        ", ".join(f"{count:,} {status}" for status, count in entry[counts].items()) for counts in ("statuses", "golds")
    )
    return (
        f"{prefix}{right:,} of {candidates:,} answers are right by rule set{share}, at least one for {solved:,} of "
        f"{entry['rows']:,} questions, in {run.folder}\n"
        f"answers: {answers}; golds: {golds}\n"
        f"next: {run.command('sft')}, or {run.command('pairs')}"
    )
