"""Fixtures that every test file shares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read when huggingface_hub is imported; no test asks the real Hub

SHARED_DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder with real Spider and BIRD data; tests that need it skip where it is absent."""
    if not SHARED_DATA.is_dir():
        pytest.skip("real benchmark data not found at ../shared/data")
    return SHARED_DATA


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory):
    """What the tests of training train: a run folder with every dataset, and a 4.3M parameter Llama."""
    pytest.importorskip("trl")
    from training import make_world

    return make_world(tmp_path_factory.mktemp("world"))
