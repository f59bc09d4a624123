"""Verified: every answer's SQL executed and compared with the gold. Execution is the only judge."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from itertools import islice
from typing import Any

from ..config import VerifyConfig
from ..errors import ExcotError
from ..execution import RULES, DatabaseError, Databases, Limits, MissingDatabase, Task, Verdict, file_hash, verify_all
from ..journal import Journal, digest_of
from ..progress import Progress
from ..prompts import extract_sql
from ..run import Run
from .columns import VERIFIED
from .files import named

log = logging.getLogger("excot")
_NO_MATCH = dict.fromkeys(RULES, False)


def verify(config: VerifyConfig) -> str:
    """The stage ``verified``: execute every candidate and its gold. Returns the lines to show.

    A question without a database file keeps its row; its gold and its candidates have the status ``error``.

    Raises:
        ExcotError: no databases, or one that is damaged or is not the file that the questions were made from.
    """
    run = Run(config.out)
    made = run.entry("generations")
    databases = _databases(run, config)
    known = run.entry("questions")["databases"]
    total = made["rows"] if config.limit is None else min(config.limit, made["rows"])
    paths, hashes, missing = {}, {}, Counter()
    for row in islice(run.read("generations", ["db_id"]), total):
        db_id = row["db_id"]
        if db_id not in paths:
            try:
                paths[db_id] = databases.paths(db_id)
            except MissingDatabase:
                paths[db_id] = ()
            hashes[db_id] = {path.name: file_hash(path) for path in paths[db_id]}
            if db_id in known and hashes[db_id] and hashes[db_id] != known[db_id]:
                raise DatabaseError(
                    f"database {db_id} in {databases.folder} has changed since the questions were made",
                    "restore it, or make the questions anew with --overwrite",
                )
        missing[db_id] += not paths[db_id]
    missing = +missing
    if missing:
        log.warning("%d questions have no database file: %s", missing.total(), named(sorted(missing)))
    if missing.total() == total:
        raise DatabaseError(f"none of the databases is in {databases.folder}", "give their folder to --databases")
    if config.dry_run:
        return (
            f"would execute the SQL of {made['candidates']:,} answers to {total:,} questions on {len(paths)} databases"
        )

    limits = Limits(seconds=config.timeout)
    sources = {"databases": digest_of(hashes)}
    with run.begin("verified", config.arguments(), ("generations",), sources, config.on_existing) as stage:
        if stage.finished:
            return _summary(run, "already there: ")
        journal = stage.journal()
        try:
            tally = _Tally()
            _verify_all(run, config, paths, hashes, limits, journal, total)
            rows = islice(run.read("generations"), total)
            rows = (tally.count(_joined(row, journal.read(row["id"]))) for row in rows)
            stage.write(rows, VERIFIED, made["split"], tally.facts, databases=hashes, without_database=missing.total())
        finally:
            journal.close()
    return _summary(run)


def _verify_all(
    run: Run,
    config: VerifyConfig,
    paths: dict[str, tuple],
    hashes: dict[str, dict[str, str]],
    limits: Limits,
    journal: Journal,
    total: int,
) -> None:
    """Bring every question's verdict into the journal."""
    under_way: dict[str, tuple[str, dict[str, Any]]] = {}
    progress = Progress("verify", total)

    def tasks() -> Iterator[Task]:
        for row in islice(run.read("generations"), total):
            answers = [(c["text"], c["finish_reason"]) for c in row["candidates"]]
            digest = digest_of(row["gold_sql"], answers, hashes[row["db_id"]])
            if journal.has(row["id"], digest):
                progress.advance()
                continue
            if not paths[row["db_id"]]:
                journal.add(row["id"], digest, _without_database(row))
                progress.advance()
                continue
            found = [extract_sql(c["text"], c["finish_reason"]) for c in row["candidates"]]
            record = {"candidates": [{"sql": f.sql, "status": f.status} for f in found]}
            under_way[row["id"]] = (digest, record)
            statements = tuple(f.sql for f in found if f.sql is not None)
            yield Task(row["id"], paths[row["db_id"]], row["gold_sql"], statements, limits)

    try:
        for id, verdict in verify_all(tasks(), config.processes):
            digest, record = under_way.pop(id)
            journal.add(id, digest, _record(record, verdict))
            progress.advance(
                right=sum(outcome.matches.set for outcome in verdict.candidates),
                executed=len(verdict.candidates),
            )
    finally:
        progress.close()


def _record(record: dict[str, Any], verdict: Verdict) -> dict[str, Any]:
    """A question's verdict: candidates with SQL take the outcomes in order, the others have none."""
    outcomes = iter(verdict.candidates)
    for candidate in record["candidates"]:
        if candidate["sql"] is None:
            candidate.update(matches=_NO_MATCH, error=None, seconds=None, rows=None)
        else:
            outcome = next(outcomes)
            candidate.update(asdict(outcome), matches=outcome.matches._asdict())
    record["gold"] = asdict(verdict.gold)
    return record


def _without_database(row: dict[str, Any]) -> dict[str, Any]:
    error = f"no database {row['db_id']}"
    candidates = []
    for candidate in row["candidates"]:
        found = extract_sql(candidate["text"], candidate["finish_reason"])
        unexecuted = {"matches": _NO_MATCH, "seconds": None, "rows": None}
        status = ("error", error) if found.sql is not None else (found.status, None)
        candidates.append({"sql": found.sql, "status": status[0], "error": status[1], **unexecuted})
    return {"gold": {"status": "error", "error": error, "seconds": None, "rows": None}, "candidates": candidates}


def _joined(row: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
    candidates = [{**said, **judged} for said, judged in zip(row["candidates"], record["candidates"], strict=True)]
    return {**row, "candidates": candidates, "gold": record["gold"]}


def _databases(run: Run, config: VerifyConfig) -> Databases:
    folder = config.databases or run.local.get("databases")
    if folder is None:
        raise ExcotError(f"where the databases of {run.folder} are is not known", "give their folder to --databases")
    return Databases(folder)


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
        f"next: excot sft --out {run.folder}, or excot pairs --out {run.folder}"
    )
