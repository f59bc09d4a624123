"""The metric as users of `evaluate` have it: loaded by its name, fed in every way, explained by its card."""

from __future__ import annotations

import configparser
import doctest
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from command import ROOT, done, excot, python
from hub import HubServer

from excot.demo.data import make_data
from excot.metrics import exec_acc as package
from excot.metrics.compute import compute

evaluate = pytest.importorskip("evaluate", reason="needs the extra metric")

FOLDER = ROOT / "excot" / "metrics" / "exec_acc"
CARD = (FOLDER / "README.md").read_text("utf-8")
NOWHERE = "http://127.0.0.1:9"  # nothing listens there; no test may ask the real Hub

GOLDS = [
    ("shop", "SELECT DISTINCT city FROM supplier", "simple"),
    ("shop", "SELECT name FROM supplier ORDER BY name", "moderate"),
    ("library", "SELECT COUNT(*) FROM author", None),
    ("league", "SELECT name, region FROM club", "simple"),
]
REFERENCES = [{"db_id": db_id, "gold_sql": sql, "difficulty": difficulty} for db_id, sql, difficulty in GOLDS]
ANSWERS = ["SELECT city FROM supplier", None, "Count them.\n```sql\nSELECT 7\n```", "SELECT region, name FROM club"]
SAMPLES = [[answer, "SELECT 1"] for answer in ANSWERS[:3]] + [[]]

IMPORT = "import sys; sys.modules['transformers'] = None; import evaluate; del sys.modules['transformers']"
"""As where transformers is not installed: imported for other things than metrics, it takes eight seconds."""

PROGRAM = f"""{IMPORT}
import json

name, databases, predictions, references = sys.argv[1], sys.argv[2], *map(json.loads, sys.argv[3:5])
exec_acc = evaluate.load(name, **json.loads(sys.argv[5]))
for prediction, reference in zip(predictions, references):
    exec_acc.add(prediction=prediction, reference=reference)
print(json.dumps(exec_acc.compute(databases=databases)))
"""


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("world"), seed=0) / "database"


@pytest.fixture(scope="module")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What `evaluate` keeps on the disk, for this process; it looks the places up once and for all."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("evaluate.config.HF_MODULES_CACHE", home / "modules")
        patch.setattr("evaluate.config.HF_METRICS_CACHE", home / "metrics")
        yield


@pytest.fixture
def exec_acc(caches: None) -> Any:
    return evaluate.load(str(FOLDER))


def offline(home: Path) -> dict[str, str]:
    """The environment of a process that has caches of its own and reaches nobody."""
    return {"HF_HOME": str(home), "HF_HUB_OFFLINE": "1", "HF_ENDPOINT": NOWHERE, "HF_UPDATE_DOWNLOAD_COUNTS": "0"}


def arguments(name: str, databases: Path, predictions: Any = ANSWERS, references: Any = REFERENCES) -> list[str]:
    return [name, str(databases), json.dumps(predictions), json.dumps(references), "{}"]


def result(process: subprocess.Popen[str]) -> Any:
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return json.loads(out.splitlines()[-1])


def without_times(found: dict[str, Any]) -> dict[str, Any]:
    """What two calls must agree on."""
    return json.loads(re.sub(r'"seconds": [0-9.e-]+', '"seconds": 0', json.dumps(found)))


# Loaded by its name


def test_it_is_loaded_in_the_root_of_a_checkout(databases, tmp_path):
    found = result(python(PROGRAM, *arguments("excot/exec_acc", databases), environment=offline(tmp_path), cwd=ROOT))
    assert found == compute(ANSWERS, REFERENCES, databases)


@pytest.mark.parametrize("setting", [{}, {"HF_EVALUATE_OFFLINE": "1"}])
def test_it_is_loaded_in_every_folder_once_installed(databases, tmp_path, setting):
    environment = {**os.environ, **offline(tmp_path / "home"), **setting}
    (tmp_path / "empty").mkdir()
    here = {"environment": environment, "cwd": tmp_path / "empty"}
    command = [sys.executable, "-m", "excot.cli", "metric", "install"]
    installed = subprocess.run(command, env=environment, cwd=tmp_path / "empty", capture_output=True, text=True)
    assert installed.returncode == 0, installed.stderr
    assert installed.stdout.startswith('evaluate.load("excot/exec_acc") works in every folder now')
    assert result(python(PROGRAM, *arguments("excot/exec_acc", databases), **here)) == compute(
        ANSWERS, REFERENCES, databases
    )


