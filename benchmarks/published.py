"""Published totals beside what the same systems' predictions score here.

Spider's dev set has 1,034 questions, of which 972 have a database among the data at hand. So a published total is not
met exactly, but held between bounds: the others may all have been wrong, or all right.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from excot.metrics.scoring import score

QUESTIONS = 1034
PUBLISHED = {  # system -> published test-suite accuracy on all of dev, in percent, and where
    "C3_SQL": (81.8, "arXiv 2307.07306"),
    "RESDSQL_NatSQL_3B": (84.1, "the leaderboard at nl2sql360.github.io"),
}


def run(data: Path) -> list[dict[str, Any]]:
    """One row a system; the ratio is our share to the published one."""
    systems = json.loads((data / "candidates" / "spider_dev.systems.json").read_text())
    rows = list(map(json.loads, (data / "candidates" / "spider_dev.jsonl").read_text("utf-8").splitlines()))
    results = []
    for system, (percent, source) in PUBLISHED.items():
        started = time.perf_counter()
        answers = [row["candidates"][systems.index(system)] for row in rows]
        found = score(answers, rows, data / "spider" / "database", rule="test_suite").summary()
        right, missing = round(found["exec_acc"] * len(rows)), QUESTIONS - len(rows)
        published = round(percent / 100 * QUESTIONS)
        fits = right <= published <= right + missing
        results.append(
            {
                "what": f"published: {system}",
                "seconds": time.perf_counter() - started,
                "ratio": found["exec_acc"] * 100 / percent,
                "note": f"{right} of {len(rows)} right ({found['exec_acc']:.1%}); published {percent}% of {QUESTIONS} "
                f"({source}), {published - right} of the {missing} without a database: "
                f"{'possible' if fits else 'NOT POSSIBLE'}",
            }
        )
    return results
