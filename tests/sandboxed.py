"""The tables that the statements of `hostile` are written for, and what a sandbox reads and leaves."""

from __future__ import annotations

import hashlib
from pathlib import Path

from excot.execution.sandbox import Sandbox

SCHEMA = """
    CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT, c BLOB);
    INSERT INTO t VALUES (1, 'one', x'00ff'), (2, 'Two', NULL), (3, 'three', x'');
    CREATE TABLE number (n);
    WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 300) INSERT INTO number SELECT n FROM c;
    CREATE TABLE strange (text TEXT);
    INSERT INTO strange VALUES (CAST(x'63616fe9' AS TEXT)), (CAST(x'ff' AS TEXT)), ('plain'), ('a' || char(0) || 'b');
    CREATE TABLE document (id INTEGER PRIMARY KEY, json TEXT);
    INSERT INTO document VALUES (1, '{"tags": ["x", "y"]}'), (2, '{"tags": []}');
    CREATE VIEW named AS SELECT a, upper(b) AS name FROM t;
    CREATE VIEW broken AS SELECT x FROM gone;
    CREATE INDEX by_b ON t (b);
    CREATE TRIGGER after_delete AFTER DELETE ON t BEGIN DELETE FROM number; END;
    CREATE VIRTUAL TABLE five USING fts5 (body);
    INSERT INTO five VALUES ('the quick brown fox'), ('lazy dog');
    CREATE VIRTUAL TABLE three USING fts3 (body);
    INSERT INTO three VALUES ('the quick brown fox'), ('lazy dog');
"""


def contents(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.iterdir())}


def rows(sandbox: Sandbox, sql: str) -> list[tuple]:
    execution = sandbox.run(sql, list)
    assert execution.status == "ok", execution.error
    return execution.value
