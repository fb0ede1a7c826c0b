"""Frames that are sent to a server: which ones arrive, and what happens when they do not."""

from __future__ import annotations

import base64
import io
import pickle
import re
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests.chat_server import FAULTS, ChatServer, make_completion
from vidground_hf.answerers import load_answerer
from vidground_hf.answerers.base import Answer, takes_frames
from vidground_hf.answerers.endpoint import EndpointAnswerer
from vidground_hf.answerers.endpoint_frames import Sight, encode_frames
from vidground_hf.cache import AnswerCache, answer_through_cache
from vidground_hf.frame_loading import FrameLoader
from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.prompts import Prompt, order_by_clip
from vidground_hf.video import VideoFrames, VideoReadError, show_frames

NUM_FRAMES = 4


def draw_clip(name: str) -> np.ndarray:
    """Four smooth frames that no other name has, 47 by 64."""
    rng = np.random.default_rng(list(name.encode()))
    rows, columns = np.mgrid[0:1:47j, 0:1:64j]
    corners = rng.uniform(0, 255, (NUM_FRAMES, 3, 2))
    return np.stack(
        [np.stack([low + (high - low) * (rows + columns) / 2 for low, high in frame], axis=-1) for frame in corners]
    ).astype(np.uint8)


def make_frames(name: str) -> VideoFrames:
    return VideoFrames(
        data=draw_clip(name),
        pts_seconds=np.array([0.5, 1.5, 2.5, 3.5]),
        duration_seconds=np.full(NUM_FRAMES, 0.04),
        indices=np.array([12, 37, 62, 87]),
        backend="drawn",
        source=name,
        video_seconds=4.0,
        num_video_frames=100,
    )


class DrawnLoader:
    """Stands in for the one that decodes: draws what is asked for, and counts what is alive."""

    read: list[str]
    num_closed = 0

    def __init__(self, **settings: Any) -> None:
        assert settings == {"num_workers": 2, "timeout_seconds": 60.0, "max_ahead": 4}

    def load(self, requests: Sequence[FrameRequest]) -> Iterator[VideoFrames | VideoReadError]:
        for request in requests:
            assert request.clip == request
            type(self).read.append(request.source)
            yield (
                VideoReadError(request.source, "drawn", "it is torn")
                if "bad" in request.source
                else make_frames(request.source)
            )

    def __exit__(self, *_: object) -> None:
        type(self).num_closed += 1


@pytest.fixture(autouse=True)
def loader(monkeypatch: pytest.MonkeyPatch) -> type[DrawnLoader]:
    monkeypatch.setattr("vidground_hf.answerers.endpoint_run._BACKOFF_SECONDS", 0.01)
    monkeypatch.delenv("VIDGROUND_ENDPOINT_KEY", raising=False)
    monkeypatch.setattr("vidground_hf.answerers.endpoint_frames.FrameLoader", DrawnLoader)
    monkeypatch.setattr(DrawnLoader, "read", [], raising=False)
    monkeypatch.setattr(DrawnLoader, "num_closed", 0)
    return DrawnLoader


def ask_about(source: str, question: str = "Which one?", **shown: Any) -> Prompt:
    view: Any = "single_frame" if "pick" in shown else "shuffled_frames" if "shuffle_seed" in shown else "video"
    return Prompt(
        example_id=question,
        view=view,
        problem_type="multiple_choice",
        question=question,
        options=("red", "green", "blue"),
        frames=FrameRequest(source=source, **shown),
    )


def ask_blindly(question: str) -> Prompt:
    return replace(ask_about("", question), view="text", frames=None)


def make_answerer(server: ChatServer, **settings: Any) -> EndpointAnswerer:
    defaults: dict[str, Any] = {"base_url": server.url, "timeout_seconds": 5.0}
    return EndpointAnswerer("tiny", **defaults | settings)


def list_sent(server: ChatServer) -> dict[str, list[dict[str, Any]]]:
    """The parts of what was sent, by the question's line; those of our own question are left out."""
    sent = {}
    for body in server.bodies:
        content = body["messages"][0]["content"]
        if isinstance(content, list) and "Which of the two is a colour" not in content[-1]["text"]:
            sent[content[-1]["text"].split("\n")[0].removeprefix("Question: ")] = content
    return sent


def read_images(parts: Sequence[dict[str, Any]]) -> np.ndarray:
    frames = []
    for part in parts:
        kind, _, content = part["image_url"]["url"].partition(";base64,")
        assert (part["type"], kind) == ("image_url", "data:image/jpeg")
        frames.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(content)))))
    return np.stack(frames)


