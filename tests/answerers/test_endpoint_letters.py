from __future__ import annotations

import math
import pickle
import re
import warnings
from dataclasses import replace
from typing import Any

import pytest
from datasets import Dataset

from tests.chat_server import FAULTS, ChatServer, answer_prompt, make_completion
from tests.questions import make_dataset
from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.endpoint import EndpointAnswerer
from vidground_hf.cache import make_key
from vidground_hf.filtering import GroundFilter
from vidground_hf.prompts import Prompt
from vidground_hf.rows import ADDED_FEATURES
from vidground_hf.rules import single_shot
from vidground_hf.schema import LETTERS


@pytest.fixture(autouse=True)
def _hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidground_hf.answerers.endpoint_run._BACKOFF_SECONDS", 0.01)
    monkeypatch.delenv("VIDGROUND_ENDPOINT_KEY", raising=False)


def make_prompt(options: tuple[str, ...] = ("red", "green", "blue"), question: str = "Which one?") -> Prompt:
    kind: Any = "multiple_choice" if options else "free_form"
    return Prompt(example_id="1", view="text", problem_type=kind, question=question, options=options)


def make_answerer(server: ChatServer, **settings: Any) -> EndpointAnswerer:
    return EndpointAnswerer("tiny", base_url=server.url, timeout_seconds=5.0, **settings)


def read(text: str, *tokens: dict[str, float], options: tuple[str, ...] = ("red", "green", "blue")) -> list[float]:
    """The option probabilities that come of a text and its tokens; an empty list for none."""
    with ChatServer(reply=(200, {}, make_completion(text, tokens=list(tokens)))) as server:
        (answer,) = make_answerer(server, logprobs=True).answer([make_prompt(options)])
    assert (answer.text, answer.error) == (text, None)
    return [] if answer.option_logprobs is None else [math.exp(value) for value in answer.option_logprobs]


def test_the_letters_of_every_question_are_read() -> None:
    prompts = [make_prompt(question=f"Which one, {index}?") for index in range(100)]
    with ChatServer(logprobs="given") as server:
        answers = make_answerer(server, logprobs=True).answer(prompts)
        assert server.num_requests == 101
        assert {(body["logprobs"], body["top_logprobs"]) for body in server.bodies} == {(True, 20)}
    for prompt, answer in zip(prompts, answers, strict=True):
        letter = answer_prompt(prompt.text)
        assert answer.text == letter
        expected = [0.5 / 0.8 if LETTERS[k] == letter else 0.15 / 0.8 for k in range(3)]
        assert [math.exp(value) for value in answer.option_logprobs or ()] == pytest.approx(expected)
        assert answer.confidence is None


def test_forms_of_a_letter_are_summed() -> None:
    token = {"B": 0.3, " B": 0.1, "(B)": 0.1, "\u2581A": 0.2, "\u0120C": 0.05, "*C*": 0.05, "b": 0.1, "Bob": 0.1}
    assert read("B", token) == pytest.approx([0.25, 0.625, 0.125])


def test_options_of_the_same_text_share_one_probability() -> None:
    shared = read("A", {"A": 0.2, "B": 0.1, "C": 0.1}, options=("Red.", "blue", "red"))
    assert shared == pytest.approx([0.75, 0.25, 0.75])


def test_the_letter_may_come_late() -> None:
    tokens = [{"The": 1.0}, {" answer": 0.9, " A": 0.1}, {" is": 1.0}, {" (": 1.0}, {"C": 0.5, "A": 0.3, "B": 0.2}]
    assert read("The answer is (C)", *tokens, {")": 1.0}) == pytest.approx([0.3, 0.2, 0.5])


def test_a_sampled_token_counts_though_it_is_not_among_the_likeliest() -> None:
    content = make_completion("B", tokens=[{"B": 0.1, "A": 0.6, "C": 0.3}]).replace(
        b'"top_logprobs": [{"token": "B", "logprob": -2.3025850929940455}, ', b'"top_logprobs": ['
    )
    with ChatServer(reply=(200, {}, content)) as server:
        (answer,) = make_answerer(server, logprobs=True).answer([make_prompt()])
    assert [math.exp(value) for value in answer.option_logprobs or ()] == pytest.approx([0.6, 0.1, 0.3])


