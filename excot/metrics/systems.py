"""The scored systems of a run folder: the datasets ``details``, a row a question and system, and ``scores``."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Any

from ..builders.columns import DETAILS
from ..errors import ExcotError
from ..hub.results import write_model_index
from ..journal import differences
from ..run import Run
from .scoring import Scores
from .summary import EXTRAS

if TYPE_CHECKING:
    import pyarrow as pa

log = logging.getLogger("excot")

_SOMETIMES = ("vote", *EXTRAS)
"""Columns that a system's rows have or have not; in the dataset all rows have them, empty in those."""


_OF_ANSWERS = ("model", "prompt_id", "sampling")


@dataclass(frozen=True)
class System:
    """What the manifest says of a scored system.

    Attributes:
        arguments: the options that its scores depend on.
        inputs: digests of what else they depend on.
        rule: the comparator that decided.
        columns: which of the columns it has that not all systems have.
        facts: what else is worth keeping: model, prompt, where its answers are from, ...
    """

    arguments: dict[str, Any]
    inputs: dict[str, str]
    rule: str
    columns: list[str]
    facts: dict[str, Any]


def known_systems(run: Run) -> dict[str, System]:
    """The systems that a run folder has scores of, by name; none where its questions have changed since."""
    entry = run.manifest["stages"].get("details")
    if entry is None or entry["inputs"]["questions"] != run.manifest["stages"]["questions"]["fingerprint"]:
        return {}
    run.entry("details")  # refuses files that were changed
    return {name: System(**record) for name, record in entry["systems"].items()}


def is_scored(run: Run, name: str, arguments: Mapping[str, Any], inputs: Mapping[str, str], anew: bool) -> bool:
    """Whether a system's scores are there, made with these options from this input.

    Args:
        run: the run folder.
        name: the system's.
        arguments: the options.
        inputs: digests of what else the scores depend on; where they alone have changed, it is scored anew.
        anew: whether scores that were made with other options may be lost.

    Raises:
        ExcotError: they were made with other options.
    """
    known = known_systems(run).get(name)
    if known is None or anew:
        return False
    if known.arguments != arguments:
        changed = differences(known.arguments, dict(arguments))
        raise ExcotError(
            f"{run.folder} already holds scores of {name} made with {changed}",
            # Of a model, --overwrite would also make the answers anew.
            f"{'--resume' if 'generations' in inputs else '--overwrite'} to replace them, or another --name",
        )
    return known.inputs == inputs


def read_scores(run: Run, name: str) -> Scores:
    """A system's scores, from the run folder."""
    system = known_systems(run)[name]
    absent = {"system", "rule", *_SOMETIMES} - {*system.columns}
    rows = [
        {key: value for key, value in row.items() if key not in absent}
        for row in run.read("details")
        if row["system"] == name
    ]
    return Scores(system.rule, rows)


def write_scores(
    run: Run,
    name: str,
    scores: Scores,
    questions: list[dict[str, Any]],
    arguments: dict[str, Any],
    inputs: dict[str, str],
    facts: dict[str, Any],
) -> None:
    """Put a system's scores into the run folder, beside those of others; earlier ones of the same name go.

    Args:
        run: the run folder.
        name: the system's.
        scores: its scores.
        questions: the questions' rows, in the order of ``scores.details``.
        arguments: the options that the scores depend on.
        inputs: digests of what else they depend on.
        facts: what else is worth keeping.

    Raises:
        ExcotError: another process is at work in the folder, or it cannot be written.
    """
    columns = [column for column in _SOMETIMES if column in scores.details[0]]
    with run.begin("details", {}, ("questions",), on_existing="overwrite") as stage:
        # Only now, with the folder locked, nobody else changes what is there.
        others = {other: system for other, system in known_systems(run).items() if other != name}
        stale = {*run.manifest["stages"].get("details", {}).get("systems", {})} - {name, *others}
        if stale:
            log.warning("the questions have changed: the scores of %s are dropped", ", ".join(sorted(stale)))
        rows = (row for row in run.read("details") if row["system"] in others) if others else ()
        summaries = _summaries(run)
        new = (
            {**row, "system": name, "rule": scores.rule, "question": question["question"]}
            for row, question in zip(scores.details, questions, strict=True)
        )
        systems = {**others, name: System(arguments, inputs, scores.rule, columns, facts)}
        stage.arguments = {other: system.arguments for other, system in systems.items()}
        records = {other: vars(system) for other, system in systems.items()}
        stage.write(chain(rows, new), DETAILS, run.entry("questions")["split"], systems=records)
    complete_summaries(run, {**summaries, name: _summary(name, systems[name], scores)})


