"""A run that is killed again and again, at any moment: nothing is asked twice but what was in flight."""

from __future__ import annotations

import random
import signal
import time
from collections import Counter
from pathlib import Path

import pytest
from chain import ask, finished, make_data, place, read_data, rows_of
from command import start
from faulty import truth
from servers import ChatServer, Reply, Request

from excot.run import Run

pytestmark = [pytest.mark.usefixtures("clean_environment"), pytest.mark.slow]

CONCURRENCY = 8


def run_and_kill(out: str, server: ChatServer, kills: list[int], dice: random.Random, n: int) -> int:
    """Start the command, kill it once the server has seen so many requests, again and again; then let it finish.

    Returns:
        How many kills met a process at work.
    """
    met = 0
    command = ["generate", "--out", out, "--model", "tiny", "--n", n, "--base-url", server.url]
    for kill in kills:
        process = start(*command, "--concurrency", CONCURRENCY)
        while process.poll() is None and len(server.requests) < kill:
            time.sleep(0.001)
        time.sleep(dice.uniform(0, 0.02))
        met += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    process = start(*command, "--concurrency", CONCURRENCY)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return met


@pytest.mark.timeout(600)
def test_twenty_kills_cost_no_more_than_what_was_in_flight(tmp_path: Path) -> None:
    data, dice, count, n = make_data(tmp_path / "data", 500), random.Random(), 500, 4
    out, undisturbed = read_data(data, tmp_path / "killed"), read_data(data, tmp_path / "undisturbed")
    kills = sorted(dice.sample(range(1, count), 20))
    with ChatServer(otherwise=lambda r: Reply(truth(r).body, delay=random.uniform(0, 0.02))) as server:
        met = run_and_kill(out, server, kills, dice, n)
        assert met >= 15, kills
        assert len(server.requests) <= count + CONCURRENCY * met
        seeds: dict[int, set[int]] = {k: set() for k in range(count)}
        for request in server.requests:
            seeds[place(request)].add(request.json["seed"])
        assert all(len(found) == 1 for found in seeds.values())
    assert finished(out) == set(range(count))
    with ChatServer(otherwise=truth) as server:
        ask(undisturbed, server, n=n)
        assert len(server.requests) == count
    assert rows_of(out, "generations") == rows_of(undisturbed, "generations")
    assert Run(out).entry("generations")["fingerprint"] == Run(undisturbed).entry("generations")["fingerprint"]


@pytest.mark.timeout(600)
def test_neither_do_kills_where_each_answer_takes_a_request(tmp_path: Path) -> None:
    data, dice, count, n = make_data(tmp_path / "data", 60), random.Random(), 60, 8
    out, undisturbed = read_data(data, tmp_path / "killed"), read_data(data, tmp_path / "undisturbed")
    kills = sorted(dice.sample(range(1, count * n), 6))

    def one(request: Request) -> Reply:
        return Reply(truth(request, 1).body, delay=random.uniform(0, 0.02))

    with ChatServer(otherwise=one) as server:
        met = run_and_kill(out, server, kills, dice, n)
        assert len(server.requests) <= count * n + CONCURRENCY * met
        asked = Counter((place(request), request.json["seed"]) for request in server.requests)
        assert len(asked) == count * n
    with ChatServer(otherwise=one) as server:
        ask(undisturbed, server, n=n)
    assert rows_of(out, "generations") == rows_of(undisturbed, "generations")
