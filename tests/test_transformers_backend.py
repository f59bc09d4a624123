"""The transformers backend with a tiny random Llama, made here."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from excot.errors import ExcotError
from excot.llm.base import BackendError, Completion, FatalBackendError, Message, Sampling
from excot.llm.transformers import Transformers

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

SPECIAL = ["<unk>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|stop|>"]
VOCABULARY = [*SPECIAL, *(f"w{i}" for i in range(33))]
END, STOP = VOCABULARY.index("<|end|>"), VOCABULARY.index("<|stop|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = 256


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of 40 tokens whose weights are large enough to prefer some of them clearly."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        eos_token="<|end|>",
        pad_token="<pad>",
        unk_token="<unk>",
        additional_special_tokens=SPECIAL[2:5] + SPECIAL[6:],
    )
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=CONTEXT,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=1,
        initializer_range=0.15,
    )
    model = LlamaForCausalLM(config)
    model.generation_config.eos_token_id = [STOP, END]
    path = tmp_path_factory.mktemp("model")
    tokenizer.save_pretrained(path)
    model.save_pretrained(path)
    return path


@pytest.fixture
def make(folder: Path) -> Iterator[Callable[..., Transformers]]:
    """Makes backends, and closes them afterwards."""
    made: list[Transformers] = []

    def make(model: Path | str = folder, **settings: Any) -> Transformers:
        made.append(Transformers(str(model), torch_threads=1, **settings))
        return made[-1]

    yield make
    for backend in made:
        asyncio.run(backend.close())


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Full batches even where a busy machine pauses for a while."""
    monkeypatch.setattr("excot.llm.transformers._QUIET", 0.2)


def prompt(*numbers: int) -> list[Message]:
    return [{"role": "user", "content": " ".join(f"w{i}" for i in numbers)}]


def ask(backend: Transformers, *questions: list[Message], n: int = 1, **sampling: Any) -> list[Completion]:
    """All questions at the same time; question k has seed k unless one is given."""

    async def run() -> list[Completion]:
        calls = (
            backend.complete(question, n, Sampling(**{"seed": k, "max_tokens": 24} | sampling), {})
            for k, question in enumerate(questions)
        )
        return await asyncio.gather(*calls)

    return asyncio.run(run())


