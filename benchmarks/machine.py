"""The machine that figures come from, as far as it says what it is."""

from __future__ import annotations

import os
import platform
import sqlite3
from pathlib import Path
from typing import Any

from excot.execution import available_cores


def describe_machine() -> dict[str, Any]:
    """Versions, processor, the cores that may be used, memory in GB, platform."""
    return {
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "cpu": _processor(),
        "cores": available_cores(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "platform": platform.platform(),
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