def test_the_version_installed_last_is_the_one_loaded(monkeypatch, tmp_path):
    """Whatever else the cache holds, and however new that is."""
    monkeypatch.setattr("evaluate.config.HF_MODULES_CACHE", tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    done("metric", "install")
    versions = tmp_path / "evaluate_modules" / "metrics" / "excot--exec_acc"
    (ours,) = (path.parent for path in versions.glob("*/exec_acc.py"))
    other = versions / ("0" * 64)
    other.mkdir()
    (other / "exec_acc.py").write_text("raise ImportError")
    os.utime(ours / "exec_acc.py", (1, 1))
    done("metric", "install")
    factory = evaluate.loading.CachedEvaluationModuleFactory("excot--exec_acc")
    assert factory.get_module().hash == ours.name
    assert (ours / "exec_acc.py").read_bytes() == (FOLDER / "exec_acc.py").read_bytes()
    assert {path.name for path in ours.iterdir()} == {"__init__.py", "exec_acc.py"}


def test_it_is_loaded_from_a_private_space(databases, tmp_path):
    with HubServer() as hub:
        environment = {**hub.environment(tmp_path), "HF_UPDATE_DOWNLOAD_COUNTS": "0"}
        push = [sys.executable, "-m", "excot.cli", "metric", "push", "team"]
        pushed = subprocess.run(push, env={**os.environ, **environment}, cwd=tmp_path, capture_output=True, text=True)
        assert pushed.stdout.splitlines()[1] == 'next: evaluate.load("team/exec_acc")', pushed.stderr
        here = {"environment": environment, "cwd": tmp_path}
        assert result(python(PROGRAM, *arguments("team/exec_acc", databases), **here)) == compute(
            ANSWERS, REFERENCES, databases
        )
        assert hub.seen("^GET /spaces/team/exec_acc/resolve/main/exec_acc.py$") and hub.unknown == []
    # The Hub is gone now; what was loaded once stays.
    assert result(python(PROGRAM, *arguments("team/exec_acc", databases), **here))["questions"] == 4


def test_without_excot_it_says_what_to_install(tmp_path):
    program = f"{IMPORT}; sys.modules['excot'] = None; evaluate.load({str(FOLDER)!r})"
    process = python(program, environment=offline(tmp_path), cwd=tmp_path)
    _, err = process.communicate(timeout=120)
    last = err.splitlines()[-1]
    assert last.startswith("ImportError: To be able to use exec_acc, you need to install") and "excot[metric]" in last


def test_without_evaluate_it_is_a_function(databases):
    program = (
        "import json, sys; sys.modules['evaluate'] = None\n"
        "from excot.metrics import exec_acc\n"
        "print(json.dumps(exec_acc.compute(*map(json.loads, sys.argv[2:]), sys.argv[1])))"
    )
    process = python(program, databases, json.dumps(ANSWERS), json.dumps(REFERENCES))
    assert result(process) == compute(ANSWERS, REFERENCES, databases)
    assert package.compute is compute
    with pytest.raises(AttributeError, match="'excot.metrics.exec_acc' has no attribute 'score'"):
        package.score  # noqa: B018


# Fed in every way


@pytest.mark.parametrize("predictions", [ANSWERS, SAMPLES, [*ANSWERS[:2], *SAMPLES[2:]]], ids=["one", "n", "both"])
def test_add_and_add_batch_and_compute_agree(exec_acc, databases, predictions):
    options = {"databases": databases, "rule": "test_suite", "return_details": True, "extras": ["soft_f1"]}
    expected = without_times(compute(predictions, REFERENCES, **options))
    assert without_times(exec_acc.compute(predictions=predictions, references=REFERENCES, **options)) == expected
    for prediction, reference in zip(predictions, REFERENCES, strict=True):
        exec_acc.add(prediction=prediction, reference=reference)
    assert without_times(exec_acc.compute(**options)) == expected
    exec_acc.add_batch(predictions=predictions[:1], references=REFERENCES[:1])
    exec_acc.add_batch(predictions=predictions[1:3], references=REFERENCES[1:3])
    last = {"predictions": predictions[3:], "references": REFERENCES[3:]}
    assert without_times(exec_acc.compute(**last, **options)) == expected


def test_every_text_arrives_as_it_is(exec_acc, databases):
    """Also one that is JSON, which the library's own feature for such values would read."""
    texts = ["42", "null", '"SELECT 1"', "[1]", "", " ", "SELECT 'ä\u2028\\n\"'", "SELECT '\ud800'", None]
    references = [{"db_id": "shop", "gold_sql": "SELECT 1", "id": place, "more": [{}]} for place in range(len(texts))]
    options = {"databases": databases, "return_details": True}
    found = exec_acc.compute(predictions=texts, references=references, **options)
    assert without_times(found) == without_times(compute(texts, references, **options))
    assert found["exec_acc"] == 0


def test_tables_and_arrays_are_taken_too(exec_acc, databases):
    import datasets
    import numpy as np
    import pandas as pd

    expected = compute(ANSWERS, REFERENCES, databases)
    rows = datasets.Dataset.from_list(REFERENCES)
    for predictions, references in [
        (np.array(ANSWERS, dtype=object), rows),
        (pd.Series(ANSWERS, dtype=object), REFERENCES),
        (tuple(ANSWERS), tuple(REFERENCES)),
    ]:
        assert exec_acc.compute(predictions=predictions, references=references, databases=str(databases)) == expected


def test_in_memory_it_is_the_same(caches, databases):
    exec_acc = evaluate.load(str(FOLDER), keep_in_memory=True)
    found = exec_acc.compute(predictions=SAMPLES, references=REFERENCES, databases=databases)
    assert found == compute(SAMPLES, REFERENCES, databases)


def test_what_is_wrong_is_said_in_one_line(exec_acc, databases):
    from excot import ExcotError

    pair = {"predictions": ["SELECT 1"], "references": [{"db_id": "shop", "gold_sql": "SELECT 1"}]}
    for options, words in [
        ({"databases": databases, "rule": "bird"}, "no rule 'bird'"),
        ({"databases": databases / "none"}, "no such databases folder"),
        ({"databases": databases, "references": [{"db_id": "none", "gold_sql": "SELECT 1"}]}, "no database 'none'"),
    ]:
        with pytest.raises(ExcotError, match=words):
            exec_acc.compute(**{**pair, **options})
    with pytest.raises(ValueError, match=r"Mismatch in the number of predictions \(1\) and references \(4\)"):
        exec_acc.compute(predictions=["SELECT 1"], references=REFERENCES, databases=databases)
    with pytest.raises(TypeError, match="databases"):
        exec_acc.compute(**pair)
    assert exec_acc.compute(**pair, databases=databases)["exec_acc"] == 1  # nothing of the failures is left


def test_of_several_processes_the_first_one_computes(databases, tmp_path):
    """Each has seen every other question; that one's predictions are samples and the other one's are not."""
    mixed = [sample if place % 2 else [sample] for place, sample in enumerate(ANSWERS)]
    processes = []
    for rank in range(2):
        setting = {"num_process": 2, "process_id": rank, "experiment_id": "two", "cache_dir": str(tmp_path / "shared")}
        words = arguments(str(FOLDER), databases, mixed[rank::2], REFERENCES[rank::2])
        environment = offline(tmp_path / f"home{rank}")
        processes.append(python(PROGRAM, *words[:4], json.dumps(setting), environment=environment))
    first, second = map(result, processes)
    assert second is None
    assert first == compute([*mixed[0::2], *mixed[1::2]], [*REFERENCES[0::2], *REFERENCES[1::2]], databases)


def test_results_can_be_saved(exec_acc, databases, tmp_path):
    options = {"databases": databases, "return_details": True, "extras": ["soft_f1", "ves"], "repetitions": 2}
    found = exec_acc.compute(predictions=SAMPLES, references=REFERENCES, **options)
    path = evaluate.save(tmp_path, **found)
    assert json.loads(Path(path).read_text())["exec_acc"] == found["exec_acc"]


# Explained


def test_the_examples_of_its_help_and_its_card_are_true(caches, monkeypatch):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"^```python\n(.*?)^```$", CARD, re.MULTILINE | re.DOTALL)
    exec_acc = evaluate.load("excot/exec_acc")
    assert exec_acc.inputs_description in exec_acc.compute.__doc__
    for name, text, least in [("help", exec_acc.inputs_description, 9), ("card", "\n".join(blocks), 18)]:
        examples = doctest.DocTestParser().get_doctest(text, {}, name, name, 0)
        outcome = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(examples)
        assert outcome.failed == 0 and outcome.attempted >= least, name


