from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from vidground_hf.extraction import extract_answer, extract_choice, extract_number
from vidground_hf.schema import PROBLEM_TYPES, Example, ProblemType
from vidground_hf.scoring import score_answer, score_free_form, score_mean_relative_accuracy

OPTIONS = ("a blue hat", "the red one", "A car", "none of the above")


def make_example(kind: ProblemType, answer: str | None, options: tuple[str, ...] = ()) -> Example:
    index = options.index(answer) if answer in options else None
    return Example(id="1", question="?", problem_type=kind, options=options, answer=answer, answer_index=index)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("B", 1),
        ("b", 1),
        ("(B)", 1),
        ("B.", 1),
        ("**B**", 1),
        ("B. the red one", 1),
        ("B) the red one", 1),
        ("(B) the red one", 1),
        ("The answer is B", 1),
        ("The answer is B.", 1),
        ("The correct answer is (B).", 1),
        ("Answer: B", 1),
        ("answer is option B because of the colour", 1),
        ("I choose B.", 1),
        ("I think it is B", 1),
        ("\\boxed{B}", 1),
        ("<think>A? No, C.</think><answer>B</answer>", 1),
        ("<answer>B", 1),
        ("<ANSWER> B </ANSWER>", 1),
        ("the red one", 1),
        ("The red one.", 1),
        ("It was the red one I saw", 1),
        ("A car", 2),
        ("a car", 2),
        ("A", 0),
        ("A man walks", None),
        ("A man is in a car", 2),
        ("a blue hat and the red one", None),
        ("E", None),
        ("Z.", None),
        ("", None),
        ("I do not know", None),
        ("The answer is a mystery", None),
        ("Bananas", None),
        ("it was incredible", None),
    ],
)
def test_extract_choice_on_what_models_write(text: str, expected: int | None) -> None:
    assert extract_choice(text, OPTIONS) == expected


def test_the_longest_option_wins_over_one_inside_it() -> None:
    assert extract_choice("she wears a red hat today", ("red", "a red hat")) == 1


def test_a_duplicate_of_the_gold_is_right() -> None:
    example = Example(
        id="1", question="?", problem_type="multiple_choice", options=("x", "y", "X."), answer="x", answer_index=0
    )
    assert score_answer("C", example) == 1.0
    assert score_answer("B", example) == 0.0


# What Video-R1's accuracy_reward gives for the same pair, and ours; the last column says why they differ.
AGAINST_VIDEO_R1 = [
    ("multiple_choice", "B", "B", 1.0, 1.0, ""),
    (
        "multiple_choice",
        "B.",
        "B",
        0.0,
        1.0,
        "it compares strings; a full stop after the letter is not a wrong answer",
    ),
    ("multiple_choice", "blue", "B", 0.0, 1.0, "it knows no option texts"),
    ("multiple_choice", "A", "B", 0.0, 0.0, ""),
    ("numerical", "3", "3", 1.0, 1.0, ""),
    ("numerical", "3", "3.0", 0.0, 1.0, "it gives 0 when one side alone has a decimal point; the numbers are equal"),
    ("numerical", "1,200", "1200", 0.0, 1.0, "the same for a thousands comma"),
    ("numerical", "3.141", "3.14", 1.0, 1.0, ""),
    ("numerical", "3.15", "3.14", 0.0, 0.0, ""),
    ("numerical", "three", "3", 0.0, 0.0, ""),
    ("ocr", "stop sign", "stop sign", 1.0, 1.0, ""),
    ("ocr", "stop", "stop sign", 0.5, 0.5, ""),
    ("ocr", "a b c d", "x", 0.0, 0.0, ""),
    ("free_form", "a man runs", "a man runs", 1.0, 1.0, ""),
    ("free_form", "zebra", "a man runs", 0.0, 0.0, ""),
    ("regression", "9", "10", 0.9, 0.9, ""),
    ("regression", "30", "10", 0.0, 0.0, ""),
    ("regression", "no idea", "10", 0.0, 0.0, ""),
    ("regression", "0", "0", 0.0, 1.0, "its epsilon makes the relative error of 0 to 0 a 1"),
]


