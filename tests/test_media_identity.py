"""Equal pixels have equal names, and what takes time is found out once."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import aiohttp
import av
import fsspec
import numpy as np
import pytest
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from vidground_hf.answerers.base import Answer
from vidground_hf.cache import AnswerCache, answer_through_cache, make_key, make_keys
from vidground_hf.media import FrameBudget, FrameRequest
from vidground_hf.media_identity import identify_content, identify_frames
from vidground_hf.model_files import ModelError
from vidground_hf.prompts import Prompt


def find_out(name: str, find: Callable[[], str]) -> str:
    return find()


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    path = tmp_path / "clip.mp4"
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=4)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for k in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), 30 * k, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_a_file_is_named_by_its_bytes_its_frames_and_their_size(clip: Path) -> None:
    digest = "sha256:" + hashlib.sha256(clip.read_bytes()).hexdigest()
    named = identify_frames(FrameRequest(source=str(clip), budget=FrameBudget(num_frames=4, size=(8, 8))), find_out)
    assert named == {"content": digest, "indices": [1, 3, 5, 7], "size": (8, 8)}


def test_a_copy_and_its_bytes_in_memory_have_the_name_of_the_file(clip: Path) -> None:
    copy = clip.with_name("copy.mp4")
    shutil.copy(clip, copy)
    names = [
        identify_frames(request, find_out)
        for request in (
            FrameRequest(source=str(clip)),
            FrameRequest(source=str(copy)),
            FrameRequest(source="in a row", content=clip.read_bytes()),
        )
    ]
    assert names[0] == names[1] == names[2]


def test_a_budget_that_shows_the_same_frames_has_the_same_name(clip: Path) -> None:
    budgets = [FrameBudget(num_frames=8), FrameBudget(num_frames=64), FrameBudget(fps=4.0)]
    names = [identify_frames(FrameRequest(source=str(clip), budget=budget), find_out) for budget in budgets]
    assert [name["indices"] for name in names] == [list(range(8))] * 3
    assert names[0] == names[1] == names[2]


def test_another_window_frame_or_order_has_another_name(clip: Path) -> None:
    whole = FrameRequest(source=str(clip), budget=FrameBudget(num_frames=4))
    late = FrameRequest(source=str(clip), start_seconds=1.0, budget=FrameBudget(num_frames=4))
    middle = FrameRequest(source=str(clip), budget=FrameBudget(num_frames=4), pick=(0, 1))
    mixed = FrameRequest(source=str(clip), budget=FrameBudget(num_frames=4), shuffle_seed=1)
    shown = [identify_frames(request, find_out)["indices"] for request in (whole, late, middle, mixed)]
    assert shown[:3] == [[1, 3, 5, 7], [4, 5, 6, 7], [5]]
    assert sorted(shown[3]) == shown[0] != shown[3]


def test_what_was_found_out_is_kept_until_the_file_changes(clip: Path, tmp_path: Path) -> None:
    asked: list[str] = []
    request = FrameRequest(source=str(clip))
    with AnswerCache(tmp_path / "answers.sqlite") as cache:

        def remember(name: str, find: Callable[[], str]) -> str:
            def count() -> str:
                asked.append(name)
                return find()

            return cache.remember(name, count)

        first = identify_frames(request, remember)
        assert identify_frames(request, remember) == first
        assert len(asked) == 2
        os.utime(clip, (1, 1))
        assert identify_frames(request, remember) == first
        assert len(asked) == 3


@pytest.mark.parametrize(
    "source", ["broken.mp4", "absent.mp4", "", "a\0b.mp4", "foo://x/y.mp4", "hf://x", "https://[bad/x.mp4"]
)
def test_what_cannot_be_read_now_is_never_taken_for_what_can_be_read_later(source: str, tmp_path: Path) -> None:
    (tmp_path / "broken.mp4").write_bytes(b"no video")
    request = FrameRequest(source=source if "://" in source else str(tmp_path / source))
    first, second = (identify_frames(request, find_out) for _ in range(2))
    assert first["unreadable"] == second["unreadable"] == request.source
    assert first != second


TROUBLE = [aiohttp.ClientPayloadError("it broke off"), HfHubHTTPError.__bases__[0]("no route")]


@pytest.mark.parametrize("error", TROUBLE)
def test_a_server_that_fails_costs_its_clip_only(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> None:
        raise error

    monkeypatch.setattr(fsspec, "url_to_fs", fail)
    assert "unreadable" in identify_frames(FrameRequest(source="https://host/a.mp4"), find_out)


def test_the_time_from_which_frames_are_counted_is_named(clip: Path) -> None:
    middle = FrameRequest(source=str(clip), budget=FrameBudget(num_frames=4), pick=(0, 1))
    parts = [(None, None), (0.0, None), (0.75, 1.75), (0.5, 2.0)]
    names = [identify_frames(replace(middle, start_seconds=a, end_seconds=b), find_out) for a, b in parts]
    assert [name["indices"] for name in names] == [[5], [5], [5], [5]]
    assert [name.get("part") for name in names] == [None, None, (0.75, 1.75), (0.5, 2.0)]


def test_an_address_of_a_file_is_its_path(clip: Path) -> None:
    names = [identify_frames(FrameRequest(source=source), find_out) for source in (str(clip), f"file://{clip}")]
    assert names[0] == names[1]


def test_a_name_may_be_no_text(clip: Path, tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.mp4")
    clip.rename(path)
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        assert identify_frames(FrameRequest(source=path), cache.remember)["indices"] == list(range(8))


@pytest.mark.parametrize(
    ("about", "is_told_apart"), [({"ETag": "1"}, False), ({"Last-Modified": "today"}, False), ({}, True)]
)
def test_a_query_tells_videos_apart_where_nothing_else_does(
    about: dict[str, str], is_told_apart: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = SimpleNamespace(info=lambda _: {"size": None, **about})
    monkeypatch.setattr(fsspec, "url_to_fs", lambda url: (files, url))
    first, second = (identify_content(FrameRequest(source=f"https://host/get?id={k}"), find_out) for k in "12")
    assert (first != second) == is_told_apart
    assert "id=" not in first


class Watcher:
    """Says how many frames it was shown, or keeps silent about it."""

    id = "watcher@1"
    takes_frames = True
    num_in_flight = 0
    visual_sampling = {"processor": "plain"}  # noqa: RUF012
    sampling: dict[str, object] = {}  # noqa: RUF012

    def __init__(self, num_frames: int | None) -> None:
        self.num_frames = num_frames
        self.asked: list[Prompt] = []

    def describe(self) -> dict[str, object]:
        return {}

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        return [Answer(text="A", num_frames=self.num_frames) for _ in prompts]

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        for index, prompt in enumerate(prompts):
            self.asked.append(prompt)
            on_answer(index, Answer(text="A", num_frames=self.num_frames, seconds=0.5, decoder="pyav"))


def look(clip: Path, num_frames: int) -> Prompt:
    return Prompt(
        example_id="1",
        view="video",
        problem_type="free_form",
        question="Why?",
        frames=FrameRequest(source=str(clip), budget=FrameBudget(num_frames=num_frames)),
    )


def test_equal_frames_are_paid_for_once_and_come_back_whole(clip: Path, tmp_path: Path) -> None:
    watcher = Watcher(8)
    prompts = [look(clip, 8), look(clip, 64), look(clip, 2)]
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        first = answer_through_cache(watcher, prompts, cache, on_answer=lambda *_: None)
        assert answer_through_cache(watcher, prompts, cache, on_answer=lambda *_: None) == first
    assert [prompt.frames.budget.num_frames for prompt in watcher.asked if prompt.frames] == [8, 2]
    assert (first[0].num_frames, first[0].seconds, first[0].decoder) == (8, 0.5, "pyav")


def test_an_answer_that_saw_no_frame_is_an_error_and_is_not_kept(clip: Path, tmp_path: Path) -> None:
    watcher = Watcher(None)
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        for _ in range(2):
            (answer,) = answer_through_cache(watcher, [look(clip, 8)], cache, on_answer=lambda *_: None)
            assert answer.error == "no frame reached the model for view 'video'; its answer is not used"
            assert answer.text is None
    assert len(watcher.asked) == 2


def test_how_frames_are_taken_changes_the_key_and_blind_keys_stay(clip: Path, tmp_path: Path) -> None:
    watcher, other = Watcher(8), Watcher(8)
    other.visual_sampling = {"processor": "another"}
    blind = Prompt(example_id="1", view="text", problem_type="free_form", question="Why?")
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        assert make_keys(watcher, [look(clip, 8)], cache) != make_keys(other, [look(clip, 8)], cache)
        assert make_keys(watcher, [blind], cache) == [make_key("watcher@1", {}, blind)]
        assert make_keys(other, [blind], cache) == [make_key("watcher@1", {}, blind)]


class Reader(Watcher):
    """Reads text only, and has nothing to say about frames."""

    @property
    def visual_sampling(self) -> dict[str, str]:  # type: ignore[override]
        raise ModelError("reads text only")


def test_a_model_that_reads_text_only_is_not_asked_how_it_looks(clip: Path, tmp_path: Path) -> None:
    blind = Prompt(example_id="1", view="text", problem_type="free_form", question="Why?")
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        assert make_keys(Reader(8), [blind], cache) == [make_key("watcher@1", {}, blind)]
        with pytest.raises(ModelError, match="reads text only"):
            make_keys(Reader(8), [blind, look(clip, 8)], cache)


def test_a_folder_is_named_by_its_images_in_their_order(tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    (folder / "thumbnails").mkdir(parents=True)
    for k in (1, 2, 10):
        Image.new("RGB", (8, 8), (k, k, k)).save(folder / f"{k}.png")

    def identify() -> dict[str, object]:
        return identify_frames(FrameRequest(source=str(folder), frame_rate=2.0), find_out)

    first = identify()
    assert first["indices"] == [0, 1, 2]
    (folder / "notes.txt").write_text("nothing to see")
    assert identify() == first
    (folder / "10.png").rename(folder / "1a.png")
    assert identify() != first


def test_questions_that_show_the_same_frames_name_them_once(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named: list[FrameRequest] = []

    def count(request: FrameRequest, remember: Callable[[str, Callable[[], str]], str]) -> dict[str, object]:
        named.append(request)
        return identify_frames(request, remember)

    monkeypatch.setattr("vidground_hf.cache.identify_frames", count)
    held = [bytearray(clip.read_bytes()) for _ in range(2)]
    held[1].extend(b" another file")
    requests = [FrameRequest(source="one name", content=bytes(content)) for content in held]
    prompts = [replace(look(clip, 8), question=f"{k}?", frames=request) for request in requests for k in range(3)]
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        keys = make_keys(Watcher(8), prompts, cache)
    assert len(named) == 2
    assert len(set(keys)) == 6
    same = [replace(prompt, question="?") for prompt in prompts]
    with AnswerCache(tmp_path / "answers.sqlite") as cache:
        assert len(set(make_keys(Watcher(8), same, cache))) == 2
