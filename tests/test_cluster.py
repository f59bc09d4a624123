"""Verification on a Ray cluster: the verdicts of this machine, whatever becomes of the nodes and of this process."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from chain import make_data, make_run, read_data, replay, rows_of
from hostile import STUCK
from pooled import HASTE, make_numbers, mixed_tasks, verdicts, without_times
from test_verified import without_times as without_seconds

from excot.builders.verified import verify
from excot.config import VerifyConfig
from excot.errors import ExcotError
from excot.execution import Cache, Task, cluster, file_hash
from excot.execution.cluster import verify_on_cluster
from excot.execution.database import DatabaseError

pytestmark = pytest.mark.slow
SLOW = "WITH RECURSIVE n(k) AS (SELECT 1 UNION ALL SELECT k + 1 FROM n LIMIT {}) SELECT count(*) FROM n"


class Nodes:
    """A Ray cluster on this machine: a head, and nodes that come and go."""

    def __init__(self) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # it would tell its makers
        from ray.cluster_utils import Cluster

        self._cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
        self.address = self._cluster.address
        self.add()

    def add(self) -> None:
        self._node = self._cluster.add_node(num_cpus=1)
        self._cluster.wait_for_nodes()

    def kill(self) -> None:
        """End all processes of the node that is not the head, without a word to anybody."""
        self._cluster.remove_node(self._node, allow_graceful=False)

    def close(self) -> None:
        self._cluster.shutdown()


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    pytest.importorskip("ray")
    nodes = Nodes()
    yield nodes
    nodes.close()


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return make_numbers(tmp_path)


def on_cluster(nodes: Nodes, tasks: list[Task], **options: Any) -> dict[str, Any]:
    found = verify_on_cluster(tasks, nodes.address, **options)
    return {id: without_times(verdict) for id, verdict in found}


def test_verdicts_are_those_of_this_machine(nodes, database, tmp_path):
    stuck = Task("stuck", (database,), "SELECT 1", ("SELECT 1.0", STUCK, "SELECT x"), HASTE)
    tasks = [*mixed_tasks(database), stuck]
    expected = verdicts(tasks, 2)
    with Cache(tmp_path / "cache") as cache:
        assert on_cluster(nodes, tasks, cache=cache) == expected
    with Cache(tmp_path / "cache") as cache:
        assert {id: without_times(verdict) for id, verdict in verify_on_cluster(tasks, nodes.address, cache=cache)}
    assert expected["stuck"].candidates[1].status == "timeout"


def test_a_killed_nodes_work_is_done_again_and_the_rows_are_those_of_an_undisturbed_run(nodes, tmp_path):
    found = []
    data = make_data(tmp_path / "data", 30)
    for name in ("disturbed", "undisturbed"):
        out = read_data(data, tmp_path / name)
        golds = [row["gold_sql"] for row in rows_of(out, "questions")]
        replay(out, {k: [golds[k], SLOW.format(400_000 + k), golds[k - 3], "SELEC"] for k in range(30)})
        if name == "disturbed":
            journal = Path(out) / ".excot" / "verified.jsonl"
            killer = threading.Thread(target=_kill_when, args=(nodes, journal, 8))
            killer.start()
            verify(VerifyConfig(out=out, engine="ray", address=nodes.address, no_cache=True))
            killer.join()
            nodes.add()
        else:
            verify(VerifyConfig(out=out, no_cache=True))
        found.append(without_seconds(rows_of(out, "verified")))
    assert found[0] == found[1]


def _kill_when(nodes: Nodes, journal: Path, lines: int) -> None:
    while not journal.exists() or journal.read_bytes().count(b"\n") < lines:
        time.sleep(0.01)
    nodes.kill()


def test_a_killed_command_goes_on_where_it_was(nodes, tmp_path):
    out = make_run(tmp_path, 12)
    replay(out, {k: [SLOW.format(400_000 + k), f"SELECT {k}"] for k in range(12)})
    command = [sys.executable, "-m", "excot.cli", "verify", "--out", out, "--engine", "ray", "--no-cache"]
    command += ["--address", nodes.address]
    journal = Path(out) / ".excot" / "verified.jsonl"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and (not journal.exists() or journal.read_bytes().count(b"\n") < 5):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = journal.read_bytes()
    again = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert again.returncode == 0, again.stderr
    assert journal.read_bytes().startswith(before[: before.rindex(b"\n") + 1])
    assert journal.read_bytes().count(b"\n") == 13
    assert "12 questions" in again.stdout


def test_a_database_is_fetched_by_its_hash_where_a_node_has_not_got_it(nodes, database, tmp_path, monkeypatch):
    elsewhere = shutil.copy(database, tmp_path / "elsewhere.sqlite")
    known = {file_hash(elsewhere): elsewhere}

    def fetch(sha256: str, name: str) -> Path:
        assert name == "numbers.sqlite"
        return known[sha256]

    def placed(task: Task) -> Task:
        return replace(task, databases=(tmp_path / "nowhere" / "numbers.sqlite",))

    tasks = mixed_tasks(database)[:6]
    expected = verdicts(tasks, 1)
    monkeypatch.setattr(cluster, "_placed", placed)  # as if the nodes had another disk
    assert on_cluster(nodes, tasks, fetch=fetch) == expected
    with pytest.raises(
        DatabaseError, match=r"has not got database .*numbers.sqlite \(no such file\): put the databases"
    ):
        on_cluster(nodes, tasks)
    (tmp_path / "nowhere").mkdir()
    (tmp_path / "nowhere" / "numbers.sqlite").write_bytes(database.read_bytes() + bytes(4096))
    with pytest.raises(DatabaseError, match=r"has not got database .*numbers.sqlite \(another file there\)"):
        on_cluster(nodes, tasks)
    assert on_cluster(nodes, tasks, fetch=fetch) == expected


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.unlink(), "is missing"),
        (lambda path: path.with_name(path.name + "-wal").write_bytes(b"x"), "close the program that writes it"),
        (lambda path: path.write_bytes(path.read_bytes()[:4096] + b"\xff" * 8192), "cannot be read"),
    ],
)
def test_what_is_wrong_with_a_database_is_said_in_one_line(nodes, database, spoil, message):
    spoil(database)
    with pytest.raises(DatabaseError, match=message) as raised:
        on_cluster(nodes, mixed_tasks(database)[:2])
    assert "\n" not in str(raised.value) and "RayTaskError" not in str(raised.value)


def test_nodes_with_other_versions_are_refused(nodes, database, monkeypatch):
    monkeypatch.setattr(cluster, "_versions", ("0.0", "3.0.0"))
    with pytest.raises(ExcotError, match=r"this machine 0\.0 with SQLite 3\.0\.0: install the same on all of them"):
        on_cluster(nodes, mixed_tasks(database)[:1])


def test_where_there_is_no_cluster_that_is_said_with_the_remedy(database):
    pytest.importorskip("ray")
    with pytest.raises(ExcotError, match=r"no Ray cluster at 127\.0\.0\.1:1 .*ray start --head") as raised:
        list(verify_on_cluster(mixed_tasks(database)[:1], "127.0.0.1:1"))
    assert "\n" not in str(raised.value)


def test_without_ray_the_line_that_installs_it_is_shown(database, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ExcotError, match=r"ray is not installed: pip install 'excot\[ray\]'"):
        list(verify_on_cluster(mixed_tasks(database)[:1]))
