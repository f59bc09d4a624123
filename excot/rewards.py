"""Rewards for reinforcement learning: what an answer's SQL does when it is executed, by the judge of all stages.

With TRL, whose dataset needs the columns ``db_id`` and ``gold_sql`` beside its prompts::

    with ExecutionReward("spider/database") as reward:
        GRPOTrainer(model, reward_funcs=[reward, format_reward], args=config, train_dataset=data).train()

With verl, a file ``reward.py`` of two lines, named by ``custom_reward_function.path``::

    from excot import ExecutionReward
    compute_score = ExecutionReward("spider/database").compute_score
"""

from __future__ import annotations

import os
import re
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .errors import ExcotError
from .execution import RULES, Cache, Databases, Limits, Outcome, Task, available_cores
from .execution.pool import Pool
from .execution.sqltext import statement_key
from .prompts import extract_sql

Completion = str | Sequence[Mapping[str, Any]]
"""An answer: its text, or the messages that the model added to the conversation."""

FATES = ("right", "executes", "error", "timeout", "too_large", "refused", "no_sql", "gold_unusable")
"""What can become of an answer; a call logs the share of each."""

_Key = tuple[str, str, str | None]  # db_id, gold_sql and an answer's statement; None stands for the gold itself


class ExecutionReward:
    """The reward of an answer by what its SQL does: right, executes but wrong, or neither.

    What was executed once is not executed again, a statement that ran out of time included: the latest outcomes are in
    memory, and those of all runs on disk (``excot.execution.cache``). The databases must not change meanwhile. Worker
    processes are started by the first call, stay for the next ones, and end with `close` or with this process. Calls
    from several threads take turns. A pickled or copied reward starts with no workers and nothing in memory.

    Args:
        databases: the folder that holds ``<db_id>/<db_id>.sqlite``, as `Databases` takes it.
        right: the reward where the result matches the gold's.
        executes: the reward where the SQL executes and its result is another.
        wrong: the reward for everything else: an error, too slow, forbidden, no SQL.
        rule: which comparator says that results match, one of ``RULES`` (``set`` is BIRD's, ``test_suite`` Spider's).
        timeout: seconds for one statement.
        processes: how many workers; by default this rank's share of the cores, by ``LOCAL_WORLD_SIZE``.
        cache_size: how many statements' outcomes are kept in memory, the latest used ones.
        disk_cache: whether outcomes are taken from earlier runs, and kept for later ones.

    Raises:
        DatabaseError: there is no such folder.
        ExcotError: an option has a value that makes no sense.
    """

    def __init__(
        self,
        databases: str | Path | Databases,
        *,
        right: float = 1.0,
        executes: float = 0.1,
        wrong: float = 0.0,
        rule: str = "set",
        timeout: float = 5.0,
        processes: int | None = None,
        cache_size: int = 100_000,
        disk_cache: bool = True,
    ):
        if not right > executes >= wrong:
            raise ExcotError(
                f"the rewards are right {right}, executes {executes}, wrong {wrong}",
                "give right > executes >= wrong",
            )
        if rule not in RULES:
            raise ExcotError(f"there is no rule {rule!r}", f"give one of {', '.join(RULES)}")
        if not timeout > 0:
            raise ExcotError(f"timeout is {timeout}", "give the seconds that a statement may take, such as 5")
        if processes is not None and processes < 1:
            raise ExcotError(f"processes is {processes}", "give at least 1")
        if cache_size < 0:
            raise ExcotError(f"cache_size is {cache_size}", "give at least 0")
        self.__name__ = "execution_reward"  # under which TRL logs it
        folder = databases.folder if isinstance(databases, Databases) else Path(databases)
        self._databases = Databases(folder.absolute())  # the workers stay in the folder in which they were started
        self.wrong, self.rule = wrong, rule
        self._rewards = {"right": right, "executes": executes, "gold_unusable": None}
        self._limits = Limits(seconds=timeout)
        self._processes = processes or _share_of_cores()
        self._cache_size, self._disk_cache = cache_size, disk_cache
        self._begin()

    def _begin(self) -> None:
        self._pool = Pool(self._processes)
        self._disk = Cache() if self._disk_cache else None
        self._cache: OrderedDict[_Key, str] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(
        self,
        completions: Sequence[Completion],
        db_id: Sequence[str | None],
        gold_sql: Sequence[str | None],
        log_metric: Callable[[str, float], None] | None = None,
        **_: Any,
    ) -> list[float | None]:
        """The rewards of a batch of answers, in their order; all lists are equally long.

        Args:
            completions: the answers, as texts or as lists of messages, of which the assistant's last one counts.
            db_id: the name of each one's database.
            gold_sql: each one's gold; ``None`` in a row of another task, which has no reward here.
            log_metric: called with ``execution_reward/<fate>`` and the share of the answers that met it, for each of
                `FATES`; TRL gives it.

        Returns:
            One reward for each answer; ``None``, with which TRL leaves a sample out, for all answers to a question
            whose gold fails or returns no row: an empty result calls too much right.

        Raises:
            MissingDatabase: there is no database for a ``db_id``.
            DatabaseError: a database is damaged.
            ExcotError: the lists are not equally long, or workers cannot be started.
        """
        if not len(completions) == len(db_id) == len(gold_sql):
            raise ExcotError(
                f"completions, db_id and gold_sql have {len(completions)}, {len(db_id)} and {len(gold_sql)} values",
                "give as many of each",
            )
        answers = list(zip(db_id, gold_sql, map(_statement, completions), strict=True))
        with self._lock:
            fates = self._fates(answers)
        if log_metric is not None and fates:
            counts = Counter(fates)
            for fate in FATES:  # all of them: TRL's mean is over the calls that log a name
                log_metric(f"{self.__name__}/{fate}", counts[fate] / len(fates))
        return [self._rewards.get(fate, self.wrong) for fate in fates]

    def compute_score(
        self,
        data_source: str,
        solution_str: str,
        ground_truth: str,
        extra_info: Mapping[str, Any] | None = None,
        **_: Any,
    ) -> float:
        """One answer's reward, in the form of verl's custom reward functions.

        Every answer to a question whose gold is unusable gets the reward ``wrong``, as verl leaves no sample out. The
        same value for a whole group is no advantage to any of its answers, but it counts in the mean reward.

        Args:
            data_source: not looked at.
            solution_str: the answer's text.
            ground_truth: the gold.
            extra_info: the row's ``extra_info``, which must hold ``db_id``.

        Raises:
            ExcotError: ``extra_info`` holds no ``db_id``; otherwise as for a batch.
        """
        if not extra_info or "db_id" not in extra_info:
            raise ExcotError("extra_info holds no db_id", "add the database's name to every row's extra_info")
        (reward,) = self([solution_str], [extra_info["db_id"]], [ground_truth])
        return self.wrong if reward is None else reward

    def close(self) -> None:
        """End the workers; a later call starts others."""
        with self._lock:
            self._pool.close()

    def __enter__(self) -> ExecutionReward:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_pool", "_disk", "_cache", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._begin()

    def _fates(self, answers: list[_Key]) -> list[str]:
        """What became of each answer, executing what the cache does not know."""
        golds: list[_Key] = [(db_id, gold_sql, None) for db_id, gold_sql, _ in answers]
        found = self._recall([*golds, *answers])
        found |= {gold: "missing" for gold in golds if None in gold[:2]}
        unknown: dict[_Key, dict[_Key, None]] = {}  # of every gold to execute: its answers, each once
        for gold, answer in zip(golds, answers, strict=True):
            if gold not in found or (found[gold] == "ok" and answer not in found):
                group = unknown.setdefault(gold, {})
                if answer not in found and answer != gold:
                    group[answer] = None
        self._execute({gold: list(keys) for gold, keys in unknown.items()}, found)
        return [
            "gold_unusable" if found[gold] != "ok" else "no_sql" if answer == gold else found[answer]
            for gold, answer in zip(golds, answers, strict=True)
        ]

    def _execute(self, unknown: Mapping[_Key, list[_Key]], found: dict[_Key, str]) -> None:
        """Execute these answers of every gold, and add what became of all to ``found`` and to the cache."""
        golds = list(unknown)
        tasks = []
        for place, (db_id, gold_sql, _) in enumerate(golds):
            statements = tuple(statement for _, _, statement in unknown[golds[place]])
            tasks.append(Task(str(place), self._databases.paths(db_id), gold_sql, statements, self._limits))
        for place, verdict in self._pool.verify_all(tasks, self._disk):
            gold = golds[int(place)]
            new = {gold: verdict.gold.status}
            new |= zip(unknown[gold], map(self._fate, verdict.candidates), strict=True)
            # A gold that ran before and now does not says something about the machine only, as do its candidates.
            if verdict.gold.status == "ok" or gold not in found:
                self._remember(new)
            found |= new

    def _fate(self, outcome: Outcome) -> str:
        if getattr(outcome.matches, self.rule):
            return "right"
        return "executes" if outcome.status == "ok" else outcome.status

    def _recall(self, keys: Iterable[_Key]) -> dict[_Key, str]:
        known = [key for key in keys if key in self._cache]
        for key in known:
            self._cache.move_to_end(key)
        return {key: self._cache[key] for key in known}

    def _remember(self, fates: Mapping[_Key, str]) -> None:
        self._cache |= fates
        while len(self._cache) > self._cache_size:
            self._cache.popitem(last=False)


