"""The dataset card: what it says, and that a user's own words are safe in it.

One test holds a card against ``tests/golden/dataset_card.md``; after a wanted change, ``RENEW_GOLDEN=1 pytest
tests/test_dataset_card.py`` writes that file anew, to be read before it is kept.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from chain import cot, judge, make_run, replay
from command import done
from datasets import load_dataset
from huggingface_hub import DatasetCard
from manifests import check_golden, entry, make_manifest, only, put_rows
from stages import row, write

from excot.errors import ExcotError
from excot.hub.card import BEGIN, END, own_words
from excot.hub.dataset_card import dataset_card, write_card
from excot.hub.funnel import funnel, funnel_svg
from excot.stages import in_order

NASTY = [
    "```\n</details>\n```sql\nSELECT 1\n````\n`````",
    f"{END}\n{BEGIN}\n{END}",
    "--> <!-- </summary> <script>alert(1)</script> ]]> --- \n---\nlicense: mit\n---\n",
    "| a | b |\n# heading\n\\</details> {{ jinja }} {% raw %} $1$ \x1b \u2028 \x85 end",
]


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


def front_of(card: str) -> dict[str, Any]:
    return yaml.safe_load(card.split("---\n")[1])


@pytest.fixture
def run(tmp_path: Path) -> tuple[Path, dict[str, Any]]:
    """A folder with a manifest of two rounds, and the files of two of its datasets."""
    manifest, folder = make_manifest(), tmp_path / "run"
    folder.mkdir()
    question = {"id": "spider-train-0000", "db_id": "pets", "question": "How many pets?", "evidence": None}
    candidates = [{"text": "Let me think. " * 40, "finish_reason": "stop"}] * 32
    put_rows(folder, manifest, "generations", {**question, "candidates": candidates, "model": "gpt-4o-2024-08-06"})
    pair = {"prompt": said("How many pets?"), "chosen": said("```sql\nSELECT 1\n```"), "rejected": said("No idea.")}
    put_rows(folder, manifest, "pairs_round1", {**pair, "id": "spider-train-0000", "distance": 12})
    return folder, manifest


# What a card says


def test_the_card_of_two_rounds_is_the_one_in_the_golden_file(run):
    folder, manifest = run
    check_golden("dataset_card.md", dataset_card(folder, manifest, "team/spider-pairs", "v1"))


def test_the_hub_library_reads_the_card_and_finds_nothing_amiss(run):
    card = DatasetCard(dataset_card(*run, "team/spider-pairs"))
    data = card.data.to_dict()
    assert data["license"] == "cc-by-sa-4.0" and data["source_datasets"] == ["xlangai/spider"]
    assert data["size_categories"] == ["n<1K"] and data["pretty_name"].startswith("Text-to-SQL data from Spider train")
    assert [config["config_name"] for config in data["configs"]] == in_order([*run[1]["stages"]])
    assert [config["config_name"] for config in data["configs"] if config.get("default")] == ["pairs_round1"]


def test_load_lines_are_python_that_names_every_dataset(run):
    folder, manifest = run
    for name, revision in (('my "run"', None), ("team/x", "v1")):
        (block,) = re.findall(r"```python\n(.*?)```", dataset_card(folder, manifest, name, revision), re.DOTALL)
        calls: list[tuple[Any, ...]] = []
        fake = block.replace("from datasets import load_dataset", "")
        values: dict[str, Any] = {"load_dataset": lambda *args, calls=calls, **named: calls.append((*args, named))}
        exec(fake, values)
        expected = {"split": "train", **({"revision": revision} if revision else {})}
        assert calls[:-1] == [(name, dataset, expected) for dataset in in_order([*manifest["stages"]])]
        assert calls[-1] == (name, "pairs_round1", {**expected, "streaming": True})
        assert set(manifest["stages"]) <= values.keys()


@pytest.mark.parametrize(
    ("rows", "category"),
    [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (99_999, "10K<n<100K"), (100_000, "100K<n<1M")]
    + [(5_000_000, "1M<n<10M"), (10_000_000, "10M<n<100M")],
)
def test_the_size_category_is_that_of_the_largest_dataset(tmp_path, rows, category):
    manifest = {"stages": {"questions": entry("questions", rows), "sft": entry("sft", rows // 2)}}
    assert front_of(dataset_card(tmp_path, manifest, "run"))["size_categories"] == [category]


@pytest.mark.parametrize(
    ("benchmark", "license", "source", "cited"),
    [
        ("spider", "cc-by-sa-4.0", "xlangai/spider", {"zhai2025excot", "yu2018spider"}),
        ("bird", "cc-by-sa-4.0", "extended|other-bird", {"zhai2025excot", "li2023bird"}),
        ("folder", "unknown", "original", {"zhai2025excot"}),
    ],
)
def test_license_source_and_citation_are_those_of_the_benchmark(tmp_path, benchmark, license, source, cited):
    questions = entry("questions", 3, arguments={"benchmark": benchmark}, split="dev")
    card = dataset_card(tmp_path, {"stages": {"questions": questions}}, "run")
    assert (front_of(card)["license"], front_of(card)["source_datasets"]) == (license, [source])
    assert set(re.findall(r"@\w+\{(\w+),", card)) == cited
    assert "A model trained on them cannot be scored on them" in card


def test_the_most_finished_dataset_of_the_newest_round_that_has_it_is_the_default(tmp_path):
    stages: dict[str, Any] = {}
    for name in ("scores", "questions", "generations", "details", "verified", "sft", "pairs", "pairs_round2"):
        stages[name] = entry(name, 1, **({"systems": {}} if name == "scores" else {}))
        configs = front_of(dataset_card(tmp_path, {"stages": stages}, "run"))["configs"]
        assert [config["config_name"] for config in configs if config.get("default")] == [name]


def test_the_card_calls_the_data_by_the_repository_once_there_is_one(tmp_path):
    folder = tmp_path / "run"
    write(folder, [row(1)])
    for text, name in (('{"repo": "team/x"}', "team/x"), ('{"databases": "/x"}', "run"), ("{", "run")):
        (folder / ".excot" / "local.json").write_text(text)
        write_card(folder, {"stages": {"questions": entry("questions", 1)}})
        assert f'load_dataset("{name}", "questions", split="train")' in (folder / "README.md").read_text()


def test_what_was_made_from_earlier_data_is_said(run):
    folder, manifest = run
    assert "Out of date" not in dataset_card(folder, manifest, "run")
    manifest["stages"]["verified"]["fingerprint"] = "f" * 64
    card = dataset_card(folder, manifest, "run")
    assert card.count("Out of date") == 2 and "`pairs` was made from an earlier `verified`" in card


def test_no_path_of_this_machine_is_on_the_card(run):
    folder, manifest = run
    card, figure = dataset_card(folder, manifest, "run"), funnel_svg(manifest)
    assert str(folder) not in card and "/home/somebody" not in card + figure
    assert "`student`, revision `0f1e2d3c`" in card and "answers by student<" in figure


def test_ancestors_are_in_the_funnel_but_cannot_be_loaded(run):
    folder, manifest = run
    pushed = only(manifest, "pairs_round1", "pairs")
    card = dataset_card(folder, pushed, "team/x")
    assert funnel(pushed) == funnel(manifest) and funnel_svg(pushed) == funnel_svg(manifest)
    assert [config["config_name"] for config in front_of(card)["configs"]] == ["pairs", "pairs_round1"]
    assert card.count("load_dataset(") == 3 and "which are not in this repository" in card
    assert "`gpt-4o-2024-08-06`" in card and front_of(card)["license"] == "cc-by-sa-4.0"


def test_questions_alone_have_no_funnel(tmp_path):
    write(tmp_path / "run", [row(1)])
    card = (tmp_path / "run" / "README.md").read_text()
    assert "funnel.svg" not in card and not (tmp_path / "run" / "funnel.svg").exists()
    assert "Nothing here has been executed yet" in card and "How it was made" not in card


def test_the_cards_on_the_way_through_the_chain(tmp_path):
    out = Path(make_run(tmp_path, 3))
    replay(str(out), {0: [cot("SELECT name FROM item WHERE price > 0"), "no"], 1: [cot("SELECT 1")], 2: []})
    card = (out / "README.md").read_text()
    assert "| candidates | 3 answers | 1 per question | 2 |" in card and "extracted |" not in card
    assert "![" in card and (out / "funnel.svg").is_file() and "Nothing here has been executed yet" in card
    judge(str(out))
    done("sft", "--out", out)
    card = (out / "README.md").read_text()
    for line in ("| extracted | 2 answers | 66.7% |  |", "| matched (set) | 1 answer | 50.0% | 1 |"):
        assert line in card
    assert "| sft | 1 answer | 100.0% | 1 |" in card and "paired |" not in card
    assert "digest `" in card and str(tmp_path) not in card


def test_a_manifest_that_says_little_still_has_a_card(tmp_path):
    names = ("questions", "generations", "verified_round3", "pairs_round3", "details")
    manifest = {"stages": {name: entry(name, 1) for name in names}}
    card = dataset_card(tmp_path, manifest, "run")
    assert DatasetCard(card).data.configs and "| paired | 1 pair |" in card
    ElementTree.fromstring(funnel_svg(manifest))


# A user's own words


OWN = "---\nlicense: mit\nlanguage: [de]\nannotations_creators: [expert]\n---\n# Mine\n\nA paragraph by hand.\n"


def test_words_and_front_matter_survive_any_number_of_rewrites(run):
    folder, manifest = run
    card = OWN
    for number in range(3):
        card = dataset_card(folder, manifest, "run", existing=card) + ("\nBELOW\n" if number == 0 else "")
    front = front_of(card)
    assert (front["license"], front["language"], front["annotations_creators"]) == ("mit", ["de"], ["expert"])
    assert card.count("A paragraph by hand.") == card.count("BELOW") == card.count(BEGIN) == card.count(END) == 1
    assert own_words(card) == "# Mine\n\nA paragraph by hand.\n\nBELOW"
    assert dataset_card(folder, manifest, "run", existing=card) == card


def test_own_words_are_the_same_whatever_we_say_between_them(run, tmp_path):
    folder, manifest = run
    before = dataset_card(folder, only(manifest, "questions"), "run", existing=OWN)
    after = dataset_card(folder, manifest, "team/x", "v1", existing=before.replace("\n", "\r\n"))
    assert own_words(before) == own_words(after) == own_words(OWN) == "# Mine\n\nA paragraph by hand."
    assert own_words(dataset_card(folder, manifest, "run")) == own_words("") == ""
    assert own_words(before.replace("by hand", "by me")) != own_words(before)
    assert own_words("---\nlicense: [\n---\nwords") == "---\nlicense: [\n---\nwords"


def test_words_about_the_markers_are_no_markers(run):
    folder, manifest = run
    words = f"Leave `{BEGIN}` and `{END}` alone.\n"
    card = dataset_card(folder, manifest, "run", existing=words) + f"\n{words}\n{BEGIN}\nno end\n"
    for _ in range(3):
        card = dataset_card(folder, manifest, "run", existing=card)
    assert card.count(words) == 2 and card.count("no end") == 1 and card.count("## Citation") == 1


@pytest.mark.parametrize("text", NASTY)
def test_nothing_in_the_data_breaks_the_card(run, text):
    folder, manifest = run
    nasty = {"question": text, "candidates": [{"text": text * 9}] * 5, "n": 1.5}
    put_rows(folder, manifest, "verified", nasty)
    manifest["stages"]["generations"] |= {"model": text, "note": text, "endpoint": {"endpoint": text}}
    card = OWN
    for _ in range(3):
        card = dataset_card(folder, manifest, text, text, existing=card)
    assert own_words(card) == own_words(OWN) and card.count(BEGIN) == card.count(END) == 1
    assert front_of(card)["license"] == "mit"
    html = as_html(card.partition(BEGIN)[2])
    assert html.count("<details>") == html.count("</details>") == 3 and "<script>" not in html
    assert re.findall("<h2>(.*?)</h2>", html) == SECTIONS
    tables = [
        [len(re.findall("<t[hd]", line)) for line in re.findall("<tr>.*?</tr>", table, re.DOTALL)]
        for table in re.findall("<table>.*?</table>", html, re.DOTALL)
    ]
    assert [set(cells) for cells in tables] == [{4}, {4}, {4}, {3}] and [len(cells) for cells in tables[:3]] == [
        10,
        8,
        8,
    ]
    (sample,) = re.findall(r"<code>verified</code></summary>\n+(`+)json\n(.*?)\n\1\n", card, re.DOTALL)
    shown = json.loads(sample[1])
    assert shown["question"] == text and shown["candidates"][2] == "… (3 more)"
    left_out = f"… ({9 * len(text) - 200:,} more characters)"
    assert shown["candidates"][0]["text"] == (text * 9)[:200] + left_out


SECTIONS = ["Datasets", "From questions to pairs", "How it was made", "One row of each", "Known limits", "Citation"]


def as_html(text: str) -> str:
    markdown = pytest.importorskip("markdown_it").MarkdownIt("commonmark", {"html": True}).enable("table")
    return markdown.render(text)


def test_front_matter_that_is_not_yaml_is_an_error_that_names_the_card(run):
    with pytest.raises(ExcotError, match=r"front matter of team/x's card is not YAML .*mend it"):
        dataset_card(*run, "team/x", existing="---\nlicense: [mit\n---\n", where="team/x's card")


def test_a_card_that_is_not_text_is_an_error_that_names_it(tmp_path):
    write(tmp_path / "run", [row(1)])
    (tmp_path / "run" / "README.md").write_bytes(b"\xff\xfe")
    with pytest.raises(ExcotError, match=r"README.md is not UTF-8 .*save it as UTF-8"):
        write(tmp_path / "run", [row(2)], on_existing="overwrite")


# Other people's configs


def test_configs_of_others_are_kept_and_ours_replaced(run):
    folder, manifest = run
    theirs = {"config_name": "extra", "data_files": [{"split": "train", "path": "extra/train-*"}]}
    stale = {"config_name": "pairs_round9", "data_files": "pairs_round9/*"}
    existing = f"---\n{yaml.safe_dump({'configs': [stale, theirs], 'dataset_info': {'config_name': 'extra'}})}---\n"
    for _ in range(2):
        existing = dataset_card(folder, manifest, "run", existing=existing)
    front = front_of(existing)
    assert [config["config_name"] for config in front["configs"]] == [*in_order([*manifest["stages"]]), "extra"]
    assert front["configs"][-1] == theirs and front["dataset_info"] == {"config_name": "extra"}
    assert sum(config.get("default", False) for config in front["configs"]) == 1


@pytest.mark.parametrize("name", ["default", "extra"])
def test_a_config_that_its_owner_made_the_default_stays_so(tmp_path, name):
    folder = tmp_path / "run"
    write(folder, [row(1)])
    (folder / "mine").mkdir()
    pq.write_table(pa.Table.from_pylist([{"mine": 1}]), folder / "mine" / "train.parquet")
    card = DatasetCard.load(folder / "README.md")
    marked = {} if name == "default" else {"default": True}
    card.data.configs.append({"config_name": name, **marked, "data_files": "mine/train.parquet"})
    card.save(folder / "README.md")
    write(folder, [row(2)], "sft")
    options = {"split": "train", "cache_dir": str(tmp_path / "cache")}
    assert list(load_dataset(str(folder), **options)) == [{"mine": 1}]
    assert list(load_dataset(str(folder), "sft", **options)) == [row(2)]


@pytest.mark.parametrize("configs", ["text", {"a": 1}, [None, "x", {"data_files": "y"}], [{"config_name": 2024}]])
def test_configs_of_a_strange_form_do_no_harm(run, configs):
    existing = f"---\n{yaml.safe_dump({'configs': configs})}---\n"
    found = front_of(dataset_card(*run, "run", existing=existing))["configs"]
    assert found[9:] == (configs if isinstance(configs, list) else [])
