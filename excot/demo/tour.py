"""The chain in one go, offline: databases of our own, the offline teacher, and pairs that ``load_dataset`` opens."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

from ..config import DemoConfig, GenerateConfig, PairsConfig, QuestionsConfig, SftConfig, VerifyConfig
from ..errors import ExcotError


def tour(config: DemoConfig) -> str:
    """Make data, run ``questions``, ``generate``, ``verify``, ``sft`` and ``pairs``. Returns the lines to show.

    Raises:
        ExcotError: the folder holds another run, whose answers may have cost money.
    """
    from ..builders.generations import generate
    from ..builders.pairs import make_pairs
    from ..builders.questions import make_questions
    from ..builders.sft import make_sft
    from ..builders.verified import verify
    from .data import make_data

    out, seed = config.out, config.seed
    folder = Path(out) / ".excot" / "demo"
    if (Path(out) / "loop.yaml").exists() or ((Path(out) / "manifest.json").exists() and not folder.is_dir()):
        raise ExcotError(f"{out} holds a run that is not the demo's", "give another --out")
    data = str(make_data(folder, seed))
    steps = (
        (make_questions, QuestionsConfig(benchmark="folder", data=data, out=out, overwrite=True)),
        (generate, GenerateConfig(backend="teacher", n=8, seed=seed, error_rate=0.4, out=out, overwrite=True)),
        (verify, VerifyConfig(out=out, overwrite=True)),
        (make_sft, SftConfig(out=out, overwrite=True)),
        (make_pairs, PairsConfig(out=out, overwrite=True)),
    )
    for function, options in steps:
        print(function(options).rpartition("\nnext: ")[0], flush=True)
    rows = _first_rows(out, ("questions", "generations", "verified", "sft", "pairs"))
    return f"\nOne row of each dataset, and of the later ones what is new in them:\n{rows}\n\nAll of it is in {out}."


def _first_rows(out: str, stages: tuple[str, ...]) -> str:
    """The first row of each dataset as ``load_dataset`` gives it, without what the one before showed."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    shown: dict[str, Any] = {}
    lines = []
    for stage in stages:
        ((split, rows),) = load_dataset(out, stage).items()
        lines.append(f'\nload_dataset("{out}", "{stage}", split="{split}")[0]')
        lines += [f"  {name}: {_short(value)}" for name, value in rows[0].items() if shown.get(name) != value]
        shown = rows[0]
    return "\n".join(lines)


def _short(value: Any, width: int = 90) -> str:
    if isinstance(value, list) and value:
        more = f" and {len(value) - 1} more" if len(value) > 1 else ""
        return f"[{_short(value[0], 60)}{more}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_short(inner, 60)}" for name, inner in value.items()) + "}"
    return textwrap.shorten(repr(value), width, placeholder=" ...'")
