"""How far a stage is: one bar with live counts on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter

log = logging.getLogger("excot")
_LINE_EVERY = 15.0  # s


class Progress:
    """Progress over questions.

    Args:
        label: the stage.
        total: how many questions there are.
        done: how many of them were finished in an earlier start.
    """

    def __init__(self, label: str, total: int, done: int = 0):
        self._label, self._total, self._done = label, total, done
        self._started = self._spoken = time.monotonic()
        self._first = done
        self.counts: Counter[str] = Counter()
        self._bar = None
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, initial=done, desc=label, unit=" questions", dynamic_ncols=True)

    def advance(self, **counts: int) -> None:
        """One more question is finished; ``counts`` are added to the live counts."""
        self._done += 1
        self.counts.update(counts)
        if self._bar is not None:
            self._bar.update()
            self._bar.set_postfix_str(self._counts(), refresh=False)
        elif time.monotonic() - self._spoken > _LINE_EVERY:
            self._spoken = time.monotonic()
            rate = (self._done - self._first) / (self._spoken - self._started)
            left = (self._total - self._done) / rate if rate else 0
            log.info("%s: %d of %d, %.0f s left, %s", self._label, self._done, self._total, left, self._counts())

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()

    def _counts(self) -> str:
        return ", ".join(f"{name} {count:,}" for name, count in self.counts.items())
