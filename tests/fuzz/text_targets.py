"""Targets that take texts: extraction, scorers, rules, pages and figures.

A text is a row's, an answer's or a user's; nothing of it may end a run or become markup.
"""

from __future__ import annotations

import json
import math
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from tests.fuzz.outcomes import own_errors, read_json, read_text
from tests.hostile_texts import make_hostile_texts
from tests.questions import make_dataset
from tests.test_pages import plant
from vidground_hf.answerers import ConstantAnswerer
from vidground_hf.extraction import extract_answer, extract_choice, extract_number
from vidground_hf.figures import draw_groups
from vidground_hf.ladder_curation import climb
from vidground_hf.ladder_pages import render_ladder_card, render_ladder_html
from vidground_hf.options import find_gold, parse_options, strip_prefixes
from vidground_hf.pages import render_card, render_html
from vidground_hf.rendering import clean_text, escape_markdown
from vidground_hf.rule_parsing import parse_rule
from vidground_hf.schema import PROBLEM_TYPES, Example
from vidground_hf.scoring import score_answer, score_mean_relative_accuracy

_ANSWERS = ["B", "(b)", "The answer is C.", "<answer>A</answer>", "\\boxed{2}", "1,200.5 %", "-1e3", "the red one"]
_SPLITTER = "\n\n"


def make_text_seeds() -> list[bytes]:
    """Answers, options and hostile texts, one by one and several with an empty line between."""
    texts = [*_ANSWERS, *make_hostile_texts(60)]
    joined = [
        _SPLITTER.join([answer, "a dog", "the red one", "B", text])
        for answer, text in zip(_ANSWERS, texts[8:16], strict=True)
    ]
    return [text.encode("utf-8", "surrogatepass") for text in [*texts, *joined]]


def check_extraction(data: bytes, _: Path) -> None:
    """An answer is found among the options, or not at all."""
    text, *options = read_text(data).split(_SPLITTER)
    extract_answer(text)
    choice = extract_choice(text, tuple(options))
    assert choice is None or 0 <= choice < len(options)
    number = extract_number(text)
    assert number is None or not math.isnan(number)
    gold = find_gold(text, options, options)
    assert gold is None or 0 <= gold < len(options)
    assert len(strip_prefixes(options)) == len(options)


def check_scoring(data: bytes, _: Path) -> None:
    """A score is in [0, 1] or there is none, whatever is predicted and whatever the reference is."""
    prediction, reference, *options = read_text(data).split(_SPLITTER)[:8] + ["2"] * 2
    for kind in PROBLEM_TYPES:
        shown = tuple(options) if kind == "multiple_choice" else ()
        example = Example(
            id="1", question="?", problem_type=kind, options=shown, answer=reference, answer_index=0 if shown else None
        )
        scores = [score_answer(prediction, example), score_mean_relative_accuracy(prediction, example)]
        assert all(score is None or 0 <= score <= 1 for score in scores), f"{kind}: {scores}"


def make_rule_seeds() -> list[bytes]:
    rules = ["calibrated(0.1)", "calibrated(alpha=1e-3)", "majority(share=0.75)", "at_most(2)", "circular"]
    return [rule.encode() for rule in [*rules, "bias_at_least(.5)", "drop_fraction(fraction=+0.3)", "single_shot()"]]


def check_rules(data: bytes, _: Path) -> None:
    """A rule that is read is written as text that reads the same."""
    with own_errors(ValueError):
        rule = parse_rule(read_text(data))
        assert parse_rule(str(rule)) == rule


_METADATA = set(yaml.safe_load(render_card(plant("x"), []).split("---\n")[1]))
_NUM_TAGS = render_html(plant("x"), {}).count("<")


def check_pages(data: bytes, _: Path) -> None:
    """A text stays text: on a page it adds no tag, in a card no line, and both can be written as UTF-8."""
    text = read_text(data)
    assert "\n" not in clean_text(text)
    assert "<" not in escape_markdown(text)
    report = plant(text)
    page = render_html(report, {})
    page.encode()
    if text.strip() and text not in json.dumps(plant("")):
        assert page.count("<") == _NUM_TAGS
    card = render_card(report, [])
    card.encode()
    assert set(yaml.safe_load(card.split("---\n")[1])) <= _METADATA


@cache
def _make_ladder_report() -> dict[str, Any]:
    report = climb(make_dataset(40), ConstantAnswerer("A"), views=["text"]).report
    return report | dict.fromkeys(["num_grounded", "num_text_answerable", "num_not_kept"], 3)


def _plant_in_ladder(text: str) -> dict[str, Any]:
    """The report of a ladder with one text in the place of every text that a stranger can choose."""
    report = _make_ladder_report()
    part = report["groups"]["problem_type"]["multiple_choice"]
    planted = {"groups": report["groups"] | {"category": {text: part, f"{text}'": part}}, "answerer": text}
    return report | planted | {"source": {"id": text, "revision": text, "fingerprint": text}, "decoder": text}


def check_ladder_pages(data: bytes, _: Path) -> None:
    """The same for the pages of a ladder."""
    text = read_text(data)
    report = _plant_in_ladder(text)
    page = render_ladder_html(report, b"")
    page.encode()
    render_ladder_card(report).encode()
    if text.strip():
        assert page.count("<") == render_ladder_html(_plant_in_ladder("x"), b"").count("<")


def check_figures(data: bytes, _: Path) -> None:
    """The names of groups are drawn as they are, or by number."""
    draw_groups(plant(read_text(data)))


def make_json_seeds() -> list[bytes]:
    cells = ["['a', 'b']", '{"A": "x", "B": "y"}', "A. one", 3, 2.0, None, True, ["a", None], {"B": 1, "A": None}]
    return [json.dumps(cell).encode() for cell in [cells, *cells]]


def check_cells(data: bytes, _: Path) -> None:
    """Any cell is read as options, as a gold answer, or not at all."""
    cell = read_json(data)
    parsed = parse_options(cell)
    assert parsed is None or isinstance(parsed, list)
    gold = find_gold(cell, parsed or [], [str(option) for option in parsed or []])
    assert gold is None or 0 <= gold < len(parsed or [])
