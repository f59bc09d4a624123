"""Databases in a Hub dataset: found by their content, whatever they are called there."""

from __future__ import annotations

from pathlib import Path

import pytest
from chain import make_databases
from committed import BIRDS

from excot.errors import ExcotError
from excot.execution import DatabaseError, file_hash
from excot.hub import databases
from excot.hub.databases import fetch_database


@pytest.fixture(autouse=True)
def _anew() -> None:
    databases._listed.cache_clear()


@pytest.fixture
def local(tmp_path: Path) -> Path:
    return make_databases(tmp_path / "database")


def test_a_database_is_found_by_its_hash_in_any_layout_and_revision(hub, api, local):
    shop, zoo = (local / name / f"{name}.sqlite" for name in ("shop", "zoo"))
    api.upload_folder(repo_id=BIRDS, folder_path=local, path_in_repo="dev/databases", repo_type="dataset")
    api.create_tag(BIRDS, tag="v1", repo_type="dataset")
    api.delete_folder("dev", BIRDS, repo_type="dataset")
    found = fetch_database(f"{BIRDS}@v1", file_hash(shop), "shop.sqlite")
    assert found.read_bytes() == shop.read_bytes()
    assert fetch_database(f"{BIRDS}@v1", file_hash(zoo), "another name").read_bytes() == zoo.read_bytes()
    with pytest.raises(ExcotError, match="holds no SQLite file"):
        fetch_database(BIRDS, file_hash(shop), "shop.sqlite")


def test_what_is_not_there_is_said_in_one_line(hub, api, local, tmp_path):
    api.upload_folder(repo_id=BIRDS, folder_path=local, repo_type="dataset")
    with pytest.raises(DatabaseError, match=r"database new\.sqlite \(SHA-256 0{12}\.\.\.\) is not in team/birds"):
        fetch_database(BIRDS, "0" * 64, "new.sqlite")
    with pytest.raises(ExcotError, match="team/nothing"):
        fetch_database("team/nothing", "0" * 64, "new.sqlite")


def test_a_download_that_was_spoilt_is_not_used(hub, api, local):
    shop = local / "shop" / "shop.sqlite"
    api.upload_folder(repo_id=BIRDS, folder_path=local, repo_type="dataset")
    path = fetch_database(BIRDS, file_hash(shop), "shop.sqlite")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"lamp", b"ramp"))
    with pytest.raises(DatabaseError, match="is not what team/birds holds: remove it"):
        fetch_database(BIRDS, file_hash(shop), "shop.sqlite")
