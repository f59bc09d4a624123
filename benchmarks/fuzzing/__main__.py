"""``python -m benchmarks.fuzzing [count] [seed]``"""

from __future__ import annotations

import sys
from pathlib import Path

from . import run

DATA = Path(__file__).resolve().parents[2].parent / "shared" / "data"

if __name__ == "__main__":
    for row in run(DATA, *map(int, sys.argv[1:3])):
        print(f"{row['what']}  {row['seconds']:.1f} s  {row['note']}")
