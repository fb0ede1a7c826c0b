from __future__ import annotations

import csv
import json
import re
import warnings
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.schema import Example

pytest.importorskip("torch", reason="torch is not installed; pip install 'vidground-hf[models]'")

from vidground_hf.task_preference.row_masks import encode_mask, find_box, read_mask
from vidground_hf.task_preference.row_moments import (
    read_charades_sta,
    read_dialogue,
    read_nextgqa,
    read_qvhighlights,
)
from vidground_hf.task_preference.row_objects import read_masks, read_refcoco, read_sav, read_track
from vidground_hf.task_preference.row_text import (
    read_box,
    read_masks_text,
    read_spans,
    write_box,
    write_masks,
    write_spans,
)
from vidground_hf.task_preference.task_rows import BadRowError, TaskRow, read_rows
from vidground_hf.task_preference.templates import (
    HELD_OUT_TEMPLATES,
    TEMPLATES,
    ask_question,
    word_answer,
)

MOMENT: dict[str, Any] = {
    "id": "m",
    "task": "moment",
    "question": "a dog barks",
    "video": "a.mp4",
    "spans": ((1.0, 2.0),),
}
BOX: dict[str, Any] = {"id": "b", "task": "box", "question": "the dog", "image": "a.png", "box": (0.0, 0.0, 5.0, 5.0)}
BOX |= {"width_px": 10, "height_px": 8}
DOT = '{"size": [2, 3], "counts": [1, 2, 3]}'
NOTHING = '{"size": [2, 3], "counts": [6]}'
MASK: dict[str, Any] = {
    "id": "k",
    "task": "mask",
    "question": "the dog",
    "video": "a.mp4",
    "masks": (DOT,),
    "mask_seconds": (0.0,),
}
TALK: dict[str, Any] = {"id": "d", "task": "dialogue", "question": "Who?", "answer": "A dog."}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (TALK | {"task": "audio"}, "the task 'audio' is not one of dialogue, moment, box, mask"),
        (TALK | {"question": " "}, "the question is empty"),
        (TALK | {"answer": ""}, "the answer is empty"),
        (TALK | {"video": "a.mp4", "image": "a.png"}, "it has a video and an image; one of them must go"),
        (TALK | {"id": ""}, "its id is no text, or empty"),
        (TALK | {"id": 7}, "its id is no text, or empty"),
        (TALK | {"options": ("A cat.",)}, "the answer 'A dog.' is not among the 1 options"),
        (TALK | {"options": ("A dog.", "A dog.")}, "two of its options are alike: ['A dog.', 'A dog.']"),
        (
            TALK | {"options": ("A dog.", *map(str, range(26)))},
            "it has 27 options; there are letters for 26",
        ),
        (MOMENT | {"video": None}, "it asks for a moment and has no video"),
        (MOMENT | {"spans": ()}, "it asks for a moment and has no span"),
        (MOMENT | {"answer": " "}, "the answer is empty"),
        (MOMENT | {"spans": ((2.0, 1.0),)}, "the span 2.0 to 1.0 s does not end after its start"),
        (MOMENT | {"spans": ((2.0, 2.0),)}, "the span 2.0 to 2.0 s does not end after its start"),
        (MOMENT | {"spans": ((float("nan"), 1.0),)}, "the span nan to 1.0 s is not finite"),
        (
            MOMENT | {"spans": ((1.0, 2.0), (8.0, 10.6)), "duration_seconds": 10.0},
            "the span 8.0 to 10.6 s is not inside the clip of 10.0 s",
        ),
        (MOMENT | {"spans": ((-0.6, 2.0),)}, "the span -0.6 to 2.0 s is not inside the clip of None s"),
        (
            MOMENT | {"spans": ((10.0, 10.3),), "duration_seconds": 10.0},
            "the span 10.0 to 10.3 s is not inside the clip of 10.0 s",
        ),
        (MOMENT | {"ratings": ((1.0,),)}, "it has ratings of clips of None s; their length must be known"),
        (
            MOMENT | {"ratings": ((1.0,), (1.0, 2.0)), "clip_seconds": 2.0},
            "its clips have ratings of different numbers of annotators",
        ),
        (BOX | {"image": None}, "it asks for a box and has neither video nor image"),
        (BOX | {"box": None}, "it asks for a box and has none"),
        (BOX | {"width_px": None}, "the width and height of the frame are not known"),
        (
            BOX | {"box": (0.0, 0.0, 0.0, 5.0)},
            "the box [0.0, 0.0, 0.0, 5.0] has no area; it is left, top, right, bottom",
        ),
        (BOX | {"box": (0.0, 0.0, float("inf"), 5.0)}, "the box [0.0, 0.0, inf, 5.0] is not finite"),
        (
            BOX | {"box": (0.0, 0.0, 11.5, 5.0)},
            "the box [0.0, 0.0, 11.5, 5.0] is not inside the frame of 10 x 8 px",
        ),
        (BOX | {"box": (-2.0, 0.0, 5.0, 5.0)}, "the box [-2.0, 0.0, 5.0, 5.0] is not inside the frame of 10 x 8 px"),
        (
            BOX | {"box": (-1.0, 0.0, -0.5, 5.0)},
            "the box [-1.0, 0.0, -0.5, 5.0] is not inside the frame of 10 x 8 px",
        ),
        (BOX | {"box": (2.0, -1.0, 3.0, 0.0)}, "the box [2.0, -1.0, 3.0, 0.0] is not inside the frame of 10 x 8 px"),
        (
            BOX | {"box": (10.0, 0.0, 11.0, 5.0)},
            "the box [10.0, 0.0, 11.0, 5.0] is not inside the frame of 10 x 8 px",
        ),
        (BOX | {"box": (2.0, 8.5, 3.0, 9.0)}, "the box [2.0, 8.5, 3.0, 9.0] is not inside the frame of 10 x 8 px"),
        (MASK | {"video": None}, "it asks for masks and has neither video nor image"),
        (MASK | {"mask_seconds": (0.0, 1.0)}, "it has 1 masks and 2 times"),
        (MASK | {"masks": (None,)}, "no frame has a mask"),
        (MASK | {"masks": (DOT, DOT), "mask_seconds": (1.0, 1.0)}, "the times of its masks do not grow"),
        (
            MASK | {"mask_seconds": (3.0,), "duration_seconds": 2.0},
            "masks from 3.0 to 3.0 s are not inside the clip of 2.0 s",
        ),
        (MASK | {"masks": (NOTHING,)}, "its masks are empty in every frame"),
        (MASK | {"masks": ("{",)}, "a mask cannot be read: "),
        (MASK | {"masks": ("nowhere.png",)}, "a mask cannot be read: [Errno 2]"),
        (MASK | {"masks": ("[0, 0, 1, 1]",)}, "a mask cannot be read: got the box [0, 0, 1, 1] in a frame of unknown"),
        (
            MASK | {"width_px": 4, "height_px": 2},
            "its masks and frames have different sizes (height, width): ['(2, 3)', '(2, 4)']",
        ),
    ],
)
def test_bad_rows_are_rejected_with_id_and_reason(row: dict[str, Any], reason: str) -> None:
    found = read_rows([row, TALK])
    assert [kept.id for kept in found.rows] == ["d"]
    (error,) = found.rejected
    assert error.row_id == row["id"]
    assert error.reason.startswith(reason)
    assert str(error).startswith(f"row {row['id']!r}: {reason}")


