"""What can be tested without vLLM: what it is asked for and what is made of its outputs, with a fake in its place."""

from __future__ import annotations

import importlib.util
import math
import pickle
import re
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from datasets.fingerprint import Hasher
from huggingface_hub import errors

from vidground_hf.answerers.base import Answer, ModelAnswerer, takes_frames
from vidground_hf.answerers.transformers_lm import TransformersAnswerer
from vidground_hf.answerers.vllm_lm import VllmAnswerer
from vidground_hf.answerers.vllm_lm_frames import describe_times, find_rate
from vidground_hf.answerers.vllm_lm_reading import find_letters, read_letters, read_text
from vidground_hf.answerers.vllm_lm_revision import find_revision
from vidground_hf.media import FrameRequest
from vidground_hf.model_files import ModelError
from vidground_hf.prompts import Prompt
from vidground_hf.schema import LETTERS
from vidground_hf.video import VideoFrames, VideoReadError

# Token k is the letter k, token 26 + k the same behind a space; the others read as something else.
VOCABULARY = [*LETTERS, *(f" {letter}" for letter in LETTERS), "", "a", "AB", "(A", "\nA"]
CHOICE = Prompt(
    example_id="1", view="text", problem_type="multiple_choice", question="Which?", options=("red", "green", "blue")
)
VIDEO_TOKEN = 99
OPEN = Prompt(example_id="2", view="text", problem_type="free_form", question="Why?")


class FakeTokenizer:
    def __len__(self) -> int:
        return len(VOCABULARY)

    def batch_decode(self, rows: Sequence[Sequence[int]]) -> list[str]:
        return ["".join(VOCABULARY[token] for token in row) for row in rows]


class FakeEngine:
    """Stands in for `vllm.LLM`: gives the allowed tokens probabilities that fall with their id, or writes "B"."""

    tokens_per_frame = 5

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
        return [
            self.complete(asked, [0] * len(text.split())) for asked, text in zip(sampling_params, texts, strict=True)
        ]

    def generate(self, inputs: Any, sampling_params: list[dict[str, Any]], **settings: Any) -> list[Any]:
        self.calls.append((inputs, sampling_params, settings))
        read = [[0] * len(given["prompt"].split()) for given in inputs]
        for tokens, given in zip(read, inputs, strict=True):
            (video, _) = given["multi_modal_data"]["video"][0]
            tokens.extend([VIDEO_TOKEN] * (len(video) * self.tokens_per_frame))
        return [self.complete(asked, tokens) for asked, tokens in zip(sampling_params, read, strict=True)]

    def complete(self, asked: dict[str, Any], read: list[int]) -> Any:
        allowed = asked.get("allowed_token_ids", [])
        logprobs = [{token: SimpleNamespace(logprob=-float(token)) for token in allowed}] if allowed else None
        written = SimpleNamespace(text="B", finish_reason="stop", logprobs=logprobs, token_ids=[1])
        return SimpleNamespace(outputs=[written], prompt_token_ids=read)


@pytest.fixture
def fake_vllm(monkeypatch: pytest.MonkeyPatch) -> list[FakeEngine]:
    engines: list[FakeEngine] = []

    def start(model: str, **settings: Any) -> FakeEngine:
        engines.append(FakeEngine(model, **settings))
        return engines[-1]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(LLM=start, SamplingParams=dict))
    return engines


class FakeProcessor:
    video_token_id = VIDEO_TOKEN

    def apply_chat_template(self, messages: Any, **settings: Any) -> str:
        assert settings.keys() == {"tokenize", "add_generation_prompt", "enable_thinking"}
        assert not settings["tokenize"]
        assert settings["add_generation_prompt"]
        (message,) = messages
        assert [part["type"] for part in message["content"]] == ["video", "text"]
        return f"<video> {message['content'][1]['text']}{' <think>' if settings['enable_thinking'] else ''}"


def make_frames(data: np.ndarray, source: str) -> VideoFrames:
    return VideoFrames(
        data=data,
        pts_seconds=np.arange(float(len(data))) + 0.5,
        duration_seconds=np.full(len(data), 0.04),
        indices=np.arange(len(data)) * 25 + 12,
        backend="drawn",
        source=source,
        video_seconds=float(len(data)),
        num_video_frames=len(data) * 25,
    )


def draw_clip(name: str) -> np.ndarray:
    return np.random.default_rng(list(name.encode())).integers(0, 256, (4, 8, 6, 3), np.uint8)


class DrawnLoader:
    """Stands in for the one that decodes."""

    read: list[str]
    num_closed = 0

    def __init__(self, **settings: Any) -> None:
        assert settings == {"num_workers": 2, "timeout_seconds": 60.0, "max_ahead": 4}

    def load(self, requests: Sequence[FrameRequest]) -> Iterator[VideoFrames | VideoReadError]:
        for request in requests:
            type(self).read.append(request.source)
            error = VideoReadError(request.source, "drawn", "it is torn")
            yield error if "bad" in request.source else make_frames(draw_clip(request.source), request.source)

    def __enter__(self) -> DrawnLoader:
        return self

    def __exit__(self, *_: object) -> None:
        type(self).num_closed += 1


