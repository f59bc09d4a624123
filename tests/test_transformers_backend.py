"""The transformers backend with a tiny random Llama: how it samples, what it reports, and its errors."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from random_llama import CONTEXT, END, QUESTIONS, SPECIAL, STOP, VOCABULARY, ask, prompt

from excot.errors import ExcotError
from excot.llm.base import BackendError, FatalBackendError, Message
from excot.llm.transformers import Transformers

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")


def logits(folder: Path, messages: list[Message]) -> Any:
    """The model's logits for the first token of an answer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**ids).logits[0, -1]


# -- sampling


def test_a_sample_does_not_depend_on_what_shares_its_batch(make_backend: Callable[..., Transformers]) -> None:
    alone = make_backend(batch_size=1)
    together = ask(make_backend(batch_size=8), *QUESTIONS, n=3)
    for k, question in enumerate(QUESTIONS):
        assert ask(alone, question, n=3, seed=k) == [together[k]]
        assert ask(alone, question, n=1, seed=k)[0].candidates == together[k].candidates[:1]


def test_samples_of_one_question_differ_and_repeat(make_backend: Callable[..., Transformers]) -> None:
    backend = make_backend()
    (first,), (again,), (other,) = (ask(backend, prompt(1, 2), n=8, seed=seed) for seed in (3, 3, 4))
    assert len({candidate.text for candidate in first.candidates}) == 8
    assert first == again
    assert {c.text for c in first.candidates}.isdisjoint(c.text for c in other.candidates)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_temperature_zero_is_transformers_own_greedy_answer(
    llama_folder: Path, batch_size: int, make_backend: Callable[..., Transformers]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = ask(make_backend(batch_size=batch_size), *QUESTIONS, n=2, temperature=0.0)
    tokenizer, model = (
        AutoTokenizer.from_pretrained(llama_folder),
        AutoModelForCausalLM.from_pretrained(llama_folder).eval(),
    )
    for question, completion in zip(QUESTIONS, ours, strict=True):
        inputs = tokenizer.apply_chat_template(
            question, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        output = model.generate(**inputs, do_sample=False, max_new_tokens=24)[0, inputs["input_ids"].shape[1] :]
        assert [c.text for c in completion.candidates] == [tokenizer.decode(output, skip_special_tokens=True)] * 2
        assert completion.candidates[0].completion_tokens == len(output)
        assert completion.prompt_tokens == inputs["input_ids"].shape[1]


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.5, 0.6)])
def test_samples_are_distributed_as_the_softmax(
    llama_folder: Path, temperature: float, top_p: float, make_backend: Callable[..., Transformers]
) -> None:
    size = 4000
    question = prompt(5, 6, 7)
    expected = torch.softmax(logits(llama_folder, question) / temperature, -1)
    order = expected.sort(descending=True)
    kept = order.indices[order.values.cumsum(0) - order.values < top_p]  # the smallest set that reaches top_p
    nucleus = torch.zeros_like(expected)
    nucleus[kept] = expected[kept] / expected[kept].sum()
    by_text: Counter[str] = Counter()
    for token, share in enumerate(nucleus.tolist()):
        by_text["" if token < len(SPECIAL) else VOCABULARY[token]] += share  # special tokens have no text

    backend = make_backend(batch_size=500)
    (completion,) = ask(backend, question, n=size, max_tokens=1, temperature=temperature, top_p=top_p)
    seen = Counter(candidate.text for candidate in completion.candidates)
    assert set(seen) <= {text for text, share in by_text.items() if share > 0}
    common = {text: share for text, share in by_text.items() if share * size >= 5}
    assert len(common) >= 5
    chi_square = sum((seen[text] - share * size) ** 2 / (share * size) for text, share in common.items())
    freedom = len(common) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations; the seed is fixed


