"""Who is asked what, how often, and when asking stops."""

from __future__ import annotations

import math
import random
import re
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.models import SimulatedModel, draw
from vidground_hf.answerers.base import Answer, ConstantAnswerer
from vidground_hf.asking import Asked, Asking, ask_rows, find_surest
from vidground_hf.cache import AnswerCache
from vidground_hf.filtering import GroundFilter
from vidground_hf.prompts import Prompt
from vidground_hf.request_counts import count_requests
from vidground_hf.rules import at_most, circular, majority, single_shot
from vidground_hf.schema import Example, Verdict
from vidground_hf.set_rules import FOLLOWED_SHARE, calibrated, drop_fraction
from vidground_hf.trials import Trial


def make_examples(number: int, num_options: int = 4, **fields: Any) -> list[Example]:
    return [
        Example(
            id=str(index),
            question=f"question {index}",
            problem_type="multiple_choice",
            options=tuple(f"thing {index}-{k}" for k in range(num_options)),
            answer_index=int(draw("gold", index) * num_options),
            **fields,
        )
        for index in range(number)
    ]


def know(examples: list[Example], share: float) -> dict[str, str]:
    known = examples[: round(share * len(examples))]
    return {example.question: example.options[example.answer_index or 0] for example in known}


def ask(examples: list[Example], rule: Any, *models: Any, **settings: Any) -> Asked:
    return ask_rows(Asking(answerers=models, rule=rule, view="text", **settings), examples)


def leave_open(trials: Any) -> Verdict:
    """A rule that wants all answers it can get."""
    return Verdict(None, "open")


def count_right(asked: Asked) -> list[int]:
    return [sum(bool(trial.is_right) for trial in trials) for trials in asked.trials]


def test_a_known_answer_is_right_under_every_order_and_in_the_words_of_the_data() -> None:
    examples = make_examples(60, 5)
    model = SimulatedModel(know(examples, 1.0))
    asked = ask(examples, circular(), model)
    assert count_right(asked) == [5] * 60
    assert asked.calls == {"asked": 300, "cached": 0, "failed": 0, "saved": 0}
    for example, trials in zip(examples, asked.trials, strict=True):
        assert {trial.text for trial in trials} == {example.options[example.answer_index or 0]}
        assert {trial.choice for trial in trials} == {example.answer_index}
    shown = {prompt.order for prompt in model.asked if prompt.example_id == "7"}
    assert len(shown) == 5


def test_the_first_order_is_a_rotation_drawn_for_the_row() -> None:
    model = SimulatedModel({})
    ask(make_examples(400), single_shot(), model)
    firsts = Counter(prompt.order[0] for prompt in model.asked)
    assert set(firsts) == {0, 1, 2, 3}
    assert max(firsts.values()) < 140
    other = SimulatedModel({}, name="other")
    ask(make_examples(400), single_shot(), other, seed=1)
    assert [prompt.order for prompt in other.asked] != [prompt.order for prompt in model.asked]


def test_a_constant_is_shown_the_order_of_the_data() -> None:
    examples = make_examples(40)
    asked = ask(examples, single_shot(), ConstantAnswerer("A"))
    assert [trials[0].choice for trials in asked.trials] == [0] * 40


def test_circular_stops_at_the_first_wrong_answer() -> None:
    examples = make_examples(300)
    model = SimulatedModel(know(examples, 0.3))
    asked = ask(examples, circular(), model)
    for trials in asked.trials:
        right = [bool(trial.is_right) for trial in trials]
        assert right == [True] * 4 or (not right[-1] and all(right[:-1]))
    assert asked.calls["asked"] == len(model.asked) == sum(map(len, asked.trials))
    assert asked.calls["saved"] == 1200 - len(model.asked) > 500


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([single_shot(), majority(), majority(0.5), at_most(0), at_most(2), at_most(5), circular()]),
    st.integers(1, 4),
    st.integers(1, 6),
    st.floats(0, 1),
)
def test_stopping_early_never_changes_a_verdict(rule: Any, num_models: int, samples: int, share: float) -> None:
    examples = make_examples(12, 3)

    def judge(trials: Any) -> Verdict:
        return rule(trials)

    judge.count_trials = rule.count_trials  # type: ignore[attr-defined]
    names = [f"model {number}" for number in range(num_models)]
    known = [know(examples, share if number % 2 else share / 2) for number in range(num_models)]
    models = [Unkept(SimulatedModel(words, name)) for words, name in zip(known, names, strict=True)]
    samples_given = None if isinstance(rule, type(circular())) else samples
    some = ask(examples, rule, *models, samples=samples_given)
    everything = ask(examples, judge, *models, samples=samples_given)
    assert [rule(trials) for trials in some.trials] == [rule(trials) for trials in everything.trials]
    assert sum(map(len, some.trials)) <= sum(map(len, everything.trials))


