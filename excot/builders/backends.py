"""The backend that a config names."""

from __future__ import annotations

import logging
from typing import Any

from ..config import GenerateConfig
from ..llm.base import Backend
from ..prompts import STYLES

log = logging.getLogger("excot")


def open_backend(config: GenerateConfig, questions: list[dict[str, Any]]) -> Backend:
    """Open the backend that a config names.

    Args:
        config: its options.
        questions: the rows that will be asked; a file to replay is held against them.

    Raises:
        ExcotError: a key, an address, a library or a file is missing, or the model cannot be loaded.
    """
    azure = config.backend.startswith("azure")
    endpoint = {"api_version": config.api_version, "timeout": config.timeout, "concurrency": config.concurrency}
    if config.backend in ("openai", "azure"):
        from ..llm.openai import OpenAI

        return OpenAI(config.model, config.base_url, azure=azure, **endpoint)
    if config.batched:
        from ..llm.batch import OpenAIBatch

        return OpenAIBatch(config.model, config.base_url, azure=azure, **endpoint)
    if config.backend == "tgi":
        from ..llm.tgi import TGI

        return TGI(
            config.model, config.base_url, config.provider, timeout=config.timeout, concurrency=config.concurrency
        )
    if config.backend == "vllm":
        from ..llm.vllm import VLLM

        return VLLM(
            config.model,
            adapter=config.adapter,
            tensor_parallel_size=config.tensor_parallel_size,
            data_parallel_size=config.data_parallel_size,
            max_model_len=config.max_model_len,
        )
    if config.backend == "transformers":
        from ..llm.transformers import Transformers

        return Transformers(config.model, config.batch_size, device=config.device, adapter=config.adapter)
    if config.backend == "replay":
        return _replay(config, questions)
    from ..llm.teacher import Teacher

    if config.prompt != STYLES[0] and not config.brief:
        log.warning("the teacher answers by %s whatever the prompt says", STYLES[0])
    return Teacher(config.error_rate, config.habit_rate, config.brief)


def _replay(config: GenerateConfig, questions: list[dict[str, Any]]) -> Backend:
    from ..llm.replay import Replay

    replay = Replay(config.replay_from, questions, config.model)
    for count, what in ((replay.failed, "failed requests"), (replay.not_in_run, "lines for other questions")):
        if count:
            log.warning("%s: %d %s are left out", config.replay_from, count, what)
    return replay
