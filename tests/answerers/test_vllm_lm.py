"""What can be tested without vLLM: what it is asked for and what is made of its outputs, with a fake in its place."""

from __future__ import annotations

import importlib.util
import math
import pickle
import re
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from datasets.fingerprint import Hasher
from huggingface_hub import errors

from vidground_hf.answerers.base import Answer, ModelAnswerer
from vidground_hf.answerers.transformers_lm import TransformersAnswerer
from vidground_hf.answerers.vllm_lm import VllmAnswerer
from vidground_hf.answerers.vllm_lm_reading import find_letters, read_letters, read_text
from vidground_hf.answerers.vllm_lm_revision import find_revision
from vidground_hf.model_files import ModelError
from vidground_hf.prompts import Prompt
from vidground_hf.schema import LETTERS

# Token k is the letter k, token 26 + k the same behind a space; the others read as something else.
VOCABULARY = [*LETTERS, *(f" {letter}" for letter in LETTERS), "", "a", "AB", "(A", "\nA"]
CHOICE = Prompt(
    example_id="1", view="text", problem_type="multiple_choice", question="Which?", options=("red", "green", "blue")
)
OPEN = Prompt(example_id="2", view="text", problem_type="free_form", question="Why?")


class FakeTokenizer:
    def __len__(self) -> int:
        return len(VOCABULARY)

    def batch_decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return ["".join(VOCABULARY[token] for token in row) for row in rows]


class FakeEngine:
    """Stands in for `vllm.LLM`: gives the allowed tokens probabilities that fall with their id, or writes "B"."""

    def __init__(self, model: str, **settings: Any) -> None:
        self.model, self.settings = model, settings
        self.calls: list[tuple[Any, list[dict[str, Any]], dict[str, Any]]] = []

    def get_tokenizer(self) -> FakeTokenizer:
        return FakeTokenizer()

    def chat(self, messages: Any, sampling_params: list[dict[str, Any]], **settings: Any) -> list[Any]:
        texts = [message[0]["content"] for message in messages]
        if any("too long" in text for text in texts):
            raise ValueError("The prompt is longer than the maximum model length of 8")
        self.calls.append((messages, sampling_params, settings))
        return [SimpleNamespace(outputs=[self.complete(asked)]) for asked in sampling_params]

    def complete(self, asked: dict[str, Any]) -> Any:
        allowed = asked.get("allowed_token_ids", [])
        logprobs = {token: SimpleNamespace(logprob=-float(token)) for token in allowed}
        return SimpleNamespace(text="B", finish_reason="stop", logprobs=[logprobs] if allowed else None)


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    engines: list[FakeEngine] = []

    def start(model: str, **settings: Any) -> FakeEngine:
        engines.append(FakeEngine(model, **settings))
        return engines[-1]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=start, SamplingParams=dict))
    return engines


@pytest.fixture
def model(tmp_path: Path) -> str:
    (tmp_path / "config.json").write_text("{}")
    return str(tmp_path)


def test_what_the_engine_is_asked(fake_vllm: list[FakeEngine], model: str) -> None:
    answerer = VllmAnswerer(model, max_tokens=9)
    assert isinstance(answerer, ModelAnswerer)
    answers = answerer.answer([CHOICE, OPEN])
    (engine,) = fake_vllm
    assert engine.model == model
    assert engine.settings == {
        "revision": None,
        "tokenizer_revision": None,
        "trust_remote_code": False,
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",
        "max_logprobs": -1,
    }
    ((messages, asked, settings),) = engine.calls
    assert messages == [[{"role": "user", "content": prompt.text}] for prompt in (CHOICE, OPEN)]
    assert asked == [
        {"temperature": 0.0, "max_tokens": 1, "allowed_token_ids": [0, 1, 2, 26, 27, 28], "logprobs": 6},
        {"temperature": 0.0, "max_tokens": 9, "seed": None},
    ]
    assert settings == {
        "use_tqdm": False,
        "add_generation_prompt": True,
        "chat_template_kwargs": {"enable_thinking": False},
    }
    assert answers[1] == Answer(text="B", finish_reason="stop")
    assert answers[0].text == "A"
    weights = [math.exp(-k) + math.exp(-26 - k) for k in range(3)]
    assert answers[0].option_logprobs == pytest.approx([math.log(weight / sum(weights)) for weight in weights])
    answerer.answer([OPEN])
    assert len(fake_vllm) == 1