def test_it_introduces_itself(exec_acc):
    assert exec_acc.name == "exec_acc" and exec_acc.module_type == "metric"
    assert "Execution accuracy" in exec_acc.description and "2503.19988" in exec_acc.citation
    assert f"```bibtex{exec_acc.citation}```" in CARD


def test_the_front_matter_is_that_of_a_space():
    _, front, body = CARD.split("---\n", 2)
    about = yaml.safe_load(front)
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    assert about["sdk"] == "gradio" and about["sdk_version"] == pins["gradio"]
    assert (FOLDER / about["app_file"]).is_file() and about["title"] in body
    assert {"evaluate", "metric"} <= {*about["tags"]} and len(about["short_description"]) <= 60
    headings = re.findall(r"^## (.*)$", body, re.MULTILINE)
    expected = "Description, How to use, Inputs, Output values, The rules, Limitations, Citation"
    assert ", ".join(headings) == expected


def test_the_card_names_every_key_and_no_other(databases):
    options = {"extras": ["soft_f1", "ves", "r_ves"], "repetitions": 1, "return_details": True}
    found = compute(SAMPLES[:3], REFERENCES[:3], databases, **options)
    table = CARD.split("\n## Output values\n")[1].split("\n## ")[0]
    named = [
        name for cell in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall("`(.*?)`", cell)
    ]
    patterns = {name: re.compile(re.sub(r"<\w+>", "[^_]+", name)) for name in named}
    unnamed = {key for key in found if not any(pattern.fullmatch(key) for pattern in patterns.values())}
    unused = {name for name, pattern in patterns.items() if not any(map(pattern.fullmatch, found))}
    assert (unnamed, unused) == (set(), set()) and len(named) == len(patterns)


