"""A tiny random Llama on disk, with words for a vocabulary, and the transformers backend asked about it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from excot.llm.base import Completion, Message, Sampling
from excot.llm.transformers import Transformers

SPECIAL = ["<unk>", "<pad>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>", "<|stop|>"]
VOCABULARY = [*SPECIAL, *(f"w{i}" for i in range(33))]
END, STOP = VOCABULARY.index("<|end|>"), VOCABULARY.index("<|stop|>")
TEMPLATE = (
    "{% for m in messages %}<|{{ m.role }}|> {{ m.content }} <|end|> {% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
CONTEXT = 256


def save_model(path: Path) -> Path:
    """A model of 40 tokens whose weights are large enough to prefer some of them clearly."""
    import torch
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
    tokenizer.save_pretrained(path)
    model.save_pretrained(path)
    return path


@contextmanager
def backends(folder: Path) -> Iterator[Callable[..., Transformers]]:
    """Makes backends, and closes them afterwards."""
    made: list[Transformers] = []

    def make(model: Path | str = folder, **settings: Any) -> Transformers:
        made.append(Transformers(str(model), torch_threads=1, **settings))
        return made[-1]

    yield make
    for backend in made:
        asyncio.run(backend.close())


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


QUESTIONS = [prompt(*range(k, k + 1 + 3 * k)) for k in range(6)]
