"""The process in which statements run; the pool starts it and passes two file descriptors.

It reads tasks from a socket and answers with outcomes. In the beacon, a few shared bytes, stands which statement it is
at and since when, so that the pool can end it from outside when SQLite does not come back.
"""

from __future__ import annotations

import mmap
import os
import signal
import struct
import sys
import threading
import time
from multiprocessing.connection import Connection

from .task import GOLD
from .verify import Verifier

READY = "ready"
"""A worker's first message, sent once it can take tasks."""

STARTING = -2
"""What the beacon shows until then, where a statement's place stands later."""

ADDRESS_SPACE = 1 << 30
"""Bytes of address space of one worker: the operating system's word where SQLite's own limits did not hold."""

TEMPORARY_FILE = 1 << 30
"""Bytes of one temporary file, of which a large sort makes two: a runaway must not fill the disk."""

_BEACON = struct.Struct("=qd")  # the worker's: the statement's place, and when it was started (time.monotonic)
_END = struct.Struct("=q")  # the pool's: the place of the first statement that is no longer this worker's
_END_AT = _BEACON.size
BEACON_SIZE = _BEACON.size + _END.size
_SEND_EVERY = 0.05  # s; what a worker that is ended has not yet sent is done again, and that is never more than this


def write_beacon(beacon: mmap.mmap, place: int) -> None:
    # In one copy: pack_into() clears the bytes first, and a reader in between would see a statement begun at time 0.
    beacon[:_END_AT] = _BEACON.pack(place, time.monotonic())


def read_beacon(beacon: mmap.mmap) -> tuple[int, float]:
    return _BEACON.unpack(beacon[:_END_AT])


def write_end(beacon: mmap.mmap, place: int) -> None:
    beacon[_END_AT:BEACON_SIZE] = _END.pack(place)


def read_end(beacon: mmap.mmap) -> int:
    return _END.unpack(beacon[_END_AT:BEACON_SIZE])[0]


def main(connection_fd: int, beacon_fd: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    _limit_resources()
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    beacon = mmap.mmap(beacon_fd, BEACON_SIZE)
    connection = Connection(connection_fd)
    verifier = Verifier(on_statement=lambda place: write_beacon(beacon, place))
    try:
        write_beacon(beacon, GOLD)  # the time that starting took is not the first statement's
        connection.send(READY)
        while True:
            task, known = connection.recv()
            outcomes, gold_rows, sent = [], None, time.monotonic()
            try:
                for place, outcome in verifier.verify(task, known):
                    outcomes.append((place, outcome))
                    if place == GOLD:
                        gold_rows = verifier.gold_rows()
                    if gold_rows or time.monotonic() - sent > _SEND_EVERY:
                        connection.send((outcomes, gold_rows, False))
                        outcomes, gold_rows, sent = [], None, time.monotonic()
                    if place + 1 >= read_end(beacon):
                        break  # the rest has been given to another worker
            except MemoryError:
                raise  # a fresh process may have enough
            except Exception as error:  # the parent raises it: starting again would only lead here again
                connection.send(error)
            else:
                connection.send((outcomes, None, True))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent has what it wanted, or is gone


def _limit_resources() -> None:
    try:
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if sys.version_info >= (3, 11):  # before, a file grown too large looks like one that is damaged
            resource.setrlimit(resource.RLIMIT_FSIZE, (TEMPORARY_FILE, TEMPORARY_FILE))
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    except (ImportError, ValueError, OSError):
        pass  # a system without this limit (macOS refuses it): SQLite's own limits are what remains


def _end_with_parent(parent: int) -> None:
    """A parent that was killed cannot end a worker that is stuck in a statement, so the worker looks by itself."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)