@pytest.fixture
def processors(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What processors were loaded; frames are drawn."""
    loaded: list[tuple[str, dict[str, Any]]] = []

    def load(model: str, **settings: Any) -> FakeProcessor:
        loaded.append((model, settings))
        return FakeProcessor()

    monkeypatch.setitem(
        sys.modules, "transformers", SimpleNamespace(AutoProcessor=SimpleNamespace(from_pretrained=load))
    )
    monkeypatch.setattr("vidground_hf.answerers.vllm_lm.FrameLoader", DrawnLoader)
    monkeypatch.setattr(DrawnLoader, "read", [], raising=False)
    monkeypatch.setattr(DrawnLoader, "num_closed", 0)
    return loaded


def look_at(source: str, **shown: Any) -> Prompt:
    return replace(CHOICE, view="video", frames=FrameRequest(source=source, **shown))


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
    read = len(OPEN.text.split())
    assert answers[1] == Answer(text="B", finish_reason="stop", num_prompt_tokens=read, num_answer_tokens=1)
    assert answers[0].text == "A"
    weights = [math.exp(-k) + math.exp(-26 - k) for k in range(3)]
    assert answers[0].option_logprobs == pytest.approx([math.log(weight / sum(weights)) for weight in weights])
    answerer.answer([OPEN])
    assert len(fake_vllm) == 1


def test_times_count_from_the_start_of_the_part_that_is_shown(
    fake_vllm: list[FakeEngine], processors: list[Any], model: str
) -> None:
    VllmAnswerer(model).answer([look_at("a", start_seconds=0.25)])
    (given,) = fake_vllm[0].calls[0][0]
    assert given["multi_modal_data"]["video"][0][1]["frames_indices"] == [250, 1250, 2250, 3250]


def test_frames_are_shown_as_they_are(fake_vllm: list[FakeEngine], processors: list[Any], model: str) -> None:
    answerer = VllmAnswerer(model)
    assert takes_frames(answerer)
    assert answerer.visual_sampling == {"frames_as": "video"}
    turned = replace(look_at("a"), options=("blue", "red", "green"))
    answers = answerer.answer([look_at("a"), look_at("b"), CHOICE, turned, look_at("a", shuffle_seed=0)])
    assert DrawnLoader.read == ["a", "b"]
    assert processors == [(model, {"revision": None, "trust_remote_code": False})]
    blind, (inputs, asked, settings) = fake_vllm[0].calls
    assert blind[0] == [[{"role": "user", "content": CHOICE.text}]]
    assert settings == {"use_tqdm": False}
    assert asked == [blind[1][0]] * 4
    shuffled = FrameRequest(source="a", shuffle_seed=0).arrange(4)
    expected = [draw_clip("a"), draw_clip("a"), draw_clip("a")[shuffled], draw_clip("b")]
    times = {
        "fps": 1000.0,
        "frames_indices": [500, 1500, 2500, 3500],
        "total_num_frames": 4000,
        "duration": 4.0,
        "video_backend": "drawn",
        "do_sample_frames": False,
    }
    for given, data, prompt in zip(inputs, expected, (CHOICE, turned, CHOICE, CHOICE), strict=True):
        assert given.keys() == {"prompt", "multi_modal_data", "multi_modal_uuids", "mm_processor_kwargs"}
        assert given["prompt"] == f"<video> {prompt.text}"
        ((video, described),) = given["multi_modal_data"]["video"]
        assert np.array_equal(video, data)
        assert described == times
        assert given["mm_processor_kwargs"] == {"do_sample_frames": False, "fps": 1.0}
    names = [given["multi_modal_uuids"]["video"][0] for given in inputs]
    assert names[0] == names[1]
    assert len(set(names)) == 3
    assert inputs[0]["multi_modal_data"]["video"][0][0] is inputs[1]["multi_modal_data"]["video"][0][0]
    for answer, number in zip(answers, (4, 4, None, 4, 4), strict=True):
        visual = None if number is None else number * FakeEngine.tokens_per_frame
        assert (answer.text, answer.num_frames, answer.num_visual_tokens) == ("A", number, visual)
        assert answer.num_answer_tokens == 1
        assert answer.decoder == ("drawn" if number else None)
        assert answer.num_prompt_tokens == len(CHOICE.text.split()) + (1 + (visual or 0) if number else 0)


def test_frames_are_read_while_the_model_works(
    fake_vllm: list[FakeEngine], processors: list[Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidground_hf.answerers.vllm_lm._SEEING_PER_BATCH", 2)
    seen: list[tuple[int, str | None, int]] = []
    answerer = VllmAnswerer(model)
    prompts = [look_at(name) for name in ("a", "bad", "c", "bad", "e", "f", "g")]
    answerer.answer_each(prompts, lambda index, answer: seen.append((index, answer.error, len(DrawnLoader.read))))
    torn = str(VideoReadError("bad", "drawn", "it is torn"))
    assert [(index, error) for index, error, _ in seen] == [
        (1, torn), (0, None), (3, torn), (2, None), (4, None), (5, None), (6, None)
    ]  # fmt: skip
    assert [len(inputs) for inputs, _, _ in fake_vllm[0].calls] == [1, 1, 2, 1]
    assert all(number <= count + 4 for count, (_, _, number) in enumerate(seen, 1))  # a batch, and the next
    assert DrawnLoader.num_closed == 1


def test_reading_ends_with_the_run(fake_vllm: list[FakeEngine], processors: list[Any], model: str) -> None:
    def fail(index: int, answer: Answer) -> None:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="the disk is full"):
        VllmAnswerer(model).answer_each([look_at(str(index)) for index in range(100)], fail)
    assert DrawnLoader.num_closed == 1
    assert len(DrawnLoader.read) <= 32


def test_a_model_that_read_no_frame(
    fake_vllm: list[FakeEngine], processors: list[Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FakeEngine, "tokens_per_frame", 0)
    answerer = VllmAnswerer(model)
    error = f"{answerer.id} read no token of the 4 frames that it was shown"
    assert answerer.answer([look_at("a")]) == [Answer(text=None, error=error)]


def test_a_model_that_takes_no_frames(
    fake_vllm: list[FakeEngine], processors: list[Any], model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(FakeProcessor, "video_token_id")
    message = f"{model!r} takes no frames; pass a model that takes videos, or a blind view"
    with pytest.raises(ValueError, match=re.escape(message)):
        VllmAnswerer(model).answer([look_at("a")])


def test_the_times_are_right_for_the_processors_of_transformers() -> None:
    pytest.importorskip("torch", reason="needs torch; pip install 'vidground-hf[models]'")
    from transformers.video_utils import VideoMetadata

    frames = make_frames(draw_clip("a"), "a")
    for moved in (frames, replace(frames, pts_seconds=frames.pts_seconds / 3 + 100)):
        times = describe_times(moved)
        assert times.pop("do_sample_frames") is False
        metadata = VideoMetadata(**times)
        assert metadata.timestamps == pytest.approx(moved.pts_seconds.tolist(), abs=1e-3)
        assert find_rate(moved) == pytest.approx(1.0 if moved is frames else 3.0)
        assert moved is not frames or metadata.sampled_fps == pytest.approx(1.0)
    one = replace(frames, data=frames.data[:1], pts_seconds=frames.pts_seconds[:1])
    assert (find_rate(one), describe_times(one)["frames_indices"]) == (1.0, [500])


def test_a_model_that_may_think_writes_its_choice(fake_vllm: list[FakeEngine], model: str) -> None:
    answerer = VllmAnswerer(model, temperature=0.5, max_tokens=9, reasoning_tokens=100)
    (answer,) = answerer.answer([replace(CHOICE, trial_index=3)])
    ((messages, asked, settings),) = fake_vllm[0].calls
    assert messages[0][0]["content"] == CHOICE.render(reasoning=True)
    assert asked == [{"temperature": 0.5, "max_tokens": 109, "seed": 3}]
    assert settings["chat_template_kwargs"] == {"enable_thinking": True}
    assert (answer.text, answer.finish_reason, answer.option_logprobs) == ("B", "stop", None)
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


@pytest.mark.gpu
@pytest.mark.skipif(importlib.util.find_spec("vllm") is None, reason="needs vLLM; pip install 'vidground-hf[vllm]'")
@pytest.mark.parametrize("model", ["Qwen/Qwen2.5-VL-3B-Instruct", "Qwen/Qwen3-VL-2B-Instruct"])
def test_frames_with_vllm(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Painted(DrawnLoader):
        def load(self, requests: Sequence[FrameRequest]) -> Iterator[VideoFrames | VideoReadError]:
            for request in requests:
                data = np.zeros((8, 224, 224, 3), np.uint8)
                data[..., CHOICE.options.index(request.source)] = 255
                yield make_frames(data, request.source)

    monkeypatch.setattr("vidground_hf.answerers.vllm_lm.FrameLoader", Painted)
    monkeypatch.setattr(Painted, "read", [], raising=False)
    answerer = VllmAnswerer(model, max_tokens=16)
    colour = replace(CHOICE, question="Which colour does the video show?")
    prompts = [replace(colour, view="video", frames=FrameRequest(source=name)) for name in ("red", "green", "blue")]
    answers = answerer.answer([*prompts, colour])
    assert [answer.text for answer in answers[:3]] == ["A", "B", "C"]
    assert [answer.num_frames for answer in answers] == [8, 8, 8, None]
    assert all(0 < (answer.num_visual_tokens or 0) < (answer.num_prompt_tokens or 0) < 2048 for answer in answers[:3])
    assert answers[3].num_visual_tokens is None
