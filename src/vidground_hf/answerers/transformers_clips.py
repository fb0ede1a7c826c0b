"""From frames to what a model's own processor makes of them: tokens, pixel tensors and how many of each there are.

Nothing is decoded here, and the model is not run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from vidground_hf.answerers.transformers_loading import LoadedModel, be_quiet
from vidground_hf.answerers.transformers_tokens import SENTINEL, Ids, TextEncoder
from vidground_hf.media import FrameRequest
from vidground_hf.model_files import ModelError

if TYPE_CHECKING:
    from vidground_hf.video import VideoFrames

_TICKS_PER_SECOND = 1000  # processors take whole frame numbers and a rate; in milliseconds any time stamp is one
_TEXT_KEYS = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids", "video_metadata"})


class ClipError(ValueError):
    """The processor or the model did not take the frames as they were given."""


@dataclass(frozen=True, slots=True)
class Clip:
    """Frames as a model's processor prepared them.

    Attributes:
        ids (`int64[T]`): all tokens before the text of the prompt, placeholders of the frames included.
        types (`int64[T]`): 1 and 2 at placeholders of images and videos, 0 elsewhere.
        tensors (`Mapping[str, Any]`): pixels and their layout, as the model takes them.
        num_frames (`int`): those of the video, without padding.
        decoder (`str`): which library decoded them.
    """

    ids: Ids
    types: Ids
    tensors: Mapping[str, Any]
    num_frames: int
    decoder: str


class ClipEncoder:
    """Puts frames into the chat template through the model's processor, and gives the encoder of texts behind them.

    Args:
        loaded (`LoadedModel`): the model.
        processor (`ProcessorMixin`): of the model.
        reasoning (`bool`): whether the model is asked to think first.

    Raises:
        `ModelError`: when the template or the processor does not show a video.
    """

    def __init__(self, loaded: LoadedModel, processor: Any, *, reasoning: bool) -> None:
        self.processor = processor
        self.layout = _render(loaded, processor, reasoning)
        head, _, tail = self.layout.partition(SENTINEL)
        ids = self._process(np.zeros((2, 56, 56, 3), np.uint8), describe_times([0.0, 1.0], 2.0))["input_ids"]
        before, gap = _split_ids(loaded.tokenizer, ids[0].numpy(), head, tail)
        self.texts = TextEncoder(loaded.tokenizer, gap, tail, before=before)

    def encode(self, frames: VideoFrames, request: FrameRequest) -> Clip:
        """Prepares the frames of one request.

        Args:
            frames (`VideoFrames`): as `video.show_frames` arranged them.
            request (`FrameRequest`): what they were asked with.

        Raises:
            `ClipError`: when the processor does not take every frame once, or writes the text otherwise than alone.
        """
        data = frames.data
        num_frames = len(data)
        times, num_seconds = read_times(frames, request)
        # Fewer frames than go into one patch: some processors refuse them, others repeat the last one as this does.
        num_missing = max(0, self._temporal_patch - num_frames)
        data = np.concatenate([data, *[data[-1:]] * num_missing])
        found = self._process(data, describe_times(times + times[-1:] * num_missing, num_seconds))
        num_taken = count_frames(found, self._temporal_patch)
        if not 0 <= num_taken - num_frames < self._temporal_patch:
            raise ClipError(f"the processor took {num_taken} frames of {num_frames}; its answer would not be counted")
        ids, sample = found["input_ids"][0].numpy(), self.texts.sample
        if not np.array_equal(ids[-len(sample) :], sample):
            raise ClipError("the processor tokenises the text behind these frames otherwise than behind others")
        end = len(ids) - len(sample)
        types = found["mm_token_type_ids"][0].numpy() if "mm_token_type_ids" in found else np.zeros_like(ids)
        tensors = {key: value for key, value in found.items() if key not in _TEXT_KEYS}
        return Clip(ids[:end], types[:end], tensors, num_frames, frames.backend)

    @property
    def _temporal_patch(self) -> int:
        return int(getattr(self.processor.video_processor, "temporal_patch_size", None) or 1)

    def _process(self, data: Any, metadata: dict[str, Any]) -> dict[str, Any]:
        metadata |= {"height": data.shape[1], "width": data.shape[2]}
        with be_quiet():
            found = self.processor(
                text=[self.layout],
                videos=[data],
                video_metadata=[metadata],
                do_sample_frames=False,
                input_data_format="channels_last",
                add_special_tokens=False,
                return_tensors="pt",
            )
        return dict(found)


def _render(loaded: LoadedModel, processor: Any, reasoning: bool) -> str:
    """The conversation as the processor lays it out, with a video and a mark for the text."""
    content = [{"type": "video"}, {"type": "text", "text": SENTINEL}]
    own = None if processor.chat_template else loaded.template
    with be_quiet():
        layout: str = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            chat_template=own,
            add_generation_prompt=True,
            enable_thinking=reasoning,
        )
    head, *tails = layout.split(SENTINEL)
    if len(tails) != 1 or head.count(str(processor.video_token)) != 1:
        raise ModelError(
            f"the model's chat template does not show a video ({processor.video_token!r}) before the text exactly "
            "once; ask it with a blind view"
        )
    return layout


def _split_ids(tokenizer: Any, ids: Ids, head: str, tail: str) -> tuple[Ids, str]:
    """Cuts a prompt behind the last control token before its text.

    Returns:
        `tuple[int64[T], str]`: the tokens up to there, and the words between them and the text.
    """
    added = tokenizer.added_tokens_decoder
    behind = tokenizer(SENTINEL + tail, add_special_tokens=False)["input_ids"]
    places = np.flatnonzero(np.isin(ids, np.array(sorted(added), np.int64)))
    cut = int(places[-1 - sum(token in added for token in behind)]) + 1
    # Those of the template, or, where the processor writes words of its own behind the frames, those of the tokens.
    start = max(
        (head.rfind(str(token)) + len(str(token)) for token in added.values() if str(token) in head), default=0
    )
    written = tokenizer.decode(ids[cut:], clean_up_tokenization_spaces=False).partition(SENTINEL)[0]
    for gap in (head[start:], written):
        again = tokenizer(gap + SENTINEL + tail, add_special_tokens=False)["input_ids"]
        if np.array_equal(again, ids[cut:]):
            return ids[:cut], gap
    raise ModelError("the model's tokenizer reads the text behind a video otherwise than alone; it cannot be used")


def read_times(frames: VideoFrames, request: FrameRequest) -> tuple[list[float], float]:
    """When frames are shown, in seconds from the start of the part asked for, and how long that part is."""
    start = request.start_seconds or 0.0
    times = np.maximum(frames.pts_seconds - start, 0.0).tolist()
    last = times[-1] + float(frames.duration_seconds[-1])
    ends = [end - start for end in (request.end_seconds, frames.video_seconds) if end is not None]
    return times, min(ends, default=last)


def describe_times(times: list[float], num_seconds: float) -> dict[str, Any]:
    """What the processor is told of frames: a clock of whole ticks, and when each is shown."""
    return {
        "fps": float(_TICKS_PER_SECOND),
        "frames_indices": [round(time * _TICKS_PER_SECOND) for time in times],
        "total_num_frames": max(1, round(num_seconds * _TICKS_PER_SECOND)),
        "duration": num_seconds,
    }


def count_frames(found: Mapping[str, Any], temporal_patch: int) -> int:
    """How many frames are in a processor's tensors, padding included."""
    if (grid := found.get("video_grid_thw")) is not None:
        return int(grid[:, 0].sum()) * temporal_patch
    pixels = found.get("pixel_values_videos", found.get("pixel_values"))
    if not isinstance(pixels, torch.Tensor):
        raise ClipError("the processor gave no pixels")
    return int(pixels.shape[1] if pixels.ndim == 5 else pixels.shape[0])
