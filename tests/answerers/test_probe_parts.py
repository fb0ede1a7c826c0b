from __future__ import annotations

import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import logsumexp
from scipy.stats import rankdata

from vidground_hf.answerers import conditional_logit, probe_choices, probe_scratch, probe_votes
from vidground_hf.answerers.conditional_logit import find_log_probabilities, fit_conditional_logit
from vidground_hf.answerers.probe import TextBiasProbe
from vidground_hf.answerers.probe_choices import ChoiceRows, ChoiceTally
from vidground_hf.answerers.probe_features import MEASURES, TextCounts, make_cuts
from vidground_hf.answerers.probe_scratch import ScratchArray, take
from vidground_hf.answerers.probe_text import PromptBatch, rank_within, stem
from vidground_hf.answerers.probe_votes import VoteRows
from vidground_hf.prompts import Prompt
from vidground_hf.schema import Example


def make_choice(question: str, *options: str) -> Prompt:
    order = tuple(range(len(options)))
    return Prompt(
        example_id="", view="text", problem_type="multiple_choice", question=question, options=options, order=order
    )


def make_open(question: str) -> Prompt:
    return Prompt(example_id="", view="text", problem_type="free_form", question=question)


def draw_questions(seed: int, num_questions: int = 60) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(rng.integers(1, 6, size=num_questions))])
    features = rng.normal(size=(starts[-1], 4)).astype(np.float32)
    gold = starts[:-1] + rng.integers(np.diff(starts))
    return features, starts, gold


@pytest.mark.parametrize("chunk", [7, 8192])
def test_weights_are_those_of_another_optimiser(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conditional_logit, "_CHOICES_PER_CHUNK", chunk)
    features, starts, gold = draw_questions(0)

    def loss(weights: np.ndarray) -> float:
        scores = features.astype(np.float64) @ weights
        totals = [logsumexp(scores[a:b]) for a, b in pairwise(starts)]
        return float(sum(totals) - scores[gold].sum() + 1.5 * (weights @ weights))

    expected = minimize(loss, np.zeros(4), method="BFGS", options={"gtol": 1e-7}).x
    assert fit_conditional_logit(features, starts, gold, l2=3.0) == pytest.approx(expected, abs=2e-6)


def test_weights_without_questions_are_zero() -> None:
    empty = np.zeros(0, np.int64)
    assert (
        fit_conditional_logit(np.zeros((0, 3), np.float32), np.zeros(1, np.int64), empty, l2=1.0).tolist() == [0] * 3
    )


def test_log_probabilities_sum_to_one_however_large_the_scores() -> None:
    starts = np.array([0, 2, 3])
    found = find_log_probabilities(np.array([1e4, 1e4 + math.log(3), -5.0]), starts)
    assert np.exp(found) == pytest.approx([0.25, 0.75, 1.0])


@given(st.lists(st.lists(st.integers(0, 4), min_size=1, max_size=6), min_size=1, max_size=5))
def test_ranks_are_those_of_scipy_on_a_scale_from_minus_a_half(questions: list[list[int]]) -> None:
    starts = np.concatenate([[0], np.cumsum([len(values) for values in questions])])
    found = rank_within(np.array([float(v) for values in questions for v in values]), starts)
    expected = [
        (rank - 1) / (len(values) - 1) - 0.5 if len(values) > 1 else 0.0
        for values in questions
        for rank in rankdata(values)
    ]
    assert found.tolist() == pytest.approx(expected)


def test_forms_of_a_word_have_one_stem() -> None:
    forms = [["play", "plays", "playing", "played"], ["carry", "carries", "carried"], ["stop", "stops", "stopping"]]
    assert [len({stem(word) for word in words}) for words in forms] == [1, 1, 1]
    assert stem("is") == "is"


def test_batches_are_cut_between_groups() -> None:
    assert make_cuts(np.array([0, 0, 0, 1, 1, 2, 3]), 2) == [0, 3, 5, 7]


