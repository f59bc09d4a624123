"""The funnel: what each step leaves, in numbers and as a figure.

One test holds the figure against ``tests/golden/funnel.svg``; `manifests.check_golden` says how to renew it.
"""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from manifests import check_golden, entry, make_manifest

from excot.hub.funnel import funnel, funnel_svg


def test_the_funnel_counts_what_the_manifest_says():
    steps = {step.label: step for step in funnel(make_manifest())[0]}
    assert list(steps) == ["questions", "candidates", "extracted", "executed", "matched (set)", "sft", "paired"]
    assert [step.count for step in steps.values()] == [400, 12_796, 12_308, 11_825, 8_910, 368, 305]
    assert [step.questions for step in steps.values()] == [400, 398, None, None, 371, 368, 305]
    assert (steps["candidates"].change, steps["paired"].change) == ("31.99 per question", "0.76 per question")
    assert (steps["matched (set)"].change, steps["sft"].change) == ("75.3%", "4.1%")


def test_questions_that_were_not_asked_and_answers_that_were_not_judged_are_steps_of_their_own():
    manifest = make_manifest()
    manifest["stages"]["questions"]["rows"] = 7000
    manifest["stages"]["generations"]["candidates"] = 20_000
    steps = {step.label: step for step in funnel(manifest)[0]}
    assert list(steps)[:4] == ["questions", "asked", "candidates", "judged"]
    assert (steps["asked"].count, steps["asked"].change) == (400, "5.7%")
    assert (steps["candidates"].change, steps["judged"].change) == ("50 per question", "64.0%")


def test_the_rules_by_which_training_data_was_chosen_decide_what_matched():
    manifest = make_manifest()
    manifest["stages"]["pairs"]["arguments"] |= {"rule": "multiset", "max_per_question": 4}
    steps = {step.label: step for step in funnel(manifest)[0]}
    assert steps["matched (set)"].count == 8910 and steps["matched (multiset)"].count == 8901
    assert steps["sft"].change == "4.1%" and steps["paired"].questions is None


def test_shares_are_rounded_to_all_or_nothing_only_when_they_are():
    manifest = make_manifest()
    manifest["stages"]["verified"] |= {"statuses": {"ok": 12_795, "error": 1}, "matches": {"set": 1}}
    changes = {step.label: step.change for step in funnel(manifest)[0]}
    assert (changes["extracted"], changes["executed"], changes["matched (set)"]) == ("100.0%", ">99.9%", "<0.1%")


# The figure


def test_the_figure_of_two_rounds_is_the_one_in_the_golden_file():
    check_golden("funnel.svg", funnel_svg(make_manifest()))


def texts(figure: str) -> list[str]:
    return ["".join(element.itertext()) for element in ElementTree.fromstring(figure) if element.tag.endswith("text")]


def test_a_round_of_a_single_step_is_no_funnel():
    manifest = {"stages": {"pairs": entry("pairs", 5)}}
    assert funnel(manifest) == {} and funnel_svg(manifest) is None
    manifest["stages"]["questions"] = entry("questions", 9)
    assert [step.count for step in funnel(manifest)[0]] == [9, 5]


def test_bars_are_as_long_as_their_share_of_the_unit():
    figure = ElementTree.fromstring(funnel_svg(make_manifest()))
    bars = [element.attrib for element in figure if element.get("height") == "14" and element.get("class") != "track"]
    steps = [step for steps in funnel(make_manifest()).values() for step in steps]
    full = {"questions": 400, "answers": 12_800, "pairs": 400}
    longest = max(float(bar["width"]) for bar in bars)
    assert [bar["class"] for bar in bars] == [step.unit for step in steps]
    for bar, step in zip(bars, steps, strict=True):
        assert float(bar["width"]) == pytest.approx(longest * step.count / full[step.unit], abs=0.1)


def test_a_figure_of_hostile_names_and_huge_counts_is_xml_and_its_texts_are_short():
    manifest = make_manifest()
    manifest["stages"]["generations"] |= {"model": "<b>&\"'\x00\x1b" + "長" * 500, "candidates": 999_999_999}
    shown = texts(funnel_svg(manifest))
    assert "999,999,999" in shown and max(map(len, shown)) <= 56
    assert any(text.startswith("Round 0: answers by <b>&\"' 長") for text in shown)