def test_the_models_own_sampling_habits_are_not_applied(
    llama_folder: Path, tmp_path: Path, make_backend: Callable[..., Transformers]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(llama_folder)
    model.generation_config.update(do_sample=True, top_k=1, repetition_penalty=9.0, no_repeat_ngram_size=1)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(llama_folder).save_pretrained(tmp_path)
    plain, opinionated = (ask(make_backend(path), *QUESTIONS, n=3) for path in (llama_folder, tmp_path))
    assert [c.candidates for c in plain] == [c.candidates for c in opinionated]


# -- what is reported


def test_finish_reasons_and_token_counts_are_the_real_ones(
    llama_folder: Path, make_backend: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend()
    raw: list[list[int]] = []
    generate = backend._generate

    def noting(batch: list[Any]) -> list[list[int]]:
        raw.extend(generate(batch))
        return raw[-len(batch) :]

    monkeypatch.setattr(backend, "_generate", noting)
    (completion,) = ask(backend, prompt(1), n=12, max_tokens=40)
    assert {c.finish_reason for c in completion.candidates} == {"stop", "length"}
    ends = Counter(token for tokens in raw for token in (END, STOP) if token in tokens)
    assert set(ends) == {END, STOP}  # either of the generation config's end tokens ends an answer
    for candidate, tokens in zip(completion.candidates, raw, strict=True):
        places = [i for i, token in enumerate(tokens) if token in (END, STOP)]
        assert candidate.finish_reason == ("stop" if places else "length")
        assert candidate.completion_tokens == (places[0] + 1 if places else 40)
        assert "<|" not in (candidate.text or "")
    assert completion.prompt_tokens == 4
    assert completion.model == str(llama_folder)


def test_a_prompt_that_leaves_too_little_room_is_counted_in_the_error(
    make_backend: Callable[..., Transformers],
) -> None:
    backend = make_backend()
    fits = prompt(*[1] * 29)  # with three tokens of the template: 32
    assert ask(backend, fits, max_tokens=CONTEXT - 32)[0].prompt_tokens == 32
    with pytest.raises(BackendError, match=rf"the prompt has 32 tokens.*--max-tokens 225.*{CONTEXT}"):
        ask(backend, fits, max_tokens=CONTEXT - 31)


# -- errors


def refusal(*arguments: Any, **settings: Any) -> str:
    with pytest.raises(FatalBackendError) as caught:
        Transformers(*map(str, arguments), **settings)
    assert "\n" not in str(caught.value)
    assert caught.value.remedy
    return str(caught.value)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    assert f"no model folder {tmp_path / 'none'}" in refusal(tmp_path / "none")
    assert "no model folder ./runs/x" in refusal("./runs/x")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    assert f"cannot load the tokenizer of {tmp_path}" in refusal(tmp_path)


def test_a_model_without_weights_is_named(llama_folder: Path, tmp_path: Path) -> None:
    for file in llama_folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert f"cannot load the model {tmp_path}" in refusal(tmp_path)


def test_a_tokenizer_without_a_chat_template_gives_the_remedy(llama_folder: Path, tmp_path: Path) -> None:
    for file in llama_folder.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert "has no chat template" in (message := refusal(tmp_path))
    assert "chat_template.jinja" in message


@pytest.mark.parametrize("setting", [{"device": "warp9"}, {"dtype": "float17"}])
def test_a_device_or_type_that_does_not_exist_is_named(llama_folder: Path, setting: dict[str, str]) -> None:
    assert repr(next(iter(setting.values()))) in refusal(llama_folder, **setting)


def test_a_template_that_refuses_our_messages_is_fatal(
    make_backend: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make_backend()
    monkeypatch.setattr(backend._tokenizer, "chat_template", "{{ raise_exception('no system role, please') }}")
    with pytest.raises(FatalBackendError, match="no system role, please"):
        ask(backend, prompt(1))


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_library_is_one_line_with_the_remedy(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExcotError, match=rf"^{package} is not installed: pip install 'excot\[train\]'$"):
        Transformers("any")