def test_counts_elsewhere_leave_out_the_group() -> None:
    prompts = [make_choice("what", "red hat", "blue hat"), make_choice("what", "red hat"), make_choice("what", "hat")]
    batch, counts = PromptBatch(prompts), TextCounts()
    counts.add(batch)
    clues, buckets = batch.find_clues("word")
    names = batch.name_clues("word", clues)
    groups = np.array([0, 0, 1])[batch.rows[np.repeat(np.arange(len(batch.rows)), clues.counts)]]
    found = dict(zip(zip(groups.tolist(), names, strict=True), counts.count_elsewhere(buckets, groups), strict=True))
    assert found == {(0, "red"): 0, (0, "blue"): 0, (0, "hat"): 1, (1, "hat"): 3}
    assert counts.num_choices == 4


def test_a_row_is_measured_by_other_groups_alone() -> None:
    rows = [make_choice(f"why is the dog {k}", f"dog {k} runs", f"a cat {k}", "Nothing.") for k in range(12)]
    groups = np.arange(12) // 3
    honest = ChoiceRows(rows, groups).measures
    changed = ChoiceRows([*rows[:2], make_choice("why is the dog", "dog 0", "cat 1"), *rows[3:]], groups).measures
    assert changed[:6].tolist() == honest[:6].tolist()
    assert changed[8:].tolist() != honest[9:].tolist()


def test_measures_of_one_question_by_hand() -> None:
    prompts = [make_choice("how many dogs", "Two", "two big Dogs.", "not 3 of them"), make_choice("who", "Ann", "Bob")]
    measures = ChoiceRows(prompts, np.arange(2)).measures[:3]
    column = dict(zip(MEASURES, measures.T, strict=True))
    assert column["length rank"] == pytest.approx([-0.5, 0.25, 0.25])
    assert column["capital letters"] == pytest.approx([-1 / 3, 2 / 3, -1 / 3])
    assert column["rank among numbers"] == pytest.approx([-0.25, -0.25, 0.5])
    assert column["negation"] == pytest.approx([-1 / 3, -1 / 3, 2 / 3])
    assert column["ends with a period"] == pytest.approx([-1 / 3, 2 / 3, -1 / 3])
    assert int(np.argmax(column["words shared with the question"])) == 1
    assert column["words said in the subtitles"].tolist() == [0, 0, 0]


def test_clues_of_an_explanation_add_up_to_the_lead_of_the_option() -> None:
    rng = np.random.default_rng(0)
    words = ["red", "blue", "dog", "cat", "runs", "sits", "because", "two"]
    prompts = [
        make_choice(" ".join(rng.choice(words, 4)), *(f"{' '.join(rng.choice(words, 3))} {place}" for place in "abcd"))
        for _ in range(80)
    ]
    rows = ChoiceRows(prompts, np.arange(80))
    gold = rows.find_gold(rng.integers(4, size=80))
    model, _ = ChoiceTally(rows, gold, np.arange(80) % 5).fit(None)
    for prompt in prompts[:10]:
        scores = model.score(PromptBatch([prompt]))
        for position in range(4):
            total = sum(worth for _, worth in model.explain(prompt, position))
            assert total == pytest.approx(scores[position] - scores.mean(), abs=1e-5)


def test_clue_worth_is_the_log_ratio_of_gold_to_chance_in_the_other_folds() -> None:
    prompts = [make_choice("which", f"red {k}a", f"blue {k}b") for k in range(6)]
    rows = ChoiceRows(prompts, np.arange(6))
    tally = ChoiceTally(rows, rows.find_gold(np.array([0, 0, 0, 1, 0, -1])), np.array([0, 1, 1, 2, 2, 2]))
    _, buckets = PromptBatch([make_choice("which", "red")]).find_clues("word")

    def find_worth(held_out: int | None) -> float:
        known, worth = tally.fit(held_out)[0].clues["word"]
        return float(worth[np.searchsorted(known, buckets[0])])

    # Gold 4 times of 5 at odds of one half; without fold 1 twice of 3. Two occurrences are added to both.
    assert find_worth(None) == pytest.approx(math.log((4 + 2) / (2.5 + 2)))
    assert find_worth(1) == pytest.approx(math.log((2 + 2) / (1.5 + 2)))


