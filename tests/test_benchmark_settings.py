"""What the settings of each benchmark lead to: opened rows, prompts, clips, subtitles and refusals."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset

from tests.shared_data import SHARED_DATA, needs_shared_data
from tests.test_benchmark_layouts import EXPECTED, MMVU, ROWS
from vidground_hf.answerers.base import ConstantAnswerer
from vidground_hf.benchmark import run_benchmark
from vidground_hf.benchmark_data import (
    add_subtitles,
    list_missing_files,
    locate_clips,
    open_benchmark,
    read_subtitles,
    refuse_question_only,
)
from vidground_hf.benchmark_settings import BENCHMARKS, find_benchmark, get_benchmark
from vidground_hf.loading import DataError
from vidground_hf.prompts import make_prompt
from vidground_hf.schema import Example


def write(path: Path, rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))
    return path


def test_names_and_hub_ids_find_the_settings() -> None:
    for name, settings in BENCHMARKS.items():
        assert find_benchmark(name) is find_benchmark(settings.hub_id.upper()) is settings is get_benchmark(name)
        assert settings.name == name
        assert "" in settings.wordings
        assert settings.download
    assert find_benchmark("my/own") is None


@pytest.mark.parametrize(
    ("name", "category", "kind", "expected"),
    [
        ("videomme", "OCR Problems", "multiple_choice",
         "Select the best answer to the following multiple-choice question based on the video. Respond with only the "
         "letter (A, B, C, or D) of the correct option.\nWhy?\nA. x\nB. y\nThe best answer is:"),
        ("videommmu", "Perception", "multiple_choice",
         "Why?\nA. x\nB. y\nPlease directly output the option letter/data as the answer."),
        ("videommmu", "Adaptation", "multiple_choice",
         "Please directly output the option letter/data as the answer. You should watch and learn the video content. "
         "Then apply what you learned to answer the following multi-choice question. The image for this question is "
         "at the end of the video.\nWhy?\nA. x\nB. y\n"),
        ("videommmu", "Adaptation", "numerical",
         "Please directly output the option letter/data as the answer. You should watch and learn the video content. "
         "Then apply what you learned to answer the following open-ended question. The image for this question is at "
         "the end of the video.\nWhy?\n"),
        ("mmvu", "Law", "multiple_choice",
         "Question: Why?\nA: x\nB: y\nDo not generate any intermediate reasoning process. Answer directly with the "
         "option letter from the given choices."),
        ("mmvu", "Law", "free_form",
         "Question: Why?\nDo not generate any intermediate reasoning process. Directly output the final short "
         "answer."),
        ("mvbench", "state_change", "multiple_choice",
         "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
         "objects, and the action and pose of persons. Based on your observations, select the best option that "
         "accurately addresses the question.\nQuestion: Why?\nOptions:\n(A) x\n(B) y\nOnly give the best option."),
        ("mlvu", "findNeedle", "multiple_choice",
         "Carefully watch this video and pay attention to every detail. Based on your observations, select the best "
         "option that accurately addresses the question.\nQuestion: Why?\nOptions:\n(A) x\n(B) y\nOnly give the best "
         "option."),
        ("mlvu", "summary", "free_form",
         "Carefully watch this video and pay attention to every detail. Based on your observations, answer the given "
         "questions.\nWhy?\n"),
        ("nextqa", "CW", "multiple_choice",
         "Why?\nA. x\nB. y\nAnswer with the option's letter from the given choices directly."),
        ("tempcompass", "multi-choice", "multiple_choice", "Why?\nA. x\nB. y\nPlease directly give the best option:"),
        ("tempcompass", "yes_no", "multiple_choice", "Why?\nA. x\nB. y\nPlease answer yes or no:"),
        ("longvideobench", "S2E", "multiple_choice",
         "Why?\nA. x\nB. y\nAnswer with the option's letter from the given choices directly."),
        ("egoschema", None, "multiple_choice",
         "Why?\nA. x\nB. y\nAnswer with the option's letter from the given choices directly."),
    ],
)  # fmt: skip
def test_prompts_are_the_published_ones(name: str, category: str | None, kind: Any, expected: str) -> None:
    options = ("x", "y") if kind == "multiple_choice" else ()
    example = Example(id="1", question="Why?", problem_type=kind, options=options, category=category)
    wording = BENCHMARKS[name].find_wording(example)
    assert make_prompt(example, wording=wording).text.rstrip("\n") == expected.rstrip("\n")


def test_videomme_words_subtitles_into_its_prompt() -> None:
    example = Example(id="1", question="Why?", problem_type="multiple_choice", options=("x",), subtitles="Hello.")
    wording = BENCHMARKS["videomme"].find_wording(example, with_subtitles=True)
    assert "based on the video and the subtitles. Respond" in make_prompt(example, "subtitles", wording=wording).text
    assert BENCHMARKS["egoschema"].find_wording(example, with_subtitles=True) is (
        BENCHMARKS["egoschema"].find_wording(example)
    )


def test_configurations_are_joined_and_mvbench_rows_say_their_task(tmp_path: Path) -> None:
    settings = BENCHMARKS["mvbench"]
    for task in settings.configs:
        row = {"video": f"{task}.mp4", "question": "What?", "candidates": ["a", "b"], "answer": "b"}
        extra: dict[str, dict[str, float]] = {
            "action_sequence": {"start": 1, "end": 2},
            "object_interaction": {"start": 1.5, "end": 2.5},
        }
        write(tmp_path / "json" / f"{task}.json", [{**row, **extra.get(task, {})}])
    dataset = open_benchmark(settings, tmp_path)
    assert len(dataset) == 20
    row = {one["mvbench_task"]: one for one in dataset}["action_sequence"]
    assert (row["start"], row["video"]) == (1.0, "action_sequence.mp4")
    assert {one["start"] for one in dataset} == {None, 1.0, 1.5}
    table = run_benchmark(dataset, ConstantAnswerer("B"), name="mvbench", views=("text",)).table
    assert table["rows"][0]["accuracy"]["value"] == 1.0
    assert table["rows"][0]["num_categories"] == 20
    only = open_benchmark(settings, tmp_path, config="state_change")
    assert only["mvbench_task"] == ["state_change"]
    (tmp_path / "json" / "state_change.json").unlink()
    with pytest.raises(DataError, match="has no state_change, one of the configurations of mvbench"):
        open_benchmark(settings, tmp_path)
    with pytest.raises(DataError, match=re.escape("rows of mvbench do not say their task, and")):
        open_benchmark(settings, tmp_path / "json" / "moving_count.json")


def test_one_file_or_folder_is_a_benchmark_without_configurations(tmp_path: Path) -> None:
    rows = [{**row, "start": None} for row in ROWS["egoschema"]]
    path = write(tmp_path / "subset.json", rows)
    assert open_benchmark(BENCHMARKS["egoschema"], path)["question_idx"] == ["7", "8", "9"]
    assert (
        len(open_benchmark(BENCHMARKS["videomme"], write(tmp_path / "v" / "test.json", ROWS["videomme"]).parent)) == 3
    )
    with pytest.raises(DataError, match="has no MC, one of the configurations of nextqa"):
        open_benchmark(BENCHMARKS["nextqa"], tmp_path, config="MC")


def test_hub_configurations_are_asked_for_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[Any, ...]] = []
    files: list[Any] = []

    def open_dataset(data: Any, **settings: Any) -> Dataset:
        asked.append((data, settings["config"], settings["split"], settings["revision"], settings["adapter"]))
        files.append(settings["data_files"])
        return Dataset.from_list([{"question": settings["config"]}])

    monkeypatch.setattr("vidground_hf.benchmark_data.open_dataset", open_dataset)
    rows = open_benchmark(BENCHMARKS["videommmu"], "lmms-lab/VideoMMMU", revision="abc")
    assert rows["question"] == ["Perception", "Comprehension", "Adaptation"]
    assert asked[0] == ("lmms-lab/VideoMMMU", "Perception", "test", "abc", "videommmu")
    open_benchmark(BENCHMARKS["videomme"], "lmms-lab/Video-MME", split="dev")
    assert set(files) == {None}
    open_benchmark(BENCHMARKS["tempcompass"], "lmms-lab/TempCompass", config="captioning")
    assert asked[3:] == [
        ("lmms-lab/Video-MME", None, "dev", None, "videomme"),
        ("lmms-lab/TempCompass", "captioning", "test", None, "tempcompass"),
    ]
    open_benchmark(BENCHMARKS["mlvu"], "MLVU/MVLU")
    assert files[-1][0] == "MLVU/json/1_plotQA.json"
    assert files[-1][-1] == "MLVU/json/7_topic_reasoning.json"


def place(name: str, **fields: Any) -> str | None:
    example = Example(**{"id": "1", "question": "?", "problem_type": "multiple_choice", **fields})
    return locate_clips(BENCHMARKS[name], [example])[0].video


def test_clips_are_called_as_the_unpacked_files_call_them() -> None:
    assert place("nextqa", video="4010069381") == "NExTVideo/4010069381.mp4"
    assert place("nextqa", video="clip.webm") == "clip.webm"
    assert place("mlvu", video="movie_1.mp4", category="plotQA") == "1_plotQA/movie_1.mp4"
    assert place("mlvu", video="n.mp4", category="findNeedle") == "2_needle/n.mp4"
    assert place("mlvu", video="2_needle/n.mp4", category="plotQA") == "2_needle/n.mp4"
    assert place("mlvu", video="a.mp4", category="other") == "a.mp4"
    assert place("mmvu", video=MMVU + "Art/3.mp4") == MMVU + "Art/3.mp4"
    assert place("mmvu", video=MMVU + "Art/3.mp4", media_root="/clips") == "Art/3.mp4".join(["videos/", ""])
    assert place("nextqa", video=None) is None
    assert place("nextqa", video="7", media_content=b"...") == "7"


def test_files_that_are_not_there_are_listed_and_addresses_are_not(tmp_path: Path) -> None:
    (tmp_path / "here.mp4").touch()
    names = ["here.mp4", "gone.mp4", "https://host/x.mp4", None]
    rows = [
        Example(id=str(k), question="?", problem_type="free_form", video=name, media_root=str(tmp_path))
        for k, name in enumerate(names)
    ]
    held = Example(id="4", question="?", problem_type="free_form", video="x.mp4", media_content=b"...")
    assert list_missing_files([*rows, held]) == {1: str(tmp_path / "gone.mp4")}


@pytest.mark.parametrize(
    "video",
    [
        "question_only/dev_Music_1.mp4",
        "./Evaluation/VideoMMMU/question_only/a.mp4",
        "Art/validation_Art_Theory_3_image.mp4",
    ],
)
def test_question_only_clips_are_refused(video: str) -> None:
    rows = [EXPECTED["videommmu"][0], Example(id="1", question="?", problem_type="free_form", video=video)]
    with pytest.raises(
        DataError, match=re.escape(f"1 of 2 clips are question-only clips of VideoMMMU, such as '{video}'")
    ):
        refuse_question_only(rows)
    data = Dataset.from_list([{"question": "Why?", "options": ["x", "y"], "answer": "A", "video": video}])
    with pytest.raises(DataError, match="question-only clips of VideoMMMU"):
        run_benchmark(data, ConstantAnswerer("A"), views=("text",))


def test_other_clips_pass() -> None:
    rows = [row for rows in EXPECTED.values() for row in rows]
    refuse_question_only([*rows, Example(id="1", question="?", problem_type="free_form", video="a/cat_image.mp4")])


SRT = """1
00:00:01,000 --> 00:00:02,500
<font color="white" size=".72c">Good morning.</font>

