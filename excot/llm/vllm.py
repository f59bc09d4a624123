"""Completions from a local model through vLLM, in this process."""

from __future__ import annotations

import asyncio
import itertools
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import import_error
from .adapter import adapter_rank
from .base import BackendError, Candidate, Completion, FatalBackendError, Message, Sampling, UnanswerableError
from .local import encode, first_line, load_tokenizer

_ENVIRONMENT = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",  # stdout is the command's own
    "VLLM_NO_USAGE_STATS": "1",  # nothing is sent anywhere
}
"""How vLLM behaves where the user's environment does not say; it reads that when it is imported."""

_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM makes room for."""


class VLLM:
    """A causal language model in a local folder (or on the Hub), run by vLLM's engine.

    Every question goes to the engine as one request for ``n`` samples, as soon as it is asked. The engine makes up
    its batch anew for every token, and reads what prompts begin with in common only once: ask the questions of one
    database after one another. (The engine is that of vLLM's own server. ``LLM.chat``, which is built on it, gives
    nothing back before the last question is answered, and takes no data parallel size.)

    Sample ``i`` of a question draws from a random generator of its own, seeded with the question's seed plus ``i``.
    What is sampled is softmax(logits / temperature) cut to ``top_p``; a model's own defaults, such as ``top_k`` or a
    repetition penalty, are not applied. In 16-bit types the model's arithmetic differs in the last bits with what
    shares the batch, which can change a token; on GPUs for which vLLM has such kernels, ``VLLM_BATCH_INVARIANT=1``
    in the environment makes it the same in every batch.

    Where ``RAY_ADDRESS`` is set, the copies of a data parallel model are spread over that Ray cluster.

    Args:
        model: a folder with config, weights and tokenizer, or a Hub id.
        adapter: the folder of a LoRA adapter on top of it.
        tensor_parallel_size: GPUs that one copy of the model is split over; ``None`` for one.
        data_parallel_size: copies of the model, among which vLLM distributes the questions; ``None`` for one.
        max_model_len: the most tokens of a prompt and its answer together; ``None`` for the model's own limit.
        dtype: ``"auto"`` (the checkpoint's own, 32-bit ones narrowed to 16) or a torch type's name.

    Raises:
        ExcotError: vLLM is not installed.
        FatalBackendError: the model cannot be run or has no chat template, or the adapter does not fit it.
    """

    def __init__(
        self,
        model: str,
        *,
        adapter: str | None = None,
        tensor_parallel_size: int | None = None,
        data_parallel_size: int | None = None,
        max_model_len: int | None = None,
        dtype: str = "auto",
    ):
        for name, value in _ENVIRONMENT.items():
            os.environ.setdefault(name, value)
        try:
            import vllm
        except ImportError:
            raise import_error("vllm", "vllm") from None

        self.model = model
        self._tokenizer = load_tokenizer(model, adapter)  # first, since the engine takes long to start
        self._adapter = _Adapter(adapter, model) if adapter else None
        folder = Path(model).expanduser()
        copies = data_parallel_size or 1
        parallel = {
            "tensor_parallel_size": tensor_parallel_size or 1,
            "data_parallel_size": copies,
            "data_parallel_backend": "ray" if copies > 1 and os.environ.get("RAY_ADDRESS") else "mp",
        }
        self._engine = _start(
            model=str(folder) if folder.exists() else model,
            dtype=dtype,
            max_model_len=max_model_len,
            enable_prefix_caching=True,
            **parallel,
            **(self._adapter.settings if self._adapter else {}),
        )
        self._context: int = self._engine.model_config.max_model_len
        self._requests = itertools.count()
        self._described = {
            "backend": "vllm",
            "version": vllm.__version__,
            "dtype": str(self._engine.model_config.dtype).removeprefix("torch."),
            "max_model_len": self._context,
            **parallel,
        }

    def describe(self) -> dict[str, Any]:
        """What a manifest may record of how the model was run."""
        return self._described

    @staticmethod
    def order(question: dict[str, Any]) -> str:
        """What to sort questions by before they are asked: the prompts of one database begin with its schema."""
        return question["db_id"]

    async def complete(
        self, messages: list[Message], n: int, sampling: Sampling, question: dict[str, Any]
    ) -> Completion:
        """``n`` samples; at temperature 0 one greedy answer, ``n`` times.

        ``finish_reason`` is ``"stop"`` where the model ended the answer, else ``"length"``. ``completion_tokens``
        counts every generated token, the one that ends the answer included.

        Raises:
            UnanswerableError: prompt and ``max_tokens`` together exceed the model's context.
            BackendError: vLLM refused or broke off this question.
            FatalBackendError: the engine has died, or does not take the adapter.
        """
        prompt = encode(self._tokenizer, messages, self.model)
        self._check_length(len(prompt), sampling.max_tokens)
        drawn = sampling.temperature > 0
        outputs = await self._generate(prompt, n if drawn else 1, sampling, sampling.seed if drawn else None)
        candidates = tuple(
            Candidate(output.text, output.finish_reason, len(output.token_ids), sampling.seed + k if drawn else None)
            for k, output in enumerate(outputs)
        )
        taken = sum(candidate.completion_tokens or 0 for candidate in candidates)
        candidates = candidates if drawn else candidates * n
        return Completion(candidates, len(prompt), self.model, len(prompt), taken)

    async def close(self) -> None:
        """Stop the engine's processes and give the model's memory back."""
        engine, self._engine = self._engine, None  # the last reference: an engine left to the end of Python complains
        if engine is not None:
            engine.shutdown()

    def _check_length(self, tokens: int, max_tokens: int) -> None:
        if tokens + max_tokens > self._context:
            raise UnanswerableError(
                "too_long",
                f"the prompt has {tokens} tokens, which with --max-tokens {max_tokens} is more than the "
                f"{self._context} of {self.model}",
                "lower --max-tokens, shorten the schema, or raise --max-model-len where the model allows it",
                tokens,
            )

    async def _generate(self, prompt: list[int], n: int, sampling: Sampling, seed: int | None) -> list[Any]:
        """What the engine makes of one prompt: ``n`` outputs, in the order of their seeds."""
        from vllm import SamplingParams
        from vllm.exceptions import VLLMError
        from vllm.sampling_params import RequestOutputKind
        from vllm.v1.engine.exceptions import EngineDeadError

        if self._engine is None:
            raise BackendError(f"the model {self.model} is closed", "start again to ask this question once more")
        try:
            settings = SamplingParams(
                n=n,
                temperature=sampling.temperature,
                top_p=sampling.top_p,
                max_tokens=sampling.max_tokens,
                seed=seed,
                output_kind=RequestOutputKind.FINAL_ONLY,
            )
            lora = await self._adapter.loaded(self._engine) if self._adapter else None
            requests = self._engine.generate(
                {"prompt_token_ids": prompt}, settings, f"excot-{next(self._requests)}", lora_request=lora
            )
            outputs = [output async for output in requests][-1].outputs
        except EngineDeadError as error:
            raise FatalBackendError(
                f"vLLM's engine has died ({first_line(error)})", "look at its messages above, then start again"
            ) from error
        except VLLMError as error:
            problem = f"vLLM did not answer ({first_line(error)})"
            raise BackendError(problem, "start again to ask this question once more") from error
        unfinished = {output.finish_reason for output in outputs} - {"stop", "length"}
        if unfinished:
            problem = f"vLLM broke the answer off ({unfinished.pop()})"
            raise BackendError(problem, "start again to ask this question once more")
        return sorted(outputs, key=lambda output: output.index)


class _Adapter:
    """A LoRA adapter, which the engine loads before the first request: one that it refuses then would kill it."""

    def __init__(self, folder: str, model: str):
        from vllm.lora.request import LoRARequest

        rank = adapter_rank(folder, model)
        self.settings = {"enable_lora": True, "max_lora_rank": next((r for r in _RANKS if r >= rank), rank)}
        self._folder = folder
        self._request = LoRARequest("adapter", 1, str(Path(folder).expanduser()))
        self._loading = asyncio.Lock()
        self._is_loaded = False

    async def loaded(self, engine: Any) -> Any:
        async with self._loading:
            if not self._is_loaded:
                try:
                    await engine.add_lora(self._request)
                except Exception as error:  # of whatever type the engine's process raised, as a plain one
                    raise FatalBackendError(
                        f"vLLM does not take the adapter {self._folder} ({first_line(error)})",
                        "merge it into the model, or use --backend transformers",
                    ) from error
                self._is_loaded = True
        return self._request


def _start(**settings: Any) -> Any:
    """A running engine, which belongs to the event loop that first asks it something."""
    from vllm import AsyncEngineArgs
    from vllm.v1.engine.async_llm import AsyncLLM

    try:
        arguments = AsyncEngineArgs(disable_log_stats=True, **settings, **_settings_of_machine())
        # In a thread of its own: it would belong to the event loop that runs here, if one does (as in notebooks).
        with ThreadPoolExecutor(1) as aside:
            return aside.submit(AsyncLLM.from_engine_args, arguments).result()
    except Exception as error:
        raise FatalBackendError(
            f"vLLM cannot run {settings['model']} ({_said(error)})",
            "mend what the message names, or what stands above",
        ) from error


def _said(error: Exception) -> str:
    """An exception's first line; of a refused configuration the first complaint, which is not in the first line."""
    complaints = error.errors() if hasattr(error, "errors") else []
    return complaints[0]["msg"].removeprefix("Value error, ")[:200] if complaints else first_line(error)


def _settings_of_machine() -> dict[str, Any]:
    from vllm.platforms import current_platform

    if not current_platform.is_cpu():
        return {}
    # Without a compiler; and prompts are read in one go, since reading a seeded one in parts kills vLLM's CPU engine
    # ("CPU Generator does not use offset").
    return {"enforce_eager": True, "enable_chunked_prefill": False}