def read_video(part: dict[str, Any]) -> tuple[np.ndarray, list[float]]:
    kind, _, content = part["video_url"]["url"].partition(";base64,")
    assert (part["type"], kind) == ("video_url", "data:video/mp4")
    with av.open(io.BytesIO(base64.b64decode(content))) as container:
        decoded = list(container.decode(video=0))
    return np.stack([frame.to_ndarray(format="rgb24") for frame in decoded]), [float(frame.time) for frame in decoded]


def differ(left: np.ndarray, right: np.ndarray) -> float:
    return float(np.abs(left.astype(int) - right).mean())


def test_each_frame_arrives_as_an_image_before_the_text(loader: type[DrawnLoader]) -> None:
    prompts = [ask_about(f"{index}.mp4", f"Clip {index}?") for index in range(5)]
    with ChatServer(usage="read") as server:
        answers = make_answerer(server).answer(prompts)
        sent = list_sent(server)
    for index, prompt in enumerate(prompts):
        *images, text = sent[f"Clip {index}?"]
        assert text == {"type": "text", "text": prompt.text}
        arrived, clip = read_images(images), draw_clip(f"{index}.mp4")
        assert arrived.shape == clip.shape
        assert differ(arrived, clip) < 3
        assert all(np.argmin([differ(image, frame) for frame in clip]) == k for k, image in enumerate(arrived))
    num_words = len(prompts[0].text.split())
    for answer in answers:
        assert (answer.error, answer.num_frames, answer.decoder) == (None, NUM_FRAMES, "drawn")
        assert (answer.num_prompt_tokens, answer.num_answer_tokens) == (num_words + 100 * NUM_FRAMES, 1)
        assert answer.num_visual_tokens is None
        assert answer.seconds is not None
        assert 0 < answer.seconds < 60
    assert loader.read == [f"{index}.mp4" for index in range(5)]


def test_frames_arrive_as_a_video() -> None:
    prompts = [ask_about("a.mp4", "Whole?"), ask_about("a.mp4", "Shuffled?", shuffle_seed=0)]
    with ChatServer(usage="read") as server:
        answers = make_answerer(server, frames_as="video").answer(prompts)
        sent = list_sent(server)
    assert [answer.num_frames for answer in answers] == [NUM_FRAMES, NUM_FRAMES]
    for prompt, name in zip(prompts, ("Whole?", "Shuffled?"), strict=True):
        assert [part["type"] for part in sent[name]] == ["video_url", "text"]
        arrived, seconds = read_video(sent[name][0])
        assert arrived.shape == (NUM_FRAMES, 48, 64, 3)  # an odd side is made even with a copy of its last pixels
        assert prompt.frames is not None
        assert differ(arrived[:, :47], show_frames(make_frames("a.mp4"), prompt.frames).data) < 4
        assert seconds == pytest.approx([0, 1, 2, 3], abs=0.002)


def test_a_video_of_one_frame_and_of_frames_at_the_same_time() -> None:
    clip = draw_clip("a")
    (part,) = encode_frames(clip[:1], np.array([7.0]), "video")
    assert read_video(part)[0].shape == (1, 48, 64, 3)
    (part,) = encode_frames(clip, np.array([1.0, 4.0, 4.0, 4.0002]), "video")
    arrived, seconds = read_video(part)
    assert differ(arrived[:, :47], clip) < 4
    assert seconds == pytest.approx([0, 3, 3.001, 3.002], abs=1e-6)


def test_views_and_rotations_of_a_clip_share_one_decode(loader: type[DrawnLoader]) -> None:
    prompts = [
        ask_about("a.mp4", "Whole?"),
        ask_about("b.mp4", "Other?"),
        ask_blindly("Blind?"),
        ask_about("a.mp4", "One?", pick=(0, 1)),
        ask_about("b.mp4", "Other again?"),
        ask_about("a.mp4", "Shuffled?", shuffle_seed=0),
        ask_about("a.mp4", "Fewer?", budget=FrameBudget(num_frames=2)),
    ]
    assert order_by_clip(prompts) == [0, 3, 5, 1, 4, 2, 6]
    with ChatServer(usage="read") as server:
        answers = make_answerer(server).answer(prompts)
        sent = list_sent(server)
    assert loader.read == ["a.mp4", "b.mp4", "a.mp4"]
    assert [answer.num_frames for answer in answers] == [4, 4, None, 1, 4, 4, 4]
    clip = draw_clip("a.mp4")
    assert differ(read_images(sent["One?"][:-1]), clip[[2]]) < 3
    assert (
        differ(read_images(sent["Shuffled?"][:-1]), clip[FrameRequest(source="a.mp4", shuffle_seed=0).arrange(4)]) < 3
    )