def test_votes_are_those_counted_one_by_one() -> None:
    rng = np.random.default_rng(1)
    words = ["who", "what", "red", "blue", "dog", "cat"]
    questions = [" ".join(rng.choice(words, size=3)) for _ in range(40)]
    answers = [str(rng.choice(["yes", "no", "two"])) for _ in questions]
    rows = VoteRows([make_open(question) for question in questions])

    def list_parts(question: str) -> set[tuple[str, ...]]:
        tokens = question.split()
        pairs = zip(["", *tokens], [*tokens, ""], strict=True)
        return {("word", token) for token in tokens} | {("pair", *pair) for pair in pairs} | {("whole", question)}

    parts = [list_parts(question) for question in questions]
    frequency = Counter(part for some in parts for part in some)
    for vote, asked in zip(rows.fit(answers, np.ones(40, bool)).count(rows.parts), parts, strict=True):
        votes = dict.fromkeys(answers, 0.0)
        for answer, other in zip(answers, parts, strict=True):
            votes[answer] += sum(math.log(42 / (1 + frequency[part])) ** 2 for part in asked & other)
        assert votes[vote.text or ""] == pytest.approx(max(votes.values()))
        assert vote.confidence == pytest.approx(math.log(max(votes.values()) / sum(votes.values())))


@given(
    st.lists(st.integers(0, 4), max_size=6), st.integers(0, 30), st.integers(-30, 30), st.sampled_from([1, 1 << 20])
)
def test_a_scratch_array_is_read_like_an_array(sizes: list[int], start: int, stop: int, num_bytes: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probe_scratch, "_BYTES_IN_MEMORY", num_bytes)
        scratch = ScratchArray(np.int32, 2)
    blocks = [np.full((size, 2), k) for k, size in enumerate(sizes)]
    for block in blocks:
        scratch.append(block)
        assert scratch[:1].shape[1] == 2  # reading between two appends moves nothing
    whole = np.concatenate([np.zeros((0, 2)), *blocks])
    assert scratch.shape == whole.shape
    assert scratch[start:stop].tolist() == whole[start:stop].tolist()


def test_clues_counted_some_buckets_at_a_time_from_the_disk_are_worth_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(3)
    words = ["red", "blue", "dog", "cat", "runs", "sits", "because", "two"]
    examples = [
        Example(
            id=str(k),
            question=" ".join(rng.choice(words, 4)),
            problem_type="multiple_choice" if k % 3 else "free_form",
            options=tuple(f"{' '.join(rng.choice(words, 3))} {place}" for place in "abcd") if k % 3 else (),
            answer_index=int(rng.integers(4)) if k % 3 else None,
            answer=str(rng.choice(words)),
            group=str(k // 4),
        )
        for k in range(120)
    ]
    whole = TextBiasProbe().fit(examples)
    monkeypatch.setattr(probe_choices, "_ENTRIES_AT_ONCE", 100)
    monkeypatch.setattr(probe_scratch, "_BYTES_IN_MEMORY", 1)
    parted = TextBiasProbe().fit(examples)
    assert parted.answers == whole.answers
    assert parted.to_bytes() == whole.to_bytes()
    keep = np.arange(120) % 5 > 0
    assert parted.refit(keep, seed=1) == whole.refit(keep, seed=1)


def test_rows_are_taken_together_where_they_can_be() -> None:
    class Disk(list[str]):
        def take(self, places: list[int]) -> list[str]:
            return [f"{self[place]}!" for place in places]

    assert take(["a", "b"], np.array([1, 0, 1])) == ["b", "a", "b"]
    assert take(Disk("ab"), [1]) == ["b!"]


def test_of_a_large_set_a_sample_has_votes_and_every_row_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    examples = [
        Example(
            id=str(k), question=f"how many {'ab'[k % 2]}", problem_type="numerical", answer=str(k % 2), group=str(k)
        )
        for k in range(60)
    ]
    whole = TextBiasProbe().fit(examples)
    assert whole.describe() == {}
    monkeypatch.setattr(probe_votes, "MAX_VOTERS", 30)
    sampled = TextBiasProbe().fit(examples)
    assert sampled.describe() == {"num_open_ended": 60, "num_open_ended_trained_on": 30}
    assert [answer.text for answer in sampled.answers] == [answer.text for answer in whole.answers]
    assert sampled.label_invariance == 1.0