def test_a_letter_that_is_not_there_is_unknown() -> None:
    assert read("A", {"A": 0.9, "B": 0.1}) == []
    assert read("A", {"A": 0.9, "B": 0.1}, options=("x", "y")) == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("A man walks away", "A"),  # an article
        ("B", "A"),  # a thought that is not shown
        ("I do not know", "I"),
        ("None of them, A or B", "None"),
    ],
)
def test_a_letter_that_is_not_the_answer_is_not_read(text: str, first: str) -> None:
    weights = {"A": 0.5, "B": 0.3, "C": 0.2}
    assert read(text, {first: 1.0} | weights, {" or": 1.0}, weights) == []


def test_a_probability_of_zero_is_unknown() -> None:
    content = make_completion("A", tokens=[{"A": 0.5, "B": 0.3, "C": 1.0}]).replace(b" 0.0}", b" -Infinity}")
    with ChatServer(reply=(200, {}, content)) as server:
        answers = make_answerer(server, logprobs=True).answer([make_prompt()])
    assert answers == [Answer(text="A", finish_reason="stop")]


@pytest.mark.parametrize(
    ("logprobs", "reason"),
    [
        ("left_out", "it left them out"),
        (400, "the server said HTTP 400: {'message': 'logprobs are not supported'}"),
        (422, "the server said HTTP 422: {'message': 'logprobs are not supported'}"),
        (501, "the server said HTTP 501: {'message': 'logprobs are not supported'}"),
    ],
)
def test_a_server_without_log_probabilities_is_asked_for_text(logprobs: Any, reason: str) -> None:
    prompts = [make_prompt(question=f"Which one, {index}?") for index in range(20)]
    expected = [Answer(text=answer_prompt(prompt.text), finish_reason="stop") for prompt in prompts]
    with ChatServer(logprobs=logprobs) as server:
        answerer = make_answerer(server, logprobs=True)
        message = f"{answerer.id} gives no log-probabilities ({reason}); the option is looked for in what it writes"
        with pytest.warns(UserWarning, match=re.escape(message)) as warned:
            assert answerer.answer(prompts) == expected
        assert len(warned) == 1
        assert ["logprobs" in body for body in server.bodies] == [True] + [False] * 20
        assert answerer.answer(prompts) == expected  # known by now
        assert server.num_requests == 41


def test_the_first_request_is_made_again_after_unpickling() -> None:
    with ChatServer(logprobs="given") as server:
        answerer = make_answerer(server, logprobs=True)
        answerer.answer([make_prompt()])
        answerer.answer([make_prompt()])
        assert server.num_requests == 3
        pickle.loads(pickle.dumps(answerer)).answer([make_prompt()])  # noqa: S301
        assert server.num_requests == 5


def test_a_question_without_options_needs_no_log_probabilities() -> None:
    with ChatServer(logprobs=400) as server:
        (answer,) = make_answerer(server, logprobs=True).answer([make_prompt(())])
        assert (server.num_requests, answer.error) == (1, None)
        assert "logprobs" not in server.bodies[0]


def test_a_server_that_is_not_there_says_nothing_of_log_probabilities() -> None:
    with ChatServer(reply=(401, {}, b"")) as server, warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = make_answerer(server, logprobs=True).answer([make_prompt()] * 30)
        assert server.num_requests == 1
    assert all("does not accept the key" in (answer.error or "") for answer in answers)


def judge(server: ChatServer, rows: Dataset, **settings: Any) -> list[dict[str, Any]]:
    answerer = EndpointAnswerer("tiny", base_url=server.url, logprobs=True, **settings)
    fitted = GroundFilter(answerer, single_shot()).fit(rows)
    return rows.map(fitted, batched=True).select_columns(list(ADDED_FEATURES)).to_list()


