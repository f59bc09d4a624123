"""Execution accuracy of text-to-SQL, for `evaluate`: a shell around `excot.metrics.compute`."""

import json
from dataclasses import dataclass

import datasets
import evaluate

# One import a line: `evaluate` reads them off this text, and says what to install where one is missing.
from excot.metrics.compute import compute  # From: excot[metric]

_DESCRIPTION = """
Execution accuracy of text-to-SQL: the share of the predicted queries whose result on the database equals that of the
gold query. Four rules say what equal means, all of them from one execution: BIRD's official one (`set`), duplicates
counted (`multiset`), order where the gold asks for it (`ordered`), and Spider's official test suite (`test_suite`).
Databases are opened read-only, statements that are not queries are refused, and each has limits of time and memory.
"""

_CITATION = """
@article{zhai2025excot,
  title={{ExCoT}: Optimizing Reasoning for Text-to-{SQL} with Execution Feedback},
  author={Zhai, Bohan and Xu, Canwen and He, Yuxiong and Yao, Zhewei},
  journal={arXiv preprint arXiv:2503.19988},
  year={2025}
}
@inproceedings{li2023bird,
  title={Can {LLM} Already Serve as A Database Interface? A {BI}g Bench for Large-Scale Database Grounded
         Text-to-{SQL}s},
  author={Li, Jinyang and Hui, Binyuan and Qu, Ge and Yang, Jiaxi and Li, Binhua and Li, Bowen and Wang, Bailin and
          Qin, Bowen and Geng, Ruiying and Huo, Nan and Zhou, Xuanhe and Ma, Chenhao and Li, Guoliang and
          Chang, Kevin C. C. and Huang, Fei and Cheng, Reynold and Li, Yongbin},
  booktitle={Advances in Neural Information Processing Systems},
  year={2023}
}
@inproceedings{zhong2020semantic,
  title={Semantic Evaluation for Text-to-{SQL} with Distilled Test Suites},
  author={Zhong, Ruiqi and Yu, Tao and Klein, Dan},
  booktitle={Proceedings of the 2020 Conference on Empirical Methods in Natural Language Processing},
  year={2020}
}
"""

_KWARGS_DESCRIPTION = """
Args:
    predictions: for each question a text (SQL, or a model's whole answer, of which the last block marked sql counts),
        `None` where there is no answer, or a list of such samples.
    references: for each question a mapping with `gold_sql` and `db_id`, and optionally `id` and `difficulty`.
    databases: the folder that holds `<db_id>/<db_id>.sqlite`, such as Spider's `database`.
    rule: which rule `exec_acc` goes by: `set` (the default), `multiset`, `ordered` or `test_suite`.
    return_details: whether to add `details`, one row a question with what became of every sample.
    extras: a list of what else to measure: `soft_f1`, `ves`, `r_ves`.
    timeout: seconds that one statement may take; 30 by default.
    repetitions: how often `ves` and `r_ves` time each statement; 100 by default.
    processes: worker processes; one for each core by default.
    cache: whether outcomes are taken from earlier runs, and kept for later ones; yes by default.
Returns:
    A flat dictionary of numbers; its keys are explained in the metric card.
Examples:

    >>> import evaluate
    >>> from pathlib import Path
    >>> from tempfile import mkdtemp
    >>> from excot.demo.data import make_data
    >>> databases = make_data(Path(mkdtemp()), seed=0) / "database"  # three small ones: library, shop, league
    >>> references = [
    ...     {"db_id": "shop", "gold_sql": "SELECT COUNT(DISTINCT city) FROM supplier"},
    ...     {"db_id": "shop", "gold_sql": "SELECT city FROM supplier WHERE name IN ('Northwood', 'Casa Verde')"},
    ... ]
    >>> predictions = [
    ...     "SELECT COUNT(city) FROM supplier",
    ...     "SELECT city FROM supplier WHERE name = 'Casa Verde' OR name = 'Northwood'",
    ... ]
    >>> exec_acc = evaluate.load("excot/exec_acc")
    >>> results = exec_acc.compute(predictions=predictions, references=references, databases=databases)
    >>> results["exec_acc"]
    0.5
"""


@dataclass
class _AsItIs(datasets.Json):
    """What comes in goes out again: texts, `None`, lists and mappings, with other keys in every row.

    The library's own features cannot: text may not be `None`, all rows have the type and the keys of the first, and
    `Json` takes a text that happens to be JSON (a number, say) for what it would mean.
    """

    def encode_example(self, example_data):
        return json.dumps(example_data)

    def decode_example(self, example_data, token_per_repo_id=None):
        return json.loads(example_data)


@evaluate.utils.file_utils.add_start_docstrings(_DESCRIPTION, _KWARGS_DESCRIPTION)
class ExecAcc(evaluate.Metric):
    """Collects predictions and references, and hands all of them to `compute` on the main process."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": _AsItIs(), "references": _AsItIs()}),
            reference_urls=[
                "https://arxiv.org/abs/2503.19988",
                "https://bird-bench.github.io",
                "https://github.com/taoyds/test-suite-sql-eval",
            ],
        )

    def _compute(self, predictions, references, databases, rule="set", return_details=False, **options):
        return compute(predictions, references, databases, rule=rule, return_details=return_details, **options)