@pytest.mark.parametrize(("kind", "output", "gold", "theirs", "ours", "reason"), AGAINST_VIDEO_R1)
def test_against_video_r1(kind: ProblemType, output: str, gold: str, theirs: float, ours: float, reason: str) -> None:
    options = ("red", "blue") if kind == "multiple_choice" else ()
    example = Example(
        id="1", question="?", problem_type=kind, options=options, answer=gold, answer_index=1 if options else None
    )
    assert score_answer(f"<answer>{output}</answer>", example) == pytest.approx(ours)
    assert (theirs == ours) == (not reason)


@pytest.mark.parametrize(
    ("kind", "gold"),
    [("numerical", "many"), ("ocr", " "), ("free_form", ""), ("regression", None), ("multiple_choice", None)],
)
def test_a_bad_reference_is_unscored_not_wrong(kind: ProblemType, gold: str | None) -> None:
    assert score_answer("3", make_example(kind, gold, ("x", "y") if kind == "multiple_choice" else ())) is None


def test_no_answer_is_unscored_and_an_empty_one_is_wrong() -> None:
    example = make_example("multiple_choice", "x", ("x", "y"))
    assert score_answer(None, example) is None
    assert score_answer("", example) == 0.0


def test_free_form_is_the_mean_of_three_rouges() -> None:
    # unigrams 2 of 3 and 2 of 3, bigrams 1 of 2 and 1 of 2, longest subsequence 2: (2/3 + 1/2 + 2/3) / 3
    example = make_example("free_form", "the dog runs")
    assert score_answer("the dog sleeps", example) == pytest.approx((2 / 3 + 1 / 2 + 2 / 3) / 3)


_WORDS = st.lists(st.sampled_from(["the", "dog", "dogs", "Running", "runs", "2", "é", "-"]), max_size=12).map(" ".join)


@given(gold=_WORDS, said=_WORDS)
def test_free_form_is_what_rouge_score_gives(gold: str, said: str) -> None:
    theirs = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True).score(gold, extract_answer(said))
    expected = sum(score.fmeasure for score in theirs.values()) / 3
    assert score_free_form(said, make_example("free_form", gold)) == (expected if gold.strip() else None)


def test_a_very_long_answer_is_scored_whole() -> None:
    gold = " ".join(f"word{k}" for k in range(2000))
    said = " ".join(f"word{k}" for k in range(40_000))  # a table of 80 million cells
    assert score_answer(said, make_example("free_form", gold)) == pytest.approx(2 * 0.05 / 1.05, rel=1e-3)


@pytest.mark.parametrize(("value", "expected"), [("10", 1.0), ("9", 0.8), ("9.5", 0.9), ("4", 0.0), ("x", 0.0)])
def test_mean_relative_accuracy(value: str, expected: float) -> None:
    assert score_mean_relative_accuracy(value, make_example("regression", "10")) == expected
    assert score_mean_relative_accuracy(value, make_example("regression", "none")) is None


def test_a_gold_of_zero_can_be_met() -> None:
    assert score_answer("0", make_example("regression", "0")) == 1.0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,200.5 m", 1200.5),
        ("between 3 and 4", 4.0),
        ("-7", -7.0),
        (".5", 0.5),
        ("2e3", 2000.0),
        ("none", None),
        (",", None),
    ],
)
def test_extract_number(text: str, expected: float | None) -> None:
    assert extract_number(text) == expected


def test_extract_answer_takes_the_last_tag() -> None:
    assert extract_answer("<answer>A</answer> wait <answer>B</answer>") == "B"


@given(text=st.text(max_size=60), kind=st.sampled_from(PROBLEM_TYPES), gold=st.text(max_size=10))
def test_scores_are_none_or_between_0_and_1(text: str, kind: ProblemType, gold: str) -> None:
    options = (gold, "other") if kind == "multiple_choice" else ()
    example = Example(
        id="1", question="?", problem_type=kind, options=options, answer=gold, answer_index=0 if options else None
    )
    score = score_answer(text, example)
    assert score is None or 0.0 <= score <= 1.0


@given(option=st.sampled_from(OPTIONS), before=st.text(alphabet=" \n\t\"'*", max_size=3))
def test_the_options_own_words_are_always_found(option: str, before: str) -> None:
    assert extract_choice(before + option, OPTIONS) == OPTIONS.index(option)


def test_hostile_text_is_only_text() -> None:
    assert extract_choice("(" * 50_000, OPTIONS) is None
    assert re.fullmatch("a+", "a" * 3)  # patterns are ours alone: an option is escaped before it is searched for
    assert extract_choice("x", ("(((", "[a-z]+", "x")) == 2
