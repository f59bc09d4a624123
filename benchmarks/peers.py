"""What verification is held against: a loop, a pool that executes the gold for every candidate, and SQLite alone."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import deque
from contextlib import closing
from itertools import islice
from multiprocessing import Pool
from typing import Any

from . import plain

Question = dict[str, Any]
"""``database`` (an absolute path), ``gold``, ``candidates``."""

RIGHT, WRONG, FAILED, LIMIT = "right", "wrong", "failed", "limit"
"""What becomes of a candidate: its set of rows is the gold's or is not, it does not run, or it takes too long."""

_INSTRUCTIONS_BETWEEN_CLOCK_READINGS = 10_000  # seldom enough to cost nothing that could be measured


def loop(questions: list[Question], limit: float, parse: bool = False) -> list[list[str]]:
    """One process, ``fetchall``, sets compared, a progress handler to end what takes long, the gold once a question.

    Every candidate is executed, also one that was executed before. With ``parse`` each is parsed by sqlglot first, as
    verification released with papers does to tell statements that can be read from those that cannot; what cannot be
    is executed all the same, so that the verdicts are those of the loop without.
    """
    if parse:
        import logging

        import sqlglot

        logging.getLogger("sqlglot").setLevel(logging.ERROR)  # it warns of what it cannot read but in part
    verdicts = []
    for question in questions:
        with closing(plain.connect(question["database"])) as connection:
            gold = plain.execute(connection, question["gold"], limit)
            found = []
            for candidate in question["candidates"]:
                if parse:
                    try:
                        sqlglot.parse_one(candidate, dialect="sqlite")
                    except (sqlglot.errors.SqlglotError, RecursionError):
                        pass
                started = time.perf_counter()
                rows = plain.execute(connection, candidate, limit)
                found.append(_verdict(rows, gold, time.perf_counter() - started > limit))
            verdicts.append(found)
    return verdicts


def _verdict(rows: set[tuple] | None, gold: set[tuple] | None, too_late: bool) -> str:
    if rows is None:
        return LIMIT if too_late else FAILED
    return RIGHT if rows == gold else WRONG


def pool(questions: list[Question], limit: float, processes: int) -> list[list[str]]:
    """Candidate by candidate on several processes, as BIRD's official script scores a file of predictions.

    For each one it connects, executes the candidate and the gold, and compares the sets of what ``fetchall`` gave. A
    thread does this; the process waits for it no longer than ``limit`` seconds for both together.
    """
    jobs = (
        (question["database"], question["gold"], candidate, limit)
        for question in questions
        for candidate in question["candidates"]
    )
    with Pool(processes) as workers:
        found = workers.imap(_in_a_thread, jobs)
        verdicts = [list(islice(found, len(question["candidates"]))) for question in questions]
        workers.close()
        workers.join()  # waited for, so that what they used is counted
    return verdicts


def _in_a_thread(job: tuple[str, str, str, float]) -> str:
    database, gold, candidate, limit = job
    connection = plain.connect(database)
    found = [LIMIT]

    def judge() -> None:
        try:
            rows = set(connection.execute(candidate).fetchall())
            found[0] = RIGHT if rows == set(connection.execute(gold).fetchall()) else WRONG
        except (sqlite3.Error, sqlite3.Warning) as error:
            if str(error) != "interrupted":
                found[0] = FAILED

    thread = threading.Thread(target=judge)
    thread.start()
    thread.join(limit)
    verdict = LIMIT if thread.is_alive() else found[0]
    while thread.is_alive():  # an interrupt between two statements is lost
        connection.interrupt()
        thread.join(0.1)
    connection.close()
    return verdict


def floor(
    questions: list[Question], limit: float, needed: list[list[int | None]] | None = None
) -> tuple[float, float, int]:
    """SQLite's own time: every different statement to each gold, and the gold, stepped with its rows dropped.

    Questions with the same gold, as Spider has many, are one here: this is the least that has to be executed.

    Args:
        needed: how many rows of the gold and of each candidate tell the verdict; ``None`` where all were looked for.

    Returns:
        Seconds to the statements' ends, seconds until the needed rows were there, and how many statements it were.
        What is not over at the limit counts as much as the limit.
    """
    different = {}
    for at, question in enumerate(questions):
        texts = [_bare(text) for text in (question["gold"], *question["candidates"])]
        for place, text in enumerate(texts):
            different[question["database"], texts[0], text] = needed[at][place] if needed else None
    to_the_end = as_far_as_needed = 0.0
    opened, connection = None, None
    for (database, _, text), rows in different.items():
        if database != opened:  # questions on one database share its connection, and what that has cached
            if connection is not None:
                connection.close()
            opened, connection = database, sqlite3.connect(f"file:{database}?mode=ro&immutable=1", uri=True)
            connection.text_factory = bytes
        whole, part = _step(connection, text, limit, rows)
        to_the_end += whole
        as_far_as_needed += part
    if connection is not None:
        connection.close()
    return to_the_end, as_far_as_needed, len(different)


def _bare(sql: str) -> str:
    return sql.strip().rstrip(";").rstrip()


def _step(connection: sqlite3.Connection, sql: str, limit: float, needed: int | None) -> tuple[float, float]:
    started = time.perf_counter()
    deadline = started + limit
    connection.set_progress_handler(lambda: time.perf_counter() > deadline, _INSTRUCTIONS_BETWEEN_CLOCK_READINGS)
    there = None
    try:
        cursor = connection.execute(sql)
        if needed is not None:
            deque(islice(cursor, needed), maxlen=0)
            there = time.perf_counter() - started
            if next(cursor, None) is None:
                there = None  # that these were all is known only at the end
        deque(cursor, maxlen=0)
    except (sqlite3.Error, sqlite3.Warning):
        pass
    whole = time.perf_counter() - started
    return whole, whole if there is None else there
