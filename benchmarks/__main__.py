"""Run benchmarks, print a table, and write ``runs/bench.json``.

``make bench`` runs all of them, ``python -m benchmarks light heavy`` those two.
"""

from __future__ import annotations

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from .machine import describe_machine

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"
# A part's name is its module's; all but some are about the real data, and are called with its folder.
PARTS = ("light", "heavy", "distances", "rewards", "scoring", "published", "generation", "hub", "training", "fuzzing")
WITHOUT_DATA = {"heavy", "generation", "hub", "training"}


def main(names: list[str]) -> None:
    unknown = [name for name in names if name not in PARTS]
    if unknown:
        raise SystemExit(f"no benchmark {unknown[0]!r}; there are {', '.join(PARTS)}")
    chosen = [part for part in PARTS if part in names or not names]
    with_data = [part for part in chosen if part not in WITHOUT_DATA]
    if with_data and not DATA.is_dir():
        raise SystemExit(f"{', '.join(with_data)}: real candidates are needed at {DATA}")
    machine = describe_machine()
    print(", ".join(f"{what} {value}" for what, value in machine.items()))
    results: list[dict[str, Any]] = []
    for part in chosen:
        run = import_module(f".{part}", __package__).run
        results += run(DATA) if part in with_data else run()
    _print_table(results)
    path = Path("runs/bench.json")
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": machine, "results": results}, indent=2) + "\n")
    print(f"written to {path}")


def _print_table(results: list[dict[str, Any]]) -> None:
    width = max(len(result["what"]) for result in results)
    print(f"{'':<{width}}  {'seconds':>8}  {'ratio':>8}  {'a second':>9}  {'CPU s':>8}  {'MB':>6}")
    for result in results:
        used = ("statements_per_s", "9,.0f"), ("cpu_seconds", "8,.2f"), ("peak_mb", "6,.0f")
        cells = [f"{result[name]:{form}}" if name in result else " " * int(form.split(",")[0]) for name, form in used]
        what, seconds, ratio = result["what"], result["seconds"], result["ratio"]
        print(f"{what:<{width}}  {seconds:8.2f}  {ratio:6.2f} x  {'  '.join(cells)}  {result['note']}")


if __name__ == "__main__":
    main(sys.argv[1:])
