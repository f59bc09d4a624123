"""What the demo's experiment has found: a table with intervals, DPO beside the control, and what all this is not."""

from __future__ import annotations

from ..config import DemoConfig
from ..loop.settings import Settings
from ..loop.state import State
from ..metrics.comparison import difference
from ..metrics.systems import read_scores
from ..metrics.table import align, percent, span
from ..run import Run
from .data import WORLDS
from .questions import has_closed_bound

_NOT = """\
What this is: a tiny model with random weights, on questions from templates. Its teacher has seen the gold, and has a
habit: it reads "at least" as "more than". Where no row lies on the bound execution calls that right, so SFT learns it;
preferences are only drawn where the results differ. Whether they or more SFT end higher differs from run to run
(docs/experiment.md), and nothing follows for large models."""
_QUICK = "These figures mean nothing: --quick takes a few steps of everything, to see that it runs."

_TRAINED = {
    "base": "nothing: random weights",
    "sft": "{sft:,} right answers of the teacher",
    "dpo": "{pairs:,} pairs of the teacher's answers",
    "dpo_round1": "{pairs_round1:,} pairs of its own answers",
    "control": "sft, going on for as long as both DPO stages took",
}


def outcome(settings: Settings, state: State, config: DemoConfig) -> str:
    """The lines at the end, also kept as ``demo.md``."""
    dev, data = Run(settings.dev_out), Run(settings.out).manifest["stages"]
    rows_of = {name: entry["rows"] for name, entry in data.items()}
    questions = {row["id"]: row["question"] for row in dev.read("questions", ["id", "question"])}
    names = [name for name in _TRAINED if name in state.models]
    rows = []
    for name in names:
        model = state.models[name]
        details = read_scores(dev, name).details
        closed = [row["right"] for row in details if has_closed_bound(questions[row["id"]])]
        rows.append(
            [
                name,
                _TRAINED[name].format(**rows_of),
                percent(model["exec_acc"]),
                span(model["exec_acc_low"], model["exec_acc_high"]),
                percent(sum(closed) / max(1, len(closed))),
                f"{cpu_seconds(name, state):,.0f} s" if name != "base" else "",
            ]
        )
    head = ["model", "trained on", "EX", "95% interval", "bounds", "CPU"]
    lines = [
        f"execution accuracy (EX) on {len(questions)} test questions on {len(WORLDS)} databases, each of five files,",
        'by the rule test_suite; bounds: EX of those with "at least" or "at most" alone; CPU: of all processes',
        "",
        align(rows, head, words=2),
        "",
        *_against_control([name for name in names if name != "control"][-1], settings.dev_out),
        "",
        *([_QUICK, ""] if config.quick else []),
        _NOT,
    ]
    return "\n".join(lines) + "\n"


def cpu_seconds(name: str, state: State) -> float:
    """What making a model took beyond the one it starts from: its data, and its training, on all processors."""
    parts = {
        "sft": ("generations", "verified", "sft_data", "sft"),
        "dpo": ("pairs", "dpo"),
        "dpo_round1": ("generations_round1", "verified_round1", "pairs_round1", "dpo_round1"),
        "control": ("control",),
    }[name]
    return sum(state.steps[part]["cpu_seconds"] for part in parts if part in state.steps)


def _against_control(last: str, folder: str) -> list[str]:
    """The last model of the loop beside the control, question by question."""
    found = difference(f"{folder}:control", f"{folder}:{last}")
    low, high = found.interval
    return [
        f"{last} over the control: {found.points:+.1f} points (95% interval {low:+.1f} to {high:+.1f}); "
        f"{len(found.gained)} questions",
        f"only {last} has right, {len(found.lost)} only the control (McNemar: p {found.p_in_words})",
    ]
