"""Which frames are taken, by their time stamps."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.frame_sampling import sample_frames

TENTHS = np.arange(10) / 10
steps = st.lists(st.floats(0.001, 5, allow_nan=False), min_size=1, max_size=60)
parts = st.tuples(st.floats(0, 1), st.floats(0, 1)).filter(lambda part: part[1] - part[0] > 0.01)


def test_middles_of_equal_stretches() -> None:
    assert sample_frames(TENTHS, 1.0, num_frames=1).tolist() == [5]
    assert sample_frames(TENTHS, 1.0, num_frames=2).tolist() == [2, 7]
    assert sample_frames(TENTHS, 1.0, num_frames=5).tolist() == [1, 3, 5, 7, 9]


def test_a_long_frame_is_shown_until_the_next_one() -> None:
    uneven = np.array([0.0, 0.1, 0.2, 3.0])
    assert sample_frames(uneven, 4.0, num_frames=4).tolist() == [2, 3]  # at 0.5, 1.5, 2.5 and 3.5 s


def test_a_moment_at_which_a_frame_begins() -> None:
    twenty_fifths = np.linspace(0, 0.2, 6)
    assert sample_frames(twenty_fifths, 6 * 0.04, num_frames=3).tolist() == [1, 3, 5]
    assert sample_frames(np.linspace(0, 1799 * 1001 / 30000, 1800), 60.06, num_frames=36).tolist() == list(
        range(25, 1800, 50)
    )


def test_a_short_video_gives_each_frame_once() -> None:
    assert sample_frames(TENTHS[:3], 0.3, num_frames=32).tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("fps", "max_frames", "expected"),
    [
        (2.0, None, [2, 7]),
        (0.1, None, [5]),
        (4.9, None, [1, 3, 5, 7, 9]),
        (100.0, None, list(range(10))),
        (10, 2, [2, 7]),
    ],
)
def test_frames_a_second(fps: float, max_frames: int | None, expected: list[int]) -> None:
    assert sample_frames(TENTHS, 1.0, fps=fps, max_frames=max_frames).tolist() == expected


def test_half_open_parts() -> None:
    assert sample_frames(TENTHS, 1.0, num_frames=2, start_seconds=0.5, end_seconds=0.7).tolist() == [5, 6]
    assert sample_frames(TENTHS, 1.0, num_frames=9, end_seconds=0.3).tolist() == [0, 1, 2]
    assert sample_frames(TENTHS, 1.0, num_frames=2, start_seconds=-3, end_seconds=9).tolist() == [2, 7]


@pytest.mark.parametrize("part", [(1.0, None), (0.5, 0.5), (0.6, 0.2), (5.0, 6.0), (None, 0.0)])
def test_a_part_without_a_frame(part: tuple[float | None, float | None]) -> None:
    message = f"no frame between start_seconds = {part[0]} and end_seconds = {part[1]}; the video has 1.000 s"
    with pytest.raises(ValueError, match=re.escape(message)):
        sample_frames(TENTHS, 1.0, num_frames=2, start_seconds=part[0], end_seconds=part[1])


def test_how_many_has_to_be_said() -> None:
    with pytest.raises(ValueError, match="neither num_frames nor fps is given; pass one of them"):
        sample_frames(TENTHS, 1.0)


def test_jitter_is_drawn_from_its_seed() -> None:
    thousandths = np.arange(1000) / 1000
    drawn = [sample_frames(thousandths, 1.0, num_frames=4, jitter_seed=seed).tolist() for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] == [159, 317, 510, 754]
    assert drawn[2] != drawn[0]


@given(steps, st.integers(1, 80), parts, st.none() | st.integers(0, 9))
def test_one_frame_of_each_stretch(
    steps: list[float], num_frames: int, part: tuple[float, float], seed: int | None
) -> None:
    ends = np.cumsum(steps)
    pts = np.concatenate([[0.0], ends[:-1]])
    start, end = part[0] * ends[-1], part[1] * ends[-1]
    taken = sample_frames(
        pts, float(ends[-1]), num_frames=num_frames, start_seconds=start, end_seconds=end, jitter_seed=seed
    )
    assert 1 <= len(taken) <= num_frames
    assert (np.diff(taken) > 0).all()
    assert (pts[taken] < end).all()
    assert (ends[taken] > start).all()
    if seed is None:
        moments = start + (2 * np.arange(num_frames) + 1) * (end - start) / (2 * num_frames)
        shown = {max(place for place, first in enumerate(pts) if first <= moment + 1e-6) for moment in moments}
        assert len(shown.symmetric_difference(taken.tolist())) <= 2  # rounding at a border
