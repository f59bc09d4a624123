"""Scores as the Hub's evaluation results: the ``model-index`` in the front matter of a model's card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
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

    index = [entry for row in rows for entry in _index(row["system"], _results(benchmark, split, row))]
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
    card = load_model_card(folder)
    data, name = card.data, card.data.model_name or folder.resolve().name
    data["model-index"] = _index(name, _merged(data.eval_results or [], _results(benchmark, split, row)))
    data.model_name = data.eval_results = None  # of which the class would make an index of its own
    replace_text(folder / "README.md", str(card))


def put_measured(front: dict[str, Any], name: str, measured: Mapping[str, Any], dataset: str) -> None:
    """Put what was measured while training into a card's front matter, beside the results that are there.

    Args:
        front: the front matter.
        name: the model's, where its results have none yet.
        measured: the ``exec_acc`` of its ``training.json``.
        dataset: what the held-out questions are called.
    """
    from huggingface_hub.repocard_data import model_index_to_eval_results

    index = front.get("model-index")
    known, old = model_index_to_eval_results(index) if index else (name, [])
    questions = {"dataset_type": dataset, "dataset_name": f"held-out questions of {dataset}"}
    bounds = (measured["low"], measured["high"])
    metric = f"execution accuracy ({measured['rule']})"
    new = _result(metric, measured["value"], bounds, dataset_args={"questions": measured["questions"]}, **questions)
    front["model-index"] = _index(known, _merged(old, [new]))


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
    """Execution accuracy by the rule that decides, then by the others."""
    rules = sorted(RULES, key=row["rule"].__ne__)
    names = {f"exec_acc_{rule}": f"execution accuracy ({rule})" for rule in rules}
    sampled = {key: words for key, words in _SAMPLED.items() if row.get(key) is not None}
    names |= {key: f"execution accuracy ({row['rule']}), {words}" for key, words in sampled.items()}
    # The rule that decides has its interval under the plain name.
    measures = {key: "exec_acc" if key == f"exec_acc_{row['rule']}" else key for key in names}
    return [
        _result(
            name,
            row[key],
            (row.get(f"{measures[key]}_low"), row.get(f"{measures[key]}_high")),
            dataset_type=_HUB_IDS.get((benchmark, split), benchmark),
            dataset_name=f"{_TITLES.get(benchmark, benchmark)} {split}",
            dataset_split=split,
            dataset_args={"questions": row["questions"]},
        )
        for key, name in names.items()
    ]


def _result(name: str, value: float, bounds: tuple[float | None, float | None], **questions: Any) -> EvalResult:
    """One result, in percent, with its interval where it has one."""
    from huggingface_hub import EvalResult

    interval = [round(100 * bound, 2) for bound in bounds if bound is not None]
    return EvalResult(
        task_type="text-generation",
        task_name="Text-to-SQL",
        metric_type="exec_acc",
        metric_name=name,
        metric_value=round(100 * value, 2),
        metric_args={"confidence_interval_95": interval} if interval else None,
        **questions,
    )


def _merged(old: list[EvalResult], new: list[EvalResult]) -> list[EvalResult]:
    """The old results and the new ones, which take the place of those of the same measure on the same questions."""
    return [*(result for result in old if not any(_is_same(result, other) for other in new)), *new]


def _is_same(old: EvalResult, new: EvalResult) -> bool:
    """The class's own comparison would see another measure where only the interval has changed."""
    return replace(old, metric_args=new.metric_args).is_equal_except_value(new)


def _index(name: str, results: Iterable[EvalResult]) -> list[dict[str, Any]]:
    """The results as the Hub has them, those on the same questions together.

    The Hub's own function puts all results on a split together, under the name and the number of questions of the
    first; a part of the questions would be taken for all of them.
    """
    from huggingface_hub.repocard_data import eval_results_to_model_index

    groups: dict[str, list[EvalResult]] = {}
    for result in results:
        questions = (result.unique_identifier, result.dataset_name, result.dataset_args, result.source_url)
        groups.setdefault(repr(questions), []).append(result)
    found = [eval_results_to_model_index(name, group)[0]["results"][0] for group in groups.values()]
    return [{"name": name, "results": found}]