def test_a_model_that_may_think_writes_its_choice(fake_vllm: list[FakeEngine], model: str) -> None:
    answerer = VllmAnswerer(model, temperature=0.5, max_tokens=9, reasoning_tokens=100)
    (answer,) = answerer.answer([replace(CHOICE, trial_index=3)])
    ((messages, asked, settings),) = fake_vllm[0].calls
    assert messages[0][0]["content"] == CHOICE.render(reasoning=True)
    assert asked == [{"temperature": 0.5, "max_tokens": 109, "seed": 3}]
    assert settings["chat_template_kwargs"] == {"enable_thinking": True}
    assert answer == Answer(text="B", finish_reason="stop")
    assert answerer.sampling["multiple_choice"] == "written"
    assert answerer.sampling["max_tokens"] == 109


def test_a_prompt_that_is_refused_fails_alone(fake_vllm: list[FakeEngine], model: str) -> None:
    answers = VllmAnswerer(model).answer([CHOICE, replace(CHOICE, question="too long"), CHOICE])
    assert [answer.text for answer in answers] == ["A", None, "A"]
    assert answers[1].error == "The prompt is longer than the maximum model length of 8"


def test_answers_are_handed_over_batch_by_batch(
    fake_vllm: list[FakeEngine], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidground_hf.answerers.vllm_lm._PROMPTS_PER_BATCH", 2)
    answerer = VllmAnswerer(model)
    seen: list[tuple[int, int]] = []
    answerer.answer_each([CHOICE] * 5, lambda index, answer: seen.append((index, len(fake_vllm[0].calls))))
    assert seen == [(0, 1), (1, 1), (2, 2), (3, 2), (4, 3)]
    assert answerer.num_in_flight == 0
    assert answerer.answer([]) == []


def test_nothing_live_is_pickled(fake_vllm: list[FakeEngine], model: str) -> None:
    answerer = VllmAnswerer(model)
    before = Hasher.hash(answerer)
    answerer.answer([OPEN])
    assert Hasher.hash(answerer) == before
    assert pickle.loads(pickle.dumps(answerer)).answer([OPEN])[0].text == "B"  # noqa: S301
    assert len(fake_vllm) == 2


def test_a_pickle_changes_with_the_weights(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first = VllmAnswerer(model)
    before = Hasher.hash(first)
    Path(model, "model.safetensors").write_bytes(b"weights")
    assert Hasher.hash(VllmAnswerer(model)) != before == Hasher.hash(first)
    assert pickle.loads(pickle.dumps(first)).id == VllmAnswerer(model).id != first.id  # noqa: S301

    def fail(*_: Any, **__: Any) -> str:
        raise FileNotFoundError("404 Client Error")

    monkeypatch.setattr("vidground_hf.answerers.vllm_lm_revision.hf_hub_download", fail)
    assert pickle.loads(pickle.dumps(VllmAnswerer("a/b"))).model == "a/b"  # noqa: S301


def test_without_vllm_it_says_what_to_install(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ImportError, match=re.escape("pip install 'vidground-hf[vllm]'")):
        VllmAnswerer(model).answer([OPEN])


def test_the_id_names_what_is_in_the_folder(model: str) -> None:
    first = VllmAnswerer(model).id
    assert re.fullmatch(re.escape(f"vllm:{Path(model).name}@") + "[0-9a-f]{32}", first)
    Path(model, "notes.md").write_text("not part of the model")
    assert VllmAnswerer(model).id == first
    Path(model, "model.safetensors").write_bytes(b"weights")
    second = VllmAnswerer(model).id
    Path(model, "model.safetensors").write_bytes(b"Weights")
    assert len({first, second, VllmAnswerer(model).id}) == 3


def test_the_id_of_a_hub_model_is_its_commit(fake_vllm: list[FakeEngine], monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(model: str, name: str, revision: str | None) -> str:
        asked.append((model, name, revision))
        return f"/cache/models--a--b/snapshots/{'c' * 40}/config.json"

    monkeypatch.setattr("vidground_hf.answerers.vllm_lm_revision.hf_hub_download", download)
    answerer = VllmAnswerer("a/b", revision="main")
    assert answerer.id == answerer.id == f"vllm:a/b@{'c' * 40}"
    assert asked == [("a/b", "config.json", "main")]
    assert answerer.describe() == answerer.sampling
    answerer.answer([OPEN])
    assert (fake_vllm[0].settings["revision"], fake_vllm[0].settings["tokenizer_revision"]) == ("c" * 40, "c" * 40)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        (errors.GatedRepoError, "'a/b' at 'v2' is gated; accept its terms at https://huggingface.co/a/b"),
        (errors.RepositoryNotFoundError, "'a/b' at 'v2' is no folder here and no model on the Hub"),
        (errors.LocalEntryNotFoundError, "'a/b' at 'v2' is not in the local cache, and the Hub cannot be reached"),
        (FileNotFoundError, "'a/b' at 'v2' cannot be loaded: FileNotFoundError"),
    ],
)
def test_a_model_that_is_nowhere(kind: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: Any, **__: Any) -> str:
        raise kind.__new__(kind) from ConnectionError("as the Hub's client raises it")

    monkeypatch.setattr("vidground_hf.answerers.vllm_lm_revision.hf_hub_download", download)
    with pytest.raises(ModelError, match=re.escape(message)):
        find_revision("a/b", "v2")


def test_both_local_answerers_see_the_same_files(model: str) -> None:
    seen = set()
    for name in ("config.json", "model.safetensors", "pytorch_model.bin", "merges.txt", "chat_template.jinja"):
        Path(model, name).write_text("changed")
        (found,) = {VllmAnswerer(model).id.partition("@")[2], TransformersAnswerer(model).id.partition("@")[2]}
        seen.add(found)
    Path(model, "trainer_state.json").write_text("no part of the model")
    assert VllmAnswerer(model).id.partition("@")[2] == found
    assert len(seen) == 5


def test_letters_are_pooled_over_forms_and_options_of_the_same_text() -> None:
    letters = find_letters(FakeTokenizer())
    assert letters == {token: token % 26 for token in range(52)}
    probabilities = {0: 0.1, 26: 0.2, 1: 0.4, 27: 0.1, 2: 0.1, 5: 0.05, 52: 0.05}
    logprobs = {token: SimpleNamespace(logprob=math.log(p)) for token, p in probabilities.items()}
    answer = read_letters(logprobs, letters, ("Red", "blue", "red."))
    assert answer.text == "B"
    assert [math.exp(value) for value in answer.option_logprobs or ()] == pytest.approx([4 / 9, 5 / 9, 4 / 9])
    assert read_letters(logprobs, letters, ("red", "Red", "red.")).option_logprobs == pytest.approx((0.0, 0.0, 0.0))


def test_a_letter_that_is_not_there_is_no_zero() -> None:
    error = "vLLM left out the log-probability of a letter; use a newer vLLM"
    assert read_letters({0: SimpleNamespace(logprob=-1.0)}, {0: 0, 1: 1}, ("x", "y")) == Answer(text=None, error=error)


def test_a_tokenizer_without_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules[__name__], "VOCABULARY", ["A", "B", " C"])
    with pytest.raises(ValueError, match="the tokenizer has no token for some letters; pass reasoning"):
        find_letters(FakeTokenizer())


