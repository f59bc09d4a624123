"""Completions from a local model through transformers' own ``generate``, batched across questions."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..errors import import_error
from ..models import model_commit
from .base import BackendError, Candidate, Completion, Message, Sampling, UnanswerableError
from .local import encode, end_ids, load_model, load_tokenizer

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

_QUIET = 0.01
"""Seconds without a new sample after which a batch starts although more might come."""


class Transformers:
    """A causal language model in a local folder (or on the Hub), run in this process.

    All questions asked at the same time share batches: one thread takes up to ``batch_size`` samples that wait, those
    with prompts of similar length together. For full batches keep at least twice ``batch_size`` samples waiting.

    A sample depends on its question's seed and its number only, not on what shares its batch: each row draws from a
    random generator of its own. (The model's arithmetic itself differs in the last bits between batches, which can
    change a token where two are almost equally likely; in 16-bit types more often than in 32-bit ones.) What is
    sampled is softmax(logits / temperature) cut to ``top_p``; a model's own defaults, such as ``top_k`` or a
    repetition penalty, are not applied.

    Args:
        model: a folder with config, weights and tokenizer, or a Hub id.
        batch_size: the most samples generated together; halved for good when memory runs out.
        device: ``"auto"`` (CUDA, Apple's GPU, CPU: the first there is) or a torch device.
        dtype: ``"auto"`` (the checkpoint's own) or a torch type's name, such as ``"float32"``.
        torch_threads: threads of one CPU operation, for the whole process; ``None`` leaves torch's choice.
        adapter: the folder of a LoRA adapter on top of the model.

    Raises:
        ExcotError: transformers or torch is not installed, or peft for an adapter.
        FatalBackendError: the model cannot be loaded or has no chat template, or the adapter does not fit it.
    """

    def __init__(
        self,
        model: str,
        batch_size: int = 16,
        *,
        device: str = "auto",
        dtype: str = "auto",
        torch_threads: int | None = None,
        adapter: str | None = None,
    ):
        try:
            import torch
            import transformers
        except ImportError as error:
            raise import_error("torch" if error.name == "torch" else "transformers", "train") from None

        if torch_threads is not None:
            torch.set_num_threads(torch_threads)
        self.model = model
        self._batch_size = batch_size
        self._tokenizer = load_tokenizer(model, adapter)
        self._model = load_model(model, device, dtype, adapter)
        self._context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None)
        self.revision = model_commit(model)
        self.end_ids = end_ids(self._tokenizer, self._model)
        pad = self._tokenizer.pad_token_id
        self._pad_id = (self.end_ids or [0])[0] if pad is None else pad  # masked, so any token will do
        # Nothing of the model's own taste (top_k, repetition penalty, ...): what is recorded is what was sampled.
        self._model.generation_config = transformers.GenerationConfig(
            do_sample=False, eos_token_id=self.end_ids or None, pad_token_id=self._pad_id
        )
        self._waiting: list[_Sample] = []
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="excot-transformers", daemon=True)
        self._thread.start()

    async def complete(
        self, messages: list[Message], n: int, sampling: Sampling, question: dict[str, Any]
    ) -> Completion:
        """``n`` samples; at temperature 0 one greedy answer, ``n`` times.

        ``finish_reason`` is ``"stop"`` where the model ended the answer, else ``"length"``. ``completion_tokens``
        counts every generated token, the one that ends the answer included.

        Raises:
            UnanswerableError: prompt and ``max_tokens`` together exceed the model's context.
            BackendError: memory ran out for a single sample, or the backend was closed.
        """
        prompt = self._encode(messages, sampling.max_tokens)
        distinct = n if sampling.temperature > 0 else min(n, 1)
        samples = [_Sample(prompt, sampling, _sample_seed(sampling.seed, k)) for k in range(distinct)]
        with self._changed:
            if self._closed:
                raise self._closed_error()
            self._waiting += samples
            self._changed.notify()
        answers = await asyncio.gather(*(asyncio.wrap_future(sample.tokens) for sample in samples))
        seeds = [sample.seed if sampling.temperature > 0 else None for sample in samples]
        candidates = tuple(map(self._candidate, answers, seeds))
        taken = sum(candidate.completion_tokens or 0 for candidate in candidates)
        candidates = candidates * n if distinct < n else candidates
        return Completion(candidates, len(prompt), self.model, len(prompt), taken)

    async def close(self) -> None:
        """Stop at the next token and give the model's memory back; requests that still wait fail."""
        import torch

        with self._changed:
            self._closed = True
            self._changed.notify()
        await asyncio.to_thread(self._thread.join)
        self._model = None  # the tokenizer stays: answers that are there already are still to be read
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _encode(self, messages: list[Message], max_tokens: int) -> list[int]:
        prompt = encode(self._tokenizer, messages, self.model)
        if self._context and len(prompt) + max_tokens > self._context:
            raise UnanswerableError(
                "too_long",
                f"the prompt has {len(prompt)} tokens, which with --max-tokens {max_tokens} is more than the "
                f"{self._context} of {self.model}",
                "lower --max-tokens or shorten the schema",
                len(prompt),
            )
        return prompt

    def _candidate(self, tokens: list[int], seed: int | None) -> Candidate:
        ends = [place for place, token in enumerate(tokens) if token in self.end_ids]
        count = ends[0] + 1 if ends else len(tokens)
        text = self._tokenizer.decode(tokens[:count], skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return Candidate(text, "stop" if ends else "length", count, seed)

    # -- the worker thread (which leaves the tokenizer alone: it is not made for two threads)

    def _work(self) -> None:
        """Serve batches until closed. Whatever happens, every sample gets its tokens or an exception."""
        try:
            while not self._closed:
                self._serve(self._next_batch())
        finally:
            with self._changed:
                self._closed = True
                for sample in self._waiting:
                    sample.fail(self._closed_error())
                self._waiting.clear()

    def _next_batch(self) -> list[_Sample]:
        """The oldest sample that waits and those most like it; empty when closed or cancelled."""
        with self._changed:
            while not self._waiting and not self._closed:
                self._changed.wait()
            # The samples of one moment arrive one by one: without a pause the first would be a batch of its own.
            # Twice a batch, so that there is something to choose from.
            while len(self._waiting) < 2 * self._batch_size and self._changed.wait(_QUIET) and not self._closed:
                pass
            if self._closed:
                return []
            first = self._waiting[0]
            alike = [sample for sample in self._waiting if sample.shape == first.shape]
            alike.sort(key=lambda sample: abs(len(sample.prompt) - len(first.prompt)))
            batch = alike[: self._batch_size]
            taken = {id(sample) for sample in batch}
            self._waiting = [sample for sample in self._waiting if id(sample) not in taken]
            return [sample for sample in batch if sample.tokens.set_running_or_notify_cancel()]

    def _serve(self, batch: list[_Sample]) -> None:
        if not batch:
            return
        try:
            answers = self._generate(batch)
        except BaseException as error:  # whatever it is, it belongs to those who wait and not to this thread
            if not _is_out_of_memory(error):
                for sample in batch:
                    sample.fail(error)
                return
            answers = None
        if answers is None:  # out here the exception is gone, and with it the frames that held the batch's memory
            self._serve_smaller(batch)
            return
        for sample, tokens in zip(batch, answers, strict=True):
            sample.tokens.set_result(tokens)

    def _serve_smaller(self, batch: list[_Sample]) -> None:
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if len(batch) == 1:
            length = len(batch[0].prompt)
            problem = f"memory ran out for a single sample of {self.model} (prompt of {length} tokens)"
            batch[0].fail(BackendError(problem, "lower --max-tokens, shorten the schema, or take a smaller model"))
            return
        self._batch_size = min(self._batch_size, (len(batch) + 1) // 2)
        log.warning("memory ran out with %d samples together; from now on %d", len(batch), self._batch_size)
        while batch:
            part, batch = batch[: self._batch_size], batch[self._batch_size :]
            self._serve(part)

    def _generate(self, batch: list[_Sample]) -> list[list[int]]:
        """The new tokens of each sample, in the order of the batch; whatever follows an end token is padding."""
        import torch

        width = max(len(sample.prompt) for sample in batch)
        pads = [width - len(sample.prompt) for sample in batch]
        rows = [[self._pad_id] * pad + sample.prompt for pad, sample in zip(pads, batch, strict=True)]
        mask = [[0] * pad + [1] * (width - pad) for pad in pads]
        device = self._model.device
        with torch.inference_mode():
            output = self._model.generate(
                torch.tensor(rows, device=device),
                attention_mask=torch.tensor(mask, device=device),
                max_new_tokens=batch[0].sampling.max_tokens,
                logits_processor=_processors(batch, device),
                stopping_criteria=[lambda ids, scores: torch.full((len(ids),), self._closed, device=ids.device)],
            )
        if self._closed:
            raise self._closed_error()
        return output[:, width:].tolist()

    def _closed_error(self) -> BackendError:
        return BackendError(f"the model {self.model} is closed", "start again to ask this question once more")


@dataclass
class _Sample:
    """One row of a batch: a prompt, how to sample, and where the answer goes."""

    prompt: list[int]
    sampling: Sampling
    seed: int
    tokens: Future[list[int]] = field(default_factory=Future)

    @property
    def shape(self) -> tuple[float, float, int]:
        """Only samples with the same settings can share a batch."""
        return self.sampling.temperature, self.sampling.top_p, self.sampling.max_tokens

    def fail(self, error: BaseException) -> None:
        if self.tokens.running() or self.tokens.set_running_or_notify_cancel():  # else it was cancelled
            self.tokens.set_exception(error)


class _RowNoise:
    """Gumbel noise for each row from its own generator: the greedy choice is then a sample from the softmax.

    (The Gumbel-max trick: argmax(logits + Gumbel noise) is distributed as softmax(logits).)
    """

    def __init__(self, seeds: list[int], device: torch.device):
        import torch

        self._generators = [torch.Generator(device).manual_seed(seed) for seed in seeds]

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        import torch

        exponential = torch.empty(scores.shape, dtype=torch.float32, device=scores.device)
        for row, generator in zip(exponential, self._generators, strict=True):
            row.exponential_(generator=generator)
        return scores.float() - exponential.clamp_min_(torch.finfo(torch.float32).tiny).log_()


def _processors(batch: list[_Sample], device: torch.device) -> list[Any]:
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    sampling = batch[0].sampling
    if sampling.temperature == 0:
        return []
    nucleus = [TopPLogitsWarper(sampling.top_p)] if sampling.top_p < 1 else []
    noise = _RowNoise([sample.seed for sample in batch], device)
    return [TemperatureLogitsWarper(float(sampling.temperature)), *nucleus, noise]


def _sample_seed(seed: int, index: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{seed}/{index}".encode()).digest()[:8], "big") >> 1


def _is_out_of_memory(error: BaseException) -> bool:
    import torch

    words = ("out of memory", "can't allocate memory")  # Apple's GPU and the CPU raise a plain RuntimeError
    plain = isinstance(error, RuntimeError) and any(word in str(error) for word in words)
    return isinstance(error, torch.OutOfMemoryError) or plain