def format_reward(completions: Sequence[Completion], **_: Any) -> list[float]:
    """1.0 for every answer in the form that the divide-and-conquer prompt asks for, 0.0 for every other.

    The form: the headings "Divide and Conquer" and "Assembling SQL", once each and in this order, and one complete
    block marked sql in the whole answer, which is not empty and ends it. Whether its SQL is right has no influence.
    """
    return [float(_is_well_formed(_text(completion))) for completion in completions]


_HEADING = re.compile(r"^#{1,6}[ \t]+(divide and conquer|assembling sql)[ \t]*$", re.IGNORECASE | re.MULTILINE)


def _is_well_formed(text: str) -> bool:
    text = text.strip()
    headings = list(_HEADING.finditer(text))
    if [heading[1].lower() for heading in headings] != ["divide and conquer", "assembling sql"]:
        return False
    sql = extract_sql(text).sql
    if sql is None:
        return False
    before, _, after = text.rpartition(sql)
    return not after.strip("`\n ") and len(before) > headings[1].end() and extract_sql(before).sql is None


def _statement(completion: Completion) -> str | None:
    sql = extract_sql(_text(completion)).sql
    return None if sql is None else statement_key(sql)


def _text(completion: Completion) -> str:
    """An answer's text: of messages, the last one of the assistant, whose content may come in parts."""
    if isinstance(completion, str):
        return completion
    for message in reversed(completion):
        if message.get("role", "assistant") == "assistant":
            content = message.get("content") or ""
            return content if isinstance(content, str) else "".join(part.get("text") or "" for part in content)
    return ""


def _share_of_cores() -> int:
    """Cores for each of the ranks that a launcher has started on this machine."""
    return max(1, available_cores() // int(os.environ.get("LOCAL_WORLD_SIZE") or 1))
