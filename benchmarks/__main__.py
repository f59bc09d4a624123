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
# A part's name is its module's. Those that need the real data are called with its folder.
WITH_DATA = ("light", "distances", "rewards", "scoring", "published")
WITHOUT_DATA = ("heavy", "generation", "hub", "training")


def main(names: list[str]) -> None:
    parts = ("light", "heavy", *(part for part in WITH_DATA + WITHOUT_DATA if part not in ("light", "heavy")))
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise SystemExit(f"no benchmark {unknown[0]!r}; there are {', '.join(parts)}")
    chosen = [part for part in parts if part in names] if names else list(parts)
    if not DATA.is_dir() and set(chosen) & set(WITH_DATA):
        raise SystemExit(f"the benchmarks {', '.join(WITH_DATA)} need real candidates at {DATA}")
    machine = describe_machine()
    print(", ".join(f"{what} {value}" for what, value in machine.items()))
    results: list[dict[str, Any]] = []
    for part in chosen:
        run = import_module(f".{part}", __package__).run
        results += run(DATA) if part in WITH_DATA else run()
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
