"""Scores as the Hub's evaluation results: the ``model-index`` in the front matter of a model's card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..atomic import replace_text
from ..errors import ExcotError
from ..execution import RULES

if TYPE_CHECKING:
    from huggingface_hub import EvalResult, ModelCard

_HUB_IDS = {("spider", "train"): "xlangai/spider", ("spider", "dev"): "xlangai/spider"}
_HUB_IDS |= {("bird", "mini_dev"): "birdsql/bird_mini_dev"}
_TITLES = {"spider": "Spider", "bird": "BIRD"}
_SAMPLED = {"exec_acc_vote": "majority vote", "best_of_n": "best of n"}


def write_model_index(path: Path, benchmark: str, split: str, rows: Iterable[Mapping[str, Any]]) -> None:
    """Write the results of several systems, each under its name, to copy from into a card.

    Args:
        path: the YAML file.
        benchmark: whose questions they answered: ``spider``, ``bird``, or the name of one's own.
        split: which of its questions.
        rows: each system's row of the dataset ``scores``.
    """
    import yaml
    from huggingface_hub.repocard_data import eval_results_to_model_index

    index = [
        entry for row in rows for entry in eval_results_to_model_index(row["system"], _results(benchmark, split, row))
    ]
    replace_text(path, yaml.safe_dump({"model-index": index}, sort_keys=False, allow_unicode=True))


def write_into_card(folder: Path, benchmark: str, split: str, row: Mapping[str, Any]) -> None:
    """Write a system's results into the front matter of a model's README.md; all else in it stays as it is.

    Results of the same measure on the same questions are replaced, others kept.

    Args:
        folder: the model's folder.
        benchmark: whose questions it answered.
        split: which of its questions.
        row: the system's row of the dataset ``scores``.

    Raises:
        ExcotError: there is no such folder, or the front matter cannot be read.
    """
    card, new = load_model_card(folder), _results(benchmark, split, row)
    old = [result for result in card.data.eval_results or [] if not any(map(result.is_equal_except_value, new))]
    card.data.eval_results = [*old, *new]
    card.data.model_name = card.data.model_name or folder.resolve().name
    replace_text(folder / "README.md", str(card))


def load_model_card(folder: Path) -> ModelCard:
    """A model's README.md, or a new one.

    Raises:
        ExcotError: there is no such folder, or the front matter cannot be read.
    """
    import yaml
    from huggingface_hub import ModelCard
    from huggingface_hub.repocard import REGEX_YAML_BLOCK

    if not folder.is_dir():
        raise ExcotError(f"no such model folder: {folder}", "give the model's folder to --model-card")
    path = folder / "README.md"
    try:
        # Read as bytes: its line ends shall stay what they are.
        text = path.read_bytes().decode("utf-8-sig") if path.is_file() else f"# {folder.resolve().name}\n"
        if not REGEX_YAML_BLOCK.search(text):  # of which the class would complain on stderr
            text = "---\n{}\n---\n" + text.removeprefix("---\n---\n")
        return ModelCard(text)
    except (ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        raise ExcotError(f"the front matter of {path} cannot be read ({error})", "mend it") from None


def _results(benchmark: str, split: str, row: Mapping[str, Any]) -> list[EvalResult]:
    """Execution accuracy by the rule that decides, then by the others, in percent."""
    from huggingface_hub import EvalResult

    rules = sorted(RULES, key=row["rule"].__ne__)
    names = {f"exec_acc_{rule}": f"execution accuracy ({rule})" for rule in rules}
    sampled = {key: words for key, words in _SAMPLED.items() if row.get(key) is not None}
    names |= {key: f"execution accuracy ({row['rule']}), {words}" for key, words in sampled.items()}
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Text-to-SQL",
            dataset_type=_HUB_IDS.get((benchmark, split), benchmark),
            dataset_name=f"{_TITLES.get(benchmark, benchmark)} {split}",
            dataset_split=split,
            dataset_args={"questions": row["questions"]},
            metric_type="exec_acc",
            metric_name=name,
            metric_value=round(100 * row[key], 2),
        )
        for key, name in names.items()
    ]