def test_bytes_of_the_same_name_are_not_mixed_up(loader: type[DrawnLoader]) -> None:
    first, second = b"one", b"two"
    prompts = [ask_about("video.mp4", f"{k}?", content=content) for k, content in enumerate((first, second, first))]
    assert order_by_clip(prompts) == [0, 2, 1]
    with ChatServer(usage="read") as server:
        make_answerer(server).answer(prompts)
    assert loader.read == ["video.mp4", "video.mp4"]


def test_blind_prompts_are_sent_as_ever_and_read_nothing(loader: type[DrawnLoader]) -> None:
    with ChatServer(usage="read") as server:
        (answer,) = make_answerer(server).answer([ask_blindly("Blind?")])
        (body,) = server.bodies
    assert body["messages"] == [{"role": "user", "content": ask_blindly("Blind?").text}]
    assert (answer.num_frames, answer.decoder, answer.num_answer_tokens) == (None, None, 1)
    assert answer.num_prompt_tokens == len(ask_blindly("Blind?").text.split())
    assert loader.read == []


def test_a_clip_that_cannot_be_read_fails_alone() -> None:
    prompts = [ask_about(source, f"{source}?") for source in ("a.mp4", "bad.mp4", "b.mp4", "bad.mp4")]
    with ChatServer(usage="read") as server:
        answers = make_answerer(server).answer(prompts)
        assert server.num_requests == 4
    error = str(VideoReadError("bad.mp4", "drawn", "it is torn"))
    assert [answer.error for answer in answers] == [None, error, None, error]
    assert answers[1] == Answer(text=None, error=error)


def test_faults_change_no_answer_and_frames_are_sent_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # These clips are drawn, and what is no file has no name that is given twice.
    monkeypatch.setattr("vidground_hf.cache.identify_frames", lambda request, _: {"content": request.source})
    prompts = [ask_about(f"{index % 40}.mp4", f"{index}?") for index in range(120)]
    with ChatServer(usage="read") as server:
        expected = make_answerer(server).answer(prompts)
    assert {answer.error for answer in expected} == {None}
    with ChatServer(usage="read", fault_share=0.2, seed=5) as server, AnswerCache(tmp_path / "answers") as cache:
        answerer = make_answerer(server, timeout_seconds=2.0)
        assert answer_through_cache(answerer, prompts, cache, on_answer=lambda count, source: None) == expected
        assert set(server.faults) == set(FAULTS)
        assert max(server.asked.values()) > 1
        assert {type(body["messages"][0]["content"]) for body in server.bodies} == {list, str}
        assert sum(isinstance(body["messages"][0]["content"], str) for body in server.bodies) < 10
        num_requests = server.num_requests
        assert answer_through_cache(answerer, prompts, cache, on_answer=lambda count, source: None) == expected
        assert server.num_requests == num_requests


def test_frames_are_held_for_those_in_flight_and_no_others(
    loader: type[DrawnLoader], monkeypatch: pytest.MonkeyPatch
) -> None:
    num_shown, num_given, most = 0, 0, 0
    show = Sight._show

    def count_shown(*arguments: Any) -> Any:
        nonlocal num_shown, most
        num_shown += 1
        most = max(most, num_shown - num_given)
        return show(*arguments)

    def count_given(index: int, answer: Answer) -> None:
        nonlocal num_given
        num_given += 1

    monkeypatch.setattr(Sight, "_show", count_shown)
    with ChatServer(usage="read", delay_seconds=0.002) as server:
        answerer = make_answerer(server, concurrency=5)
        answerer.answer_each([ask_about(f"{index}.mp4", f"{index}?") for index in range(60)], count_given)
    assert (num_shown, num_given, most) == (60, 60, 5)


def test_a_server_that_leaves_frames_out_is_found_out(loader: type[DrawnLoader]) -> None:
    prompts = [ask_about("a.mp4"), ask_blindly("Blind?"), ask_about("b.mp4")]
    with ChatServer(usage="ignored") as server:
        answerer = make_answerer(server)
        answers = answerer.answer(prompts)
        assert server.num_requests == 3
    error = (
        f"{answerer.id} read no frames: a question with some took 19 tokens, and without 19; ask a model that takes "
        "images or videos, or pass another frames_as"
    )
    assert [answer.error for answer in answers] == [error, None, error]
    assert loader.read == []


