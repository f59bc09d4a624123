"""The journal: what was acknowledged is there after any end of the process, and damage passes for no record."""

from __future__ import annotations

import json
import random
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
from command import python
from hypothesis import given, settings
from hypothesis import strategies as st

from excot.errors import ExcotError
from excot.journal import Journal, digest_of

ARGUMENTS = {"model": "tiny", "n": 4}


def record(number: int, size: int = 20) -> dict[str, Any]:
    return {"number": number, "text": "ä\n" * size}


def filled(path: Path, count: int) -> Path:
    journal = Journal(path, ARGUMENTS)
    for number in range(count):
        journal.add(f"q-{number}", "digest", record(number))
    journal.close()
    return path


def held(path: Path, arguments: dict[str, Any] = ARGUMENTS, keep: bool = False) -> dict[str, Any]:
    journal = Journal(path, arguments, keep)
    try:
        ids = [json.loads(line)["id"] for line in path.read_bytes().splitlines()[1:]]
        assert len(journal) == len(set(ids))
        return {id: journal.read(id) for id in ids}
    finally:
        journal.close()


def test_what_was_added_is_there_at_once_and_after_a_new_start(tmp_path):
    journal = Journal(tmp_path / "deep" / "j", ARGUMENTS)
    for number in range(100):
        journal.add(f"q-{number}", digest_of(number), record(number))
        assert journal.read(f"q-{number // 2}") == record(number // 2)
    assert "q-99" in journal and "q-100" not in journal and len(journal) == 100
    assert journal.has("q-3", digest_of(3)) and not journal.has("q-100", digest_of(100))
    journal.close()
    assert held(tmp_path / "deep" / "j") == {f"q-{number}": record(number) for number in range(100)}


def test_a_question_whose_input_changed_is_not_finished(tmp_path):
    journal = Journal(tmp_path / "j", ARGUMENTS)
    journal.add("q", digest_of("old schema"), record(1))
    assert journal.has("q", digest_of("old schema")) and not journal.has("q", digest_of("new schema"))
    journal.add("q", digest_of("new schema"), record(2))
    assert journal.has("q", digest_of("new schema")) and journal.read("q") == record(2)
    journal.close()
    assert held(tmp_path / "j") == {"q": record(2)}


@settings(max_examples=60)
@given(st.data())
def test_cut_off_anywhere_it_keeps_every_whole_record_and_goes_on(data):
    with tempfile.TemporaryDirectory() as folder:
        path = filled(Path(folder) / "j", 5)
        whole = path.read_bytes()
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        complete = max(0, whole[:cut].count(b"\n") - 1)  # the first line holds the arguments
        journal = Journal(path, ARGUMENTS)
        assert len(journal) == complete
        for number in range(complete, 5):
            journal.add(f"q-{number}", "digest", record(number))
        journal.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize("damaged", ['{"id": "q-1", "inp', "{}", "[1]", "3", "null", '"id"', "\0\0\0", "\xff", ""])
@pytest.mark.parametrize("line", [1, 3])
def test_a_damaged_line_in_the_middle_is_an_error_with_its_number(tmp_path, damaged, line):
    path = filled(tmp_path / "j", 5)
    lines = path.read_bytes().split(b"\n")
    lines[line - 1] = damaged.encode("latin-1")
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(
        ExcotError, match=rf"{path}, line {line}: not a journal line: restore the file, or .*--overwrite"
    ):
        Journal(path, ARGUMENTS)
    assert path.read_bytes() == b"\n".join(lines), "an error must not cost what is still good"


def test_other_arguments_are_refused_with_both_values_unless_told_to_keep(tmp_path):
    path = filled(tmp_path / "j", 3)
    before = path.read_bytes()
    with pytest.raises(ExcotError, match=r"was begun with n=4 \(now 8\), seed=None \(now 1\).*--resume.*--overwrite"):
        Journal(path, {**ARGUMENTS, "n": 8, "seed": 1})
    assert path.read_bytes() == before
    assert len(held(path, {**ARGUMENTS, "n": 8}, keep=True)) == 3


def test_a_start_that_finished_nothing_binds_nobody_to_its_arguments(tmp_path):
    filled(tmp_path / "j", 0)
    assert held(tmp_path / "j", {"n": 8}) == {}
    journal = Journal(tmp_path / "j", {"n": 8})
    journal.add("q", "digest", record(1))
    journal.close()
    with pytest.raises(ExcotError, match=r"n=8 \(now 4\)"):
        Journal(tmp_path / "j", {"n": 4})


ADD_FOREVER = """
import sys
from itertools import count
from pathlib import Path
from excot.journal import Journal
journal = Journal(Path(sys.argv[1]), {"model": "tiny", "n": 4})
for number in count(len(journal)):
    journal.add(f"q-{number}", "digest", {"number": number, "text": "ä\\n" * 100_000})
    print(number, flush=True)
"""


def test_killed_at_random_moments_it_holds_every_acknowledged_record_and_no_torn_one(tmp_path):
    path, dice = tmp_path / "j", random.Random(3)
    torn = 0
    for _ in range(8):
        with python(ADD_FOREVER, path) as process:
            acknowledged = [int(process.stdout.readline())]
            time.sleep(dice.uniform(0, 0.02))
            process.kill()
            acknowledged += map(int, process.stdout.read().split())
        torn += not path.read_bytes().endswith(b"\n")
        records = held(path)
        assert list(records) == [f"q-{number}" for number in range(len(records))]
        assert len(records) in (acknowledged[-1] + 1, acknowledged[-1] + 2)  # one may be written and not yet said
        assert all(records[f"q-{number}"] == record(number, 100_000) for number in acknowledged)
    print(f"{torn} of 8 kills came in the middle of a line")


ADD_UNTIL_FULL = """
import resource, sys
from pathlib import Path
from excot.errors import ExcotError
from excot.journal import Journal
path = Path(sys.argv[1])
resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
journal, added = Journal(path, {"model": "tiny", "n": 4}), 0
try:
    while True:
        journal.add(f"q-{added}", "digest", {"number": added, "text": "ä\\n" * 20})
        added += 1
except ExcotError as error:
    print(added, error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
journal.add(f"q-{added}", "digest", {"number": added, "text": "ä\\n" * 20})
journal.close()
"""


def test_a_record_that_does_not_fit_leaves_no_trace_and_the_journal_goes_on_once_there_is_room(tmp_path):
    path = tmp_path / "j"
    out, err = python(ADD_UNTIL_FULL, path).communicate()
    assert err == ""
    (line,) = out.splitlines()
    added, _, message = line.partition(" ")
    assert message == f"cannot write {path} (File too large): make room on the disk, then start the same command again"
    assert 10 < int(added) < 200
    assert held(path) == {f"q-{number}": record(number) for number in range(int(added) + 1)}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
def test_a_full_disk_is_said_in_one_line(tmp_path):
    (tmp_path / "j").symlink_to("/dev/full")
    with pytest.raises(ExcotError, match=r"cannot write .*j \(No space left on device\): make room on the disk"):
        Journal(tmp_path / "j", ARGUMENTS)


@given(
    st.recursive(
        st.text() | st.integers() | st.none(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)
    )
)
def test_a_digest_depends_on_the_value_alone(value):
    assert digest_of(value) == digest_of(json.loads(json.dumps(value)))
    assert digest_of(value) != digest_of(value, None) != digest_of([value])
