"""Which part of a model's answer counts as its SQL, on 270 real answers and on answers made to mislead."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from excot.prompts import Extraction, extract_sql

NO_SQL = Extraction(None, "no_sql")
TRUNCATED = Extraction(None, "truncated")


def ok(sql: str) -> Extraction:
    return Extraction(sql, "ok")


# ------------------------------------------------------------------------------------------------ real answers


@pytest.fixture(scope="module")
def answers(shared_data) -> dict[tuple[str, str, int], str]:
    lines = (shared_data / "cot_outputs" / "california_schools.jsonl").read_text("utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    return {(row["model"], row["style"], row["question_id"]): row["completion"] for row in rows}


def fence_lines(text: str) -> list[str]:
    return [line for line in text.split("\n") if "```" in line]


@pytest.fixture(scope="module")
def neat_answers(answers) -> list[str]:
    """Those whose only fence lines are ```sql and ```, in turn."""
    neat = []
    for text in answers.values():
        fences = fence_lines(text)
        if fences and fences == ["```sql", "```"] * (len(fences) // 2):
            neat.append(text)
    assert len(answers) == 270 and len(neat) == 205
    return neat


def test_every_neat_real_answer_gives_the_block_that_a_plain_reading_gives(neat_answers):
    for text in neat_answers:
        blocks: list[list[str]] = []
        inside = False
        for line in text.split("\n"):
            if line == "```sql":
                blocks.append([])
                inside = True
            elif line == "```":
                inside = False
            elif inside:
                blocks[-1].append(line)
        assert extract_sql(text) == ok("\n".join(blocks[-1]).strip())


def test_no_real_answer_gives_sql_from_an_unmarked_fence(answers):
    unmarked = [text for text in answers.values() if fence_lines(text) == ["```", "```"]]
    assert len(unmarked) == 60
    assert {extract_sql(text) for text in unmarked} == {NO_SQL}


GPT, LLAMA = "gpt5_mini", "llama31_8b_instruct"

# Read by hand: model, style, question, how the SQL begins, how it ends, and what tells it from the other blocks.
READ_BY_HAND = [
    # the fence is made of quotation marks; no fence anywhere, the query at the end of prose
    (GPT, "CoT", 26, None, None, None),
    (GPT, "DivideConquer", 14, None, None, None),
    (GPT, "DivideConquer", 20, None, None, None),
    # the only fence is unmarked
    (LLAMA, "CoT", 10, None, None, None),
    (LLAMA, "CoT", 32, None, None, None),
    (LLAMA, "NoCoT", 0, None, None, None),
    # the last fence stays open: the last complete block before it
    (GPT, "DivideConquer", 46, 'SELECT "CDSCode", "School Name"', 'ORDER BY "Enrollment (K-12)" DESC;', ""),
    (LLAMA, "CoT", 0, "SELECT `Percent (%)", "WHERE rn = 1;", "DENSE_RANK() OVER"),
    # the final query has no fence: the only complete sql block is that of a sub-question
    (GPT, "DivideConquer", 12, 'SELECT MAX(f."Percent', "IS NOT NULL;", ") t ON t.cds = f.CDSCode"),
    (GPT, "DivideConquer", 54, "SELECT School, MailZip\nFROM", "ORDER BY School;", ""),
    (GPT, "DivideConquer", 56, "SELECT *\nFROM schools", "= 'SAN JOAQUIN';", ""),
    (GPT, "DivideConquer", 72, "SELECT CDSCode\nFROM schools", "AND City = 'Fremont';", ""),
    (GPT, "DivideConquer", 76, "SELECT DISTINCT s.City", "AND f.`High Grade` = '12';", ""),
    # text after the last fence, some of it with inline code
    (GPT, "DivideConquer", 18, "SELECT COUNT(*) AS num_schools", "ss.NumTstTakr <= 250;", ""),
    (GPT, "DivideConquer", 26, "SELECT s.School AS school_name", "`FRPM Count (Ages 5-17)` > 800;", ""),
    (GPT, "DivideConquer", 30, "SELECT s.City,\n       SUM(", "ASC\nLIMIT 5;", ""),
    (GPT, "DivideConquer", 70, "SELECT s.StatusType AS status", "ORDER BY s.StatusType;", "LOWER(TRIM("),
    (GPT, "DivideConquer", 84, "WITH unp AS (", "district_count DESC;", "ORDER BY (SELECT total_count"),
    (LLAMA, "CoT", 2, "SELECT Zip\nFROM schools", "AND Charter = 1;", ""),
    (LLAMA, "CoT", 6, "SELECT s.*", "LIKE '%Magnet%');", ""),
    (LLAMA, "CoT", 12, "SELECT MAX(T2.`Percent", "> 0.3;", ""),
    (LLAMA, "CoT", 38, "SELECT s.Website", "= 'Los Angeles County';", ""),
    # a first try, second thoughts, and a second query
    (LLAMA, "CoT", 50, "WITH ranked_schools AS (", "WHERE rank = 7;", ""),
    # comments inside the query
    (LLAMA, "DivideConquer", 28, "SELECT \n  f.School Name", "IS NOT NULL\n  )", "-- locally funded schools\n"),
    # several blocks, among them pseudo SQL in fences marked sql
    (GPT, "DivideConquer", 10, "SELECT s.cds,\n       s.sname", "DESC\nLIMIT 1;", ""),
    (GPT, "DivideConquer", 24, "SELECT DISTINCT f.`School Name`", ">= 1;", "COALESCE(s.NumGE1500, 0)"),
    (GPT, "DivideConquer", 40, "SELECT sc.Phone", "ASC\nLIMIT 1;", ""),
    (GPT, "DivideConquer", 66, "SELECT COUNT(*) AS directly", "AND '2005-12-31';", "'%direct%'"),
    (GPT, "DivideConquer", 86, "SELECT AdmLName1 AS Admin", "OR Charter = 40;", ",\n       District,"),
    (LLAMA, "DivideConquer", 70, "SELECT COUNT(*) \nFROM frpm \nWHERE", "School (Closed)');", ""),
    (LLAMA, "DivideConquer", 80, "SELECT s.School, s.School", "(SELECT MAX(Latitude) FROM schools)", ""),
    (LLAMA, "DivideConquer", 84, "SELECT AdmFName1, District", "LIMIT 2;", "HAVING COUNT(*) >= 2"),
]


@pytest.mark.parametrize(("model", "style", "question", "begin", "end", "part"), READ_BY_HAND)
def test_odd_real_answers_give_what_a_person_reads_in_them(answers, model, style, question, begin, end, part):
    found = extract_sql(answers[model, style, question])
    if begin is None:
        assert found == NO_SQL
    else:
        assert found.status == "ok"
        assert found.sql.startswith(begin) and found.sql.endswith(end) and part in found.sql
        assert "```" not in found.sql


@pytest.mark.parametrize("key", [(GPT, "DivideConquer", 46), (LLAMA, "CoT", 0)])
def test_a_real_answer_whose_last_fence_is_open_is_truncated_when_it_was_cut_off(answers, key):
    assert extract_sql(answers[key], "stop").status == "ok"
    assert extract_sql(answers[key], "length") == TRUNCATED


def test_a_real_answer_cut_off_within_its_last_query_is_truncated(neat_answers):
    for text in neat_answers:
        opened, closed = text.rindex("```sql"), text.rindex("\n```")
        for end in (opened + 3, opened + 5, opened + 6, (opened + closed) // 2, closed, closed + 3):
            assert extract_sql(text[:end], "length") == TRUNCATED
        assert extract_sql(text[: closed + 4], "length") == extract_sql(text)


def test_replayed_predictions_are_their_own_sql(shared_data):
    lines = (shared_data / "candidates" / "spider_dev.jsonl").read_text("utf-8").splitlines()
    predictions = [sql for line in lines for sql in json.loads(line)["candidates"]]
    assert len(predictions) == 31_104
    no_query = []
    for sql in predictions:
        if extract_sql(sql) != ok(sql.strip()):
            assert extract_sql(sql) == NO_SQL
            no_query.append(sql.split()[0])
    assert set(no_query) == {"sql", "error", "CREATE", "INSERT", "DESCRIBE"} and len(no_query) == 346


# ----------------------------------------------------------------------------------------------- rules, by hand

SELECTED = [
    ("last block", "```sql\nSELECT 1\n```\nbetter:\n```sql\nSELECT 2\n```", "SELECT 2"),
    ("marked sqlite", "```sqlite\nSELECT 1\n```", "SELECT 1"),
    ("upper case", "```SQL\nSELECT 1\n```", "SELECT 1"),
    ("mixed case", "```SQLite\nSELECT 1\n```", "SELECT 1"),
    ("tag behind a space", "``` sql\nSELECT 1\n```", "SELECT 1"),
    ("Windows lines", "```sql\r\nSELECT 1\r\n```\r\n", "SELECT 1"),
    ("indented in a list", "1. So:\n   ```sql\n   SELECT 1\n   ```\n2. Done", "SELECT 1"),
    ("opened in the list's line", "- ```sql\n  SELECT 1\n  ```", "SELECT 1"),
    ("opened after words", "Final SQL: ```sql\nSELECT 1\n```", "SELECT 1"),
    ("SQL in the opening line", "```sql SELECT 1\nFROM t\n```", "SELECT 1\nFROM t"),
    ("closed behind the SQL", "```sql\nSELECT 1;```", "SELECT 1;"),
    ("closed behind the SQL, with a space", "```sql\nSELECT 1; ``` \nDone.", "SELECT 1;"),
    ("all on one line", "```sql SELECT 1```", "SELECT 1"),
    ("all on one line, then words", "Take ```sql SELECT 1``` and be happy.", "SELECT 1"),
    ("words behind the closing fence", "```sql\nSELECT 1\n``` That is all.", "SELECT 1"),
    ("full stop behind the closing fence", "```sql\nSELECT 1\n```.", "SELECT 1"),
    ("no line after the fence", "```sql\nSELECT 1\n```", "SELECT 1"),
    ("text after the fence", "```sql\nSELECT 1\n```\nThis uses `t`.", "SELECT 1"),
    ("two statements stay as they are", "```sql\nSELECT 1; SELECT 2;\n```", "SELECT 1; SELECT 2;"),
    ("comments stay as they are", "```sql\n-- all\nSELECT 1 /* one */\n```", "-- all\nSELECT 1 /* one */"),
    ("blank lines stay as they are", "```sql\n\nSELECT 1\n\nFROM t\n\n```", "SELECT 1\n\nFROM t"),
    ("names in backticks", "```sql\nSELECT `a b`, `c``d` FROM t\n```", "SELECT `a b`, `c``d` FROM t"),
    ("a name that ends in a backtick", "```sql\nSELECT `a``` FROM t\n```", "SELECT `a``` FROM t"),
    ("a fence within a string", "```sql\nSELECT '```' FROM t\n```", "SELECT '```' FROM t"),
    ("four backticks", "````sql\nSELECT 1\n````", "SELECT 1"),
    ("longer closing fence", "```sql\nSELECT 1\n`````", "SELECT 1"),
    ("shorter fence within", "````sql\nSELECT '\n```\n'\n````", "SELECT '\n```\n'"),
    ("pseudo SQL before", "```pseudo\nSELECT the best\n```\n```sql\nSELECT 1\n```", "SELECT 1"),
    ("pseudo SQL after", "```sql\nSELECT 1\n```\n```pseudo\nSELECT the best\n```", "SELECT 1"),
    ("unmarked fence after", "```sql\nSELECT 1\n```\n```\nSELECT 2\n```", "SELECT 1"),
    ("output table after", "```sql\nSELECT 1\n```\nIt returns\n```\n| 1 |\n```", "SELECT 1"),
    ("stray closing fence", "```sql\nSELECT 1\n```\n```\n", "SELECT 1"),
    ("stray fence before", "```\n\nThen:\n```sql\nSELECT 1\n```", "SELECT 1"),
    ("open pseudo SQL before", "```pseudo\nSELECT the best\n\nFinal:\n```sql\nSELECT 1\n```", "SELECT 1"),
    ("wrapped in another fence", "```markdown\n## SQL\n```sql\nSELECT 1\n```\n```", "SELECT 1"),
    ("empty last block", "```sql\nSELECT 1\n```\n```sql\n\n```", "SELECT 1"),
    ("blank last block", "```sql\nSELECT 1\n```\n```sql   ```", "SELECT 1"),
    ("opened again", "```sql\nSELECT 1\n```sql\nSELECT 2\n```", "SELECT 2"),
    ("opened again within a line", "```sql\nSELECT\nNo: ```sqlite\nSELECT 2\n```", "SELECT 2"),
    ("other block opened over it", "```sql\nSELECT 1\n```\n```sql\nSELECT 2\n```python\nx\n```", "SELECT 1"),
    ("open last fence", "```sql\nSELECT 1\n```\nsimpler:\n```sql\nSELECT 2", "SELECT 1"),
    ("sql fence named in prose before", "I put it in a ```sql block:\n```sql\nSELECT 1\n```", "SELECT 1"),
    ("sql fence named in prose after", "```sql\nSELECT 1\n```\nThe ```sql block above is it.", "SELECT 1"),
    ("bare SQL", " SELECT 1 ;\n", "SELECT 1 ;"),
    ("bare lower case", "select 1", "select 1"),
    ("bare WITH", "With a AS (SELECT 1) SELECT * FROM a", "With a AS (SELECT 1) SELECT * FROM a"),
    ("bare VALUES", "VALUES (1)", "VALUES (1)"),
    ("bare in parentheses", "( (SELECT 1))", "( (SELECT 1))"),
    ("bare after comments", "-- q\n/* w */ --\nSELECT 1", "-- q\n/* w */ --\nSELECT 1"),
    ("bare star", "SELECT*FROM t", "SELECT*FROM t"),
]


@pytest.mark.parametrize(("text", "sql"), [case[1:] for case in SELECTED], ids=[case[0] for case in SELECTED])
def test_the_answer_is_the_last_complete_sql_block_or_bare_sql(text, sql):
    assert extract_sql(text) == ok(sql)
    assert extract_sql(text, "stop") == ok(sql)


NOT_SQL = {
    "nothing": None,
    "empty": "",
    "white space": " \n\t ",
    "prose": "I would select the best one.",
    "unmarked fence": "```\nSELECT 1\n```",
    "pseudo": "```pseudo\nSELECT 1\n```",
    "pseudo-sql": "```pseudo-sql\nSELECT 1\n```",
    "pseudosql": "```pseudosql\nSELECT 1\n```",
    "sql-pseudo": "```sql-pseudo\nSELECT 1\n```",
    "sqlx": "```sqlx\nSELECT 1\n```",
    "mysql": "```mysql\nSELECT 1\n```",
    "plaintext": "```plaintext\nSELECT 1\n```",
    "python": '```python\nrun("SELECT 1")\n```',
    "closing fence before a line that says sql": "```python\nx\n```\nsql\nSELECT 1\n",
    "unmarked fence whose first line says sql": "```\nsql\nSELECT 1\n```",
    "open block": "```sql\nSELECT 1",
    "closed with too few backticks": "```sql\nSELECT 1\n``",
    "four opened, three closed": "````sql\nSELECT 1\n```",
    "within a longer fence": "````text\n```sql\nSELECT 1\n```\n````",
    "empty block": "```sql\n```",
    "empty block on a line": "a ```sql``` fence",
    "fence of quotation marks": "SQL:\n'''sql\nSELECT 1\n'''",
    "bare word that only begins like SELECT": "selection of schools",
    "bare other statement": "DELETE FROM t",
    "bare SQL behind prose": "Answer: SELECT 1",
    "bare comment": "-- SELECT 1",
    "bare open comment": "/* SELECT 1",
    "SQL before a fence": "SELECT 1\n```\nSELECT 1\n```",
}


@pytest.mark.parametrize("text", NOT_SQL.values(), ids=NOT_SQL)
def test_a_finished_answer_without_a_complete_sql_block_has_no_sql(text):
    assert extract_sql(text) == NO_SQL
    assert extract_sql(text, "length") == TRUNCATED


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1 FROM",
        "```sql\nSELECT 1\n```\nbetter:\n```sql\nSELECT",
        "```sql\nSELECT 1\n```\nbetter:\n```sql",
        "```sql\nSELECT 1\n```\nbetter:\n```SQL",
        "```sql\nSELECT 1\n```\nbetter:\n```sq",
        "```sql\nSELECT 1\n```\nbetter:\n```",
        "```sql\nSELECT 1\n```\nbetter:\n```sqlite\nSELECT 2\n``",
        "```pseudo\nSELECT the best\n```\nNow the",
    ],
)
def test_an_answer_cut_off_before_its_sql_is_complete_is_truncated(text):
    assert extract_sql(text, "length") == TRUNCATED


@pytest.mark.parametrize("rest", ["", "\n", "\nThis query", "\n```pseudo\nSELECT", "\n```\n| 1 |", "\n```text"])
def test_an_answer_cut_off_after_its_sql_keeps_it(rest):
    assert extract_sql("```sql\nSELECT 1\n```" + rest, "length") == ok("SELECT 1")


def test_only_the_finish_reason_length_means_cut_off():
    for reason in (None, "stop", "content_filter", "eos_token", ""):
        assert extract_sql("SELECT 1", reason) == ok("SELECT 1")
        assert extract_sql("```sql\nSELECT 1", reason) == NO_SQL


# ---------------------------------------------------------------------------------------- rules, for any answer

NO_BACKTICKS = st.text(st.characters(exclude_characters="`", exclude_categories=["Cs"]), max_size=60)
PROSE = NO_BACKTICKS | st.sampled_from(["Then `a` and ``b``:", "1. First:", "Final SQL", "--"])
SQL = NO_BACKTICKS.map(str.strip).filter(bool)
OTHER = st.builds(
    "```{}\n{}\n```".format, st.sampled_from(["", "pseudo", "python", "pseudo-sql", "plaintext"]), NO_BACKTICKS
)
MARKUP = st.lists(
    st.sampled_from(
        ["`", "``", "```", "````", "```sql", "```SQLite", "```pseudo", "sql", "SELECT 1", "WITH", "\n", "\r\n", " "]
        + ["\t", "(", "--", "/*", "*/", "'", "\x00", "\u2028", "é"]
    ),
    max_size=30,
).map("".join)


@given(
    before=st.lists(PROSE | OTHER | st.builds("```sql\n{}\n```".format, NO_BACKTICKS), max_size=4),
    tag=st.sampled_from(["sql", "SQL", "sqlite", "Sqlite"]),
    indent=st.sampled_from(["", "  ", "\t"]),
    ticks=st.integers(3, 6),
    sql=SQL,
    after=st.lists(PROSE | OTHER, max_size=3),
    finish_reason=st.sampled_from([None, "stop", "length"]),
)
def test_sql_comes_back_exactly_from_any_prose_and_fences(before, tag, indent, ticks, sql, after, finish_reason):
    fence = "`" * ticks
    text = "\n".join([*before, f"{indent}{fence}{tag}\n{sql}\n{indent}{fence}", *after])
    assert extract_sql(text, finish_reason) == ok(sql)


@given(before=PROSE, opening=st.sampled_from([" ", "\n"]), sql=SQL, closing=st.sampled_from(["", " ", "\n"]))
def test_sql_comes_back_exactly_from_a_fence_that_shares_its_lines(before, opening, sql, closing):
    assert extract_sql(f"{before}\n```sql{opening}{sql}{closing}```") == ok(sql)


@given(st.none() | st.text() | MARKUP, st.sampled_from([None, "stop", "length"]))
def test_extraction_never_fails_and_never_contradicts_itself(text, finish_reason):
    found = extract_sql(text, finish_reason)
    assert (found.status == "ok") == (found.sql is not None)
    assert found.status != ("no_sql" if finish_reason == "length" else "truncated")
    if found.sql is not None:
        assert found.sql and found.sql == found.sql.strip() and found.sql in text


@given(MARKUP, SQL)
def test_whatever_came_before_a_final_block_of_its_own_is_the_answer_unless_a_longer_fence_is_open(before, sql):
    before = re.sub("`{4,}", "```", before)
    assert extract_sql(f"{before}\n```sql\n{sql}\n```") == ok(sql)


MEGABYTE = 1_000_000
HOSTILE = {
    "backticks": "`" * MEGABYTE,
    "pairs of backticks": "`` " * (MEGABYTE // 3),
    "fences on one line": "``` " * (MEGABYTE // 4),
    "opening fences on one line": "```sql " * (MEGABYTE // 7),
    "opening fences": "```sql\n" * (MEGABYTE // 7),
    "blocks": "```sql\nSELECT 1\n```\n" * (MEGABYTE // 20),
    "an open block with many fences in it": "```sql\nx" + " ```y" * (MEGABYTE // 5),
    "an open long fence with short ones in it": "````sql\n" + "```sql\n```\n" * (MEGABYTE // 11),
    "a long line, then fences": "```sql " + "x" * (MEGABYTE // 2) + "\nx" + " ```y" * (MEGABYTE // 10),
    "growing fences": "\n".join("`" * length for length in range(3, 1400)),
    "blanks, then a fence": "```" + " " * MEGABYTE + "x ```sql",
    "blank lines": "```sql" + " \n" * (MEGABYTE // 2),
    "blanks": " " * MEGABYTE + "x```",
    "a tag without end": "```" + "sql" * (MEGABYTE // 3),
    "bare blanks": " \n" * (MEGABYTE // 2),
    "bare parentheses": "(" * MEGABYTE,
    "bare comments": "/**/" * (MEGABYTE // 4) + "x",
    "bare open comments": "/* " * (MEGABYTE // 3),
    "bare dashes": "-" * MEGABYTE,
    "bare comment lines": "--\n" * (MEGABYTE // 3),
    "bare SQL": "SELECT " + "(1 + " * (MEGABYTE // 5),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_a_megabyte_made_to_be_slow_takes_no_time(text):
    began = time.process_time()
    extract_sql(text)
    extract_sql(text, "length")
    assert time.process_time() - began < 3  # measured: below 0.3 s; anything quadratic takes minutes