def test_the_card_names_every_argument():
    import inspect

    from excot.metrics.scoring import score

    known = {*inspect.signature(score).parameters, *inspect.signature(compute).parameters}
    section = CARD.split("\n## Inputs\n")[1].split("\n## ")[0]
    assert {*re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE)} == known - {"options", "on_progress"}


def test_it_is_shipped_once_and_whole():
    """``excot/exec_acc`` is a link for those who work in a checkout; a package must not hold the folder twice."""
    assert (ROOT / "excot" / "exec_acc").resolve() == FOLDER
    setuptools = pytest.importorskip("setuptools")
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    found = {name: re.split(r"[,\s]+", words) for name, words in setup["options.packages.find"].items()}
    packages = setuptools.find_packages(str(ROOT), **found)
    assert [name for name in packages if name.endswith("exec_acc")] == ["excot.metrics.exec_acc"]
    shipped = re.split(r"[,\s]+", setup["options.package_data"]["excot.metrics.exec_acc"])
    here = {path.name for path in FOLDER.iterdir() if path.is_file() and path.suffix != ".py"}
    assert {*shipped} == here


# On the Hub


def test_a_new_space_is_private_unless_told(hub):
    assert done("metric", "push", "team").startswith("excot 0.1.0 is in the private Space team/exec_acc\nnext: ")
    assert done("metric", "push", "tester", "--public").startswith(
        "excot 0.1.0 is in the public Space tester/exec_acc"
    )
    spaces = [hub.repos["space", f"{name}/exec_acc"] for name in ("team", "tester")]
    assert [(space.private, space.sdk) for space in spaces] == [(True, "gradio"), (False, "gradio")]
    names = ["README.md", "app.py", "exec_acc.py", "requirements.txt"]
    for space in spaces:
        files = space.files()
        assert files.pop(".gitattributes")
        assert files == {name: (FOLDER / name).read_bytes() for name in names}


def test_another_push_brings_it_up_to_date_and_leaves_its_visibility(hub):
    hub.put("space", "team/exec_acc", {"app.py": "old", "notes.md": "ours"})
    out = done("metric", "push", "team", "--package", "excot[app] @ git+https://example.org/excot")
    assert "is in the public Space" in out and "it was public before and stays so" in out
    files = hub.repos["space", "team/exec_acc"].files()
    assert files["app.py"] == (FOLDER / "app.py").read_bytes() and files["notes.md"] == b"ours"
    assert files["requirements.txt"] == b"excot[app] @ git+https://example.org/excot\n"


def test_a_push_that_fails_says_why_in_one_line(hub, monkeypatch, tmp_path):
    def error(*words: str) -> str:
        finished = excot("metric", "push", *words)
        assert finished.code == 1 and hub.token not in finished.err and hub.read_token not in finished.err
        return finished.error()

    assert error("stranger").startswith("you may not write to the space stranger/exec_acc (")
    assert error("no name!").startswith("'no name!/exec_acc' cannot be the name of a repository")
    hub.fail_next("/commit/", 500)
    assert error("team").startswith("the Hub fails (status 500")
    assert "team/exec_acc" in done("metric", "push", "team")
    hub.drop_after(0)
    assert error("team").startswith("the connection to the Hub failed (")
    hub.mend()
    hub.online(monkeypatch, tmp_path / "home", token="")
    assert error("team").startswith("the Hub does not know who you are")
    hub.online(monkeypatch, tmp_path / "home", token=hub.read_token)
    assert error("team").startswith("you may not write to the space team/exec_acc")


# The command


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ([], "excot metric: ACTION is missing"),
        (["fly"], "ACTION is 'fly': it takes install, push"),
        (["push"], "push does not know where to: such as: excot metric push my-org"),
        (["push", "team/other"], "ORG is 'team/other': give the name alone; the Space is team/exec_acc"),
        (["install", "team"], "ORG, --public and --package are for push"),
        (["install", "--public"], "ORG, --public and --package are for push"),
    ],
)
def test_wrong_usage_is_told_at_once(words, expected):
    finished = excot("metric", *words)
    assert finished.code == 2 and finished.error().startswith(expected)


def test_without_evaluate_nothing_can_be_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "evaluate.loading", None)
    finished = excot("metric", "install")
    assert (finished.code, finished.error()) == (1, "evaluate is not installed: pip install 'excot[metric]'")
