"""``excot score``: the answers of one system executed, judged, kept in the run folder, and summed up in a table."""

from __future__ import annotations

import shlex
from pathlib import Path

from ..config import ScoreConfig
from ..hub.results import load_model_card, write_into_card
from ..journal import digest_of
from ..progress import Progress
from ..run import Run
from .answers import Answers, find_answers, generation_options
from .scoring import Scores, score
from .systems import complete_summaries, is_scored, known_systems, read_scores, write_scores
from .table import score_table


def score_run(config: ScoreConfig) -> str:
    """The stages ``details`` and ``scores``: execute a system's answers. Returns the lines to show.

    A model (``config.model``) answers first, into the run folder's ``generations``, which goes on after a kill as
    `generate` does. Several systems may be scored into one run folder, each under its name.

    Raises:
        ExcotError: there are no answers, they do not fit the questions, or the run folder holds something else.
    """
    run = Run(config.out)
    if config.dry_run and config.model:
        from ..builders.generations import generate

        return generate(generation_options(config, config.model))
    if config.model_card:
        load_model_card(Path(config.model_card))  # what is wrong with it is said before anything is executed
    answers = find_answers(run, config)
    run = Run(config.out)  # a model may have answered into it
    rule = config.rule or default_rule(run)
    arguments = {**answers.arguments, "rule": rule, "limit": config.limit, "timeout": config.timeout}
    arguments |= {"extras": sorted(config.extras or [])}
    if {"ves", "r_ves"} & {*arguments["extras"]}:
        arguments["repetitions"] = config.repetitions
    inputs = {"databases": digest_of(answers.databases.hashes), **answers.inputs}
    there = is_scored(run, answers.system, arguments, inputs, config.overwrite or config.resume)
    if config.dry_run:
        count = sum(isinstance(found, str) or len(found or ()) for found in answers.predictions)
        return f"would execute {count:,} answers to {len(answers.questions):,} questions from {answers.source}"
    if there:
        scores = read_scores(run, answers.system)
        complete_summaries(run)
    else:
        scores = _judge(answers, rule, config)
        facts = {"source": answers.source, **answers.facts}
        write_scores(run, answers.system, scores, answers.questions, arguments, inputs, facts)
    (row,) = (row for row in run.read("scores") if row["system"] == answers.system)
    questions = next(run.read("questions", ["benchmark", "split"]))
    if config.model_card:
        write_into_card(Path(config.model_card), **questions, row=row)
    source = answers.source
    if "excluded" in answers.facts:
        source += f"; {answers.facts['excluded']:,} questions are left out, by {config.exclude}"
    table = score_table(answers.system, " ".join(questions.values()), source, scores)
    return f"{'already there: ' if there else ''}{table}\n\n{_afterwards(run, config, answers.system)}"


def _judge(answers: Answers, rule: str, config: ScoreConfig) -> Scores:
    progress = Progress("score", len(answers.questions))
    try:
        scores = score(
            answers.predictions,
            answers.questions,
            answers.databases.databases,
            rule=rule,
            extras=config.extras or (),
            timeout=config.timeout,
            repetitions=config.repetitions,
            processes=config.processes,
            cache=not config.no_cache,
            on_progress=lambda done, total: progress.advance(),
        )
    finally:
        progress.close()
    for row in scores.details:
        for place in answers.cut_off.get(row["id"], ()):
            row["samples"][place]["status"] = "truncated"
    return scores


def _afterwards(run: Run, config: ScoreConfig, system: str) -> str:
    """Where everything is, and what to do with it."""
    others = [name for name in known_systems(run) if name != system]
    written = f"details and scores of {len(others) + 1} system{'s' if others else ''} are in {run.folder}"
    if config.model_card:
        written += f", the results in {Path(config.model_card) / 'README.md'}"
    if others:
        pair = [shlex.quote(f"{run.folder}:{name}") for name in (others[-1], system)]
        return f"{written}\nnext: excot compare {' '.join(pair)}"
    return f'{written}\nnext: load_dataset("{run.folder}", "details")'


def default_rule(run: Run) -> str:
    """The rule that a benchmark is scored by: Spider's own for its questions, BIRD's for all others."""
    return "test_suite" if run.entry("questions")["arguments"]["benchmark"] == "spider" else "set"
