"""What tokens cost: a table in YAML, which the user can replace."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ExcotError

_FORM = "write `NAME: {prompt: USD, completion: USD, batch: SHARE}` a line, in USD per million tokens"
_BOUNDARIES = "-:@"  # after a model's name: a dated version, a tag, a revision


@dataclass(frozen=True)
class Price:
    """What a model's tokens cost.

    Attributes:
        name: the model's, or the beginning of it.
        prompt, completion: USD per million tokens.
        batch: the share of it that is paid through the batch API.
    """

    name: str
    prompt: float
    completion: float
    batch: float = 1.0

    def cost(self, prompt_tokens: int, completion_tokens: int, batch: bool = False) -> float:
        """What so many tokens cost, in USD."""
        full = (prompt_tokens * self.prompt + completion_tokens * self.completion) / 1_000_000
        return full * self.batch if batch else full


def price_of(model: str, path: str | None = None) -> Price | None:
    """The price of a model; ``None`` where the table does not name it.

    Args:
        model: the model's name, as the endpoint knows it.
        path: a table in place of the built-in one.

    Raises:
        ExcotError: the table cannot be read, or is none.
    """
    table = _read(Path(path) if path else Path(__file__).with_name("prices.yaml"))
    fitting = [name for name in table if model == name or (model.startswith(name) and model[len(name)] in _BOUNDARIES)]
    return table[max(fitting, key=len)] if fitting else None


def money(amount: float) -> str:
    """An amount of USD to show; cents matter little once there are dollars."""
    return f"${amount:,.2f}" if amount >= 1 or amount == 0 else f"${amount:.4f}"


def _read(path: Path) -> dict[str, Price]:
    import yaml

    try:
        table = yaml.safe_load(path.read_text("utf-8"))
    except OSError as error:
        raise ExcotError(f"cannot read {path} ({error.strerror})", "check the path given to --prices") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ExcotError(f"{path} is not YAML ({error})", "mend the file") from None
    if not isinstance(table, dict):
        raise ExcotError(f"{path} holds no prices", _FORM)
    return {str(name): _price(path, str(name), entry) for name, entry in table.items()}


def _price(path: Path, name: str, entry: Any) -> Price:
    if not isinstance(entry, dict) or not {"prompt", "completion"} <= set(entry) <= {"prompt", "completion", "batch"}:
        raise ExcotError(f"{path}: the price of {name} is {entry!r}", _FORM)
    for key, value in entry.items():
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ExcotError(f"{path}: {key} of {name} is {value!r}", "it takes a number, at least 0")
    return Price(name, **entry)
