"""The frames of prompts as vLLM's engine takes them: an array and its times beside the model's own prompt.

vLLM is not imported here, and nothing is said about what it answers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vidground_hf.frame_loading import FrameLoader
from vidground_hf.media import FrameRequest
from vidground_hf.prompts import Prompt
from vidground_hf.video import VideoFrames, VideoReadError, show_frames

_TICKS_PER_SECOND = 1000.0


@dataclass(frozen=True, slots=True)
class Seen:
    """What a prompt shows.

    Attributes:
        frames (`VideoFrames`): N frames.
        digest (`str`): of their pixels and times; rotations of one prompt share it, and the frames.
    """

    frames: VideoFrames
    digest: str


def read_seen(loader: FrameLoader, prompts: Sequence[Prompt]) -> Iterator[Seen | VideoReadError]:
    """Reads ahead what prompts show, one clip at a time.

    Args:
        loader (`FrameLoader`): that is open.
        prompts (`Sequence[Prompt]`): N prompts with frames, those of a clip in a row.

    Returns:
        `Iterator`: N times what a prompt shows, or why it cannot be read.
    """
    requests = [prompt.frames for prompt in prompts if prompt.frames is not None]
    clips = {request.clip_name: request.clip for request in requests}
    reads = loader.load(list(clips.values()))
    name: Any = None
    shown: dict[FrameRequest, Seen] = {}
    for request in requests:
        if name != request.clip_name:
            name, read, shown = request.clip_name, next(reads), {}
        if isinstance(read, VideoReadError):
            yield read
            continue
        if request not in shown:
            frames = _count_from_start(show_frames(read, request), request)
            shown[request] = Seen(frames, _hash_frames(frames))
        yield shown[request]


def _hash_frames(frames: VideoFrames) -> str:
    digest = hashlib.blake2b(np.ascontiguousarray(frames.data).data, digest_size=16)
    digest.update(f"{frames.data.shape} {frames.pts_seconds.tolist()}".encode())
    return digest.hexdigest()


def make_input(processor: Any, prompt: Prompt, seen: Seen, *, thinks: bool) -> dict[str, Any]:
    """What `LLM.generate` takes for a prompt with frames.

    Args:
        processor (`ProcessorMixin`): of the model; its chat template says where a video goes.
        prompt (`Prompt`): what is asked.
        seen (`Seen`): what it shows.
        thinks (`bool`): whether the model may think first.

    Returns:
        `dict`: prompt, frames and their name. The frames are taken as they are: nothing is sampled again.
    """
    content = [{"type": "video"}, {"type": "text", "text": prompt.render(reasoning=thinks)}]
    text = processor.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True, enable_thinking=thinks
    )
    times = describe_times(seen.frames)
    return {
        "prompt": text,
        "multi_modal_data": {"video": [(seen.frames.data, times)]},
        "multi_modal_uuids": {"video": [seen.digest]},
        "mm_processor_kwargs": {"do_sample_frames": False, "fps": find_rate(seen.frames)},
    }


def _count_from_start(frames: VideoFrames, request: FrameRequest) -> VideoFrames:
    """Frames whose times count from the start of the part that is shown, as in a file of that part alone."""
    return replace(frames, pts_seconds=np.maximum(frames.pts_seconds - (request.start_seconds or 0.0), 0.0))


def find_rate(frames: VideoFrames) -> float:
    """Frames a second (`float`) of what is shown, taken as evenly spread; 1 for a single one, which has none."""
    span_seconds = float(frames.pts_seconds[-1] - frames.pts_seconds[0])
    return (len(frames.pts_seconds) - 1) / span_seconds if span_seconds > 0 else 1.0


def describe_times(frames: VideoFrames) -> dict[str, Any]:
    """When frames are shown, as a model's video processor reads it (`dict`).

    It knows an even frame rate only and takes a frame's time as its place over that rate. Places are therefore given
    in milliseconds, which is right for any video.
    """
    ticks = np.round(frames.pts_seconds * _TICKS_PER_SECOND).astype(int)
    # As many as make the rate of the shown frames come out right; more where only the end of a video is shown.
    num_ticks = max(round(len(ticks) / find_rate(frames) * _TICKS_PER_SECOND), int(ticks[-1]) + 1)
    return {
        "fps": _TICKS_PER_SECOND,
        "frames_indices": ticks.tolist(),
        "total_num_frames": num_ticks,
        "duration": num_ticks / _TICKS_PER_SECOND,
        "video_backend": frames.backend,
        "do_sample_frames": False,
    }


def find_visual_tokens(processor: Any, model: str) -> frozenset[int]:
    """The tokens that stand for pixels in what a model reads.

    Args:
        processor (`ProcessorMixin`): of the model.
        model (`str`): its name, for the message.

    Raises:
        `ValueError`: when the model takes no pixels.
    """
    tokens = {getattr(processor, name, None) for name in ("video_token_id", "image_token_id")}
    found = frozenset(token for token in tokens if isinstance(token, int))
    if not found:
        raise ValueError(f"{model!r} takes no frames; pass a model that takes videos, or a blind view")
    return found
