"""Fixtures that every test file shares."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import planted
import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported; no test asks the real Hub
os.environ.setdefault("OMP_NUM_THREADS", "1")  # read when torch is: sums of other threads have other last digits

with suppress(ImportError):  # vLLM's environment has got none
    from hypothesis import HealthCheck, settings

    # A machine that does other work beside is slow at times: that says nothing of the code.
    settings.register_profile("beside others", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("beside others")

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


WRITTEN = pytest.StashKey[Path]()
LEAKS = pytest.StashKey[list[str]]()
_captured: list[str] = []
_of_workers: list[str] = []


@pytest.fixture(scope="session", autouse=True)
def _written(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Where the tests of this session write is searched for planted secrets when it ends."""
    pytestconfig.stash[WRITTEN] = folder = tmp_path_factory.getbasetemp()
    os.environ["EXCOT_CACHE"] = f"{folder}/caches/shared"  # of what several tests have in common


_cache_numbers = count()


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What one test has executed, no other finds executed already."""
    monkeypatch.setenv("EXCOT_CACHE", f"{tmp_path_factory.getbasetemp()}/caches/{next(_cache_numbers)}")


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "teardown":  # with all that was captured of the test before
        _captured.extend(
            f"{title.lower()} of {report.nodeid}" for title, text in report.sections if planted.holds(text)
        )


@pytest.hookimpl(trylast=True)  # after what the session ends with, which may still write
def pytest_sessionfinish(session: pytest.Session) -> None:
    folder = session.config.stash.get(WRITTEN, None)
    files = [f"{folder}/{name}" for name in planted.files_with_secrets(folder)] if folder else []
    leaks = [planted.hidden(place) for place in [*_captured, *files]]
    if hasattr(session.config, "workeroutput"):  # its reports reach the session that started it, as they are
        session.config.workeroutput["leaks"] = leaks[len(_captured) :]
        return
    session.config.stash[LEAKS] = leaks = [*leaks, *_of_workers]
    if leaks:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.hookimpl(optionalhook=True)  # of pytest-xdist
def pytest_testnodedown(node: Any) -> None:
    """What one of several workers found in the files of its tests."""
    _of_workers.extend(getattr(node, "workeroutput", {}).get("leaks", ()))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Where several workers share the files, those with slow tests come first, so that none is left over alone."""
    if hasattr(config, "workerinput"):
        slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
        items.sort(key=lambda item: -slow[item.path])


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if leaks := config.stash.get(LEAKS, None):
        terminalreporter.section("FAILED: a planted secret was written", red=True, bold=True)
        for place in leaks:
            terminalreporter.line(place, red=True)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real Spider and BIRD data; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real benchmark data not found at ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory):
    """What the tests of training train: a run folder with every dataset, and a small Llama."""
    pytest.importorskip("trl")
    from training import make_world

    return make_world(tmp_path_factory.mktemp("world"))


@pytest.fixture
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key and no address of an endpoint from outside, and no proxy before the tests' own."""
    for name in list(os.environ):
        if name.startswith(("OPENAI_", "AZURE_OPENAI_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture
def hub_reachable(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The Hub's client may ask servers (the tests' own), and knows no key from outside."""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "TGI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "no-token"))


@pytest.fixture
def no_backoff(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses asked for between retries; none of them is really made."""
    pauses: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        if seconds > 0:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr("asyncio.sleep", note)
    monkeypatch.setattr("anyio.sleep", note)
    return pauses


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    """The stand-in for the Hub, which the clients in this process use; it must know every page they ask for."""
    from hub import HubServer

    monkeypatch.setattr("excot.hub.asking.PAUSES", ())
    with HubServer() as hub:
        hub.online(monkeypatch, tmp_path / "home")
        yield hub
    assert hub.unknown == []


@pytest.fixture
def api(hub: Any) -> Any:
    """A client of the Hub that has a dataset to write to."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo("team/birds", repo_type="dataset")
    return api


@pytest.fixture(scope="session")
def llama_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model for the transformers backend."""
    pytest.importorskip("torch")
    pytest.importorskip("transformers")
    from random_llama import save_model

    return save_model(tmp_path_factory.mktemp("llama"))


@pytest.fixture
def make_backend(llama_folder: Path) -> Iterator[Callable[..., Any]]:
    """Makes transformers backends, and closes them afterwards."""
    from random_llama import backends

    with backends(llama_folder) as make:
        yield make


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, Any]]:
    """Every worker of the pool at each of its processes' starts: ``(worker, process)`` in the order of starting."""
    from pooled import record_starts

    return record_starts(monkeypatch)


@pytest.fixture(scope="module")
def databases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The databases of the small benchmark, without its questions."""
    from chain import make_databases

    return make_databases(tmp_path_factory.mktemp("database"))


@pytest.fixture
def reward(databases: Path) -> Iterator[Any]:
    """The execution reward with little patience."""
    from excot.rewards import ExecutionReward

    with ExecutionReward(databases, timeout=0.3, processes=2) as reward:
        yield reward