def test_a_server_that_counts_no_tokens_is_warned_of_once() -> None:
    with ChatServer() as server:
        answerer = make_answerer(server)
        message = f"{answerer.id} does not say how many tokens it read, so whether it looks at the frames is not known"
        with pytest.warns(UserWarning, match=re.escape(message)):
            (answer,) = answerer.answer([ask_about("a.mp4")])
        assert (answer.error, answer.num_frames, answer.num_prompt_tokens) == (None, NUM_FRAMES, None)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            answerer.answer([ask_about("b.mp4")])
        assert server.num_requests == 4


def test_the_check_is_made_once_and_again_after_unpickling() -> None:
    with ChatServer(usage="read") as server:
        answerer = make_answerer(server)
        for count in (3, 4):
            answerer.answer([ask_about("a.mp4")])
            assert server.num_requests == count
        pickle.loads(pickle.dumps(answerer)).answer([ask_about("a.mp4")])  # noqa: S301
        assert server.num_requests == 7


def test_a_model_that_takes_no_images(loader: type[DrawnLoader]) -> None:
    with ChatServer(usage="read", max_images=0) as server:
        answerer = make_answerer(server)
        answers = answerer.answer([ask_about("a.mp4"), ask_blindly("Blind?"), ask_about("b.mp4")])
        assert server.num_requests == 3
    assert answers[1].error is None
    assert answers[0].error == answers[2].error
    assert answers[0].error == (
        f"{answerer.id} refuses 2 frames (the server said HTTP 400: {{'message': 'At most 0 image(s) may be provided "
        "in one prompt. data:image/jpeg;base64,***'}). Ask a model that takes images or videos; if this one does, "
        "lower --frames or raise what its server takes in a prompt (vLLM: --limit-mm-per-prompt)"
    )
    assert loader.read == []


def test_a_server_that_takes_fewer_images(loader: type[DrawnLoader]) -> None:
    prompts = [ask_about(f"{index}.mp4", f"{index}?") for index in range(50)]
    singles = [ask_about(f"{index}.mp4", f"One, {index}?", pick=(0, 1)) for index in range(50)]
    with ChatServer(usage="read", max_images=2) as server:
        answerer = make_answerer(server, concurrency=2)
        answers = answerer.answer(prompts + singles)
        assert server.num_requests in (2 + 1 + 50, 2 + 2 + 50)
        assert answerer.answer([ask_about("9.mp4", pick=(0, 1))])[0].error is None
    assert all("refuses 4 frames (the server said HTTP 400" in (answer.error or "") for answer in answers[:50])
    assert {answer.error for answer in answers[50:]} == {None}
    assert loader.read == [f"{index}.mp4" for index in range(50)] + ["9.mp4"]


@pytest.mark.parametrize(
    ("status", "said", "expected"),
    [
        (400, "tiny is not a multimodal model", "refuses 2 frames (the server said HTTP 400: {'message': 'tiny is"),
        (404, "No endpoints found that support image input", "refuses 2 frames (the server said HTTP 404: {'mess"),
        (500, "image input is not supported - you may need the mmproj", "refuses 2 frames (the server said HTTP 500"),
        (400, "the decoder prompt is longer than the maximum model length; for images see multimodal tokens",
         "see multimodal tokens'}. Lower --frames or --max-pixels"),
        (422, "no field seed", "the server said HTTP 422: {'message': 'no field seed'}"),
        (401, "who is this? an image?", "does not accept the key"),
    ],
)  # fmt: skip
def test_what_a_refusal_says(status: int, said: str, expected: str) -> None:
    with ChatServer(usage="read", media_reply=(status, said)) as server:
        (answer,) = make_answerer(server).answer([ask_about("a.mp4")])
    assert expected in (answer.error or "")


def test_a_request_that_is_too_large() -> None:
    with ChatServer(usage="read", max_bytes=5000) as server:
        answers = make_answerer(server).answer([ask_about("a.mp4"), ask_about("a.mp4", "One?", pick=(0, 1))])
    assert answers[0].error == (
        "the server said HTTP 413: {'message': 'request entity too large'}. 4 frames are too many bytes for it; lower "
        "--frames or --max-pixels"
    )
    assert answers[1].error is None


