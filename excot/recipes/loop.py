"""
The whole method by one file: a teacher's answers, SFT, off-policy DPO, and rounds of on-policy DPO.

```bash
# what would run, with rows, tokens, cost and hours; nothing is done
excot run recipes/tiny-llama/loop.yaml --dry-run

# all of it; killed and started again, it goes on
excot run recipes/tiny-llama/loop.yaml

# the second on-policy round and all later ones anew
excot run recipes/tiny-llama/loop.yaml --from-round 2
```

Every step is a command of its own: `excot generate`, `excot verify`, `accelerate launch -m excot.recipes.dpo`, ...
docs/loop.md explains the file.
"""

from __future__ import annotations

from pathlib import Path

from ..config import RunConfig
from ..errors import UsageError
from ..loop.anew import drop, pending
from ..loop.counts import has_pair, in_words, round_counts, write_all_right
from ..loop.outputs import Outputs
from ..loop.preflight import check_all, check_push
from ..loop.report import duration, models_table, score_line
from ..loop.runner import Taken, run_step
from ..loop.settings import Settings, read_settings
from ..loop.state import State, alone
from ..loop.steps import Step, all_right_file, all_steps
from ..parent import wait_for_orphans
from ..run import Run


def run_loop(config: RunConfig) -> str:
    """``excot run``: run a loop, or go on with it. Returns the lines to show at the end.

    Raises:
        UsageError: the file is wrong.
        ExcotError: something that is needed is not there, what is there was changed, or a step failed.
    """
    settings = read_settings(config.loop)
    if config.from_round is not None and config.from_round > settings.rounds:
        raise UsageError(
            f"--from-round is {config.from_round}, but rounds is {settings.rounds}", "give a round that there is"
        )
    steps = all_steps(settings)
    if config.dry_run:
        from ..loop.plan import plan_text

        state = State(settings.out)
        check_all(settings, steps, state, pending(state, config.from_round))
        return plan_text(settings, steps, state, pending(state, config.from_round))
    is_first = not (Path(settings.out) / ".excot").is_dir()
    if is_first:  # what is wrong with a first start leaves nothing behind
        check_all(settings, steps, State(settings.out), None)
    with alone(settings.out):
        wait_for_orphans(Path(settings.out) / ".excot" / "children")
        state = State(settings.out)
        from_round = pending(state, config.from_round)
        if not is_first or state.steps:
            check_all(settings, steps, state, from_round)
        check_push(settings, steps, state)
        if from_round is not None:
            drop(settings, steps, state, from_round)
        return Loop(settings, steps, state).run()


class Loop:
    """A loop under way: it runs the steps that are not finished, in order, and notes what came of each."""

    def __init__(self, settings: Settings, steps: list[Step], state: State):
        self.settings, self.steps, self.state = settings, steps, state
        self.outputs = Outputs(settings, state)
        self.private = Path(settings.out) / ".excot"

    def run(self) -> str:
        """Run to the end, or to where there is nothing more to learn."""
        self.state.config, self.state.stopped = self.settings.text, None
        self.state.save()
        for place, step in enumerate(self.steps, start=1):
            self.state.stopped = self._why_stop(step)
            if self.state.stopped:
                break
            print(f"[{place}/{len(self.steps)}] {step.title}", flush=True)
            self.do(step)
        self.state.anew = None  # all rounds are made: the same command would now make them anew once more
        self.state.save()
        stopped = f"stopped: {self.state.stopped}\n\n" if self.state.stopped else ""
        return f"\n{stopped}{models_table(self.settings, self.state, self.steps)}"

    def do(self, step: Step) -> None:
        """Run one step, unless it is finished, and note what came of it."""
        if self.outputs.is_finished(step):
            print(f"  done before{self._came_of(step)}", flush=True)
            return
        inputs = self.outputs.inputs(step)
        seconds = self.outputs.trained_in(step) if step.kind == "train" else None
        taken = None if seconds is None else Taken(seconds, 0.0)
        if taken is None:
            words = self._words(step)
            self.state.begin(step.name, step.asked, inputs)
            taken = run_step(step, words, self.private)
            self.outputs = Outputs(self.settings, self.state)
        self._note(step)
        self.state.finish(step.name, taken.seconds, taken.cpu_seconds)
        self.state.save()
        # Of a score, its own first line has said what came of it.
        print(f"  {duration(taken.seconds)}{'' if step.kind == 'score' else self._came_of(step)}", flush=True)

    def _note(self, step: Step) -> None:
        """What came of a step, beside what the step itself has written."""
        state, settings = self.state, self.settings
        if step.kind == "train":
            self.outputs.note_model(step.model)
        elif step.kind == "score":
            table = Run(settings.dev_out).entry("scores")["systems"][step.model.name]
            state.models[step.model.name] = {**state.models.get(step.model.name, {}), **table}
            state.models[step.model.name].setdefault("path", step.model.path)
        elif step.kind == "pairs":
            state.rounds[str(step.round)] = round_counts(settings.out, step.round, step.command.options)
        elif step.kind == "push" and step.asked["tag"] not in state.tags:
            state.tags.append(step.asked["tag"])

    def _came_of(self, step: Step) -> str:
        if step.kind == "score":
            return f": {score_line(self.state.models[step.model.name])}"
        if step.kind == "pairs":
            return f": {in_words(self.state.rounds[str(step.round)])}"
        return ""

    def _words(self, step: Step) -> list[str]:
        """A step's command, with what only its turn tells."""
        if step.kind == "score" and self.outputs.replaces_answers(step):
            return [*step.words, "--overwrite"]
        if step.kind == "push" and step.asked["tag"] in self.state.tags:  # of a round that was made anew
            return [*step.words, "--overwrite-tag"]
        path = all_right_file(self.settings, (step.round or 0) - 1)
        if step.kind == "generate" and str(path) in step.words and not path.read_text("utf-8"):
            place = step.words.index("--exclude")
            return step.words[:place] + step.words[place + 2 :]
        return step.words

    def _why_stop(self, step: Step) -> str | None:
        """Whether there is nothing more to learn before a step, and why."""
        settings = self.settings
        if not step.round or self.state.is_finished(step.name):
            return None
        if step.kind == "generate":
            if settings.stop_early and (reason := self._not_risen(step)):
                return reason
            if settings.skip_all_right and step.round > 1:
                rule, path = settings.onpolicy.data.options.rule, all_right_file(settings, step.round - 1)
                right, asked = write_all_right(settings.out, step.round - 1, rule, path)
                if right == asked:
                    return f"all {asked:,} questions were all right in round {step.round - 1}"
        if step.kind == "pairs" and not has_pair(settings.out, step.round, step.command.options):
            counts = round_counts(settings.out, step.round, step.command.options)
            self.state.rounds[str(step.round)] = counts
            return f"no pair comes of round {step.round} ({in_words(counts)})"
        return None

    def _not_risen(self, step: Step) -> str | None:
        """Where the model that a round would start from is no better than the one before it. By the noted scores
        alone, so that it is the same whenever it is asked."""
        scored = [other.model.name for other in self.steps if other.kind == "score"]
        before, after = scored[scored.index(step.model.name) - 1], step.model.name
        old, new = (self.state.models[name]["exec_acc"] for name in (before, after))
        if new > old:
            return None
        return f"{after} has {new:.1%} on dev, no more than {before} before it ({old:.1%})"
