"""The tests' Hub: which cards it takes."""

from __future__ import annotations

import json
from base64 import b64encode
from typing import Any

import hub_cards
import pytest
import yaml
from committed import BIRDS, KINDS, QUIET, add, added, commit, commit_lines, refused
from huggingface_hub import DatasetCard, ModelCard, metadata_update
from huggingface_hub.errors import BadRequestError

pytestmark = QUIET


def test_the_head_of_a_card_must_be_a_mapping(hub, api):
    for wrong in ("---\n- a list\n---\n", "---\nlicense: [mit\n---\n"):
        with pytest.raises(ValueError, match="Invalid metadata in README.md"):
            commit(api, add("README.md", wrong))
    assert hub.seen("/commit/") == [] and len(hub.seen("validate-yaml")) == 2
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        commit(api, add("README.md", "# No metadata"))
    metadata_update(BIRDS, {"license": "mit", "configs": []}, repo_type="dataset")
    assert DatasetCard.load(BIRDS).data.license == "mit"
    assert api.dataset_info(BIRDS).card_data.license == "mit"
    with refused(BadRequestError):  # past the client's own check
        content = b64encode(b"---\n- a list\n---\n").decode()
        commit_lines(hub, {"key": "file", "value": {"path": "README.md", "content": content, "encoding": "base64"}})


def card(metadata: dict[str, Any]) -> str:
    return f"---\n{yaml.safe_dump(metadata)}---\n# Birds\n"


