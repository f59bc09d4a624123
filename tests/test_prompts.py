"""How a question becomes chat messages, and what the few-shot examples are worth."""

from __future__ import annotations

import pickle
import re
import sqlite3
import subprocess
import sys
from contextlib import closing
from importlib.resources import files

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from excot.errors import ExcotError
from excot.prompts import STYLES, Prompt, PromptError, extract_sql, few_shots, load_prompt

SCHEMA = "Table pond\n  name (TEXT), primary key, e.g. 'North', 'O''Hara'\n  `depth m` (REAL), e.g. 1.5"
EXAMPLES = yaml.safe_load((files("excot.prompts") / "examples.yaml").read_text("utf-8"))


# ----------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize("style", STYLES)
def test_a_style_gives_a_system_and_a_user_message(style):
    messages = load_prompt(style).messages("How deep is it?", SCHEMA, "deep means > 2")
    assert [message["role"] for message in messages] == ["system", "user"]
    assert "SQLite" in messages[0]["content"] and "```sql" in messages[0]["content"]
    assert all(message["content"] == message["content"].strip() for message in messages)


@pytest.mark.parametrize("style", STYLES)
def test_the_system_message_is_the_same_for_every_question(style):
    prompt = load_prompt(style)
    assert prompt.messages("a", "b", "c")[0] == prompt.messages("d", "e")[0]


@pytest.mark.parametrize("style", STYLES)
def test_the_user_message_begins_with_the_schema_so_that_its_prefix_can_be_cached(style):
    prompt = load_prompt(style)
    user = prompt.messages("How deep is it?", SCHEMA, "deep means > 2")[-1]["content"]
    prefix = user[: user.index(SCHEMA) + len(SCHEMA)]
    assert user.index(SCHEMA) < user.index("deep means > 2") < user.index("How deep is it?")
    assert prompt.messages("Which one?", SCHEMA)[-1]["content"].startswith(prefix)


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("evidence", [None, ""])
def test_a_question_without_evidence_shows_no_trace_of_it(style, evidence):
    user = load_prompt(style).messages("How deep is it?", SCHEMA, evidence)[-1]["content"]
    assert "vidence" not in user and "None" not in user and "\n\n\n" not in user


HOSTILE = [
    "{{ schema }}",
    "{% raw %}",
    "{# no #}",
    "<b>&amp;</b>",
    "a `b` ```sql\nSELECT 1\n```",
    "\\n %s {0}",
    "ü\u2028é",
]
VALUES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).map(str.strip).filter(bool)


@pytest.mark.parametrize("style", STYLES)
@given(
    question=VALUES | st.sampled_from(HOSTILE),
    schema=VALUES | st.sampled_from(HOSTILE),
    evidence=VALUES | st.sampled_from(HOSTILE),
)
def test_question_schema_and_evidence_stand_in_the_prompt_as_they_are(style, question, schema, evidence):
    user = load_prompt(style).messages(question, schema, evidence)[-1]["content"]
    head, tail = user.index(schema), len(user) - len(question)
    assert user.endswith(question)
    assert user.startswith("Schema:\n" + schema)
    assert evidence in user[head + len(schema) : tail]


# --------------------------------------------------------------------------------------------------- identity


def test_a_prompt_id_is_its_name_and_a_hash_of_its_text():
    # printf '%s' 'Question: {{ question }}' | sha256sum
    assert Prompt("mine", "Question: {{ question }}").id == "mine-b8a32c3d"


def test_a_prompt_id_changes_with_the_text_and_with_the_name():
    ids = {load_prompt(style).id for style in STYLES}
    ids |= {Prompt("mine", "{{ question }}").id, Prompt("mine", "{{ question }} ").id}
    ids |= {Prompt("ours", "{{ question }}").id}
    assert len(ids) == len(STYLES) + 3


@pytest.mark.parametrize("style", STYLES)
def test_a_prompt_made_again_from_its_stored_text_is_the_same_prompt(style):
    prompt = load_prompt(style)
    again = Prompt(prompt.name, prompt.text)
    assert again == prompt and again.id == prompt.id and prompt.id.startswith(f"{style}-")
    assert again.messages("q", SCHEMA, "e") == prompt.messages("q", SCHEMA, "e")


def test_a_prompt_can_be_sent_to_another_process_after_use():
    prompt = load_prompt("cot")
    messages = prompt.messages("q", SCHEMA)
    assert pickle.loads(pickle.dumps(prompt)).messages("q", SCHEMA) == messages


# -------------------------------------------------------------------------------------------- a user's template


@pytest.fixture
def template(tmp_path):
    def write(text: str, name: str = "mine.jinja") -> str:
        path = tmp_path / name
        path.write_bytes(text.encode())
        return str(path)

    return write


