"""What a loop knows of itself: kept in the run folder's manifest under ``loop``, written after every step.

Most of a loop's state is not here: a dataset is finished where the manifest says so, a model where its
``training.json`` does. Here stands what these were asked for, so that a changed file is noticed, and what came of it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import ExcotError
from ..journal import differences
from ..run import Run


class State:
    """The notes of a loop.

    Args:
        out: the run folder; nothing is written before `save`.

    Attributes:
        steps: by name ``asked``, ``inputs``, ``finished``, ``seconds`` and ``cpu_seconds`` of every step that was
            begun.
        models: by name ``path`` and ``files`` of every model that was trained; ``exec_acc``, ``exec_acc_low``,
            ``exec_acc_high``, ``questions`` and ``rule`` of every one that was scored.
        rounds: by number, as text, the counts of its questions.
        tags: those that were pushed.
        anew: ``{"round": k, "dropped": ...}`` while rounds are made anew.
        stopped: why the loop ended before its last round, or ``None``.
        config: what the file said.
    """

    def __init__(self, out: str):
        self._run = Run(out)
        noted = self._run.manifest.get("loop") or {}
        self.config: dict[str, Any] = noted.get("config", {})
        self.steps: dict[str, dict[str, Any]] = noted.get("steps", {})
        self.models: dict[str, dict[str, Any]] = noted.get("models", {})
        self.rounds: dict[str, dict[str, int]] = noted.get("rounds", {})
        self.tags: list[str] = noted.get("tags", [])
        self.anew: dict[str, Any] | None = noted.get("anew")
        self.stopped: str | None = noted.get("stopped")

    def save(self) -> None:
        """Write all of it in one step."""
        names = ("config", "steps", "models", "rounds", "tags", "anew", "stopped")
        self._run.note("loop", {name: getattr(self, name) for name in names})

    def begin(self, name: str, asked: dict[str, Any], inputs: dict[str, Any]) -> None:
        """Note that a step is under way, and what for."""
        before = {"seconds": 0.0, "cpu_seconds": 0.0, **self.steps.get(name, {})}
        taken = {part: before[part] for part in ("seconds", "cpu_seconds")}
        self.steps[name] = {"asked": plain(asked), "inputs": inputs, "finished": False, **taken}
        self.save()

    def finish(self, name: str, seconds: float, cpu_seconds: float) -> None:
        """Note that a step is finished, and how long this start of it took. To be saved."""
        step, taken = self.steps[name], {"seconds": seconds, "cpu_seconds": cpu_seconds}
        step |= {"finished": True, **{part: round(step[part] + more, 1) for part, more in taken.items()}}

    def is_finished(self, name: str) -> bool:
        return bool(self.steps.get(name, {}).get("finished"))

    def changed(self, name: str, asked: dict[str, Any], inputs: dict[str, Any]) -> str | None:
        """What a step was asked for otherwise than now, in words; ``None`` where it is the same."""
        step = self.steps[name]
        if step["asked"] != plain(asked):
            return f"made with {differences(step['asked'], plain(asked))}"
        if step["inputs"] != inputs:
            others = [what for what in inputs if step["inputs"].get(what) != inputs[what]]
            return f"made from another {' and '.join(others) or 'input'}"
        return None


def plain(value: Any) -> Any:
    """As it will be read back from JSON."""
    return json.loads(json.dumps(value, default=str))


@contextmanager
def alone(out: str) -> Iterator[None]:
    """Keep every other loop out of the folder; the stages of this one have a lock of their own.

    Raises:
        ExcotError: another loop is at work in it, or it cannot be written.
    """
    from filelock import FileLock, Timeout

    private = Path(out) / ".excot"
    try:
        private.mkdir(parents=True, exist_ok=True)
        lock = FileLock(private / "loop.lock")
        lock.acquire(timeout=0)
    except Timeout:
        raise ExcotError(f"another loop is at work in {out}", "wait for it, or use another out") from None
    except OSError as error:
        raise ExcotError(f"cannot write into {out} ({os.strerror(error.errno or 0)})", "use another out") from None
    try:
        yield
    finally:
        lock.release()