def count_batches(backend: Transformers, monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """From now on the prompt lengths of every batch."""
    batches: list[list[int]] = []
    generate = backend._generate

    def counting(batch: list[Any]) -> list[list[int]]:
        batches.append([len(sample.prompt) for sample in batch])
        return generate(batch)

    monkeypatch.setattr(backend, "_generate", counting)
    return batches


def logits(folder: Path, messages: list[Message]) -> Any:
    """The model's logits for the first token of an answer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=True, return_tensors="pt")
    with torch.inference_mode():
        return model(**ids).logits[0, -1]


# -- sampling


QUESTIONS = [prompt(*range(k, k + 1 + 3 * k)) for k in range(6)]


def test_a_sample_does_not_depend_on_what_shares_its_batch(make: Callable[..., Transformers]) -> None:
    alone = make(batch_size=1)
    together = ask(make(batch_size=8), *QUESTIONS, n=3)
    for k, question in enumerate(QUESTIONS):
        assert ask(alone, question, n=3, seed=k) == [together[k]]
        assert ask(alone, question, n=1, seed=k)[0].candidates == together[k].candidates[:1]


def test_samples_of_one_question_differ_and_repeat(make: Callable[..., Transformers]) -> None:
    backend = make()
    (first,), (again,), (other,) = (ask(backend, prompt(1, 2), n=8, seed=seed) for seed in (3, 3, 4))
    assert len({candidate.text for candidate in first.candidates}) == 8
    assert first == again
    assert {c.text for c in first.candidates}.isdisjoint(c.text for c in other.candidates)


@pytest.mark.parametrize("batch_size", [1, 4])
def test_temperature_zero_is_transformers_own_greedy_answer(
    folder: Path, batch_size: int, make: Callable[..., Transformers]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    ours = ask(make(batch_size=batch_size), *QUESTIONS, n=2, temperature=0.0)
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModelForCausalLM.from_pretrained(folder).eval()
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
    folder: Path, temperature: float, top_p: float, make: Callable[..., Transformers]
) -> None:
    size = 4000
    question = prompt(5, 6, 7)
    expected = torch.softmax(logits(folder, question) / temperature, -1)
    order = expected.sort(descending=True)
    kept = order.indices[order.values.cumsum(0) - order.values < top_p]  # the smallest set that reaches top_p
    nucleus = torch.zeros_like(expected)
    nucleus[kept] = expected[kept] / expected[kept].sum()
    by_text: Counter[str] = Counter()
    for token, share in enumerate(nucleus.tolist()):
        by_text["" if token < len(SPECIAL) else VOCABULARY[token]] += share  # special tokens have no text

    backend = make(batch_size=500)
    (completion,) = ask(backend, question, n=size, max_tokens=1, temperature=temperature, top_p=top_p)
    seen = Counter(candidate.text for candidate in completion.candidates)
    assert set(seen) <= {text for text, share in by_text.items() if share > 0}
    common = {text: share for text, share in by_text.items() if share * size >= 5}
    assert len(common) >= 5
    chi_square = sum((seen[text] - share * size) ** 2 / (share * size) for text, share in common.items())
    freedom = len(common) - 1
    assert chi_square < freedom + 4 * (2 * freedom) ** 0.5  # four standard deviations; the seed is fixed


def test_the_models_own_sampling_habits_are_not_applied(
    folder: Path, tmp_path: Path, make: Callable[..., Transformers]
) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(folder)
    model.generation_config.update(do_sample=True, top_k=1, repetition_penalty=9.0, no_repeat_ngram_size=1)
    model.save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    plain, opinionated = (ask(make(path), *QUESTIONS, n=3) for path in (folder, tmp_path))
    assert [c.candidates for c in plain] == [c.candidates for c in opinionated]


# -- what is reported


def test_finish_reasons_and_token_counts_are_the_real_ones(
    folder: Path, make: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make()
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
    assert completion.model == str(folder)


def test_a_prompt_that_leaves_too_little_room_is_counted_in_the_error(make: Callable[..., Transformers]) -> None:
    backend = make()
    fits = prompt(*[1] * 29)  # with three tokens of the template: 32
    assert ask(backend, fits, max_tokens=CONTEXT - 32)[0].prompt_tokens == 32
    with pytest.raises(BackendError, match=rf"the prompt has 32 tokens.*--max-tokens 225.*{CONTEXT}"):
        ask(backend, fits, max_tokens=CONTEXT - 31)


# -- batches


@pytest.mark.usefixtures("patient")
def test_questions_asked_together_share_batches_of_similar_length(
    make: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(batch_size=8)
    batches = count_batches(backend, monkeypatch)
    short, long = prompt(1), prompt(*[2] * 60)
    ask(backend, *[short, long] * 4, n=2)
    assert batches == [[4] * 8, [63] * 8]


@pytest.mark.usefixtures("patient")
def test_questions_that_arrive_one_after_the_other_still_make_full_batches(
    make: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(batch_size=8)
    batches = count_batches(backend, monkeypatch)
    encode = backend._encode

    def slow(messages: list[Message], max_tokens: int) -> list[int]:
        time.sleep(0.001)  # as long prompts take; the worker could start in between
        return encode(messages, max_tokens)

    monkeypatch.setattr(backend, "_encode", slow)

    async def run() -> None:
        places = asyncio.Semaphore(8)

        async def one(k: int) -> None:
            async with places:
                await backend.complete(prompt(k), 1, Sampling(max_tokens=8, seed=k), {})

        await asyncio.gather(*(one(k) for k in range(32)))

    asyncio.run(run())
    assert sum(map(len, batches)) == 32
    assert len(batches) <= 6  # 4 when the machine is idle


@pytest.mark.usefixtures("patient")
def test_other_settings_make_another_batch(make: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch) -> None:
    backend = make(batch_size=8)
    batches = count_batches(backend, monkeypatch)

    async def run() -> list[Completion]:
        settings = [Sampling(temperature=t, max_tokens=m) for t in (0.0, 1.0) for m in (2, 3)]
        return await asyncio.gather(*(backend.complete(prompt(1), 2, s, {}) for s in settings))

    completions = asyncio.run(run())
    assert [len(c.candidates) for c in completions] == [2] * 4
    assert [c.candidates[0].completion_tokens for c in completions] == [2, 3, 2, 3]
    assert sorted(map(len, batches)) == [1, 1, 2, 2]  # greedy answers are generated once


@pytest.mark.usefixtures("patient")
def test_a_full_memory_halves_the_batch_and_loses_nothing(
    make: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = ask(make(batch_size=8), *QUESTIONS, n=2)
    backend = make(batch_size=8)
    generate = backend._model.generate
    sizes: list[int] = []

    def small(ids: Any, **rest: Any) -> Any:
        sizes.append(len(ids))
        if len(ids) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return generate(ids, **rest)

    monkeypatch.setattr(backend._model, "generate", small)
    assert ask(backend, *QUESTIONS, n=2) == expected
    assert sizes == [8, 4, 2, 2, 2, 2, 2, 2]
    monkeypatch.setattr(backend._model, "generate", lambda ids, **rest: small(torch.zeros(4)))
    with pytest.raises(BackendError, match="memory ran out for a single sample.*prompt of 4 tokens"):
        ask(backend, prompt(1))


def test_an_exception_of_the_worker_reaches_all_who_wait_and_the_next_question_works(
    make: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make()

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError("in the model")

    async def run() -> list[Any]:
        calls = (backend.complete(q, 2, Sampling(max_tokens=4), {}) for q in QUESTIONS)
        return await asyncio.gather(*calls, return_exceptions=True)

    with monkeypatch.context() as patch:
        patch.setattr(backend._model, "generate", broken)
        assert [type(result) for result in asyncio.run(run())] == [ZeroDivisionError] * 6
    assert len(ask(backend, prompt(1))[0].candidates) == 1


def test_a_cancelled_question_leaves_the_queue(
    make: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make(batch_size=2)
    batches = count_batches(backend, monkeypatch)

    async def run() -> None:
        first = asyncio.create_task(backend.complete(prompt(1), 2, Sampling(max_tokens=100), {}))
        await asyncio.sleep(0)
        second = asyncio.create_task(backend.complete(prompt(2), 50, Sampling(max_tokens=100), {}))
        await asyncio.sleep(0)
        second.cancel()
        await first

    asyncio.run(run())
    ask(backend, prompt(3))
    assert sum(map(len, batches)) <= 5


# -- closing


def test_close_stops_the_thread_fails_who_waits_and_frees_the_model(make: Callable[..., Transformers]) -> None:
    backend = make(batch_size=2)
    model = weakref.ref(backend._model)

    async def run() -> list[Any]:
        calls = [asyncio.create_task(backend.complete(q, 8, Sampling(max_tokens=150), {})) for q in QUESTIONS]
        await asyncio.sleep(0.05)
        await backend.close()
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), 5)

    results = asyncio.run(run())
    assert all(isinstance(result, (Completion, BackendError)) for result in results)
    assert isinstance(results[-1], BackendError)
    assert "excot-transformers" not in [thread.name for thread in threading.enumerate()]
    gc.collect()
    assert model() is None
    with pytest.raises(BackendError, match="is closed"):
        ask(backend, prompt(1), max_tokens=1)


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


def test_a_model_without_weights_is_named(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert f"cannot load the model {tmp_path}" in refusal(tmp_path)


def test_a_tokenizer_without_a_chat_template_gives_the_remedy(folder: Path, tmp_path: Path) -> None:
    for file in folder.iterdir():
        if file.name != "chat_template.jinja":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    assert "has no chat template" in (message := refusal(tmp_path))
    assert "chat_template.jinja" in message


@pytest.mark.parametrize("setting", [{"device": "warp9"}, {"dtype": "float17"}])
def test_a_device_or_type_that_does_not_exist_is_named(folder: Path, setting: dict[str, str]) -> None:
    assert repr(next(iter(setting.values()))) in refusal(folder, **setting)


def test_a_template_that_refuses_our_messages_is_fatal(
    make: Callable[..., Transformers], monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = make()
    monkeypatch.setattr(backend._tokenizer, "chat_template", "{{ raise_exception('no system role, please') }}")
    with pytest.raises(FatalBackendError, match="no system role, please"):
        ask(backend, prompt(1))


@pytest.mark.parametrize("package", ["torch", "transformers"])
def test_a_missing_library_is_one_line_with_the_remedy(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExcotError, match=rf"^{package} is not installed: pip install 'excot\[train\]'$"):
        Transformers("any")