@pytest.mark.parametrize(
    ("text", "finish_reason", "error"),
    [
        ("B", "stop", None),
        ("B, bec", "length", None),
        ("<think>A?</think> B, bec", "length", None),
        ("<think>A or B", "length", "9 tokens were written without an answer; pass more reasoning_tokens"),
        (" ", "length", "9 tokens were written without an answer; pass more reasoning_tokens"),
        (" \n", "stop", "the model wrote nothing"),
    ],
)
def test_what_was_written(text: str, finish_reason: str, error: str | None) -> None:
    expected = Answer(text=None, error=error) if error else Answer(text=text, finish_reason=finish_reason)
    assert read_text(text, finish_reason, 9) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": -1.0}, "temperature = -1.0"),
        ({"max_tokens": 0}, "max_tokens = 0"),
        ({"reasoning_tokens": 0}, "reasoning_tokens = 0 is out of range; allowed are 0 or more, 1 or more, and"),
        ({"revision": "main"}, "revision = 'main' was given for the folder"),
    ],
)
def test_settings_are_checked(settings: dict[str, Any], message: str, model: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        VllmAnswerer(model, **settings)


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM; pip install 'vidground-hf[vllm]'")
def test_with_vllm() -> None:
    answerer = VllmAnswerer("Qwen/Qwen3-0.6B", max_tokens=16)
    sky = replace(CHOICE, question="What colour is a cloudless sky at noon?")
    answers = answerer.answer([sky, OPEN])
    assert answers[0].text == "C"
    assert sum(math.exp(value) for value in answers[0].option_logprobs or ()) == pytest.approx(1.0)
    assert answers[1].text
    assert answerer.answer([sky, OPEN]) == answers
