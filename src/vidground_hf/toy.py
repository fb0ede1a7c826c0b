"""Writes a toy video-QA set: small real videos, questions of planted need, and every label the pixels have.

What is shown is drawn in `toy_world`, what is asked in `toy_questions`; nothing is judged here.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray

from vidground_hf.toy_questions import MISLEADING_SHARE, TEXT_SHARE, generate_questions
from vidground_hf.toy_world import (
    TOY_STYLES,
    Clip,
    ToyObject,
    ToyStyle,
    draw_shape,
    generate_clips,
    label_cells,
    render_clip,
)

# yuv420p opens everywhere; at this rate factor drawn and decoded grid pixels differ by less than 1 of 255 on average.
# One thread each to convert and to encode: with more, about one clip in a thousand differed on a busy machine.
_ENCODER_OPTIONS = {"crf": "8", "preset": "veryfast"}


def make_toy_set(
    output_dir: str | Path,
    *,
    num_questions: int = 1000,
    num_clips: int = 200,
    seed: int = 0,
    text_share: float = TEXT_SHARE,
    misleading_share: float = MISLEADING_SHARE,
    style: ToyStyle = "grid",
) -> Path:
    """Makes a toy set; the same arguments give the same rows and the same decoded pixels.

    The questions are written last: a folder with `questions.jsonl` is whole. Making a set where another one is
    replaces its files of the same names.

    Args:
        output_dir (`str` or `Path`): made if it does not exist. Gets `videos/*.mp4` (H.264), `labels/clips.jsonl` (see
            `describe_clip`) and `questions.jsonl` (see `toy_questions.ToyQuestion`).
        num_questions (`int`, *optional*, defaults to 1000): at least 1.
        num_clips (`int`, *optional*, defaults to 200): at least 1.
        seed (`int`, *optional*, defaults to 0): not negative.
        text_share (`float`, *optional*, defaults to 0.309): share of the questions that text alone answers, in [0, 1].
        misleading_share (`float`, *optional*, defaults to 0.04): share of the visual questions whose wording points to
            a wrong option, in [0, 1].
        style (`str`, *optional*, defaults to `"grid"`): `"grid"` or `"free"`, see `toy_world.generate_clips`.

    Returns:
        `Path`: of `questions.jsonl`.

    Raises:
        `ValueError`: for an argument outside its range, or more questions than there are wordings for.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     questions = make_toy_set(folder, num_questions=10, num_clips=2)
        ...     print(questions.name, len(questions.read_text().splitlines()))
        questions.jsonl 10
    """
    _check_arguments(num_questions, num_clips, seed, text_share, misleading_share, style)
    clips = generate_clips(seed, num_clips, style)
    questions = generate_questions(
        clips,
        num_questions=num_questions,
        seed=seed,
        text_share=text_share,
        misleading_share=misleading_share,
    )
    folder = Path(output_dir)
    for part in ("videos", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    path = folder / "questions.jsonl"
    path.unlink(missing_ok=True)
    for clip in clips:
        _write_video(folder / clip.video, render_clip(clip), clip.fps)
    _write_rows(folder / "labels" / "clips.jsonl", (describe_clip(clip) for clip in clips))
    _write_rows(path, (asdict(question) for question in questions))
    return path


def describe_clip(clip: Clip) -> dict[str, Any]:
    """Everything that is known about a clip, as a row of `labels/clips.jsonl`.

    Returns:
        `dict`: `cells` as `label_cells`; per object its `boxes` (xyxy pixels, far sides exclusive) and `masks` (COCO
        run lengths, uncompressed: column by column, background first), both per frame and null when it is not there;
        `events` with half-open spans in seconds: `visible` for each object, `move` for each move, from the start of
        the phase before it to the end of the phase after it.
    """
    events = [
        {"name": "visible", "object": k, "direction": None, "span_seconds": list(_visible_seconds(clip, thing))}
        for k, thing in enumerate(clip.objects)
    ] + [
        {"name": "move", "object": 1, "direction": move, "span_seconds": list(clip.phase_seconds(k, k + 1))}
        for k, move in enumerate(clip.moves)
    ]
    return {
        "id": clip.id,
        "video": clip.video,
        "style": clip.style,
        "fps": clip.fps,
        "num_frames": clip.num_frames,
        "height_px": clip.height_px,
        "width_px": clip.width_px,
        "duration_seconds": clip.num_frames / clip.fps,
        "cells": label_cells(clip).tolist(),
        "objects": [_describe_object(clip, thing) for thing in clip.objects],
        "events": events,
    }


def _visible_seconds(clip: Clip, thing: ToyObject) -> tuple[float, float]:
    seen = [frame for frame, at in enumerate(thing.corners) if at is not None]
    return seen[0] / clip.fps, (seen[-1] + 1) / clip.fps


def _describe_object(clip: Clip, thing: ToyObject) -> dict[str, Any]:
    shape = draw_shape(thing.shape, thing.size_px)
    masks: list[dict[str, Any] | None] = []
    for box in thing.boxes:
        if box is None:
            masks.append(None)
            continue
        mask = np.zeros((clip.height_px, clip.width_px), bool)
        mask[box[1] : box[3], box[0] : box[2]] = shape
        masks.append({"size": [clip.height_px, clip.width_px], "counts": _count_runs(mask)})
    return {
        "role": thing.role,
        "shape": thing.shape,
        "colour": thing.colour,
        "boxes": [None if box is None else list(box) for box in thing.boxes],
        "masks": masks,
    }


def _count_runs(mask: NDArray[np.bool_]) -> list[int]:
    """COCO run lengths: down the columns, starting with the background, whose first run may be 0."""
    flat = mask.ravel(order="F")
    edges = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1, [flat.size]])
    runs: list[int] = np.diff(edges).tolist()
    return [0, *runs] if flat[0] else runs


def _check_arguments(
    num_questions: int, num_clips: int, seed: int, text_share: float, misleading_share: float, style: ToyStyle
) -> None:
    for name, count, least in (("num_questions", num_questions, 1), ("num_clips", num_clips, 1), ("seed", seed, 0)):
        if count < least:
            raise ValueError(f"{name} = {count!r} is too small; pass an integer of at least {least}")
    for name, share in (("text_share", text_share), ("misleading_share", misleading_share)):
        if not 0 <= share <= 1:
            raise ValueError(f"{name} = {share!r} is no share; pass a number from 0 to 1")
    if style not in TOY_STYLES:
        raise ValueError(f"{style = } is unknown; pass one of {', '.join(TOY_STYLES)}")


def _write_video(path: Path, frames: NDArray[np.uint8], fps: int) -> None:
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=_ENCODER_OPTIONS)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for pixels in frames:
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24").reformat(format="yuv420p", threads=1)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Writes JSON lines under a temporary name first, so that a file of that name is always whole."""
    partial = path.with_suffix(".partial")
    with partial.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(json.dumps(row) + "\n" for row in rows)
    os.replace(partial, path)
