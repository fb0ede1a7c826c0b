"""Curated rows as a trainer reads them: worded, re-ordered by their ids, and read back as they were shown."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, Features, IterableDataset, Value, Video

from vidground_hf import curate
from vidground_hf.post_training import is_trl, name_gold, read_trl, to_trl
from vidground_hf.prompts import REASONING
from vidground_hf.rewards import accuracy_reward

WORDS = ["red", "blue", "green", "pink"]


def make_rows(count: int = 12, **more: Any) -> list[dict[str, Any]]:
    return [
        {"id": f"q{k}", "question": f"Which, {k}?", "options": WORDS, "answer": "ABCD"[k % 4], "video": f"{k}.mp4"}
        | more
        for k in range(count)
    ]


def test_a_row_holds_what_a_trainer_reads() -> None:
    rows = to_trl(Dataset.from_list(make_rows(1, needs="video")), seed=None, media_root="/clips")
    assert rows[0] == {
        "id": "q0",
        "prompt": [
            {
                "role": "user",
                "content": "Question: Which, 0?\nA. red\nB. blue\nC. green\nD. pink\n"
                "Answer with the letter of one option.",
            }
        ],
        "question": "Which, 0?",
        "options": WORDS,
        "solution": "A",
        "problem_type": "multiple_choice",
        "needs": "video",
        "video": "/clips/0.mp4",
    }
    thinking = to_trl(Dataset.from_list(make_rows(1)), seed=None, reasoning=True)[0]["prompt"][0]["content"]
    assert thinking.splitlines()[-2:] == [REASONING, "Answer with the letter of one option."]


def test_orders_go_by_id_and_seed_and_golds_go_along() -> None:
    raw = make_rows(40)
    rows = to_trl(Dataset.from_list(raw))
    for row, old in zip(rows, raw, strict=True):
        assert row["options"]["ABCD".index(row["solution"])] == WORDS["ABCD".index(old["answer"])]
    turned = {row["id"]: row for row in to_trl(Dataset.from_list(raw[::-1]))}
    assert [turned[row["id"]] for row in rows] == list(rows)
    assert len({tuple(row["options"]) for row in rows}) > 10
    other = to_trl(Dataset.from_list(raw), seed=1)
    assert sum(a["options"] != b["options"] for a, b in zip(rows, other, strict=True)) > 25
    assert (
        accuracy_reward(rows["solution"], **{n: rows[n] for n in ("solution", "problem_type", "options")}) == [1] * 40
    )


def test_a_letter_that_means_another_option_is_not_used() -> None:
    assert name_gold(["B", "A"], 0) == "B"
    assert name_gold(["C", "D"], 0) == "A"
    row = {"id": "1", "question": "Which letter is shown?", "options": ["B", "A", "C"], "answer": "C"}
    for seed in range(6):
        (found,) = to_trl(Dataset.from_list([row]), seed=seed)
        letter = "ABC"[found["options"].index("C")]
        scores = accuracy_reward(list("ABC"), [found["solution"]] * 3, ["multiple_choice"] * 3, [found["options"]] * 3)
        assert scores == [float(one == letter) for one in "ABC"]


def test_rows_that_cannot_be_scored_are_left_out_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    raw = make_rows(3)
    raw[1]["answer"] = "yellow"
    with caplog.at_level(logging.WARNING, "vidground_hf.post_training"):
        rows = to_trl(Dataset.from_list(raw))
    assert rows["id"] == ["q0", "q2"]
    assert caplog.messages == ["left out 1 of 3 rows that cannot be scored: gold_not_among_options 1"]
    with pytest.raises(ValueError, match=re.escape("none of the 1 rows can be scored (gold_not_among_options 1)")):
        to_trl(Dataset.from_list(raw[1:2]))


def test_ids_are_made_and_made_different() -> None:
    raw = [{"question": "Sky?", "answer": "blue", "problem_type": "free_form", "id": name} for name in ("a", "a", "")]
    names = to_trl(Dataset.from_list(raw))["id"]
    assert list(names[:2]) == ["a", "a#2"]
    assert re.fullmatch("[0-9a-f]{32}", names[2])


def test_columns_of_the_old_order_go() -> None:
    raw = [{"qid": k, "video": "v", "question": "Why?", "answer": 2, "type": "CW"} for k in range(2)]
    named = [row | {f"a{k}": f"word {k}" for k in range(5)} for row in raw]
    rows = to_trl(Dataset.from_list(named))
    assert "answer" not in rows.column_names
    assert rows[0]["options"]["ABCDE".index(rows[0]["solution"])] == "word 2"
    mapped = [{"frage": "Sky?", "wahl": ["red", "blue"], "loesung": 1, "mehr": 7}]
    columns = {"question": "frage", "options": "wahl", "answer": "loesung"}
    assert {*to_trl(Dataset.from_list(mapped), columns=columns).column_names} == {
        *("id", "prompt", "question", "options", "solution", "problem_type", "video", "frage", "mehr")
    }


def test_videos_stay_closed(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(b"no video at all")
    features = Features({"question": Value("string"), "answer": Value("string"), "clip": Video()})
    raw = {"question": ["Sky?"], "answer": ["blue"], "clip": [str(tmp_path / "a.mp4")]}
    rows = to_trl(Dataset.from_dict(raw, features), columns={"video": "clip"})
    assert rows.features["video"] == Video(decode=False)
    assert rows[0]["video"] == {"path": str(tmp_path / "a.mp4"), "bytes": None}
    assert "clip" not in rows.column_names


def test_rows_without_a_video_have_none() -> None:
    raw = [{"question": "Sky?", "answer": "blue", "video": None}, {"question": "Sea?", "answer": "blue", "video": "a"}]
    assert list(to_trl(Dataset.from_list(raw), media_root="/x")["video"]) == [None, "/x/a"]
    assert list(to_trl(Dataset.from_list([{"question": "?", "answer": "b"}]))["video"]) == [None]
    (row,) = to_trl(Dataset.from_list([{"question": "?", "answer": "b", "video": "https://x/a.mp4"}]), media_root="/x")
    assert row["video"] == "https://x/a.mp4"
    assert row["options"] == []


def test_what_was_made_is_read_as_it_was_shown() -> None:
    rows = to_trl(Dataset.from_list(make_rows(4)))
    assert is_trl(rows)
    assert not is_trl(Dataset.from_list(make_rows(1)))
    for row, example in zip(rows, read_trl(rows), strict=True):
        assert (example.id, example.question, example.video) == (row["id"], row["question"], row["video"])
        assert (list(example.options), "ABCD"[example.answer_index or 0]) == (row["options"], row["solution"])
    spans = rows.add_column("start_seconds", [1.0, None, 2.0, 0.0]).add_column("end_seconds", [None, None, 3.0, 1.0])
    assert [(one.start_seconds, one.end_seconds) for one in read_trl(spans)] == [
        (1.0, None), (None, None), (2.0, 3.0), (0.0, 1.0),
    ]  # fmt: skip


def test_parts_of_videos_keep_their_bounds_and_folders_of_images_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    from dataclasses import replace

    from vidground_hf import post_training

    read = post_training.read_examples

    def put(**changes: Any) -> None:
        def changed(*args: Any, **kwargs: Any) -> Any:
            adapter, keys, examples = read(*args, **kwargs)
            return adapter, keys, [replace(examples[0], **changes), *examples[1:]]

        monkeypatch.setattr(post_training, "read_examples", changed)

    put(start_seconds=1.0, end_seconds=2.5)
    rows = to_trl(Dataset.from_list(make_rows(2)))
    assert (list(rows["start_seconds"]), list(rows["end_seconds"])) == ([1.0, None], [2.5, None])
    put(frame_rate=3.0)
    with pytest.raises(ValueError, match="the videos of 1 rows are folders of images, that of 'q0' first"):
        to_trl(Dataset.from_list(make_rows(2)))


def test_one_split_is_taken() -> None:
    split = Dataset.from_list(make_rows(1))
    for other in (IterableDataset.from_generator(lambda: iter(make_rows(1))), [split]):
        with pytest.raises(TypeError, match=f"to_trl takes one split as a Dataset, got {type(other).__name__}; pass"):
            to_trl(other)


def test_what_curate_keeps_can_be_trained_on() -> None:
    raw = [row | {"question": f"Which is it, {k}?"} for k, row in enumerate(make_rows(40, answer="A"))]
    splits = curate(Dataset.from_list(raw)).splits
    rows = to_trl(splits["text_answerable"])
    assert len(rows) == 40
    assert set(rows["is_visually_grounded"]) == {False}