def test_a_template_without_blocks_is_one_user_message(template):
    prompt = load_prompt(
        template("\n{{ schema }}\n-- {{ question }}{% if evidence %} ({{ evidence }}){% endif %}\n\n")
    )
    assert prompt.name == "mine"
    assert prompt.messages("q?", "s", "e") == [{"role": "user", "content": "s\n-- q? (e)"}]
    assert prompt.messages("q?", "s") == [{"role": "user", "content": "s\n-- q?"}]


def test_a_template_with_blocks_has_the_messages_that_its_blocks_give(template):
    both = load_prompt(
        template("{% block system %}Be brief.{% endblock %}\n{% block user %}{{ question }}{% endblock %}")
    )
    assert both.messages("q?", "s") == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "q?"},
    ]
    user_only = load_prompt(template("{# mine #}\n{% block user %}{{ question }}{% endblock %}"))
    assert user_only.messages("q?", "s") == [{"role": "user", "content": "q?"}]


def test_a_template_saved_on_windows_is_the_same_prompt(template):
    unix = load_prompt(template("{{ schema }}\n{{ question }}\n"))
    assert load_prompt(template("\ufeff{{ schema }}\r\n{{ question }}\r\n")) == unix


def test_a_template_may_use_what_jinja_itself_offers(template):
    text = (
        "{% set words = question.split() %}{% for i in range(2) %}{{ loop.index }}{{ words[i] | title }} {% endfor %}"
    )
    assert load_prompt(template(text)).messages("to be", "s")[0]["content"] == "1To 2Be"


def error_of(call, *arguments) -> str:
    with pytest.raises(PromptError) as caught:
        call(*arguments)
    assert isinstance(caught.value, ExcotError) and "\n" not in str(caught.value)
    return str(caught.value)


def test_an_unknown_style_is_told_the_three_and_the_nearest():
    error = error_of(load_prompt, "divide-and-conquer")
    assert "'divide-and-conquer'" in error and "did you mean divide_and_conquer?" in error
    assert all(style in error for style in STYLES)
    assert "did you mean" not in error_of(load_prompt, "zzz")


def test_a_missing_file_is_named(tmp_path):
    error = error_of(load_prompt, str(tmp_path / "gone.jinja"))
    assert "gone.jinja" in error and "No such file" in error
    assert "cannot be read" in error_of(load_prompt, str(tmp_path / "a" / "folder" / ""))
    assert "cannot be read" in error_of(load_prompt, str(tmp_path) + "/")
    assert "cannot be read" in error_of(load_prompt, "nul\0.jinja")
    assert "cannot be read" in error_of(load_prompt, "~no-such-user/mine.jinja")


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "binary.jinja"
    path.write_bytes(b"\xff\xfe\x00{{")
    assert "not UTF-8" in error_of(load_prompt, str(path))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{{ schema }}\n{{ question }\n", "line 2: unexpected '}'"),
        ("{{ question }}\n\n{% if evidence %}", "line 3: Unexpected end of template"),
        ("{{ question | shorten }}", "line 1: No filter named 'shorten'"),
        ("{{ question }}\n{{ databse }}", "line 2: unknown variable 'databse'"),
        ("{{ questoin }}", "did you mean question?"),
        (
            "{{ question }}{% if evidence %}{% if evidence == 'rare' %}{{ hint }}{% endif %}{% endif %}",
            "variable 'hint'",
        ),
        ("{{ schema }} and no more", "never uses the question"),
        ("{{ schema }} {# {{ question }} #}", "never uses the question"),
        ("", "never uses the question"),
        ("{% block system %}{{ question }}{% endblock %}", "no block user among its blocks (system)"),
        ("Hello!\n{% block user %}{{ question }}{% endblock %}", "text outside the blocks"),
        ("{% block user %}{{ question }}{% endblock %}\n\n{{ schema }}", "line 3: text outside the blocks"),
        (
            "{{ question }}{{ evidence.strip() }}",
            "cannot be rendered: UndefinedError: 'None' has no attribute 'strip'",
        ),
        ("{{ question + 1 }}", "cannot be rendered: TypeError"),
        ("{% include 'other' %}{{ question }}", "cannot be rendered"),
        ("{{ question.__class__.__mro__ }}", "cannot be rendered: SecurityError"),
    ],
)
def test_a_template_that_cannot_work_is_refused_when_it_is_loaded(template, text, expected):
    path = template(text)
    error = error_of(load_prompt, path)
    assert "prompt template mine" in error and expected in error
    assert error == error_of(Prompt, "mine", text)


def test_a_template_that_fails_on_a_question_says_so(template):
    prompt = load_prompt(template("{{ question.split()[0] }}"))
    assert "cannot be rendered: UndefinedError" in error_of(prompt.messages, " ", "s")


# --------------------------------------------------------------------------------------------- few-shot examples


@pytest.mark.parametrize("style", STYLES)
def test_few_shots_are_absent_unless_asked_for(style):
    prompt = load_prompt(style)
    plain = str(prompt.messages("q", SCHEMA))
    shown = str(prompt.messages("q", SCHEMA, examples=few_shots(style)))
    for example in EXAMPLES:
        assert example["question"] not in plain and example["question"] in shown


