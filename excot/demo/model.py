"""A tiny random Llama with a tokenizer of its own, to try training on a CPU.

python -m excot.demo.model runs/demo models/tiny-llama
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ..errors import ExcotError
from ..run import Run
from ..terminal import fail

TEMPLATE = (
    "{% for message in messages %}<|{{ message.role }}|>{{ message.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Nothing follows ``<|end|>``, so a trained answer ends with the very token that stops generation."""

SPECIAL = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>")


def make_tokenizer(texts: Iterable[str], vocabulary: int = 4096) -> Any:
    """Byte-level BPE trained on the texts, with the chat template above.

    Args:
        texts: what the model shall read and write.
        vocabulary: how many tokens at most; few texts give fewer.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    # Digit by digit, as Llama 2 reads numbers: a number never seen can then be copied like any other.
    digits, rest = pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([digits, rest])
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=list(SPECIAL),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>", pad_token="<|pad|>")
    fast.chat_template = TEMPLATE
    return fast


def make_llama(folder: str | Path, texts: Iterable[str], *, seed: int = 0, **options: Any) -> str:
    """Save a random Llama, of 4.3M parameters and with tied embeddings unless told, and its tokenizer.

    Args:
        folder: where.
        texts: what the tokenizer is trained on.
        seed: of the weights.
        options: of `transformers.LlamaConfig`.

    Returns:
        The folder.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    settings: dict[str, Any] = {
        "vocab_size": 4096,
        "hidden_size": 256,
        "intermediate_size": 704,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
        **options,
    }
    tokenizer = make_tokenizer(texts, settings["vocab_size"])
    ends = {"bos_token_id": None, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    torch.manual_seed(seed)
    LlamaForCausalLM(LlamaConfig(**settings, **ends)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def texts_of(run: Run) -> Iterable[str]:
    """Every text of a run folder's SFT data."""
    for row in run.read("sft", ["prompt", "completion"]):
        yield from (message["content"] for message in row["prompt"] + row["completion"])


def main(argv: list[str]) -> int:
    if len(argv) != 2:
        print(__doc__, file=sys.stderr)
        return 2
    run, folder = argv
    try:
        if Path(folder).exists():
            raise ExcotError(f"{folder} exists", "give another folder")
        make_llama(folder, texts_of(Run(run)))
    except ExcotError as error:
        return fail(error)
    print(f"a random Llama of 4.3M parameters is in {folder}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