class Unkept:
    """A model whose answers are not kept, because it is no `ModelAnswerer`."""

    def __init__(self, model: SimulatedModel) -> None:
        self.id = model.id
        self.answer = model.answer


def test_calibrated_asks_on_only_while_the_first_answer_is_repeated() -> None:
    examples = make_examples(2000, 5)
    asked = ask(examples, calibrated(), SimulatedModel(know(examples, 0.3)))
    num_wrong_followed = num_wrong = 0
    for trials in asked.trials:
        repeats = [trial.choice == trials[0].choice for trial in trials]
        assert all(repeats[:-1])
        if trials[0].is_right:
            assert len(trials) == 5 or not repeats[-1]
        else:
            num_wrong += 1
            num_wrong_followed += len(trials) > 1
            assert (trials[0].confidence is None) == (len(trials) == 1)
    assert num_wrong > 1000
    assert abs(num_wrong_followed / num_wrong - FOLLOWED_SHARE) < 0.06


def test_in_a_small_set_every_wrong_answer_is_followed_up() -> None:
    examples = make_examples(500, 5)
    asked = ask(examples, calibrated(), SimulatedModel(know(examples, 0.3)))
    assert asked.followed_share == 1.0
    assert all(len(trials) > 1 for trials in asked.trials)
    assert ask(make_examples(501, 5), calibrated(), SimulatedModel({})).followed_share == FOLLOWED_SHARE
    assert ask(make_examples(501, 5), calibrated(), SimulatedModel({}), samples=1).followed_share == 1.0


def test_an_answerer_that_states_its_confidence_is_asked_once_and_every_wrong_answer_counts_once() -> None:
    class Confident(SimulatedModel):
        def _answer(self, prompt: Prompt) -> Answer:
            return Answer(text=super()._answer(prompt).text, confidence=1.0 + (prompt.question in self.known))

    examples = make_examples(600)
    asked = ask(examples, calibrated(), Unkept(Confident(know(examples, 0.5))))
    assert asked.calls["asked"] == 600
    assert asked.followed_share == 1.0
    assert {trials[0].confidence for trials in asked.trials} == {1.0, 2.0}