def drop_systems(run: Run, names: Iterable[str]) -> None:
    """Take systems' scores out of a run folder; those that it has not got do not matter.

    Raises:
        ExcotError: another process is at work in the folder, or it cannot be written.
    """
    gone, known = {*names}, known_systems(run)
    left = {name: system for name, system in known.items() if name not in gone}
    if left == known:
        if left:  # a process that was killed after the details may not have come to these
            complete_summaries(run)
        return
    if not left:
        run.drop(["details", "scores"])
        (run.folder / "model-index.yaml").unlink(missing_ok=True)
        return
    summaries = _summaries(run)
    with run.begin("details", {}, ("questions",), on_existing="overwrite") as stage:
        stage.arguments = {name: system.arguments for name, system in left.items()}
        records = {name: vars(system) for name, system in left.items()}
        rows = (row for row in run.read("details") if row["system"] in left)
        stage.write(rows, DETAILS, run.entry("questions")["split"], systems=records)
    complete_summaries(run, summaries)


def complete_summaries(run: Run, known: Mapping[str, dict[str, Any]] = {}) -> None:
    """Bring the dataset ``scores`` up to date with ``details``.

    Args:
        run: the run folder.
        known: rows that need not be made again, by system.
    """
    if _summaries(run):
        return
    with run.begin("scores", {}, ("details",), on_existing="overwrite") as stage:
        rows = [
            known.get(name) or _summary(name, system, read_scores(run, name))
            for name, system in known_systems(run).items()
        ]
        shown = ("rule", "questions", "exec_acc", "exec_acc_low", "exec_acc_high")
        table = {row["system"]: {key: row[key] for key in shown} for row in rows}
        stage.write(rows, _schema_of(rows), run.entry("details")["split"], systems=table)
        questions = next(run.read("questions", ["benchmark", "split"]))
        write_model_index(run.folder / "model-index.yaml", **questions, rows=rows)


def _summaries(run: Run) -> dict[str, dict[str, Any]]:
    """The rows of ``scores`` by system; none where they are not those of ``details`` as it is."""
    details, scores = (run.manifest["stages"].get(stage) for stage in ("details", "scores"))
    if scores is None or not known_systems(run) or scores["inputs"]["details"] != details["fingerprint"]:
        return {}
    return {row["system"]: row for row in run.read("scores")}


def _summary(name: str, system: System, scores: Scores) -> dict[str, Any]:
    of_answers = {key: system.facts.get(key) for key in _OF_ANSWERS}
    return {"system": name, "rule": system.rule, **of_answers, **scores.summary()}


def _schema_of(rows: list[dict[str, Any]]) -> pa.Schema:
    """Text where it is text, whole numbers where all are; systems may differ in their columns."""
    import pyarrow as pa

    kinds: dict[str, set[type]] = {name: {str} for name in ("system", "rule", *_OF_ANSWERS)}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                kinds.setdefault(name, set()).add(type(value))
    types = {float: pa.float64(), int: pa.int64(), str: pa.string()}
    return pa.schema((name, next(types[type_] for type_ in types if type_ in kind)) for name, kind in kinds.items())
