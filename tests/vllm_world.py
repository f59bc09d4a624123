"""What the tests with a real vLLM share: the model, twenty questions, the server, a program that can be killed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from chain import SHOP, make_database, read_data, write_questions
from conftest import SHARED_DATA

from excot.builders.questions import make_questions
from excot.config import QuestionsConfig
from excot.demo.data import make_data

MODEL = Path(os.environ.get("EXCOT_VLLM_MODEL", "no model: make test-vllm makes it"))
LENGTH = 2048
"""Tokens of a prompt and its answer together, in all these tests: a small cache will do."""

_DATABASES = ("network_1", "singer", "poker_player", "pets_1", "museum_visit")

os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")  # GiB; vLLM would take most of the machine's memory


def twenty_questions(folder: Path) -> str:
    """A run folder with twenty questions of several databases, taken in turns.

    They are Spider's where its data lies beside the project, else the demo's.
    """
    spider, data = SHARED_DATA / "spider", folder / "data"
    if not spider.is_dir():
        return read_data(make_data(data, seed=0, questions=20), folder / "run")
    data.mkdir()
    questions = json.loads((spider / "dev.json").read_text("utf-8"))
    by_database = [[q for q in questions if q["db_id"] == db_id][:4] for db_id in _DATABASES]
    (data / "dev.json").write_text(json.dumps([q for turn in zip(*by_database, strict=True) for q in turn]), "utf-8")
    for name in ("tables.json", "database"):
        (data / name).symlink_to(spider / name)
    out = str(folder / "run")
    make_questions(QuestionsConfig(benchmark="spider", data=str(data), split="dev", out=out))
    return out


def one_too_long(folder: Path) -> str:
    """A run folder with three questions, the second of which no model here has room for."""
    make_database(folder / "data" / "database" / "shop" / "shop.sqlite", SHOP)
    question = {"question": "How many items are there?", "db_id": "shop", "gold_sql": "SELECT count(*) FROM item"}
    endless = {**question, "question": "many " * 9000}
    write_questions(folder / "data", [question, endless, question])
    return read_data(folder / "data", folder / "run")


def save_adapter(folder: Path) -> Path:
    """A LoRA adapter of the model, random, and large enough to change what it says."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    torch.manual_seed(0)
    network = AutoModelForCausalLM.from_pretrained(MODEL)
    network = get_peft_model(network, LoraConfig(r=4, lora_alpha=32, target_modules=["q_proj", "v_proj"]))
    for name, weight in network.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.05)
    network.save_pretrained(folder)
    return folder


@contextmanager
def vllm_server() -> Iterator[str]:
    """vLLM's own OpenAI server with the model, called ``smol``, on this machine only; its base URL."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", MODEL, "--served-model-name"]
    command += ["smol", "--host", "127.0.0.1", "--port", port, "--dtype", "float32", "--max-model-len", LENGTH]
    command += ["--enforce-eager", "--no-enable-chunked-prefill"]  # as the backend does on a CPU
    environment = {**os.environ, "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1"}
    process = subprocess.Popen(list(map(str, command)), env=environment, start_new_session=True)
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        end(process)


def end(process: subprocess.Popen[str]) -> None:
    """Kill a process and all that it has started."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.communicate()


def journaled(out: str) -> int:
    """How many lines the journal of a run's generations has beside its first."""
    path = Path(out) / ".excot" / "generations.jsonl"
    return max(0, path.read_bytes().count(b"\n") - 1) if path.exists() else 0


def _wait_for(url: str, process: subprocess.Popen[str], seconds: float = 240) -> None:
    start = time.monotonic()
    while time.monotonic() < start + seconds:
        assert process.poll() is None, f"the server ended with {process.returncode}"
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(url, timeout=5)
            return
        except OSError:
            time.sleep(0.5)
    raise AssertionError(f"the server did not answer within {seconds} s")
