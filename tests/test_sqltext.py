"""The few questions about SQL text that SQLite does not answer."""

from __future__ import annotations

import pytest

from excot.execution.sqltext import mentions_order_by, orders_its_result, statement_key, without_distinct

ORDERED = [
    "SELECT a FROM t ORDER BY a",
    "select a from t order\n\tby a desc limit 3",
    "SELECT a FROM t oRdEr -- not yet\n /* nor now */ By a",
    "SELECT (SELECT max(b) FROM u) FROM t WHERE a IN (SELECT 1) ORDER BY a",
    "WITH x AS (SELECT 1) SELECT * FROM x ORDER BY 1",
    "SELECT a FROM t UNION SELECT b FROM u ORDER BY 1",
    "SELECT row_number() OVER (ORDER BY b) FROM t ORDER BY a",
    "SELECT a AS \")\" FROM t ORDER BY a",
    "SELECT ')', '(' FROM t ORDER BY a",
    "SELECT 'it''s' FROM t ORDER BY a",
    "SELECT [(] FROM t ORDER BY a",
    "SELECT `(` FROM t ORDER BY a",
    "SELECT a FROM t /* ( */ ORDER BY a -- )",
]  # fmt: skip
UNORDERED = [
    "SELECT a FROM t",
    "",
    "SELECT a FROM (SELECT a FROM t ORDER BY a)",
    "SELECT a FROM t WHERE b = (SELECT b FROM u ORDER BY b LIMIT 1)",
    "WITH x AS (SELECT 1 ORDER BY 1) SELECT * FROM x",
    "SELECT rank() OVER (PARTITION BY a ORDER BY b) FROM t",
    "SELECT rank() OVER w FROM t WINDOW w AS (ORDER BY b)",
    "SELECT group_concat(a, ',' ORDER BY b) FROM t",
    "SELECT a FROM t -- ORDER BY a",
    "SELECT a FROM t /* ORDER BY a */",
    "SELECT a FROM t /* ORDER BY a",
    "SELECT 'ORDER BY a' FROM t",
    "SELECT 'it''s ORDER BY' FROM t",
    "SELECT \"ORDER BY\" FROM t",
    "SELECT [ORDER BY] FROM t",
    "SELECT `ORDER BY` FROM t",
    "SELECT \"order\" by FROM t",
    "SELECT preorder BY_ FROM t",
    "SELECT a FROM reorder BY",
    "SELECT 'unterminated ORDER BY a",
    "SELECT a FROM t WHERE \"order\" = 1 GROUP BY a",
]  # fmt: skip


@pytest.mark.parametrize("sql", ORDERED)
def test_order_by_of_the_outermost_query_is_found(sql):
    assert orders_its_result(sql)


@pytest.mark.parametrize("sql", UNORDERED)
def test_order_by_anywhere_else_is_not_that_of_the_outermost_query(sql):
    assert not orders_its_result(sql)


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT DISTINCT a FROM t", "SELECT  a FROM t"),
        ("select distinct(a), count(Distinct b) from t", "select (a), count( b) from t"),
        ("SELECT a FROM t", "SELECT a FROM t"),
        ("SELECT 'DISTINCT', [distinct], `distinct`", "SELECT 'DISTINCT', [distinct], `distinct`"),
        ("SELECT \"DISTINCT\", 'it''s distinct'", "SELECT \"DISTINCT\", 'it''s distinct'"),
        ("SELECT a /* DISTINCT */ FROM t -- distinct", "SELECT a /* DISTINCT */ FROM t -- distinct"),
        ("SELECT distinction, indistinct, distinct_a FROM t", "SELECT distinction, indistinct, distinct_a FROM t"),
        ("SELECT DISTINCT'x'", "SELECT 'x'"),
        ("SELECT 'ü', DISTINCT\n'' FROM t WHERE a = 1.5e3", "SELECT 'ü', \n'' FROM t WHERE a = 1.5e3"),
        ("", ""),
    ],
)  # fmt: skip
def test_distinct_is_removed_as_a_keyword_only(sql, expected):
    assert without_distinct(sql) == expected


def test_white_space_and_one_semicolon_at_the_end_do_not_make_a_statement_another():
    assert {statement_key(sql) for sql in ("SELECT 1", " SELECT 1;", "SELECT 1 ;\n", "\tSELECT 1\n;")} == {"SELECT 1"}
    assert statement_key("SELECT 1;;") == "SELECT 1;"
    assert statement_key("SELECT ';'") == "SELECT ';'"
    assert statement_key("select 1") != statement_key("SELECT 1")
    assert statement_key(";") == statement_key("") == ""


def test_test_suite_looks_for_order_by_anywhere_in_the_text():
    assert mentions_order_by("SELECT 'ORDER BY'")
    assert not mentions_order_by("SELECT a FROM t ORDER  BY a")
