"""The form reward: an answer in the form of the divide-and-conquer prompt."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rewarded import GOLD

from excot.llm.teacher import Teacher
from excot.prompts import STYLES, extract_sql, few_shots
from excot.rewards import format_reward

FORM = """## Divide and Conquer

**Main question:** Which items cost more than ten
```pseudo
SELECT name FROM item, dear ones
```

## Assembling SQL

```pseudo
SELECT name, price FROM item WHERE price > 10
```
The price is not asked for.
```sql
SELECT name FROM item WHERE price > 10
```
"""
SWAPPED = FORM.replace("Divide and Conquer", "@").replace("Assembling SQL", "Divide and Conquer")
SWAPPED = SWAPPED.replace("@", "Assembling SQL")


@pytest.mark.parametrize("style", STYLES)
def test_the_examples_of_the_divide_and_conquer_prompt_have_its_form_and_no_others_have(style):
    answers = [example.answer for example in few_shots(style)]
    assert answers and format_reward(answers) == [float(style == "divide_and_conquer")] * len(answers)


def test_the_teacher_writes_in_that_form():
    question = {"id": "q", "question": "?", "gold_sql": GOLD, "schema": "", "evidence": None}
    answers = [answer.text for answer in Teacher(0.5).plan(question, 8, 0)]
    assert answers and format_reward(answers) == [1.0] * len(answers)


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (FORM, 1.0),
        ([{"role": "assistant", "content": FORM}], 1.0),
        (f"\n{FORM}\n\n", 1.0),
        (FORM.replace("## ", "### ").replace("Conquer", "conquer"), 1.0),
        (FORM.replace("name FROM item WHERE", "x FROM y WHERE"), 1.0),
        (FORM.replace("## Divide and Conquer", ""), 0.0),
        (FORM.replace("## Assembling SQL", ""), 0.0),
        (FORM.replace("## ", "**"), 0.0),
        (SWAPPED, 0.0),
        (FORM + FORM, 0.0),
        (FORM.replace("```pseudo", "```sql"), 0.0),
        (FORM.replace("```sql", "```"), 0.0),
        (FORM.rstrip().removesuffix("```"), 0.0),
        (FORM + "This is the query.", 0.0),
        (FORM.replace("```sql\n", "").rstrip().removesuffix("```"), 0.0),
        ("```sql\nSELECT 1\n```\n## Divide and Conquer\n## Assembling SQL", 0.0),
        ("## Divide and Conquer\n```sql\nSELECT 1\n```\n## Assembling SQL\n```pseudo\nSELECT 1\n```", 0.0),
        ("## Divide and Conquer\n```sql\nSELECT 1\n```\n## Assembling SQL", 0.0),
        ("## Divide and Conquer\n```sql\n## Assembling SQL\nSELECT 1\n```", 0.0),
        (FORM + "SELECT name FROM item WHERE price > 10", 0.0),
        (GOLD, 0.0),
        ("", 0.0),
    ],
)
def test_the_form_is_two_parts_and_one_final_sql_block(completion, expected):
    assert format_reward([completion, completion], prompts=[], trainer_state=None) == [expected] * 2


@settings(max_examples=200)
@given(st.lists(st.sampled_from([*FORM.split("\n"), "```sql", "```", "SELECT 1"]), max_size=14).map("\n".join))
def test_any_text_has_a_form_reward_and_a_well_formed_one_has_its_sql(text):
    (value,) = format_reward([text])
    assert value in (0.0, 1.0)
    if value:
        assert extract_sql(text).status == "ok" and text.rstrip().endswith("```")
        assert text.lower().index("divide and conquer") < text.lower().index("assembling sql")
