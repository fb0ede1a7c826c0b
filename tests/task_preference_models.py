"""Tiny models of five families with random weights, and batches of requests as their processors make them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from tests.grpo_trainers import show_images
from tests.tiny_vlms import FAMILIES
from vidground_hf.task_preference.media_facts import MediaFacts

NUM_FRAMES, HEIGHT, WIDTH = 4, 56, 84
SECONDS_PER_FRAME = 1.5


@dataclass(frozen=True)
class Request:
    """One row of a batch: what is shown (`"video"`, `"image"` or nothing), what is asked and what has been written."""

    text: str
    shows: str | None = "video"
    answer: str = ""
    seed: int = 0
    num_frames: int = NUM_FRAMES
    scale: int = 1
    mark: tuple[int, int, int] | None = None


def draw_frames(request: Request) -> np.ndarray:
    """Smooth, so that resizing keeps them apart; one of their 4 x 6 blocks may be marked."""
    coarse = np.random.default_rng(request.seed).integers(0, 200, (request.num_frames, 4, 6, 3), np.uint8)
    if request.mark is not None:
        coarse[request.mark] = 255
    return coarse.repeat(request.scale * HEIGHT // 4, axis=1).repeat(request.scale * WIDTH // 6, axis=2)


@cache
def _save(family: str, tied: bool) -> tuple[Path, TemporaryDirectory[str]]:
    import torch
    from transformers import AutoModelForImageTextToText

    holder = TemporaryDirectory()
    folder = FAMILIES[family](Path(holder.name) / family)
    show_images(family, folder)
    vlm = AutoModelForImageTextToText.from_pretrained(folder)
    is_tied = vlm.get_output_embeddings().weight is vlm.get_input_embeddings().weight
    if is_tied != tied:
        vlm.config.tie_word_embeddings = tied
        with torch.no_grad():
            weight = vlm.get_input_embeddings().weight
            vlm.get_output_embeddings().weight = weight if tied else torch.nn.Parameter(torch.randn_like(weight) / 2)
        vlm.save_pretrained(folder)
    return folder, holder


def load_vlm(family: str, *, tied: bool = False, dtype: str = "float32") -> tuple[Any, Any]:
    """A fresh model of a family and its processor."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    folder, _ = _save(family, tied)
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=dtype).eval(), AutoProcessor.from_pretrained(
        folder
    )


@cache
def make_model(family: str, *, tied: bool = False) -> tuple[Any, Any]:
    """A task preference model with fixed weights, set to `eval()`, and its processor; tests leave both as they are."""
    return make_fresh_model(family, tied=tied)


def make_fresh_model(family: str, *, tied: bool = False, dtype: str = "float32", **settings: Any) -> tuple[Any, Any]:
    """The same, to be changed."""
    import torch

    from vidground_hf.task_preference.modeling import TaskPreferenceModel

    vlm, processor = load_vlm(family, tied=tied, dtype=dtype)
    torch.manual_seed(0)
    return TaskPreferenceModel.from_vlm(vlm, processor, **settings).eval(), processor


def make_batch(
    processor: Any, requests: Sequence[Request], *, padding_side: str = "left"
) -> tuple[dict[str, Any], list[MediaFacts | None]]:
    """What a processor makes of requests, and the facts of what they show."""
    texts, videos, images, about = [], [], [], []
    for request in requests:
        parts = ([{"type": request.shows}] if request.shows else []) + [{"type": "text", "text": request.text}]
        message = {"role": "user", "content": parts}
        texts.append(processor.apply_chat_template([message], add_generation_prompt=True, tokenize=False))
        texts[-1] += request.answer
        frames = np.transpose(draw_frames(request), (0, 3, 1, 2))
        if request.shows == "video":
            videos.append(frames)
            ticks = [round(1000 * time) for time in list_times(request.num_frames)]
            seconds = SECONDS_PER_FRAME * request.num_frames
            about.append({"fps": 1000.0, "frames_indices": ticks, "total_num_frames": round(1000 * seconds)})
            about[-1] |= {"duration": seconds, "height": request.scale * HEIGHT, "width": request.scale * WIDTH}
        elif request.shows == "image":
            images.append([np.transpose(frames[0], (1, 2, 0))])
    shown: dict[str, Any] = {"images": images} if images else {}
    if videos:
        shown |= {"videos": videos, "video_metadata": about, "do_sample_frames": False}
    found = processor(
        text=texts, padding=True, padding_side=padding_side, add_special_tokens=False, return_tensors="pt", **shown
    )
    dropped = ("video_metadata", "rows", "cols", "num_patches")
    return {key: value for key, value in found.items() if key not in dropped}, [describe(one) for one in requests]


def list_times(num_frames: int) -> tuple[float, ...]:
    """The middle of each frame."""
    return tuple(SECONDS_PER_FRAME * (frame + 0.5) for frame in range(num_frames))


def describe(request: Request) -> MediaFacts | None:
    """What `make_batch` says of a request's video or image."""
    if request.shows is None:
        return None
    is_video = request.shows == "video"
    return MediaFacts(
        times_seconds=list_times(request.num_frames) if is_video else (0.0,),
        duration_seconds=SECONDS_PER_FRAME * request.num_frames if is_video else 0.0,
        height=request.scale * HEIGHT,
        width=request.scale * WIDTH,
    )
