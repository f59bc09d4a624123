"""Run every benchmark, print a table, and write ``runs/bench.json``: ``make bench``."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
from pathlib import Path

from . import distances, generation, hub, published, rewards, scoring, training, verification

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


def main() -> None:
    if not DATA.is_dir():
        raise SystemExit(f"the benchmarks need real candidates at {DATA}")
    parts = (verification, distances, rewards, scoring, published)
    results = [
        *(result for part in parts for result in part.run(DATA)),
        *generation.run(),
        *hub.run(),
        *training.run(),
    ]
    width = max(len(result["what"]) for result in results)
    for result in results:
        print(f"{result['what']:<{width}}  {result['seconds']:8.2f} s  {result['ratio']:6.2f} x  {result['note']}")
    machine = {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "machine": platform.machine(),
        "cores": os.cpu_count(),
    }
    path = Path("runs/bench.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    print(f"written to {path}")


if __name__ == "__main__":
    main()