@pytest.mark.parametrize("style", STYLES)
def test_few_shots_stand_between_the_system_message_and_the_question(style):
    prompt = load_prompt(style)
    examples = few_shots(style, 2)
    system, user = prompt.messages("q", SCHEMA, "hint")
    messages = prompt.messages("q", SCHEMA, "hint", examples)
    assert [message["role"] for message in messages] == ["system", *["user", "assistant"] * 2, "user"]
    assert messages[0] == system and messages[-1] == user
    for example, shown, answer in zip(examples, messages[1:-1:2], messages[2:-1:2], strict=True):
        assert shown == prompt.messages(example.question, example.schema, example.evidence)[-1]
        assert answer["content"] == example.answer


def test_as_many_few_shots_as_asked_for():
    assert len(few_shots("cot")) == 3
    assert few_shots("cot", 0) == () and few_shots("cot", 1) == few_shots("cot")[:1]
    assert "0 to 3" in error_of(few_shots, "cot", 4)
    assert "0 to 3" in error_of(few_shots, "cot", -1)


def test_a_users_own_template_has_no_few_shots():
    assert "'mine'" in error_of(few_shots, "mine")


def database(example) -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA foreign_keys = ON")
    connection.executescript(example["ddl"])
    return connection


@pytest.mark.parametrize("style", STYLES)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["question"][:30])
def test_every_example_answer_holds_a_query_that_runs_and_returns_rows(style, example):
    found = extract_sql(example["answers"][style], "stop")
    assert found.status == "ok"
    with closing(database(example)) as connection:
        assert connection.execute(found.sql).fetchall()


@pytest.mark.parametrize(
    ("example", "rows"),
    [
        (EXAMPLES[0], [("Old Mill", 15.5), ("Harbour", 10.5)]),
        (EXAMPLES[1], [("fig",)]),
        (EXAMPLES[2], [("North Shore", 200 / 3)]),
    ],
    ids=["join and aggregate", "subquery and EXCEPT", "ratio and LIMIT"],
)
def test_the_example_queries_answer_their_questions(example, rows):
    queries = {extract_sql(answer).sql for answer in example["answers"].values()}
    assert len(queries) == 1  # the styles differ in the way to the query, not in the query
    with closing(database(example)) as connection:
        assert connection.execute(queries.pop()).fetchall() == rows


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["question"][:30])
def test_an_example_schema_describes_its_database(example):
    described = []
    with closing(database(example)) as connection:
        for (table,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY rowid"):
            lines = [f"Table {table}"]
            keys = {row[3]: f"{row[2]}.{row[4]}" for row in connection.execute(f"PRAGMA foreign_key_list({table})")}
            for _, name, kind, _, _, primary in connection.execute(f"PRAGMA table_info({table})").fetchall():
                query = f"SELECT DISTINCT `{name}` FROM {table} ORDER BY 1 LIMIT 3"
                samples = ", ".join(repr(value) for (value,) in connection.execute(query))
                key = ", primary key" if primary else ""
                reference = f", references {keys[name]}" if name in keys else ""
                lines.append(f"  {name} ({kind}){key}{reference}, e.g. {samples}")
            described.append("\n".join(lines))
    assert example["schema"].strip() == "\n\n".join(described)


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["question"][:30])
def test_divide_and_conquer_examples_sketch_pseudo_sql_that_is_never_extracted(example):
    answer = example["answers"]["divide_and_conquer"]
    assert (
        answer.index("## Divide and Conquer")
        < answer.index("**Main question:**")
        < answer.index("**Sub-question 1:**")
    )
    assert answer.index("**Sub-question 1.1:**") < answer.index("## Assembling SQL") < answer.index("```sql")
    sketches = re.findall(r"```pseudo\n(.+?)\n```", answer, re.DOTALL)
    assert len(sketches) >= 3 and answer.count("```sql") == 1
    assert extract_sql(answer).sql not in sketches
    # cut off anywhere before the final block is complete, nothing of it passes for the answer
    for end in range(0, len(answer.strip()), 7):
        assert extract_sql(answer[:end], "length").sql is None


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["question"][:30])
def test_answers_have_the_form_that_their_style_asks_for(example):
    direct, cot = example["answers"]["direct"].strip(), example["answers"]["cot"].strip()
    assert direct == f"```sql\n{extract_sql(direct).sql}\n```"
    assert cot.endswith(direct) and len(cot) > len(direct)
    assert example["answers"]["divide_and_conquer"].strip().endswith(direct)


def test_one_example_shows_how_to_use_evidence():
    assert [example["evidence"] is not None for example in EXAMPLES].count(True) == 1


# -------------------------------------------------------------------------------------------------- light import


def test_importing_prompts_loads_neither_jinja_nor_yaml_nor_a_database():
    heavy = {"jinja2", "yaml", "sqlite3", "sqlglot", "excot.execution"}
    code = f"import sys, excot.prompts; print({heavy} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
