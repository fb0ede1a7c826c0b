"""The control of the views with pixels: every row is given the clip of another row.

A model that answers as well with a wrong clip does not look, or looks and learns nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vidground_hf.schema import Example
from vidground_hf.video_errors import hide_secrets


def assign_wrong_videos(examples: Sequence[Example], seed: int = 0) -> list[Example]:
    """Puts another row's clip into every row that has one.

    The rows of one clip all get the same wrong one, and every clip is shown in place of exactly one other. It is of
    another video, as long as no video has more than half of the clips: parts of one video may overlap.

    Args:
        examples (`Sequence[Example]`): N rows.
        seed (`int`, *optional*, defaults to 0): another seed, other pairs.

    Returns:
        `list[Example]`: N rows in their order; a row without a video stays without one.

    Raises:
        `ValueError`: when all rows are about one clip.

    Example:
        >>> rows = [Example(id=k, question="?", problem_type="free_form", video=f"{k}.mp4") for k in "abc"]
        >>> [row.video for row in assign_wrong_videos(rows)]
        ['b.mp4', 'c.mp4', 'a.mp4']
    """
    clips: dict[tuple[object, ...], Example] = {}
    for example in examples:
        if example.video:
            clips.setdefault(_name_clip(example), example)
    if len(clips) == 1:
        only = next(iter(clips.values())).video
        shown_name = hide_secrets(repr(only))
        raise ValueError(f"all rows are about one clip, {shown_name}; a wrong one needs rows about at least two")
    names = list(clips)
    circle = [names[place] for place in np.random.default_rng(seed).permutation(len(names))]
    videos = Counter(map(_name_video, circle))
    places = {video: place for place, video in enumerate(videos)}
    circle.sort(key=lambda name: places[_name_video(name)])
    # One step beyond the longest run of clips of one video.
    step = max(videos.values(), default=0) % max(len(names), 1) or 1
    shown = {a: clips[b] for a, b in zip(circle, circle[step:] + circle[:step], strict=True)}
    return [_show(example, shown[_name_clip(example)]) if example.video else example for example in examples]


def _name_clip(example: Example) -> tuple[object, ...]:
    return example.media_root, example.video, example.start_seconds, example.end_seconds


def _name_video(clip: tuple[object, ...]) -> tuple[object, ...]:
    return clip[:2]


def _show(example: Example, donor: Example) -> Example:
    return replace(
        example,
        video=donor.video,
        media_content=donor.media_content,
        media_root=donor.media_root,
        start_seconds=donor.start_seconds,
        end_seconds=donor.end_seconds,
        frame_rate=donor.frame_rate,
    )