def test_faults_change_no_probability(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    rows = make_dataset(200)
    with ChatServer(logprobs="given") as server:
        expected = judge(server, rows)
    assert {round(row["bias_score"] or 0, 3) for row in expected} == {0.625, 0.125}
    monkeypatch.setenv("VIDGROUND_CACHE", str(tmp_path / "other"))
    with ChatServer(logprobs="given", fault_share=0.2, seed=2) as server:
        assert judge(server, rows, timeout_seconds=0.5) == expected
        assert set(server.faults) == set(FAULTS)


@pytest.mark.parametrize("seed", range(4))
def test_faults_do_not_decide_whether_a_server_gives_log_probabilities(seed: int) -> None:
    with ChatServer(logprobs="given", fault_share=0.5, seed=seed) as server:
        (answer,) = EndpointAnswerer("tiny", base_url=server.url, logprobs=True, timeout_seconds=0.3).answer(
            [make_prompt()]
        )
        assert server.answered.total() == 2
    assert answer.option_logprobs is not None


def test_a_model_may_think_first() -> None:
    prompt = make_prompt()
    with ChatServer() as server:
        answerer = make_answerer(server, max_tokens=10, reasoning_tokens=500)
        answerer.answer([prompt])
        assert server.bodies[0]["messages"][0]["content"] == prompt.render(reasoning=True) != prompt.text
        assert server.bodies[0]["max_tokens"] == 510
    assert answerer.sampling == {"temperature": 0.0, "max_tokens": 510, "reasoning_tokens": 500}


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("<think>A or B? I choose B", "510 tokens were written without an answer; a model that reasons needs more"),
        ("<think>A or B?</think>\nThe answer is B, bec", None),
        ("<think>A or B? <answer>B", None),
        ("B, bec", None),
    ],
)
def test_a_thought_that_was_cut_off_is_no_answer(text: str, error: str | None) -> None:
    with ChatServer(reply=(200, {}, make_completion(text, "length"))) as server:
        (answer,) = make_answerer(server, max_tokens=10, reasoning_tokens=500).answer([make_prompt()])
        assert server.num_requests == 1
    assert answer.error == error
    assert answer.text == (None if error else text)


def test_samples_of_one_prompt_differ_and_repeat() -> None:
    samples = [replace(make_prompt(), trial_index=trial) for trial in range(8)]
    with ChatServer() as server:
        answerer = make_answerer(server, temperature=0.7)
        texts = [answer.text for answer in answerer.answer(samples)]
        assert 1 < len(set(texts)) < 8
        assert texts == [answer.text for answer in answerer.answer(samples)]
        assert sorted(body["seed"] for body in server.bodies) == sorted(list(range(8)) * 2)
        server.bodies.clear()
        make_answerer(server).answer(samples)
        assert not any("seed" in body for body in server.bodies)


def test_what_is_asked_is_in_the_key() -> None:
    made = [
        EndpointAnswerer("m", base_url="http://h", **settings)
        for settings in ({}, {"logprobs": True}, {"reasoning_tokens": 9, "max_tokens": 1015}, {"max_tokens": 1015})
    ]
    assert made[0].sampling == {"temperature": 0.0, "max_tokens": 1024}
    assert len({make_key(answerer.id, answerer.sampling, make_prompt()) for answerer in made}) == 4


@pytest.mark.parametrize(
    ("reasoning_tokens", "logprobs", "message"),
    [
        (0, False, "reasoning_tokens = 0 is out of range; it is at least 1, or None to answer at once"),
        (0, True, "reasoning_tokens = 0 is out of range"),
        (5, True, "reasoning_tokens = 5 and logprobs = True do not go together: probabilities are read only where the "
         "model answers at once; drop logprobs to let it think, or reasoning_tokens to have probabilities"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together(reasoning_tokens: int, logprobs: bool, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        EndpointAnswerer("m", base_url="http://h", reasoning_tokens=reasoning_tokens, logprobs=logprobs)
