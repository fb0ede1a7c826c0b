from __future__ import annotations

import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import binom

from tests.questions import NOUNS
from vidground_hf.answerers import ProbeFit, TextBiasProbe
from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.probe_choices import ChoiceTally
from vidground_hf.answerers.probe_votes import VoteRows
from vidground_hf.prompts import make_prompt
from vidground_hf.schema import Example, View

FIRSTS = ["already", "between", "forever", "perhaps", "somehow"]  # as long as "because", so that length tells nothing


def choose(name: str, question: str, options: Sequence[str], gold: int | None, **fields: Any) -> Example:
    return Example(
        id=name,
        question=question,
        problem_type="multiple_choice",
        options=tuple(options),
        answer_index=gold,
        answer=None if gold is None else options[gold],
        **{"group": name, **fields},
    )


def ask(name: str, question: str, answer: str | None, **fields: Any) -> Example:
    return Example(
        **{"id": name, "group": name, "question": question, "problem_type": "free_form", "answer": answer, **fields}
    )


def make_choices(
    num_rows: int, *, share: float = 1.0, seed: int = 0, sizes: Sequence[int] = (4,), word: str = "because"
) -> list[Example]:
    """Rows of random words, four a video; in `share` of them the gold alone begins with `word`."""
    rng = np.random.default_rng(seed)
    examples = []
    for k in range(num_rows):
        size = sizes[k % len(sizes)]
        gold = int(rng.integers(size))
        firsts = [str(first) for first in rng.choice(FIRSTS, size=size)]
        if rng.random() < share:
            firsts[gold] = word
        options = [f"{first} {rng.choice(NOUNS)} {k}x{place}" for place, first in enumerate(firsts)]
        question = f"why does the {rng.choice(NOUNS)} {rng.choice(NOUNS)}"
        examples.append(choose(f"q{k}", question, options, gold, group=f"clip{k // 4}"))
    return examples


def draw_gold(examples: Sequence[Example], seed: int) -> list[Example]:
    """The same rows with a gold option drawn at random."""
    rng = np.random.default_rng(seed)
    return [with_gold(example, int(rng.integers(len(example.options)))) for example in examples]


def with_gold(example: Example, gold: int) -> Example:
    return replace(example, answer_index=gold, answer=example.options[gold])


def is_right(example: Example, answer: Answer) -> bool:
    return example.answer_index is not None and answer.text == example.options[example.answer_index]


def measure_accuracy(examples: Sequence[Example], answers: Sequence[Answer]) -> float:
    return float(np.mean([is_right(e, a) for e, a in zip(examples, answers, strict=True)]))


def assert_chance(num_right: float, num_rows: int, chance: float) -> None:
    low, high = binom.interval(0.999, num_rows, chance)  # there are about ten such checks in this file
    assert low <= num_right <= high


def get_logprobs(answer: Answer) -> tuple[float, ...]:
    assert answer.option_logprobs is not None
    return answer.option_logprobs


@pytest.fixture(scope="module")
def shortcut_examples() -> list[Example]:
    return make_choices(240, share=0.5, seed=1)


@pytest.fixture(scope="module")
def shortcut_fit(shortcut_examples: list[Example]) -> ProbeFit:
    return TextBiasProbe().fit(shortcut_examples)


def test_shortcut_is_found_and_the_rest_stays_at_chance(
    shortcut_examples: list[Example], shortcut_fit: ProbeFit
) -> None:
    right: dict[bool, list[bool]] = {True: [], False: []}
    for example, answer in zip(shortcut_examples, shortcut_fit.answers, strict=True):
        right[(example.answer or "").startswith("because")].append(is_right(example, answer))
    assert np.mean(right[True]) == 1.0
    assert len(right[False]) > 90
    assert_chance(sum(right[False]), len(right[False]), 1 / 4)


def test_rows_that_are_given_away_are_the_surest(shortcut_examples: list[Example], shortcut_fit: ProbeFit) -> None:
    confidences: dict[bool, list[float]] = {True: [], False: []}
    for example, answer in zip(shortcut_examples, shortcut_fit.answers, strict=True):
        confidences[(example.answer or "").startswith("because")].append(cast(float, answer.confidence))
    assert min(confidences[True]) > max(confidences[False])