def test_rows_at_the_edge_are_kept() -> None:
    late = MOMENT | {"spans": ((-0.2, 10.5),), "duration_seconds": 10.0}
    wide = BOX | {"box": (-1.0, 0.0, 11.0, 8.0)}
    assert len(read_rows([late, wide, MASK, MOMENT | {"answer": "yes"}]).rows) == 4


def test_rows_survive_a_dataset() -> None:
    rows = read_rows([MOMENT | {"ratings": ((4.0, 2.0),), "clip_seconds": 2.0}, BOX, MASK, TALK]).rows
    assert (rows[2].height_px, rows[2].width_px) == (2, 3)  # the size of its masks
    again = Dataset.from_list([asdict(row) for row in rows])
    assert [TaskRow.from_columns(columns) for columns in again] == rows
    assert read_rows(again).rows == rows


def test_media_start_from_their_folder(tmp_path: Path) -> None:
    Image.fromarray(np.eye(4, dtype=np.uint8)).save(tmp_path / "0.png")
    row = {"id": "p", "video": "a.mp4", "masks": ["0.png", None], "frame_rate": 2, "question": "a line"}
    (found,) = read_rows([row], read_masks, media_root=tmp_path).rows
    assert (found.video, found.masks) == (str(tmp_path / "a.mp4"), (str(tmp_path / "0.png"), None))
    (remote,) = read_rows([TALK | {"video": "https://x.org/a.mp4"}], media_root=tmp_path).rows
    assert remote.video == "https://x.org/a.mp4"


