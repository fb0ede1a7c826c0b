"""Rows that are no rows, and labels that are of other media: where each is found, and what is said of it."""

from __future__ import annotations

import copy
import io
import re
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch", reason="torch is not installed; pip install 'vidground-hf[models]'")

from tests.task_preference_rows import BUDGET, make_task_rows
from tests.tiny_models import train_tokenizer
from vidground_hf.media import FrameBudget
from vidground_hf.task_preference.row_masks import read_mask
from vidground_hf.task_preference.row_media import read_row_media
from vidground_hf.task_preference.row_moments import read_charades_sta, read_dialogue, read_qvhighlights
from vidground_hf.task_preference.row_objects import read_masks, read_refcoco
from vidground_hf.task_preference.task_rows import BadRowError, TaskRow, read_rows
from vidground_hf.task_preference.tokens import add_task_tokens

QVHIGHLIGHTS = {"qid": 7, "query": "a dog", "vid": "v", "duration": None, "relevant_windows": [[2, 4]]}
REFCOCO: dict[str, Any] = {"question_id": 5, "image": Image.new("RGB", (20, 10)), "answer": ["a dog"]}
REFCOCO |= {"bbox": [1, 2, 3]}
TALK = {"id": "a", "task": "dialogue", "question": "Who?", "answer": "A dog."}


@pytest.mark.parametrize(
    ("row", "read_row", "reason"),
    [
        ("AO8RW x 6.9##a person.", read_charades_sta, "ValueError: could not convert string to float: 'x'"),
        (QVHIGHLIGHTS, read_qvhighlights, "TypeError: float() argument must be"),
        (REFCOCO, read_refcoco, "ValueError: not enough values to unpack (expected 4, got 3)"),
        ({"question": "Who?"}, read_dialogue, "KeyError: 'id'"),
        (None, read_dialogue, "TypeError: 'NoneType' object is not subscriptable"),
        ({"id": "a", "video": "a.mp4", "masks": [5], "frame_rate": 1}, read_masks, "AttributeError: 'int' object"),
        ({"id": "a", "video": "a.mp4", "masks": [None], "frame_rate": 0}, read_masks, "ZeroDivisionError: "),
    ],
)
def test_a_row_that_its_reader_fails_on_is_rejected_by_its_place(
    row: Any, read_row: Callable[[Any], list[TaskRow]], reason: str
) -> None:
    found = read_rows([row, row], read_row)
    assert found.rows == []
    assert [error.row_id for error in found.rejected] == ["#0", "#1"]
    assert found.rejected[1].reason.startswith(f"it cannot be read, {reason}")


def test_a_column_that_is_missing_does_not_end_the_reading() -> None:
    found = read_rows([{"id": "b", "task": "dialogue"}, TALK])
    assert [row.id for row in found.rows] == ["a"]
    assert str(found.rejected[0]).startswith("row '#0': it cannot be read, TypeError: ")


BOX = {"id": "a", "task": "box", "question": "it", "image": "a.png", "width_px": 9, "height_px": 9}
MOMENT = {"id": "a", "task": "moment", "question": "it", "video": "a.mp4"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (TALK | {"question": 5}, "the question 5 is no text; write it as one"),
        (TALK | {"answer": 5}, "the answer 5 is no text; write it as one"),
        (TALK | {"options": [1, 2], "answer": "1"}, "the option 1 is no text; write it as one"),
        (MOMENT | {"spans": [0, 1]}, "its spans (0, 1) are not pairs of start and end in seconds; give one pair for"),
        (MOMENT | {"spans": [["0", "1"]]}, "its spans (('0', '1'),) are not pairs of start and end in seconds; give"),
        (MOMENT | {"spans": "[[0, 1]]"}, "its spans '[[0, 1]]' are not pairs of start and end in seconds; give one"),
        (BOX | {"box": [0, 0, 1]}, "its box (0, 0, 1) is not left, top, right, bottom in pixels; give four numbers"),
    ],
)
def test_columns_of_another_layout_are_rejected_by_the_row_s_id(row: dict[str, Any], reason: str) -> None:
    found = read_rows([row])
    assert found.rows == []
    assert str(found.rejected[0]).startswith(f"row 'a': {reason}")