2
00:01:05,250 --> 00:01:07,000
It rains
again.

3
00:02:00,000 --> 00:02:01,000
<i></i>
"""


def test_subtitles_are_read_and_cut(tmp_path: Path) -> None:
    srt = tmp_path / "a.srt"
    srt.write_text(SRT)
    assert read_subtitles(srt) == "Good morning.\nIt rains again."
    assert read_subtitles(srt, 1.0, 65.25) == "Good morning."
    assert read_subtitles(srt, 1.5) == "It rains again."
    assert read_subtitles(srt, 200.0) is None
    lines = [
        {"start": "00:00:03.500", "end": "00:00:04.000", "line": "First."},
        {"timestamp": [15.5, None], "text": "Second."},
    ]
    assert read_subtitles(write(tmp_path / "a.json", lines)) == "First.\nSecond."
    assert read_subtitles(write(tmp_path / "b.json", lines), 3.5, 15.5) == "First."
    for broken in ({"a": 1}, [{"start": "soon", "line": "x"}], [{"text": "x"}]):
        with pytest.raises(DataError, match="cannot read subtitles from"):
            read_subtitles(write(tmp_path / "c.json", broken))


def test_subtitles_are_found_beside_the_clips(tmp_path: Path) -> None:
    (tmp_path / "subtitle").mkdir()
    (tmp_path / "subtitle" / "ab-C_1.srt").write_text(SRT)
    dataset = Dataset.from_list(ROWS["videomme"])
    rows = [Example(**{**vars(row), "media_root": str(tmp_path)}) for row in EXPECTED["videomme"]]
    said = [row.subtitles for row in add_subtitles(BENCHMARKS["videomme"], dataset, rows)]
    assert said == ["Good morning.\nIt rains again.", "Good morning.\nIt rains again.", None]
    # Those of LongVideoBench are of the whole video, of which a row's clip is a part: 12 s from 3.5 s on.
    lines = [{"timestamp": [second, second + 1], "text": str(second)} for second in (1.0, 3.5, 15.0, 15.5)]
    write(tmp_path / "subtitles" / "k1_en.json", lines)
    rows = [Example(**{**vars(row), "media_root": str(tmp_path)}) for row in EXPECTED["longvideobench"]]
    found = add_subtitles(BENCHMARKS["longvideobench"], Dataset.from_list(ROWS["longvideobench"]), rows)
    assert [row.subtitles for row in found] == ["3.5\n15.0"] * 3
    assert add_subtitles(BENCHMARKS["egoschema"], dataset, rows) == rows
    table = run_benchmark(
        dataset, ConstantAnswerer("B"), name="videomme", views=("text", "subtitles"), media_root=str(tmp_path)
    ).table
    assert table["num_with_subtitles"] == 2
    assert [row["num_skipped"] for row in table["rows"]] == [0, 1]
    assert "and the subtitles" in table["wordings"][1]["head"]


def test_open_mmvu_is_scored_apart() -> None:
    table = run_benchmark(Dataset.from_list(ROWS["mmvu"]), ConstantAnswerer("C"), name="mmvu", views=("text",)).table
    row = table["rows"][0]
    assert (row["num_averaged"], row["accuracy"]["value"]) == (2, 0.5)
    assert row["groups"]["problem_type"]["free_form"]["num_scored"] == 1
    assert any("in the paper a language model judges" in note for note in table["notes"])


def test_videommmu_is_the_mean_of_its_tracks() -> None:
    table = run_benchmark(
        Dataset.from_list([*ROWS["videommmu"], {**ROWS["videommmu"][1], "answer": "B"}]), ConstantAnswerer("A"),
        name="videommmu", views=("text",),
    ).table  # fmt: skip
    row = table["rows"][0]
    assert {name: group["accuracy"]["value"] for name, group in row["groups"]["category"].items()} == {
        "Adaptation": 0.0, "Comprehension": 0.5, "Perception": 0.0,
    }  # fmt: skip
    assert row["accuracy"]["value"] == pytest.approx(0.5 / 3)


@needs_shared_data
def test_mlvu_as_it_is_averages_seven_tasks() -> None:
    dataset = open_benchmark(BENCHMARKS["mlvu"], SHARED_DATA / "mlvu" / "data")
    table = run_benchmark(dataset, ConstantAnswerer("A"), name="mlvu", views=("text",)).table
    row = table["rows"][0]
    assert (row["num_rows"], row["num_averaged"], row["num_unscored"], row["num_categories"]) == (2593, 2173, 2, 7)
    choices = [group["accuracy"]["value"] for name, group in row["groups"]["category"].items()
               if name not in ("subPlot", "summary")]  # fmt: skip
    assert row["accuracy"]["value"] == pytest.approx(sum(choices) / 7)
    assert set(row["groups"]["category"]) == set(BENCHMARKS["mlvu"].folders)