@st.composite
def draw_masks(draw: st.DrawFn) -> np.ndarray:
    height, width = draw(st.integers(1, 7)), draw(st.integers(1, 7))
    return np.array(draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))).reshape(
        height, width
    )


@given(draw_masks())
def test_masks_are_written_as_others_read_them(mask: np.ndarray) -> None:
    from pycocotools import mask as coco

    text = encode_mask(mask)
    if not mask.any():
        assert text == ""
        assert find_box(mask) is None
        return
    encoding = json.loads(text)
    packed = coco.frPyObjects(encoding, *encoding["size"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of pycocotools under numpy 2
        decoded, (left, top, width, height) = coco.decode(packed).astype(bool), coco.toBbox(packed).tolist()
    assert np.array_equal(decoded, mask)
    found = read_mask(text, None, None)
    assert found is not None
    assert np.array_equal(found, mask)
    assert find_box(mask) == (left, top, left + width, top + height)


def test_a_box_stands_for_what_is_in_it() -> None:
    mask = read_mask("[-1, 0.2, 1.6, 1.4]", 3, 2)
    assert mask is not None
    assert mask.astype(int).tolist() == [[1, 1, 0], [0, 0, 0]]
    thin = read_mask("[1.1, 0, 1.2, 2]", 3, 2)
    assert thin is not None
    assert thin.sum() == 2


def test_qvhighlights_has_ratings_of_every_clip() -> None:
    line = {"qid": 7, "query": "a dog", "vid": "v", "duration": 6, "relevant_windows": [[2, 4]]}
    line |= {"relevant_clip_ids": [1], "saliency_scores": [[4, 3, 2]]}
    (row,) = read_qvhighlights(line)
    assert (row.id, row.video, row.spans) == ("7", "v.mp4", ((2.0, 4.0),))
    assert (row.ratings, row.clip_seconds) == (((0.0, 0.0, 0.0), (4.0, 3.0, 2.0), (0.0, 0.0, 0.0)), 2.0)
    with pytest.raises(BadRowError, match=re.escape("row '7': Got clip ids from 3 to 3 for a video of 3 clips")):
        read_qvhighlights(line | {"relevant_clip_ids": [3]})


def test_charades_lines_and_columns_say_the_same() -> None:
    line = "AO8RW 0.0 6.9##a person is putting a book on a shelf."
    columns = {"video": "AO8RW.mp4", "caption": "a person is putting a book on a shelf.", "timestamp": [0.0, 6.9]}
    assert read_charades_sta(line) == read_charades_sta(columns)
    (row,) = read_charades_sta(line, durations_seconds={"AO8RW": 33.67})
    assert (row.id, row.video, row.duration_seconds) == ("AO8RW 0.0 6.9", "AO8RW.mp4", 33.67)
    found = read_rows([line, "no line"], partial(read_charades_sta, durations_seconds={"AO8RW": 5.0}))
    assert [error.reason for error in found.rejected] == [
        "the span 0.0 to 6.9 s is not inside the clip of 5.0 s",
        "the line is not '<video> <start> <end>##<sentence>'",
    ]


def test_refcoco_has_a_row_for_each_expression(tmp_path: Path) -> None:
    image = Image.new("RGB", (20, 10))
    row = {"question_id": 5, "image": image, "answer": ["left dog", "the dog", "the dog"], "bbox": [1, 2, 3.5, 4]}
    found = read_refcoco(row)
    assert [(one.id, one.question, one.box) for one in found] == [
        ("5#0", "left dog", (1.0, 2.0, 4.5, 6.0)),
        ("5#1", "the dog", (1.0, 2.0, 4.5, 6.0)),
    ]
    assert (found[0].width_px, found[0].height_px) == (20, 10)
    image.save(tmp_path / "a.png")
    assert read_refcoco(row | {"image": str(tmp_path / "a.png")})[0].width_px == 20
    assert read_refcoco(row | {"image": "gone.png", "width": 30, "height": 20})[0].height_px == 20
    reasons = [
        (row | {"bbox": [1, 2, 30, 4]}, "row '5#0': the box [1.0, 2.0, 31.0, 6.0] is not inside the frame of 20 x 10"),
        (row | {"answer": []}, "row '5': it has no expression"),
        (row | {"image": "gone.png"}, "row '5': its image cannot be opened"),
    ]
    for bad, reason in reasons:
        with pytest.raises(BadRowError, match=re.escape(reason)):
            read_refcoco(bad)


def test_tracks_ask_for_the_first_box() -> None:
    track: dict[str, Any] = {"id": "t", "video": "t.mp4", "boxes": [[0, 0, 0, 0], [2, 1, 4, 4], [3, 1, 4, 4]]}
    track |= {"width": 10, "height": 8, "frame_rate": 2, "absent": [1, 0, 0]}
    (row,) = read_track(track)
    assert row.question == "what is at [200, 125, 600, 625] at 0.5 s"
    assert row.masks == (None, "[2, 1, 6, 5]", "[3, 1, 7, 5]")
    assert row.mask_seconds == (0.0, 0.5, 1.0)
    assert read_track(track | {"question": "the ball"})[0].question == "the ball"
    for change, reason in (
        ({"absent": [1]}, "it has 3 boxes and 1 flags of absence"),
        ({"absent": [1, 1, 1]}, "its masks are empty in every frame"),
        ({"boxes": [[0, 0, 1, 1], [2, 1, 4, 4], [8, 1, 4, 4]]}, "the box [8, 1, 12, 5] is not inside the frame"),
    ):
        with pytest.raises(BadRowError, match=re.escape(reason)):
            read_track(track | change)


def test_examples_of_known_sets_become_dialogue() -> None:
    example = Example(
        id="e", question="Which?", problem_type="multiple_choice", options=("red", "blue"), answer="blue"
    )
    (row,) = read_dialogue(replace(example, video="v.mp4", start_seconds=2.0))
    assert (row.task, row.options, row.answer, row.video, row.start_seconds) == (
        "dialogue",
        ("red", "blue"),
        "blue",
        "v.mp4",
        2.0,
    )
    with pytest.raises(BadRowError, match=re.escape("row 'u': the answer is empty")):
        read_dialogue({"id": "u", "question": "Which?"})
    with pytest.raises(BadRowError, match=re.escape("row 'e': it cannot be judged: no_answer")):
        read_dialogue(replace(example, defect="no_answer"))


@needs_shared_data
def test_real_sets_are_read_whole() -> None:
    folder = SHARED_DATA / "qvhighlights" / "data"
    for name, count in (("val_release", 1550), ("test_with_gt", 1542)):
        with open(folder / f"highlight_{name}.jsonl", encoding="utf-8") as file:
            found = read_rows(map(json.loads, file), read_qvhighlights)
        assert (len(found.rows), len(found.rejected)) == (count, 0)
    folder = SHARED_DATA / "nextgqa" / "datasets" / "nextgqa"
    paths = json.loads((folder / "map_vid_vidorID.json").read_text())
    for name, count, num_repeated in (("val", 3357, 1), ("test", 5550, 3)):
        grounding = json.loads((folder / f"gsub_{name}.json").read_text())
        with open(folder / f"{name}.csv", encoding="utf-8") as file:
            found = read_rows(csv.DictReader(file), partial(read_nextgqa, grounding=grounding, paths=paths))
        assert (len(found.rows), len(found.rejected)) == (count, num_repeated)
        assert all(error.reason.startswith("two of its options are alike: ") for error in found.rejected)
    assert sum(len(row.spans) for row in found.rows) == 6597  # of 6600
    assert found.rows[0].video == f"{paths[found.rows[0].id.split('_')[0]]}.mp4"


@needs_shared_data
def test_real_masks_are_read() -> None:
    path = SHARED_DATA / "sav-masklets" / "sav_dataset" / "example" / "sav_000001_manual.json"
    found = read_rows([json.loads(path.read_text())], partial(read_sav, questions={0: "the cup"}))
    assert found.rejected == []
    assert [len(row.masks) for row in found.rows] == [121] * 5
    assert found.rows[0].question == "the cup"
    assert found.rows[3].question == "what is at [752, 162, 904, 360] at 18.8 s"  # comes late
    folder = SHARED_DATA / "davis-masks" / "Annotations" / "480p" / "libby"
    row = {"id": "libby", "video": "libby.mp4", "masks": sorted(map(str, folder.glob("*.png"))), "frame_rate": 24}
    (dog,) = read_rows([row], read_masks).rows
    assert (len(dog.masks), dog.width_px, dog.height_px) == (49, 854, 480)


@needs_shared_data
def test_real_tracks_are_read() -> None:
    folder = SHARED_DATA / "lasot-boxes" / "annos"
    sizes = {"cat-20": (1280, 720), "hand-9": (480, 360)}
    for name, (width, height) in sizes.items():
        boxes = [[float(side) for side in line.split(",")] for line in (folder / f"{name}.txt").read_text().split()]
        flags = [int(line) for line in (folder / "absent" / f"{name}.txt").read_text().split()]
        track = {"id": name, "video": f"{name}.mp4", "boxes": boxes, "absent": flags, "frame_rate": 30}
        (row,) = read_track(track | {"width": width, "height": height})
        assert sum(mask is None for mask in row.masks) == sum(flags)


def test_every_kind_is_asked_in_several_words_and_none_gives_itself_away() -> None:
    nouns = {"part", "stretch", "points", "place", "edges", "view", "answer"}
    said: dict[str, set[str]] = {}
    for kind, templates in TEMPLATES.items():
        assert len(set(templates)) == len(templates) >= 4
        assert not set(templates) & set(HELD_OUT_TEMPLATES[kind])
        assert all(template.endswith("{query}") for template in [*templates, *HELD_OUT_TEMPLATES[kind]])
        words = set(re.findall(r"[a-z]+", " ".join([*templates, *HELD_OUT_TEMPLATES[kind]])))
        said[kind] = words & nouns
        assert not words & {"moment", "box", "mask", "time", "seconds", "outline", "rectangle"}
    for noun in nouns - {"answer"}:
        assert sum(noun in words for words in said.values()) >= 2, noun


def test_wordings_are_drawn_by_seed_and_id() -> None:
    rows = [TaskRow(**{**MOMENT, "id": str(k)}) for k in range(60)]
    asked = [ask_question(row) for row in rows]
    assert asked == [ask_question(row) for row in rows]
    assert set(asked) == {template.format(media="video", query="a dog barks") for template in TEMPLATES["moment"]}
    assert asked != [ask_question(row, seed=1) for row in rows]
    held_out = {ask_question(row, wording="held_out") for row in rows}
    assert held_out == {one.format(media="video", query="a dog barks") for one in HELD_OUT_TEMPLATES["moment"]}
    assert "picture" in " ".join(ask_question(TaskRow(**{**BOX, "id": str(k)})) for k in range(20))


def test_reasoning_asks_for_the_place_and_the_letter() -> None:
    row = TaskRow(**MOMENT, options=("yes", "no"), answer="no")
    assert ask_question(row).endswith("a dog barks\nA. yes\nB. no\nAnswer with the letter of one option.")
    assert word_answer(row) == "B"
    assert word_answer(TaskRow(**MOMENT)) is None


@given(st.lists(st.tuples(st.integers(0, 499), st.integers(1, 500)), min_size=1, max_size=3))
def test_spans_are_read_as_they_were_written(parts: list[tuple[int, int]]) -> None:
    spans = [(start / 1000, (start + length) / 1000) for start, length in parts]
    found = read_spans(write_spans(spans, 100.0) + ". B")
    assert found == [(round(100 * start, 1), round(100 * end, 1)) for start, end in spans]


def test_boxes_and_masks_are_read_as_they_were_written() -> None:
    assert read_box(f"It is at {write_box([0.1, 0.25, 0.5, 1.0])}.") == (0.1, 0.25, 0.5, 1.0)
    assert read_box("nothing") is None
    masks = np.zeros((3, 4, 4), dtype=bool)
    masks[0, 1:3, 0:2] = masks[2, 0, 0] = True
    text = write_masks(masks, [0.0, 0.5, 1.25])
    assert text == "0.0 s: [0, 250, 500, 750]; 0.5 s: none; 1.2 s: [0, 0, 250, 250]"
    assert read_masks_text(text) == [(0.0, (0.0, 0.25, 0.5, 0.75)), (0.5, None), (1.2, (0.0, 0.0, 0.25, 0.25))]
    assert write_masks(masks[1:2], [0.0]) == "0.0 s: none"