RESULT = {
    "task": {"type": "text-generation"},
    "dataset": {"type": "team/birds", "name": "Birds", "config": "all", "split": "test"},
    "metrics": [{"type": "exec_acc", "value": 61.5, "name": "Execution accuracy"}],
}
GOOD = {
    "license": "cc-by-sa-4.0",
    "language": ["en", "deu", "code"],
    "tags": ["sql", "text-to-sql"],
    "datasets": ["team/birds", "squad"],
    "base_model": "some-org/Model_2.5-7B",
    "model-index": [{"name": "birds", "results": [RESULT]}],
    "configs": [
        {"config_name": "questions", "data_files": [{"split": "train", "path": "questions/train-*"}], "default": True},
        {"config_name": "pairs", "data_files": "pairs/*.parquet"},
        {"config_name": "more", "data_dir": "more"},
    ],
    "task_categories": ["table-question-answering"],
    "size_categories": "1K<n<10K",
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_good_card_is_taken(kind):
    assert hub_cards.check(card(GOOD), kind) == ([], [])
    assert hub_cards.check(card(dict.fromkeys(GOOD)), kind) == ([], [])  # a name without a value says nothing


@pytest.mark.parametrize(
    ("metadata", "errors"),
    [
        ({"license": "MIT License"}, ['"license" must be one of [']),
        ({"license": ["mit", "my-own"]}, ['"license[1]" must be one of [']),
        ({"language": "English"}, ['"language" with value "English" is not valid']),
        ({"language": ["en", "zh-CN", False]}, ['"language[1]" with value "zh-CN"', '"language[2]" must be a string']),
        ({"tags": "sql"}, ['"tags" must be an array']),
        ({"tags": ["sql", 7]}, ['"tags[1]" must be a string']),
        ({"datasets": ["/home/me/run"]}, ['"datasets[0]" with value "/home/me/run" is not valid']),
        ({"datasets": ["a/b/c", "two words"]}, ['"datasets[0]" with value "a/b/c"', '"datasets[1]" with value']),
        ({"base_model": "./model"}, ['"base_model" with value "./model" is not valid. Use a model id']),
        ({"base_model": ["a--b", "x/.y", "n" * 97]}, ['"base_model[0]"', '"base_model[1]"', '"base_model[2]"']),
        ({"model-index": {"name": "x"}}, ['"model-index" must be an array']),
        ({"model-index": [{}]}, ['"model-index[0].name" is required', '"model-index[0].results" is required']),
        ({"model-index": ["x"]}, ['"model-index[0]" must be an object']),
        (
            {"model-index": [{"name": "x", "results": [{**RESULT, "dataset": {"name": "Birds", "config": 1}}]}]},
            [
                '"model-index[0].results[0].dataset.type" is required',
                '"model-index[0].results[0].dataset.config" must be a string',
            ],
        ),
        (
            {"model-index": [{"name": "x", "results": [{**RESULT, "metrics": [{"type": "ex"}]}, {"task": 1}]}]},
            [
                '"model-index[0].results[0].metrics[0].value" is required',
                '"model-index[0].results[1].task" must be an object',
                '"model-index[0].results[1].dataset" is required',
                '"model-index[0].results[1].metrics" is required',
            ],
        ),
        ({"configs": {"config_name": "a"}}, ['"configs" must be an array']),
        ({"configs": [{"data_files": "x"}]}, ['"configs[0].config_name" is required']),
        ({"configs": [{"config_name": "a"}]}, ['"configs[0].data_files" is required']),
        ({"configs": [{"config_name": "a", "data_files": [{"split": "train"}]}]}, ['"configs[0].data_files" must be']),
        (
            {"configs": [{"config_name": "a", "data_files": "x", "default": True}] * 2},
            ['"configs" contains a duplicate config_name', '"configs" has more than one default'],
        ),
    ],
)
def test_a_wrong_card_is_told_all_that_is_wrong(metadata, errors):
    found, warnings = hub_cards.check(card({**GOOD, **metadata}), "model")
    assert warnings == [] and len(found) == len(errors)
    assert all(text.startswith(start) for text, start in zip(found, errors, strict=True)), found


def test_a_space_has_rules_of_its_own():
    look = {"sdk": "gradio", "colorFrom": "blue", "short_description": "x" * 60}
    assert hub_cards.check(card(look), "space") == ([], [])
    wrong = card({"sdk": "django", "colorFrom": "mauve", "short_description": "x" * 61})
    assert [error.split()[0] for error in hub_cards.check(wrong, "space")[0]] == [
        '"sdk"',
        '"colorFrom"',
        '"short_description"',
    ]
    assert hub_cards.check(wrong, "model") == ([], [])


def test_of_a_dataset_unknown_tasks_and_sizes_are_only_warned_of(hub, api):
    odd = card({"task_categories": ["text2sql"], "size_categories": ["n<2K"]})
    with pytest.warns(UserWarning, match=r'(?s)"task_categories\[0\]" must be.*"size_categories\[0\]" must be'):
        commit(api, add("README.md", odd))
    assert added(hub) == {"README.md": odd.encode()}


def test_the_clients_hear_of_a_wrong_card_before_and_at_the_commit(hub, api):
    wrong = card({"license": "none", "base_model": "/home/me/データ"})
    with pytest.raises(ValueError, match=r'(?s)Invalid metadata in README.md.*- "license" must.*- "base_model" with'):
        commit(api, add("README.md", wrong))
    with pytest.raises(ValueError, match='"license.*must be one of'):
        ModelCard(wrong).validate(repo_type="model")
    with pytest.raises(ValueError, match='"license.*must be one of'):
        DatasetCard(wrong).push_to_hub(BIRDS)
    assert hub.seen("/commit/") == []
    file = {"path": "README.md", "content": b64encode(wrong.encode()).decode(), "encoding": "base64"}
    with pytest.raises(BadRequestError, match='"license" must be one of'):  # past the client's own check
        commit_lines(hub, {"key": "file", "value": file})
    assert added(hub) == {}


def test_a_wrong_card_that_lies_there_already_hinders_no_commit(hub, api):
    hub.put("dataset", BIRDS, {"README.md": card({"license": "none"})})
    commit(api, add("a.txt", "1"))
    assert json.dumps(sorted(added(hub))) == '["README.md", "a.txt"]'
