"""From prompts with frames to answers: clip by clip, each decoded and seen once, the texts behind them in batches.

Prompts without frames are `transformers_engine.py`'s; frames are read by `frame_loading.py`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from time import perf_counter
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.transformers_clips import Clip, ClipEncoder
from vidground_hf.answerers.transformers_engine import Engine, OnAnswer, find_text_error
from vidground_hf.answerers.transformers_kept import Recent
from vidground_hf.answerers.transformers_rows import Row, RowEngine
from vidground_hf.answerers.transformers_sight import Seen, can_keep, check_sight, look
from vidground_hf.answerers.transformers_tokens import Ids
from vidground_hf.media import FrameRequest
from vidground_hf.model_files import ModelError
from vidground_hf.prompts import Prompt
from vidground_hf.video import VideoFrames, VideoReadError, show_frames

# Our guesses: frames of some fifty clips, and what a model of 7 B parameters keeps of about eight.
_MAX_FRAME_BYTES = 1 << 30
_MAX_SEEN_BYTES = 1 << 31
_SAMPLE = "Question: What is this?"

Loaded: TypeAlias = VideoFrames | VideoReadError
LoadFrames: TypeAlias = Callable[[Sequence[FrameRequest]], Iterator[Loaded]]


class View(NamedTuple):
    """Frames by what they are, not by what they are called.

    Attributes:
        request (`FrameRequest`): the frames.
        version (`bytes`, *optional*): what changes with the video; a digest where it is given as bytes.
    """

    request: FrameRequest
    version: bytes | None

    def forget_bytes(self) -> View:
        """An equal name that holds no video."""
        return View(replace(self.request, content=None), self.version)


class VisualEngine:
    """Answers prompts with frames.

    Args:
        engine (`Engine`): the model and how it is asked.
        processor (`ProcessorMixin`): of the model.
        load_frames (`Callable`): the frames, or why there are none, of each of the requests it is given, in order.

    Raises:
        `ModelError`: when the model or its processor does not take frames.
    """

    def __init__(self, engine: Engine, processor: Any, load_frames: LoadFrames) -> None:
        self.engine = engine
        self.load_frames = load_frames
        self.is_reasoning = engine.reasoning_tokens is not None
        self.frames: Recent[VideoFrames] = Recent(_MAX_FRAME_BYTES)
        self.seen: Recent[Seen] = Recent(_MAX_SEEN_BYTES)
        try:
            self.clips = ClipEncoder(engine.loaded, processor, reasoning=self.is_reasoning)
            clips = [self.clips.encode(_make_noise(seed), FrameRequest(source="")) for seed in range(2)]
            (text,) = self.clips.texts.encode([_SAMPLE])
            check_sight(engine.loaded, clips, text)
        except ValueError as error:
            raise ModelError(f"{type(processor).__name__} does not take a video of two frames: {error}") from error
        keeps_layers = can_keep(engine.loaded, clips[0], text)
        self.rows = RowEngine(engine, self.clips.texts, keeps_layers=keeps_layers)

    def answer_each(self, prompts: Sequence[Prompt], indices: Sequence[int], on_answer: OnAnswer) -> None:
        """Answers some of the prompts, clip by clip in the order in which clips come up first."""
        texts = self._encode_texts(prompts, indices, on_answer)
        rows: list[Row] = []
        try:
            with closing(self._see_each(_group_views(prompts, texts))) as found_each:
                for view, owners, found in found_each:
                    start = perf_counter()
                    seen = found if isinstance(found, Seen) else self._see(view, found)
                    seconds = (perf_counter() - start) / len(owners)
                    rows += self.rows.make_rows(prompts, texts, owners, seen, seconds, on_answer)
                    if _is_enough(rows, self.engine.max_batch_tokens):
                        self.rows.answer_rows(prompts, rows, on_answer)
                        rows = []
            self.rows.answer_rows(prompts, rows, on_answer)
        finally:
            self.engine.num_in_flight = 0

    def _see_each(
        self, clips: dict[View, dict[View, list[int]]]
    ) -> Generator[tuple[View, list[int], Seen | Loaded], None, None]:
        """Each view with its prompts, and what is kept of it or the frames of its clip, read ahead."""
        # What is kept now is held on to: a later clip may push it out before it is its turn.
        seen = {view: one for views in clips.values() for view in views if (one := self.seen.get(view)) is not None}
        frames = {clip: kept for clip in clips if (kept := self.frames.get(clip)) is not None}
        missing = {clip for clip, views in clips.items() if clip not in frames and not views.keys() <= seen.keys()}
        loading = iter(self.load_frames([clip.request for clip in clips if clip in missing]))
        for clip, views in clips.items():
            loaded = next(loading) if clip in missing else frames.get(clip)
            if clip in missing and isinstance(loaded, VideoFrames):
                self.frames.put(clip.forget_bytes(), loaded, loaded.data.nbytes)
            for view, owners in views.items():
                found = seen.get(view) or loaded
                if found is not None:
                    yield view, owners, found

    def _encode_texts(self, prompts: Sequence[Prompt], indices: Sequence[int], on_answer: OnAnswer) -> dict[int, Ids]:
        """The text of each prompt that can be asked, as tokens."""
        texts = {index: prompts[index].render(reasoning=self.is_reasoning) for index in indices}
        for index in indices:
            error = find_text_error(texts[index]) or self.engine.find_error(prompts[index], 0)
            if error is not None:
                del texts[index]
                on_answer(index, Answer(text=None, error=error))
        if not texts:
            return {}
        return dict(zip(texts, self.clips.texts.encode(list(texts.values())), strict=True))

    def _see(self, view: View, frames: Loaded) -> Seen | str:
        """What the model keeps of the frames of a request, or why it has not seen them."""
        if isinstance(frames, VideoReadError):
            return str(frames)
        request = view.request
        try:
            clip = self.clips.encode(show_frames(frames, request), request)
            most = self.engine.loaded.max_length
            if most is not None and len(clip.ids) >= most:
                return f"the frames take {len(clip.ids)} tokens, the model takes {most}; show fewer, or smaller ones"
            seen = self._look(clip)
        except ValueError as error:
            return f"the model cannot be shown {frames.source}: {' '.join(str(error).split())}"
        if seen is None:
            return f"the frames' {len(clip.ids)} tokens do not fit in the memory"
        self.seen.put(view.forget_bytes(), seen, seen.num_bytes)
        return seen

    def _look(self, clip: Clip) -> Seen | None:
        """Looks, again without what was kept if the memory is short; `None` if that is not enough."""
        for _ in range(2):
            try:
                return look(self.engine.loaded, clip, keep_layers=self.rows.keeps_layers)
            except torch.OutOfMemoryError:
                self.seen.clear()
            torch.cuda.empty_cache()
        return None


def _is_enough(rows: Sequence[Row], max_batch_tokens: int) -> bool:
    """Whether rows fill a batch, or hold on to as much of what was seen as may be kept."""
    seen = {id(row.seen): row.seen for row in rows}.values()
    return sum(row.size for row in rows) >= max_batch_tokens or sum(one.num_bytes for one in seen) >= _MAX_SEEN_BYTES


def _group_views(prompts: Sequence[Prompt], indices: Iterable[int]) -> dict[View, dict[View, list[int]]]:
    """The prompts of each view of each clip."""
    clips: dict[View, dict[View, list[int]]] = {}
    versions: dict[int | str, bytes | None] = {}  # rows of one clip hold the same bytes, which are read once
    for index in indices:
        request = prompts[index].frames
        if request is None:
            raise ValueError(f"the prompt of row {prompts[index].example_id!r} shows no frames; ask it as text")
        name = request.source if request.content is None else id(request.content)
        if name not in versions:
            versions[name] = _find_version(request)
        view = View(request, versions[name])
        clips.setdefault(View(request.clip, view.version), {}).setdefault(view, []).append(index)
    return clips


def _find_version(request: FrameRequest) -> bytes | None:
    """What changes with a video; of an address it is not known."""
    if request.content is not None:
        return hashlib.blake2b(request.content, digest_size=16).digest()
    with suppress(OSError, ValueError):
        about = os.stat(request.source.removeprefix("file://"))
        return f"{about.st_size} {about.st_mtime_ns}".encode()
    return None


def _make_noise(seed: int) -> VideoFrames:
    """A clip of two frames to try a model on."""
    data = np.random.default_rng(seed).integers(0, 256, (2, 56, 56, 3), np.uint8)
    return VideoFrames(
        data=data,
        pts_seconds=np.array([0.0, 1.0]),
        duration_seconds=np.array([1.0, 1.0]),
        indices=np.array([0, 1]),
        backend="none",
        source="noise",
        video_seconds=2.0,
        num_video_frames=2,
    )
