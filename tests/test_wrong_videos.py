"""Another row's clip in place of a row's own."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.schema import Example
from vidground_hf.wrong_videos import assign_wrong_videos


def make_example(index: int, video: str | None, **fields: Any) -> Example:
    return Example(id=str(index), question=f"question {index}", problem_type="free_form", video=video, **fields)


@given(st.lists(st.sampled_from([*"abcdefg", None]), min_size=2, max_size=40), st.integers(0, 5))
def test_every_row_gets_another_clip_and_each_clip_one_place(clips: list[str | None], seed: int) -> None:
    examples = [make_example(index, clip) for index, clip in enumerate(clips)]
    named = {clip for clip in clips if clip is not None}
    if len(named) == 1:
        return
    wrong = assign_wrong_videos(examples, seed)
    shown: dict[str | None, str | None] = {}
    for before, after in zip(examples, wrong, strict=True):
        assert (after.video is None) == (before.video is None)
        assert before.video is None or after.video != before.video
        assert shown.setdefault(before.video, after.video) == after.video
        assert (after.id, after.question) == (before.id, before.question)
    assert {clip for clip in shown.values() if clip is not None} == named


def test_the_whole_clip_is_taken_over() -> None:
    first = make_example(0, "a.mp4", start_seconds=1.0, end_seconds=2.0, media_root="/one", media_content=b"first")
    second = make_example(1, "b.mp4", start_seconds=3.0, media_root="/two", media_content=b"second")
    wrong = assign_wrong_videos([first, second])
    assert [(row.video, row.start_seconds, row.end_seconds, row.media_root, row.media_content) for row in wrong] == [
        ("b.mp4", 3.0, None, "/two", b"second"),
        ("a.mp4", 1.0, 2.0, "/one", b"first"),
    ]


def test_two_parts_of_one_video_are_two_clips() -> None:
    rows = [make_example(0, "a.mp4", end_seconds=5.0), make_example(1, "a.mp4", start_seconds=5.0)]
    assert [row.start_seconds for row in assign_wrong_videos(rows)] == [5.0, None]


@given(st.lists(st.tuples(st.sampled_from("abcd"), st.integers(0, 3)), min_size=2, max_size=30), st.integers(0, 5))
def test_a_part_of_the_same_video_is_no_wrong_clip_where_there_are_others(
    parts: list[tuple[str, int]], seed: int
) -> None:
    clips = set(parts)
    if len(clips) < 2:
        return
    rows = [make_example(k, video, start_seconds=float(start)) for k, (video, start) in enumerate(parts)]
    wrong = assign_wrong_videos(rows, seed)
    pairs = {
        ((row.video, row.start_seconds), (other.video, other.start_seconds))
        for row, other in zip(rows, wrong, strict=True)
    }
    assert len(pairs) == len({shown for _, shown in pairs}) == len(clips)
    assert all(own != shown for own, shown in pairs)
    if max(Counter(video for video, _ in clips).values()) <= len(clips) / 2:
        assert all(own[0] != shown[0] for own, shown in pairs)


def test_another_seed_gives_other_pairs() -> None:
    rows = [make_example(index, f"{index}.mp4") for index in range(20)]
    pairs = [[row.video for row in assign_wrong_videos(rows, seed)] for seed in (0, 0, 1)]
    assert pairs[0] == pairs[1] != pairs[2]


def test_one_clip_cannot_be_a_wrong_one() -> None:
    rows = [make_example(0, "a.mp4"), make_example(1, "a.mp4"), make_example(2, None)]
    with pytest.raises(ValueError, match=re.escape("all rows are about one clip, 'a.mp4'; a wrong one needs rows")):
        assign_wrong_videos(rows)
    assert assign_wrong_videos(rows[2:]) == rows[2:]
    rows = [make_example(0, "https://me:secret@host/a.mp4?token=secret")]
    with pytest.raises(ValueError, match=re.escape("one clip, 'https://host/a.mp4'; a wrong")):
        assign_wrong_videos(rows)