@pytest.mark.parametrize("status", [400, 401, 422, 429, 500])
def test_no_pixels_in_an_error(status: int) -> None:
    class EchoingServer(ChatServer):
        async def _write(self, writer: Any, code: int, content: bytes, headers: Any = None) -> bool:
            echo = str(self.bodies[-1]["messages"])
            return await super()._write(writer, status, echo.encode(), {"Retry-After": "1000"})

    with EchoingServer() as server:
        answerer = make_answerer(server)
        (answer,) = answerer.answer([ask_about("a.mp4")])
    assert answer.error is not None
    assert not re.search(r"[A-Za-z0-9+/=]{100,}", answer.error)
    assert len(answer.error) < 700


def test_a_run_that_stops_reads_no_more(loader: type[DrawnLoader]) -> None:
    with ChatServer(usage="read") as server:
        answerer = make_answerer(server, max_requests=6, concurrency=2)
        answers = answerer.answer([ask_about(f"{index}.mp4", f"{index}?") for index in range(40)])
        assert server.num_requests == 6
    assert [answer.error for answer in answers[:4]] == [None] * 4
    assert {answer.error for answer in answers[4:]} == {"the budget of 6 requests is spent"}
    assert len(loader.read) <= 6


def test_reading_ends_with_the_run(loader: type[DrawnLoader]) -> None:
    def fail(index: int, answer: Answer) -> None:
        raise OSError("the disk is full")

    with ChatServer(usage="read") as server, pytest.raises(OSError, match="the disk is full"):
        make_answerer(server).answer_each([ask_about(f"{index}.mp4") for index in range(200)], fail)
    assert loader.num_closed == 1
    assert len(loader.read) < 200


def test_how_frames_are_sent_is_part_of_the_answer() -> None:
    made = EndpointAnswerer("m", base_url="http://h")
    assert takes_frames(made)
    assert made.visual_sampling == {"frames_as": "images", "jpeg_quality": 90}
    assert made.sampling == {"temperature": 0.0, "max_tokens": 1024}
    named = load_answerer("endpoint:m@http://h", frames_as="video")
    assert isinstance(named, EndpointAnswerer)
    assert named.visual_sampling == {"frames_as": "video", "codec": "h264", "crf": 18, "preset": "veryfast"}
    assert load_answerer("provider:m", frames_as="images").id == "provider:m@auto"
    with pytest.raises(ValueError, match=re.escape("frames_as = 'gif' is unknown; allowed are images, video")):
        load_answerer("provider:m", frames_as="gif")
    with pytest.raises(ValueError, match="'probe' takes no frames_as"):
        load_answerer("probe", frames_as="video")


def test_a_thought_that_was_cut_off_still_tells_what_was_read() -> None:
    content = make_completion("<think>well", "length", num_prompt_tokens=7)
    with ChatServer(reply=(200, {}, content)) as server:
        answerer = make_answerer(server)
        (answer,) = answerer.answer([ask_about("a.mp4")])
        assert "took 7 tokens, and without 7" in (answer.error or "")
        (answer,) = answerer.answer([ask_blindly("Blind?")])
        assert (answer.text, answer.num_prompt_tokens) == (None, 7)


@pytest.mark.parametrize("frames_as", ["images", "video"])
def test_a_real_clip_is_read_in_other_processes(
    frames_as: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("vidground_hf.answerers.endpoint_frames.FrameLoader", FrameLoader)
    clip = np.concatenate([draw_clip(name)[:, :46] for name in "abcd"])
    (part,) = encode_frames(clip, np.arange(16.0), "video")
    Path(tmp_path, "clip.mp4").write_bytes(base64.b64decode(part["video_url"]["url"].partition(",")[2]))
    Path(tmp_path, "torn.mp4").write_bytes(b"no video")
    budget = FrameBudget(num_frames=8, size=None)
    prompts = [ask_about(str(tmp_path / f"{name}.mp4"), f"{name}?", budget=budget) for name in ("torn", "clip")]
    with ChatServer(usage="read") as server:
        torn, answer = make_answerer(server, frames_as=frames_as).answer(prompts)
        sent = list_sent(server)["clip?"]
    assert "torn.mp4 cannot be read by" in (torn.error or "")
    assert (answer.error, answer.num_frames) == (None, 8)
    assert answer.decoder in ("torchcodec", "pyav")
    arrived = read_images(sent[:-1]) if frames_as == "images" else read_video(sent[0])[0]
    nearest = [int(np.argmin([differ(image, frame) for frame in clip])) for image in arrived]
    assert nearest == sorted(set(nearest))
    assert max(differ(image, clip[k]) for image, k in zip(arrived, nearest, strict=True)) < 5
