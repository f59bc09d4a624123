"""What models cost: the built-in table, and one of the user's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from excot.errors import ExcotError
from excot.llm.prices import Price, money, price_of


def table(folder: Path, text: str) -> str:
    path = folder / "prices.yaml"
    path.write_text(text, "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("model", "name"),
    [
        ("gpt-4o", "gpt-4o"),
        ("gpt-4o-2024-08-06", "gpt-4o"),
        ("gpt-4o-2024-05-13", "gpt-4o-2024-05-13"),
        ("gpt-4o-mini-2024-07-18", "gpt-4o-mini"),
        ("gpt-4.1-nano", "gpt-4.1-nano"),
        ("o3-mini", "o3-mini"),
        ("gpt-4", None),
        ("gpt-4omni", None),
        ("ft:gpt-4o-mini:my-team", None),
        ("Qwen/Qwen2.5-Coder-7B-Instruct", None),
        ("", None),
    ],
)
def test_the_longest_name_that_a_model_begins_with_counts(model: str, name: str | None) -> None:
    price = price_of(model)
    assert (price and price.name) == name


def test_every_built_in_price_is_sensible() -> None:
    for model in ("gpt-5", "gpt-4.1-mini", "gpt-4o", "gpt-3.5-turbo", "o4-mini"):
        price = price_of(model)
        assert price is not None
        assert 0.05 <= price.prompt < price.completion <= 120
        assert price.batch == 0.5


def test_a_cost_is_of_prompts_and_answers_and_less_in_a_batch() -> None:
    price = Price("m", prompt=2.0, completion=8.0, batch=0.5)
    assert price.cost(500_000, 250_000) == 3.0
    assert price.cost(500_000, 250_000, batch=True) == 1.5


def test_a_table_of_ones_own_replaces_the_built_in_one(tmp_path: Path) -> None:
    own = table(tmp_path, "my-deployment: {prompt: 1, completion: 2.5}\n")
    assert price_of("my-deployment", own) == Price("my-deployment", 1, 2.5, 1.0)
    assert price_of("gpt-4o", own) is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("m: 3", "the price of m is 3"),
        ("m: {prompt: 1}", "the price of m is {'prompt': 1}"),
        ("m: {prompt: 1, completion: 2, cached: 0.5}", "the price of m is"),
        ("m: {prompt: -1, completion: 2}", "prompt of m is -1: it takes a number, at least 0"),
        ("m: {prompt: 1, completion: two}", "completion of m is 'two'"),
        ("m: {prompt: 1, completion: .inf}", "completion of m is inf"),
        ("- m", "holds no prices"),
        ("", "holds no prices"),
        ("m: {", "is not YAML"),
    ],
)
def test_what_is_no_price_is_named_in_one_line(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ExcotError) as caught:
        price_of("m", table(tmp_path, text))
    assert words in str(caught.value)


def test_a_table_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ExcotError, match=r"cannot read .*none.yaml \(No such file.*--prices"):
        price_of("m", str(tmp_path / "none.yaml"))


def test_small_amounts_show_more_digits() -> None:
    assert [money(amount) for amount in (0, 0.00012, 0.5, 1, 1234.5)] == [
        "$0.00",
        "$0.0001",
        "$0.5000",
        "$1.00",
        "$1,234.50",
    ]
