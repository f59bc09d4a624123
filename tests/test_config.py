"""The options: one name, one default and one check for flags, YAML files and the library."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest
from command import excot
from hypothesis import assume, given
from hypothesis import strategies as st

from excot.cli import VERBS
from excot.config import (
    DoctorConfig,
    GenerateConfig,
    PairsConfig,
    QuestionsConfig,
    SftConfig,
    VerifyConfig,
)
from excot.errors import ExcotError
from excot.options import flag, from_dict, public_name, read_yaml

OPTIONS = [(verb, f) for verb in VERBS for f in fields(VERBS[verb].options)]


def yaml_file(folder: Path, text: str) -> str:
    path = folder / "options.yaml"
    path.write_text(text, "utf-8")
    return str(path)


# Where options come from


def test_options_come_from_yaml_and_flags_win(tmp_path):
    config = yaml_file(
        tmp_path, f"out: {tmp_path}/no-run\nn: 4\ntemperature: 1\ntop-p: 0.5\nfrom: x.jsonl\nbackend: replay\n"
    )
    options = from_dict(GenerateConfig, read_yaml(config), config)
    assert (options.n, options.temperature, options.top_p) == (4, 1.0, 0.5)
    assert (options.replay_from, options.seed, type(options.temperature)) == ("x.jsonl", 0, float)

    def run_of(*flags: str) -> str:
        return excot("generate", "--config", config, *flags).error()

    assert f"{tmp_path}/no-run has no questions yet" in run_of()
    assert f"{tmp_path}/other has no questions yet" in run_of("--out", f"{tmp_path}/other")


def test_the_positional_option_may_stand_in_the_yaml_file(tmp_path):
    config = yaml_file(tmp_path, f"benchmark: folder\ndata: {tmp_path}/none\nout: {tmp_path}/run\n")
    assert "no such data folder" in excot("questions", "--config", config).error()
    wins = excot("questions", "nonsense", "--config", config)
    assert (wins.code, wins.error()) == (2, "BENCHMARK is 'nonsense': it takes spider, bird, folder")


def test_dashes_and_underscores_are_the_same_in_yaml(tmp_path):
    for name in ("max-per-question", "max_per_question"):
        assert read_yaml(yaml_file(tmp_path, f"{name}: 3")) == {"max_per_question": 3}


@pytest.mark.parametrize(("verb", "f"), OPTIONS, ids=[f"{verb}-{f.name}" for verb, f in OPTIONS])
def test_every_option_has_a_flag_with_an_explanation_and_its_default(verb, f, monkeypatch):
    monkeypatch.setenv("COLUMNS", "300")
    help_text = excot(verb, "--help").out
    shown = rf"({{|{f.name.upper()}\b)" if f.metadata["positional"] else re.escape(flag(public_name(f)))
    assert re.search(rf"^ +{shown}", help_text, re.MULTILINE)
    assert len(f.metadata["help"]) > 10 and f.metadata["help"] in help_text
    if isinstance(f.default, (str, int, float)) and f.default is not False:
        assert f"(default: {f.default})" in help_text


def test_only_what_changes_the_output_is_an_argument_of_the_stage():
    arguments = VerifyConfig(out="a", databases="b", processes=3, limit=4).arguments()
    assert arguments == {"limit": 4, "timeout": 5.0}


def test_lists_and_repeated_words_are_taken():
    assert PairsConfig(out="x").rejected == ["ok", "error"]
    assert PairsConfig(out="x", rejected=["timeout"]).rejected == ["timeout"]
    assert "has no verified yet" in excot("pairs", "--out", "/nowhere", "--rejected", "ok", "timeout").error()
    assert excot("pairs", "--out", "/nowhere", "--rejected", "fine").code == 2


# What is refused: always with exit code 2, before anything is read or written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("temprature: 1", "unknown option 'temprature': did you mean 'temperature'?"),
        ("max_token: 1", "did you mean 'max_tokens'?"),
        ("replay_from: x", "unknown option 'replay_from'"),
        ("nonsense: 1", "unknown option 'nonsense': known: adapter, api_version, "),
        ("yes: 1", "unknown option 'True'"),
        ("n: many", "--n is 'many': it takes a whole number or nothing"),
        ("n: 2.0", "--n is 2.0: it takes a whole number"),
        ("n: true", "--n is True: it takes a whole number"),
        ("n: [1]", r"--n is [1]: it takes a whole number"),
        ("temperature: hot", "--temperature is 'hot': it takes a number"),
        ("temperature: .nan", "--temperature is nan: it takes a number"),
        ("timeout: .inf", "--timeout is inf: it takes a number"),
        ("temperature: true", "--temperature is True: it takes a number"),
        ("dry_run: 'no'", "--dry-run is 'no': it takes true or false"),
        ("model: 7", "--model is 7: it takes some text"),
        ("model: ''", "--model is '': it takes some text"),
        ("backend: gpt", "--backend is 'gpt': it takes openai, azure, openai-batch, azure-batch, transformers, "),
        ("n: 0", "--n is 0: it takes at least 1"),
        ("n: -3", "--n is -3: it takes at least 1"),
        ("max_cost: -0.5", "--max-cost is -0.5: it takes at least 0"),
        ("max_tokens_total: 0", "--max-tokens-total is 0: it takes at least 1"),
        ("adapter: x", "--adapter means nothing to --backend teacher: it is for --backend transformers or vllm"),
        ("submit: true", "--submit means nothing to --backend teacher: it is for --backend openai-batch or azure"),
        ("collect: true", "--collect means nothing to --backend teacher"),
        ("provider: together", "--provider means nothing to --backend teacher: it is for --backend tgi"),
        ("max_model_len: 9", "--max-model-len means nothing to --backend teacher: it is for --backend vllm"),
        ("{submit: true, collect: true}", "--submit and --collect contradict each other"),
        ("backend: tgi", "--backend tgi needs a model: give --model NAME"),
        ("backend: vllm", "--backend vllm needs a model: give --model NAME"),
        ("limit: 0", "--limit is 0: it takes at least 1"),
        ("temperature: -0.1", "--temperature is -0.1: it takes at least 0"),
        ("top_p: 1.5", "--top-p is 1.5: it takes at most 1"),
        ("max_tokens: 0", "--max-tokens is 0: it takes at least 1"),
        ("few_shots: 4", "--few-shots is 4: it takes at most 3"),
        ("concurrency: 0", "--concurrency is 0: it takes at least 1"),
        ("timeout: 0", "--timeout is 0.0: it takes at least 0.001"),
        ("error_rate: 1.1", "--error-rate is 1.1: it takes at most 1"),
        ("backend: openai", "--backend openai needs a model: give --model NAME"),
        ("backend: replay", "--backend replay and --from FILE go together"),
        ("from: x", "--backend replay and --from FILE go together"),
        ("{resume: true, overwrite: true}", "--resume and --overwrite contradict each other"),
        ("- n", "holds no options"),
        ("n", "holds no options"),
        ("", "holds no options"),
        ("n: [1", "is not YAML"),
        ("\tn: 1", "is not YAML"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_value_and_the_remedy(tmp_path, text, message):
    backend = () if text.startswith("backend") else ("--backend", "teacher")
    out = tmp_path / "run"
    result = excot("generate", "--out", out, "--config", yaml_file(tmp_path, text), *backend)
    assert result.code == 2 and result.out == ""
    assert message in result.error()
    assert not out.exists()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("questions folder --data x", "excot questions: --out is missing"),
        ("questions --data x --out y", "excot questions: BENCHMARK is missing"),
        ("verify --out y --timeout 0", "--timeout is 0.0: it takes at least 0.001"),
        ("verify --out y --processes 0", "--processes is 0: it takes at least 1"),
        ("sft --out y --max-per-question 0", "--max-per-question is 0: it takes at least 1"),
        ("doctor spider", "BENCHMARK and --data go together"),
        ("doctor --data x", "BENCHMARK and --data go together"),
        ("sft --out y --config /no/such.yaml", "cannot read /no/such.yaml (No such file or directory)"),
        ("sft --out y --config /", "cannot read / (Is a directory)"),
    ],
)
def test_wrong_usage_of_any_verb_is_one_line_and_exit_code_2(command, message):
    result = excot(*command.split())
    assert result.code == 2 and message in result.error()


def test_an_empty_out_is_refused_as_it_would_be_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for verb in ("sft", "demo"):
        assert excot(verb, "--out", "").error() == "--out is '': it takes some text"
    assert not list(tmp_path.iterdir())


@given(st.sampled_from([f for verb, f in OPTIONS if verb == "generate"]), st.data())
def test_a_misspelt_option_is_answered_with_the_right_one(f, data):
    name = public_name(f)
    assume(len(name) > 5)  # a shorter one leaves too little to guess from
    place = data.draw(st.integers(0, len(name) - 1))
    misspelt = name[:place] + name[place + 1 :]
    known = {public_name(g) for verb, g in OPTIONS if verb == "generate"}
    assume(misspelt not in known)
    with pytest.raises(ExcotError, match=f"did you mean '{name}'"):
        from_dict(GenerateConfig, {misspelt: 1}, "test")


def test_the_library_refuses_what_the_command_refuses():
    with pytest.raises(ExcotError, match="--strategy is 'near': it takes nearest, farthest, random"):
        PairsConfig(out="x", strategy="near")
    with pytest.raises(ExcotError, match=r"--rejected is \['fine'\]: it takes a list of ok, error"):
        PairsConfig(out="x", rejected=["fine"])
    with pytest.raises(ExcotError, match="--rejected names no status"):
        PairsConfig(out="x", rejected=[])
    with pytest.raises(ExcotError, match="--out is PosixPath"):
        QuestionsConfig(benchmark="folder", data="x", out=Path("x"))
    assert SftConfig(out="x", choose="all").max_per_question is None
    assert DoctorConfig(benchmark="bird", data="x").model is None


def test_many_answers_at_temperature_0_are_a_warning(tmp_path):
    result = excot("generate", "--out", tmp_path, "--model", "m", "--temperature", 0)
    assert "warning: at temperature 0 all 32 answers to a question are the same: give --n 1" in result.err
    assert "temperature" not in excot("generate", "--out", tmp_path, "--model", "m", "--temperature", 0, "--n", 1).err