def test_columns_in_numpy_s_format_are_read() -> None:
    rows = [MOMENT | {"spans": np.array([[0.0, 1.5]])}, BOX | {"box": np.array([0, 0, 4, 2])}]
    moment, box = read_rows(rows).rows
    assert moment.spans == ((0.0, 1.5),)
    assert box.box == (0, 0, 4, 2)


def test_counts_of_pycocotools_are_read() -> None:
    from pycocotools import mask as coco

    mask = np.zeros((4, 6), dtype=bool)
    mask[1:3, 2:5] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pycocotools under numpy 2
        encoding = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert isinstance(encoding["counts"], bytes)
    row = {"id": "k", "video": "a.mp4", "masks": [None, encoding], "frame_rate": 1, "question": "the dog"}
    (found,) = read_rows([row], read_masks).rows
    read = read_mask(found.masks[1], None, None)
    assert read is not None
    assert np.array_equal(read, mask)


def test_an_image_may_be_a_cell_that_was_not_decoded(tmp_path: Any) -> None:
    image = Image.fromarray(np.arange(600, dtype=np.uint8).reshape(10, 20, 3))
    image.save(tmp_path / "a.png")
    file = io.BytesIO()
    image.save(file, "PNG")
    path = str(tmp_path / "a.png")
    for cell in ({"bytes": file.getvalue(), "path": None}, {"bytes": None, "path": path}):
        (row,) = read_rows([REFCOCO | {"image": cell, "bbox": [1, 2, 3, 4]}], read_refcoco).rows
        assert (row.width_px, row.height_px) == (20, 10)
        media = read_row_media(row, BUDGET)
        assert media is not None
        assert np.array_equal(media.data[0], np.asarray(image))
    found = read_rows([REFCOCO | {"image": {"bytes": b"no image", "path": None}, "bbox": [1, 2, 3, 4]}], read_refcoco)
    assert found.rejected[0].reason.startswith("its image cannot be opened: cannot identify image file")


def test_a_bad_row_is_told_by_other_processes_too() -> None:
    error = BadRowError("7", "the answer is empty")
    again = copy.copy(error)  # made anew as pickle makes it
    assert (str(again), again.row_id, again.reason) == ("row '7': the answer is empty", "7", "the answer is empty")


def test_control_tokens_are_found_before_a_training() -> None:
    tokenizer = train_tokenizer(None)
    add_task_tokens(tokenizer)
    rows: list[dict[str, Any]] = [
        TALK,
        TALK | {"question": "Who is <|box|>?"},
        {**TALK, "options": ["A dog.", "<|mask_state|>"]},
        TALK | {"answer": "<|moment|>"},
    ]

    class Processor:
        def __init__(self) -> None:
            self.tokenizer = tokenizer

    for processor in (tokenizer, Processor()):
        found = read_rows(rows, processor=processor)
        assert len(found.rows) == 1
        assert [error.reason for error in found.rejected] == [
            f"its words hold {word!r}, which is a control token of the model"
            for word in ("<|box|>", "<|mask_state|>", "<|moment|>")
        ]
    assert len(read_rows(rows).rows) == 4


def test_labels_of_frames_of_another_shape_are_rejected() -> None:
    picture = Image.new("RGB", (84, 56))
    row = TaskRow(id="i", task="box", question="a dog", image=picture, box=(0, 0, 9, 9), width_px=84, height_px=56)
    for width, height in ((84, 56), (42, 28), (1680, 1120), (83, 56), (85, 57), (25, 17)):
        media = read_row_media(replace(row, width_px=width, height_px=height), BUDGET)
        assert media is not None
        assert (media.width_px, media.height_px) == (width, height)
    for width, height in ((56, 84), (112, 56), (90, 56)):
        message = f"row 'i': its labels are of frames of {width} x {height} px, and what is shown is 84 x 56"
        with pytest.raises(BadRowError, match=re.escape(message)):
            read_row_media(replace(row, width_px=width, height_px=height), BUDGET)


def test_a_budget_of_one_shape_says_nothing_of_that_of_a_video() -> None:
    row = make_task_rows()[1]
    assert (row.width_px, row.height_px) == (56, 56)
    turned = replace(row, width_px=112)
    with pytest.raises(BadRowError, match="its labels are of frames of 112 x 56 px, and what is shown is 56 x 56"):
        read_row_media(turned, BUDGET)
    media = read_row_media(row, FrameBudget(num_frames=2, size=(28, 56)))
    assert media is not None
    assert media.data.shape == (2, 28, 56, 3)