@pytest.mark.parametrize("seed", [0, 1])
def test_permuted_gold_gives_chance(seed: int) -> None:
    examples = draw_gold(make_choices(600, seed=2), seed)
    fit = TextBiasProbe(seed=seed).fit(examples)
    assert_chance(600 * measure_accuracy(examples, fit.answers), 600, 1 / 4)
    assert fit.label_invariance == 1.0


def make_mixed() -> list[Example]:
    spoken = [ask(f"open{k}", f"how many {NOUNS[k % 4]} are there", str(k % 4)) for k in range(40)]
    return [*make_choices(40), *spoken]


@pytest.mark.parametrize("part", [slice(40), slice(40, None), slice(None)], ids=["choices", "open", "both"])
def test_label_invariance_is_one(part: slice) -> None:
    assert TextBiasProbe().fit(make_mixed()[part]).label_invariance == 1.0


def test_label_invariance_falls_when_clues_count_the_held_out_gold(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = cast(Callable[..., Any], ChoiceTally.weigh_clues)
    monkeypatch.setattr(
        ChoiceTally, "weigh_clues", lambda self, won, expected, without: honest(self, won, expected, [])
    )
    leaky = TextBiasProbe().fit(make_choices(240, share=0.5, seed=1)).label_invariance
    assert leaky is not None
    assert leaky < 0.5


def test_label_invariance_falls_when_held_out_answers_vote(monkeypatch: pytest.MonkeyPatch) -> None:
    honest = cast(Callable[..., Any], VoteRows.fit)
    monkeypatch.setattr(VoteRows, "fit", lambda self, answers, chosen: honest(self, answers, np.ones_like(chosen)))
    leaky = TextBiasProbe().fit([ask(f"q{k}", f"what is k{k}", f"thing {k}") for k in range(40)]).label_invariance
    assert leaky is not None
    assert leaky < 0.5


def test_gold_of_a_row_changes_no_answer_of_its_group(
    shortcut_examples: list[Example], shortcut_fit: ProbeFit
) -> None:
    changed = [with_gold(example, (cast(int, example.answer_index) + 1) % 4) for example in shortcut_examples[:4]]
    assert len({example.group for example in changed}) == 1
    again = TextBiasProbe().fit([*changed, *shortcut_examples[4:]])
    assert again.answers[:4] == shortcut_fit.answers[:4]
    assert again.answers[4:] != shortcut_fit.answers[4:]  # the others did learn from those rows


def test_option_logprobs_are_distributions_over_distinct_options() -> None:
    examples = make_choices(60)
    doubled = [
        choose(e.id, e.question, (e.options[3], *e.options, f"{e.options[0].upper()}."), 1 + cast(int, e.answer_index))
        for e in examples
    ]
    for example, answer in zip(doubled, TextBiasProbe().fit(doubled).answers, strict=True):
        values = get_logprobs(answer)
        assert len(values) == 6
        assert (values[4], values[5]) == (values[0], values[1])
        assert sum(math.exp(value) for value in values[:4]) == pytest.approx(1.0, abs=1e-9)
        assert answer.text == example.options[int(np.argmax(values))]
        assert max(values) == values[cast(int, example.answer_index)]  # in the example's order


def test_confidence_is_the_lead_over_the_next_option(shortcut_fit: ProbeFit) -> None:
    for answer in shortcut_fit.answers:
        runner_up, best = sorted(get_logprobs(answer))[-2:]
        assert answer.confidence == pytest.approx(best - runner_up, abs=1e-12)


def test_one_distinct_option_has_no_confidence() -> None:
    lone = [choose("one", "what is it", ["a hat"], 0), choose("same", "what is it", ["A hat.", "a hat"], 0)]
    answers = TextBiasProbe().fit([*make_choices(40), *lone]).answers[-2:]
    assert [answer.text for answer in answers] == ["a hat", "A hat."]
    assert [get_logprobs(answer) for answer in answers] == [(0.0,), (0.0, 0.0)]
    assert [answer.confidence for answer in answers] == [None, None]


def test_free_option_counts_in_one_set() -> None:
    examples = make_choices(280, sizes=range(1, 15))
    answers = TextBiasProbe().fit(examples).answers
    assert [len(get_logprobs(answer)) for answer in answers] == [len(example.options) for example in examples]
    for size in range(1, 15):
        chosen = [k for k, example in enumerate(examples) if len(example.options) == size]
        assert measure_accuracy([examples[k] for k in chosen], [answers[k] for k in chosen]) == 1.0


def test_no_options() -> None:
    (answer,) = TextBiasProbe().fit([*make_choices(20), choose("none", "what", [], None)]).answers[-1:]
    assert answer == Answer(text=None, error="no_options")


def test_rows_without_gold_or_with_a_defect_are_answered_and_not_trained_on() -> None:
    examples = make_choices(80)
    others = make_choices(40, seed=5, word="seldom")
    unlabelled = [replace(e, answer_index=None, answer=None, group=e.id) for e in others[:20]]
    defective = [replace(e, defect="gold_not_in_options", group=e.id) for e in others[20:]]
    fit = TextBiasProbe().fit([*examples, *unlabelled, *defective])
    assert all(answer.error is None and answer.text is not None for answer in fit.answers)
    assert measure_accuracy(examples, fit.answers[:80]) == 1.0
    changed = [with_gold(example, (cast(int, example.answer_index) + 1) % 4) for example in defective]
    again = TextBiasProbe().fit([*examples, *unlabelled, *changed])
    assert again.answers == fit.answers
    assert again.to_bytes() == fit.to_bytes()


def test_a_set_without_labels_learns_nothing() -> None:
    examples = [replace(e, answer_index=None, answer=None) for e in make_mixed()]
    fit = TextBiasProbe().fit(examples)
    assert fit.answers == [Answer(text=None, error="nothing_learned")] * 80
    assert fit.label_invariance is None
    assert fit.answer([make_prompt(examples[0])]) == [Answer(text=None, error="nothing_learned")]
    assert fit.explain([make_prompt(examples[0])], fit.answers[:1]) == [[]]


def test_labels_in_one_fold_alone_leave_that_fold_without_a_model() -> None:
    examples = make_choices(20)
    examples[4:] = [replace(e, answer_index=None, answer=None) for e in examples[4:]]
    fit = TextBiasProbe().fit(examples)
    assert [answer.error for answer in fit.answers] == ["nothing_learned"] * 4 + [None] * 16


def test_empty_texts_are_answered() -> None:
    examples = [
        *make_choices(40),
        choose("empty question", "", ["a", "b"], 0),
        choose("empty option", "what", ["", "b", "c"], 1),
        choose("all empty", "", ["", ""], 0),
        choose("marks", "?!", ["...", " - "], 1),
        ask("silent", "", "red"),
        ask("silent too", "", "red"),
    ]
    answers = TextBiasProbe().fit(examples).answers
    assert measure_accuracy(examples[:40], answers[:40]) == 1.0
    assert [answer.error for answer in answers] == [None] * 46
    assert answers[42].confidence is None


def test_twenty_rows_are_enough_for_a_plain_shortcut() -> None:
    examples = make_choices(20)
    fit = TextBiasProbe().fit(examples)
    assert measure_accuracy(examples, fit.answers) == 1.0
    assert fit.num_folds == 5


def test_fewer_groups_than_folds_make_fewer_folds() -> None:
    examples = [replace(e, group=f"clip{k % 3}") for k, e in enumerate(make_choices(60))]
    fit = TextBiasProbe(num_folds=5).fit(examples)
    assert fit.num_folds == 3
    assert measure_accuracy(examples, fit.answers) == 1.0


@pytest.mark.parametrize(("num_rows", "num_groups"), [(12, 1), (0, 0)])
def test_fewer_than_two_groups_are_an_error(num_rows: int, num_groups: int) -> None:
    message = (
        f"got {num_rows} rows in {num_groups} groups; out-of-fold answers take 2 groups or more. "
        "Pass more rows, or rows of more than one group"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        TextBiasProbe().fit([replace(example, group="clip") for example in make_choices(num_rows)])


def test_one_fold_is_an_error() -> None:
    with pytest.raises(ValueError, match=re.escape("num_folds = 1 leaves nothing to train on; pass 2 or more")):
        TextBiasProbe(num_folds=1)


def test_a_view_with_pixels_is_an_error() -> None:
    with pytest.raises(ValueError, match="needs pixels"):
        TextBiasProbe().fit(make_choices(20), view="video")


@pytest.mark.parametrize(
    ("groups", "is_leak"),
    [(("clip{0}", "clip{0}"), False), ((None, None), False), (("clip{0}", "other{0}"), True)],
    ids=["same group", "no group", "two groups"],
)
def test_a_question_that_recurs_in_its_group_teaches_nothing(
    groups: tuple[str | None, str | None], is_leak: bool
) -> None:
    drawn = draw_gold(make_choices(200, share=0.0, seed=3), seed=4)
    examples = [
        replace(example, group=group if group is None else group.format(k))
        for group in groups
        for k, example in enumerate(drawn)
    ]
    accuracy = measure_accuracy(examples, TextBiasProbe().fit(examples).answers)
    if is_leak:
        assert accuracy > 0.7  # a fifth of the copies share a fold by luck
    else:
        assert_chance(200 * accuracy, 200, 1 / 4)  # the two copies of a row are one draw


def test_same_seed_same_fit_and_other_seed_other_folds(
    shortcut_examples: list[Example], shortcut_fit: ProbeFit
) -> None:
    again, other = (TextBiasProbe(seed=seed).fit(shortcut_examples) for seed in (0, 1))
    assert again.answers == shortcut_fit.answers
    assert again.to_bytes() == shortcut_fit.to_bytes()
    assert again.id == shortcut_fit.id
    assert other.answers != shortcut_fit.answers
    assert other.id != shortcut_fit.id


def test_id_names_settings_and_what_was_learned(shortcut_fit: ProbeFit) -> None:
    assert re.fullmatch(r"probe@\d+\(folds=5,seed=0\)#[0-9a-f]{12}", shortcut_fit.id)
    gold = draw_gold(make_choices(240, share=0.5, seed=1), seed=9)
    assert TextBiasProbe().fit(gold).id != shortcut_fit.id


@pytest.fixture(scope="module")
def mixed_fit() -> ProbeFit:
    return TextBiasProbe().fit(make_mixed())


def test_bytes_round_trip_answers_unseen_prompts_alike(mixed_fit: ProbeFit) -> None:
    unseen = [make_prompt(e) for e in [*make_choices(30, seed=8), ask("new", "how many dog were there", None)]]
    read = ProbeFit.from_bytes(mixed_fit.to_bytes())
    answers = mixed_fit.answer(unseen)
    assert read.answer(unseen) == answers
    assert read.explain(unseen, answers) == mixed_fit.explain(unseen, answers)
    assert (read.id, read.label_invariance) == (mixed_fit.id, 1.0)
    assert (read.answers, list(read.examples)) == ([], [])
    assert measure_accuracy(make_choices(30, seed=8), answers[:30]) == 1.0
    assert answers[30].text == "2"
    assert mixed_fit.answer([]) == []


def test_prompts_in_any_number_have_the_same_answers(mixed_fit: ProbeFit) -> None:
    unseen = [make_prompt(example) for example in make_choices(9, seed=8)]
    together = mixed_fit.answer(unseen)
    for answer, (alone,) in zip(together, ([mixed_fit.answer([p])[0]] for p in unseen), strict=True):
        assert get_logprobs(alone) == pytest.approx(get_logprobs(answer), abs=1e-9)
        assert alone.text == answer.text


def test_options_in_another_order_have_their_logprobs_in_that_order(mixed_fit: ProbeFit) -> None:
    order = (2, 0, 3, 1)
    for example in make_choices(30, seed=8):
        straight, turned = mixed_fit.answer([make_prompt(example), make_prompt(example, order=order)])
        assert turned.text == straight.text
        expected = np.exp([get_logprobs(straight)[k] for k in order])
        # Where an option stands is a clue too, of little weight here.
        assert np.exp(get_logprobs(turned)) == pytest.approx(expected, abs=0.1)


def test_bytes_of_another_version_are_an_error(mixed_fit: ProbeFit) -> None:
    with np.load(io.BytesIO(mixed_fit.to_bytes())) as archive:
        arrays = dict(archive)
    settings = json.loads(arrays["settings"].tobytes())
    arrays["settings"] = np.frombuffer(json.dumps({**settings, "version": 99}).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez(buffer, allow_pickle=False, **arrays)
    message = f"the fit is of probe version 99, this is {settings['version']}; fit again"
    with pytest.raises(ValueError, match=re.escape(message)):
        ProbeFit.from_bytes(buffer.getvalue())


def test_refit_answers_the_kept_rows_alone(shortcut_examples: list[Example], shortcut_fit: ProbeFit) -> None:
    keep = np.arange(240) % 3 > 0
    found = shortcut_fit.refit(keep, seed=7)
    assert [answer is not None for answer in found] == keep.tolist()
    given_away = [k for k in np.flatnonzero(keep) if (shortcut_examples[k].answer or "").startswith("because")]
    assert all(is_right(shortcut_examples[k], cast(Answer, found[k])) for k in given_away)


def test_refit_learns_from_the_kept_rows_alone() -> None:
    examples = [*make_choices(120), *draw_gold(make_choices(120, seed=6, word="seldom"), seed=6)]
    changed = [*examples[:120], *draw_gold(examples[120:], seed=7)]
    keep = np.arange(240) < 120
    assert TextBiasProbe().fit(examples).refit(keep, seed=3) == TextBiasProbe().fit(changed).refit(keep, seed=3)


def test_refit_of_all_rows_with_the_same_seed_gives_the_same_answers(shortcut_fit: ProbeFit) -> None:
    assert shortcut_fit.refit(np.ones(240, bool), seed=0) == shortcut_fit.answers


def test_refit_errors(shortcut_fit: ProbeFit) -> None:
    with pytest.raises(ValueError, match=re.escape("keep has shape (3,); pass one value for each of the 240 rows")):
        shortcut_fit.refit(np.ones(3, bool), seed=0)
    with pytest.raises(ValueError, match=re.escape("got 4 rows in 1 groups")):
        shortcut_fit.refit(np.arange(240) < 4, seed=0)
    with pytest.raises(ValueError, match=re.escape("got 0 rows in 0 groups")):
        shortcut_fit.refit(np.zeros(240, bool), seed=0)
    read = ProbeFit.from_bytes(shortcut_fit.to_bytes())
    with pytest.raises(RuntimeError, match=re.escape("this fit was read from bytes, which hold no rows")):
        read.refit(np.ones(240, bool), seed=0)


def test_answers_of_training_questions_vote() -> None:
    golds = ["red", "Red.", "red", "red", "blue", "blue"]
    examples = [ask(f"q{k}", "what colour is the kite", gold) for k, gold in enumerate(golds)]
    answers = TextBiasProbe(num_folds=6).fit(examples).answers  # each row is answered from the five others
    assert [(answer.text or "").lower().strip(".") for answer in answers] == ["red"] * 6
    expected = [math.log(3 / 5)] * 4 + [math.log(4 / 5)] * 2
    assert [answer.confidence for answer in answers] == pytest.approx(expected, abs=1e-12)
    assert {answer.option_logprobs for answer in answers} == {None}


def test_the_nearest_questions_weigh_most() -> None:
    kites = [ask(f"kite{k}", "what colour is the kite", "red") for k in range(10)]
    boats = [ask(f"boat{k}", "what colour is the boat", "blue") for k in range(10)]
    fit = TextBiasProbe().fit([*kites, *boats])
    assert [answer.text for answer in fit.answers] == ["red"] * 10 + ["blue"] * 10
    unseen = [ask("a", "the boat was what colour", None), ask("b", "the kite was what colour", None)]
    prompts = [make_prompt(example) for example in unseen]
    answers = fit.answer(prompts)
    assert [answer.text for answer in answers] == ["blue", "red"]
    assert "boat" in fit.explain(prompts, answers)[0][0][0]


@pytest.mark.parametrize(
    "stranger",
    [ask("s", "quantas velas", "9"), ask("s", "what colour is the kite", "9", problem_type="numerical")],
    ids=["other words", "other type"],
)
def test_no_similar_question(stranger: Example) -> None:
    kites = [ask(f"kite{k}", "what colour is the kite", "red") for k in range(10)]
    fit = TextBiasProbe().fit([*kites, stranger])
    assert fit.answers[-1] == Answer(text=None, error="no_similar_question")
    assert fit.answers[0].text == "red"
    assert fit.explain([make_prompt(stranger)], fit.answers[-1:]) == [[]]


def test_rows_without_subtitles_are_refused_under_that_view_alone() -> None:
    examples = [replace(e, subtitles="somebody talks" if k % 2 else None) for k, e in enumerate(make_choices(80))]
    fit = TextBiasProbe().fit(examples, view="subtitles")
    assert fit.answers[::2] == [Answer(text=None, error="no_subtitles")] * 40
    assert measure_accuracy(examples[1::2], fit.answers[1::2]) == 1.0
    assert measure_accuracy(examples, TextBiasProbe().fit(examples).answers) == 1.0


def test_what_subtitles_say_counts_under_that_view_alone() -> None:
    examples = [replace(e, subtitles=f"and then {e.answer}") for e in make_choices(200, share=0.0)]
    assert measure_accuracy(examples, TextBiasProbe().fit(examples, view="subtitles").answers) == 1.0
    assert_chance(200 * measure_accuracy(examples, TextBiasProbe().fit(examples).answers), 200, 1 / 4)


@pytest.mark.parametrize(("view", "is_found"), [("text", True), ("options_only", False)])
def test_a_shortcut_through_the_question_needs_the_question(view: View, is_found: bool) -> None:
    rng = np.random.default_rng(0)
    examples = []
    for k in range(240):  # "near" asks for the noun, "far" for the other one
        gold = int(rng.integers(2))
        asked = ("near", "far")[int(rng.integers(2))]
        nouns = ["kitchen", "mountain"] if (asked == "near") == (gold == 0) else ["mountain", "kitchen"]
        examples.append(choose(f"q{k}", f"which is {asked}", nouns, gold))
    accuracy = measure_accuracy(examples, TextBiasProbe().fit(examples, view=view).answers)
    if is_found:
        assert accuracy == 1.0
    else:
        assert_chance(240 * accuracy, 240, 1 / 2)


def test_explain_names_the_shortcut(shortcut_examples: list[Example], shortcut_fit: ProbeFit) -> None:
    chosen = [k for k, e in enumerate(shortcut_examples) if (e.answer or "").startswith("because")]
    prompts = [make_prompt(shortcut_examples[k]) for k in chosen]
    explained = shortcut_fit.explain(prompts, [shortcut_fit.answers[k] for k in chosen])
    for clues in explained:
        assert 0 < len(clues) <= 5
        assert "because" in clues[0][0]
        worths = [worth for _, worth in clues]
        assert worths == sorted(worths, reverse=True)
        assert worths[-1] > 0


def test_explain_takes_as_many_prompts_as_answers(shortcut_examples: list[Example], shortcut_fit: ProbeFit) -> None:
    with pytest.raises(ValueError, match="argument 2 is shorter"):
        shortcut_fit.explain([make_prompt(shortcut_examples[0])], [])


def test_a_question_without_a_group_does_not_answer_itself_with_its_options_in_another_order() -> None:
    rng = np.random.default_rng(0)
    examples = []
    for index in range(150):
        options = tuple(f"{word}{index}" for word in ("ab", "cd", "ef", "gh"))
        gold = options[int(rng.integers(4))]
        for copy in range(2):
            shown = tuple(options[k] for k in rng.permutation(4))
            example = Example(
                id=f"{index}-{copy}",
                question=f"which one is {index}",
                problem_type="multiple_choice",
                options=shown,
                answer=gold,
                answer_index=shown.index(gold),
            )
            examples.append(example)
    answers = TextBiasProbe().fit(examples).answers
    num_right = sum(answer.text == example.answer for answer, example in zip(answers, examples, strict=True))
    assert num_right < 120  # 75 by chance; each copy would know the other's answer