def test_who_is_followed_up_depends_on_the_gold_only_through_whether_the_first_answer_is_wrong(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vidground_hf.asking.MAX_ROWS_FOLLOWED", 0)
    examples = make_examples(300)
    moved = [replace(example, answer_index=(example.answer_index or 0) ^ 1) for example in examples]
    model = SimulatedModel({})
    before = ask(examples, calibrated(), model).trials
    after = ask(moved, calibrated(), model).trials
    num_alone = 0
    for first, second in zip(before, after, strict=True):
        if first[0].is_right == second[0].is_right:
            assert [trial.choice for trial in first] == [trial.choice for trial in second]
            num_alone += len(first) == 1
        shared = min(len(first), len(second))
        assert [trial.choice for trial in first[:shared]] == [trial.choice for trial in second[:shared]]
    assert num_alone > 40
    other = ask(examples, calibrated(), model, seed=1).trials
    assert [len(trials) for trials in other] != [len(trials) for trials in before]


def test_rows_with_the_same_words_are_drawn_one_by_one() -> None:
    rng = random.Random(0)
    example = make_examples(1, 2)[0]
    examples = [replace(example, id=str(k), answer_index=rng.randrange(2)) for k in range(1000)]
    model = SimulatedModel({example.question: example.options[0]})  # always the same answer, which is a guess
    for seed in range(5):
        trials = ask(examples, calibrated(), model, seed=seed).trials
        rule = calibrated().fit(trials, followed_share=FOLLOWED_SHARE)
        assert rule.calibration.num_drops == 0
        assert rule.calibration.smallest_error == pytest.approx(1, abs=0.25)


def test_a_wrong_row_with_a_say_stands_for_those_without(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidground_hf.asking.MAX_ROWS_FOLLOWED", 100)
    examples = make_examples(200, 4)
    rows = [
        {"id": e.id, "question": e.question, "options": list(e.options), "answer": e.options[e.answer_index or 0]}
        for e in examples
    ]
    model = SimulatedModel(know(examples, 0.5))
    judgement = GroundFilter(model, calibrated(0.5)).judge(Dataset.from_list(rows))
    followed = [row for row in judgement.rows if not row[0].is_right and row[0].confidence is not None]
    threshold = judgement.rule.calibration.threshold  # type: ignore[attr-defined]
    above = sum((row[0].confidence or 0) >= threshold for row in followed)
    weight = 1 / 3 / FOLLOWED_SHARE
    assert judgement.rule.calibration.expected_lucky_drops == pytest.approx(above * weight)  # type: ignore[attr-defined]
    assert judgement.rule.calibration.single_shot_lucky_drops == pytest.approx(  # type: ignore[attr-defined]
        len(followed) * weight
    )
    assert 0 < len(followed) < sum(not row[0].is_right for row in judgement.rows)


def test_confidence_counts_repeats_in_the_unit_of_the_option_count() -> None:
    examples = make_examples(50, 4)
    asked = ask(examples, calibrated(), SimulatedModel(know(examples, 1.0)))
    assert {round(trials[0].confidence or 0, 6) for trials in asked.trials} == {round(3 * 1.3862943611, 6)}


def test_the_bias_score_is_the_mean_over_the_orders() -> None:
    class Stated(SimulatedModel):
        def _answer(self, prompt: Prompt) -> Answer:
            first = prompt.order[0]
            gold = {0: 0.7, 1: 0.4, 2: 0.1}[first]  # depends on what is shown first
            logs = [gold if option == 0 else (1 - gold) / 2 for option in prompt.order]
            return Answer(text="A", option_logprobs=tuple(math.log(value) for value in logs))

    example = Example(
        id="1", question="?", problem_type="multiple_choice", options=("x", "y", "z"), answer_index=0, answer="x"
    )
    (trials,) = ask([example], leave_open, Stated({}), samples=3).trials
    assert trials[0].bias_score == pytest.approx((0.7 + 0.4 + 0.1) / 3)
    assert sorted(trial.choice == 0 for trial in trials) == [False, True, True]


def test_confidence_is_that_of_the_option_that_was_chosen_whatever_the_order() -> None:
    probability = {"x": 0.1, "y": 0.7, "z": 0.2}

    class Stated(SimulatedModel):
        def _answer(self, prompt: Prompt) -> Answer:
            return Answer(text="A", option_logprobs=tuple(math.log(probability[option]) for option in prompt.options))

    example = Example(
        id="1", question="?", problem_type="multiple_choice", options=("x", "y", "z"), answer_index=1, answer="y"
    )
    (trials,) = ask([example], calibrated(), Stated({})).trials
    assert [trial.choice for trial in trials] == [1, 1, 1]
    assert trials[0].confidence == pytest.approx(3 * math.log(0.7 / 0.15))
    assert trials[0].bias_score == pytest.approx(0.7)


def test_letters_that_are_written_are_looked_up_as_they_were_shown() -> None:
    examples = [replace(example, options=tuple("cab"), answer="cab"[example.answer_index or 0])
                for example in make_examples(30, 3)]  # fmt: skip
    asked = ask(examples, circular(), SimulatedModel({e.question: e.answer or "" for e in examples}))
    assert count_right(asked) == [3] * 30


def test_a_sampled_answer_has_an_index_of_its_own_and_an_unsampled_one_is_asked_once() -> None:
    example = Example(id="1", question="how many?", problem_type="numerical", answer="3")
    warm = SimulatedModel({}, name="warm", temperature=1.0)
    ask([example], leave_open, warm, samples=4)
    assert [prompt.trial_index for prompt in warm.asked] == [0, 1, 2, 3]
    cold = SimulatedModel({}, name="cold")
    asked = ask([example], leave_open, cold, samples=4)
    assert len(cold.asked) == 1
    assert asked.calls == {"asked": 1, "cached": 0, "failed": 0, "saved": 0}
    twins = Example(
        id="1", question="?", problem_type="multiple_choice", options=("red", "blue", "red", "blue"), answer_index=0
    )
    assert [len(ask([twins], leave_open, model, samples=4).trials[0]) for model in (cold, warm)] == [4, 4]
    assert len({prompt.options for prompt in cold.asked[1:]}) == 4
    assert sorted(prompt.trial_index for prompt in warm.asked[4:]) == [0, 0, 1, 1]


def test_several_models_are_asked_one_after_the_other() -> None:
    examples = make_examples(30, 3)
    first, second = SimulatedModel(know(examples, 0.5), "first"), SimulatedModel(know(examples, 0.5), "second")
    asked = ask(examples, majority(1.0), first, second, samples=3)
    assert {trial.answerer for trials in asked.trials for trial in trials} == {0, 1}
    for trials in asked.trials:
        assert [trial.answerer for trial in trials] == sorted(trial.answerer for trial in trials)
    assert sum(asked.calls.values()) == 30 * 2 * 3


def test_what_cannot_be_judged_is_not_asked_about() -> None:
    examples = [*make_examples(2), *make_examples(1, defect="no_gold"), *make_examples(1, subtitles="words")]
    model = SimulatedModel({})
    asked = ask_rows(Asking(answerers=(model,), rule=single_shot(), view="subtitles"), examples)
    assert [trials[0].error for trials in asked.trials] == ["no_subtitles", "no_subtitles", None, None]
    assert len(model.asked) == 1
    assert asked.trials[2] == [Trial(score=None, num_options=4)]


def test_an_answer_that_failed_ends_the_row_and_is_asked_again_next_time() -> None:
    examples = make_examples(10, 3)
    model = SimulatedModel(know(examples, 1.0), fails=lambda prompt: prompt.order[0] == 1)
    asked = ask(examples, circular(), model)
    assert asked.calls["failed"] == sum(trials[-1].error == "timed out" for trials in asked.trials) == 10
    assert asked.calls["saved"] == 0
    model.fails = lambda prompt: False
    again = ask(examples, circular(), model)
    assert again.calls["failed"] == 0
    assert again.calls["asked"] + again.calls["cached"] == 30
    assert again.calls["cached"] == asked.calls["asked"]


def test_a_second_run_pays_for_nothing() -> None:
    examples = make_examples(100)
    model = SimulatedModel(know(examples, 0.5))
    first = ask(examples, calibrated(), model)
    model.asked.clear()
    second = ask(examples, calibrated(), model)
    assert model.asked == []
    assert second.trials == first.trials
    assert second.calls["cached"] == first.calls["asked"]


def test_a_plan_bounds_what_is_asked() -> None:
    examples = make_examples(80, 5)
    model = SimulatedModel(know(examples, 0.3))
    asking = Asking(answerers=(model,), rule=calibrated(), view="text")
    with AnswerCache() as cache:
        before = count_requests(asking, examples, cache)
        asked = ask_rows(asking, examples)
        after = count_requests(asking, examples, cache)
    assert (before["num_questions"], before["num_cached"]) == (80, 0)
    assert (before["min_requests"], before["max_requests"]) == (80, 400)
    assert 80 <= asked.calls["asked"] <= 400
    assert after["num_cached"] == asked.calls["asked"]
    assert after["max_requests"] == 400 - asked.calls["asked"]
    assert after["min_requests"] == 0


def test_options_that_are_letters_themselves_are_told_apart() -> None:
    example = Example(
        id="1", question="?", problem_type="multiple_choice", options=("C", "A", "B"), answer_index=0, answer="C"
    )

    class First(SimulatedModel):
        def _answer(self, prompt: Prompt) -> Answer:
            return Answer(text="A", option_logprobs=(-0.1, -3.0, -3.0))  # always what is shown first

    model = First({})
    (trials,) = ask([example], leave_open, model, samples=3).trials
    assert [trial.choice for trial in trials] == [prompt.order[0] for prompt in model.asked]
    assert [trial.text for trial in trials] == [example.options[prompt.order[0]] for prompt in model.asked]
    assert [trial.score for trial in trials] == [float(prompt.order[0] == 0) for prompt in model.asked]


def test_a_rule_says_how_many_answers_it_takes_and_samples_bounds_them() -> None:
    def count(rule: Any, samples: int | None = None, temperature: float = 1.0) -> int:
        model = SimulatedModel({}, temperature=temperature)
        asking = Asking(answerers=(model,), view="text", rule=rule, samples=samples)
        return len(asking.list_trials(make_examples(1, 5)[0], asking.find_way(model)))

    assert [count(rule) for rule in (calibrated(), circular(), majority(), at_most(), leave_open)] == [5, 5, 10, 1, 1]
    assert [count(calibrated(), 2), count(calibrated(), 7)] == [2, 7]
    assert count(calibrated(), 7, temperature=0) == 7


@pytest.mark.parametrize(
    ("answerers", "rule", "samples", "message"),
    [
        (["m"], circular(), 2, "circular asks every rotation, got samples = 2; leave it out"),
        (["m"], drop_fraction(0.2), None, "it goes with the probe alone"),
        (["m"], at_most(), None, "at_most(limit=2) drops what is answered right more often, which 1 answerers with 1"),
        (["m", "m"], majority(), None, "an answerer is named twice among m, m; use samples to ask one several times"),
        ([], majority(), None, "got 0 answerers; pass one or more models, or the probe alone"),
        (["m"], majority(), 0, "samples = 0 is out of range"),
    ],
)
def test_what_could_decide_nothing_is_refused_before_anything_is_asked(
    answerers: list[str], rule: Any, samples: int | None, message: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        GroundFilter([SimulatedModel({}, name) for name in answerers], rule, samples=samples)


def test_names_in_place_of_objects_are_refused() -> None:
    with pytest.raises(TypeError, match=re.escape("pass load_answerer('constant:A') and single_shot()")):
        GroundFilter("constant:A")  # type: ignore[arg-type]


def test_the_surest_answer_is_found_without_the_gold() -> None:
    sure = Answer(text="A", option_logprobs=(-0.1, -3.0))
    torn = Answer(text="B", option_logprobs=(-0.7, -0.6))
    assert find_surest([torn, sure]) is sure
    assert find_surest([torn]) is torn
    failed = Answer(text=None, error="timed out")
    assert find_surest([sure, failed]) is failed
    bare = Answer(text="A")
    assert find_surest([bare]) is bare
    assert find_surest([bare, sure]).error == (
        "the surest of several frames needs option probabilities; try one frame"
    )


def test_rows_that_look_are_asked_to_the_end_some_clips_at_a_time() -> None:
    examples = [replace(e, video=f"{int(e.id) % 3}.mp4") for e in make_examples(9)]

    class Seeing(SimulatedModel):
        takes_frames = True
        num_clips_kept = 2

        def _answer(self, prompt: Prompt) -> Answer:
            return replace(super()._answer(prompt), num_frames=4)

    model = Seeing(know(examples, 1.0))
    asked = ask_rows(Asking(answerers=(model,), rule=circular(), view="video"), examples)
    assert count_right(asked) == [4] * 9
    parts = [["0", "3", "6", "1", "4", "7"], ["2", "5", "8"]]
    assert [prompt.example_id for prompt in model.asked] == [row for part in parts for _ in range(4) for row in part]
    model.asked.clear()
    ask_rows(Asking(answerers=(model,), rule=circular(), view="text"), examples)
    assert [prompt.example_id for prompt in model.asked[:9]] == [example.id for example in examples]


def test_trials_may_begin_behind_those_of_another_rule() -> None:
    (example,) = make_examples(1, 3)
    model = SimulatedModel({})
    first = Asking(answerers=(model,), rule=circular(), view="text")
    second = replace(first, rule=majority(), after=circular())
    way = first.find_way(model)
    read, unread = ([order for order, _ in asking.list_trials(example, way)] for asking in (first, second))
    assert (len(read), len(unread)) == (3, 3)  # of ten that majority would take, three of the six orders are left
    assert not set(read) & set(unread)
    assert replace(second, after=majority()).list_trials(example, way) == []
