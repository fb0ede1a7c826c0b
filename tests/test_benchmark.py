"""A run over ten questions whose every figure is known, its files, and every refusal."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from datasets import Dataset

from tests.models import SimulatedModel
from vidground_hf.answerers.base import Answer, ConstantAnswerer, collect_answers
from vidground_hf.benchmark import run_benchmark
from vidground_hf.benchmark_asking import Showing, list_showings
from vidground_hf.benchmark_report import draw_accuracy, format_benchmark, name_rows, render_readme
from vidground_hf.benchmark_settings import BENCHMARKS
from vidground_hf.benchmark_table import BenchmarkTable, find_blind
from vidground_hf.benchmark_verdicts import read_verdicts
from vidground_hf.curation import curate
from vidground_hf.gap import measure_gap
from vidground_hf.judging import AnswerError
from vidground_hf.loading import DataError
from vidground_hf.media import FrameBudget
from vidground_hf.predictions import read_pairs
from vidground_hf.prompts import Prompt, Wording
from vidground_hf.rules import single_shot
from vidground_hf.schema import Example

BUDGETS = [FrameBudget(num_frames=16), FrameBudget(num_frames=32)]
GOLDS = "ABCDABCDAB"
# Which questions are answered right without the clip, and with so many frames of it.
BLIND, SEEN_16, SEEN_32 = {0, 1, 2}, {0, 1, 3, 4, 5}, {0, 3, 4, 5, 6, 7, 8}
TASKS = ["count"] * 6 + ["order"] * 4


def wrong(letter: str) -> str:
    return "ABCD"[("ABCD".index(letter) + 1) % 4]


@dataclass
class SeeingModel:
    """Knows what each clip shows with so many frames, and some questions without."""

    fails: Callable[[Prompt], bool] = lambda prompt: False
    takes_frames: bool = True
    asked: list[Prompt] = field(default_factory=list)

    id = "seeing@1"
    num_in_flight = 0

    @property
    def sampling(self) -> Mapping[str, Any]:
        return {"temperature": 0}

    @property
    def visual_sampling(self) -> Mapping[str, Any]:
        return {"frames_as": "images"}

    def describe(self) -> Mapping[str, Any]:
        return {"processor": "stand-in", "max_pixels": 200704}

    def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
        return collect_answers(self, prompts)

    def answer_each(self, prompts: Sequence[Prompt], on_answer: Callable[[int, Answer], None]) -> None:
        for index, prompt in enumerate(prompts):
            self.asked.append(prompt)
            on_answer(index, Answer(text=None, error="out of memory") if self.fails(prompt) else self.look(prompt))

    def look(self, prompt: Prompt) -> Answer:
        number = int((prompt.question or "0").split()[-1])
        if prompt.frames is None:
            text = GOLDS[number] if number in BLIND else wrong(GOLDS[number])
            return Answer(text=text, num_prompt_tokens=10, num_answer_tokens=1, seconds=0.25)
        count = prompt.frames.budget.num_frames or 0
        is_seen = Path(prompt.frames.source).name == f"clip_{number // 2}.mp4"
        text = GOLDS[number] if is_seen and number in (SEEN_16 if count == 16 else SEEN_32) else wrong(GOLDS[number])
        return Answer(text=text, num_frames=count, num_visual_tokens=4 * count, num_prompt_tokens=10 + 4 * count,
                      num_answer_tokens=1, seconds=0.5, decoder="stand-in")  # fmt: skip


def make_rows() -> list[dict[str, Any]]:
    return [
        {"id": f"q{k}", "video": f"clip_{k // 2}.mp4", "question": f"What is in place {k}", "answer": GOLDS[k],
         "options": [f"{word} {k}" for word in ("red", "blue", "green", "grey")], "category": TASKS[k]}
        for k in range(10)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("clips")
    for clip in range(5):
        with av.open(str(folder / f"clip_{clip}.mp4"), "w") as container:
            stream = container.add_stream("mpeg4", rate=10)
            stream.width = stream.height = 16
            stream.pix_fmt = "yuv420p"
            for _ in range(40):
                picture = np.full((16, 16, 3), 40 * clip, dtype=np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture)))
            container.mux(stream.encode())
    return folder


@pytest.fixture
def root(clips: Path, tmp_path: Path) -> str:
    return str(shutil.copytree(clips, tmp_path / "clips"))


def run(root: str | None = None, model: Any = None, rows: Any = None, **settings: Any) -> Any:
    dataset = Dataset.from_list(make_rows() if rows is None else rows)
    return run_benchmark(dataset, model or SeeingModel(), media_root=root, **{"budgets": BUDGETS, **settings})


def by_name(benchmark: Any) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in benchmark.table["rows"]}


def test_every_figure_of_ten_questions(root: str) -> None:
    rows = by_name(run(root))
    assert list(rows) == ["text", "video-16", "video-32"]
    assert [row["accuracy"]["value"] for row in rows.values()] == pytest.approx([0.3, 0.5, 0.7])
    seen = [rows["video-16"], rows["video-32"]]
    assert (rows["text"]["gap"], rows["text"]["vg_accuracy"], rows["text"]["ta_accuracy"]) == (None, None, None)
    assert [row["gap"]["value"] for row in seen] == pytest.approx([0.2, 0.4])
    assert [row["vg_accuracy"]["value"] for row in seen] == pytest.approx([3 / 7, 6 / 7])
    assert [row["ta_accuracy"]["value"] for row in seen] == pytest.approx([2 / 3, 1 / 3])
    row = rows["video-32"]
    assert (row["num_vg"], row["num_ta"], row["num_without_verdict"], row["num_paired"]) == (7, 3, 0, 10)
    assert (row["num_rows"], row["num_skipped"], row["num_unanswered"], row["num_unscored"]) == (10, 0, 0, 0)
    assert row["blind_accuracy"]["value"] == pytest.approx(0.3)
    assert row["chance"] == 0.25
    assert row["accuracy"]["low"] < 0.7 < row["accuracy"]["high"]
    assert row["budget"] == {"num_frames": 32, "fps": None, "max_frames": None, "size": 200704, "jitter_seed": None,
                             "backend": None}  # fmt: skip


def test_costs_are_sums_and_means_of_what_answers_state(root: str) -> None:
    rows = by_name(run(root))
    assert rows["video-16"]["costs"] == {
        "seconds": {"sum": 5.0, "mean": 0.5, "num_without": 0},
        "num_prompt_tokens": {"sum": 740, "mean": 74.0, "num_without": 0},
        "num_answer_tokens": {"sum": 10, "mean": 1.0, "num_without": 0},
        "num_frames": {"sum": 160, "mean": 16.0, "num_without": 0},
        "num_visual_tokens": {"sum": 640, "mean": 64.0, "num_without": 0},
    }
    assert rows["text"]["costs"]["num_frames"] == {"sum": None, "mean": None, "num_without": 10}
    assert (rows["text"]["decoders"], rows["video-16"]["decoders"]) == ([], ["stand-in"])


def test_groups_have_their_own_figures(root: str) -> None:
    groups = by_name(run(root))["video-32"]["groups"]
    assert list(groups["category"]) == ["count", "order"]
    count = groups["category"]["count"]
    assert (count["num_rows"], count["num_scored"], count["num_vg"]) == (6, 6, 3)
    assert count["accuracy"]["value"] == pytest.approx(4 / 6)
    assert count["vg_accuracy"]["value"] == pytest.approx(1.0)
    assert (count["blind_accuracy"]["value"], count["gap"]["value"]) == pytest.approx((0.5, 1 / 6))
    assert list(groups["problem_type"]) == ["multiple_choice"]
    assert groups["source"] == {}


def test_gap_is_that_of_the_metric(root: str) -> None:
    benchmark = run(root, seed=3)
    text, video = (benchmark.predictions[name] for name in ("text", "video-32"))
    expected = measure_gap(
        [row["prediction"] for row in video], [row["prediction"] for row in text], [row["reference"] for row in text],
        options=[row["options"] for row in text], clusters=[row["video"] for row in text], seed=3,
    )  # fmt: skip
    row = by_name(benchmark)["video-32"]
    assert {name: row["paired"][name] for name in row["paired"]} == {name: expected[name] for name in row["paired"]}
    assert (row["gap"]["value"], row["gap"]["low"], row["gap"]["high"]) == (
        expected["gap"], expected["gap_low"], expected["gap_high"],
    )  # fmt: skip
    assert row["vg_accuracy"]["value"] == pytest.approx(expected["vg_accuracy"])
    assert row["p_value"] == expected["p_value"]


def test_the_mean_of_categories_weighs_them_alike(root: str) -> None:
    rows = by_name(run(root, name="mlvu", columns={"question": "question"}))
    row = rows["video-32"]
    assert row["accuracy"]["value"] == pytest.approx((4 / 6 + 3 / 4) / 2)
    assert row["blind_accuracy"]["value"] == pytest.approx((3 / 6 + 0) / 2)
    assert row["gap"]["value"] == pytest.approx((4 / 6 + 3 / 4) / 2 - 0.25)
    # Of the grounded rows 3, 4 and 5 count, and 6 to 9 are about order.
    assert row["vg_accuracy"]["value"] == pytest.approx((3 / 3 + 3 / 4) / 2)
    assert (row["num_categories"], row["paired"]["gap"]) == (2, pytest.approx(0.4))
    assert row["accuracy"]["low"] <= row["accuracy"]["value"] <= row["accuracy"]["high"]


def test_open_questions_stay_out_of_an_average_over_choices(root: str) -> None:
    rows = make_rows()
    rows[9] |= {"options": [], "answer": "two cats", "problem_type": "free_form"}
    rows = [{"problem_type": "multiple_choice", **row} for row in rows]
    row = by_name(run(root, rows=rows, name="mmvu", columns={"question": "question"}))["video-32"]
    assert (row["num_averaged"], row["num_scored"]) == (9, 10)
    assert row["accuracy"]["value"] == pytest.approx(7 / 9)
    assert row["groups"]["problem_type"]["free_form"]["accuracy"]["value"] == 0.0
    assert by_name(run(root, rows=rows))["video-32"]["num_averaged"] == 10


def test_verdicts_of_a_curation_split_the_rows(root: str, tmp_path: Path) -> None:
    rows = make_rows()
    dataset = Dataset.from_list(rows)
    known = {row["question"]: row["options"]["ABCD".index(row["answer"])] for k, row in enumerate(rows) if k in {8, 9}}
    other = {row["question"]: row["options"]["ABCD".index(wrong(row["answer"]))] for row in rows}
    curate(dataset, answerer=SimulatedModel({**other, **known}), rule=single_shot()).save(tmp_path / "curated")
    benchmark = run(root, verdicts=tmp_path / "curated")
    found = by_name(benchmark)
    assert (found["video-32"]["num_vg"], found["video-32"]["num_ta"]) == (8, 2)
    assert found["video-32"]["vg_accuracy"]["value"] == pytest.approx(6 / 8)
    assert found["video-32"]["ta_accuracy"]["value"] == pytest.approx(1 / 2)
    assert found["text"]["vg_accuracy"]["value"] == pytest.approx(3 / 8)  # stored verdicts judge the blind run, too
    assert benchmark.table["verdicts"] == {
        "from": f"{tmp_path.name}/curated", "answerer": "simulated", "rule": "single_shot()", "view": "text",
        "num_vg": 8, "num_ta": 2, "num_unmatched": 0,
    }  # fmt: skip
    # Rows are known by their content: their order is free, and what was not curated has no verdict.
    rows[0]["question"] = "What is in another place 0"
    shuffled = read_verdicts(tmp_path / "curated", Dataset.from_list(rows[::-1]))
    assert shuffled.num_unmatched == 1
    assert shuffled.is_visually_grounded == [False, False, True, True, True, True, True, True, True, None]
    with pytest.raises(DataError, match=re.escape("none of the 1 rows is among the 10 of")):
        read_verdicts(tmp_path / "curated", Dataset.from_list(rows[:1]))
    with pytest.raises(DataError, match=re.escape("no curated dataset in")):
        read_verdicts(tmp_path, dataset)


def test_blind_answers_of_ones_own_say_that_luck_is_in_them(root: str) -> None:
    table = run(root).table
    assert table["verdicts"] == {"from": "own answers, text", "num_vg": 7, "num_ta": 3, "num_unmatched": 0}
    assert any("whatever was luck" in note for note in table["notes"])
    without = run(root, views=("video",)).table
    assert without["verdicts"] == {"from": None, "num_vg": 0, "num_ta": 0, "num_unmatched": 0}
    assert without["rows"][0]["vg_accuracy"] is None
    assert without["rows"][0]["gap"] is None


def test_rows_without_the_evidence_are_skipped_and_counted(root: str) -> None:
    rows = make_rows()
    for k, row in enumerate(rows):
        row["subtitles"] = "Somebody speaks." if k < 4 else None
    rows[9]["video"] = None
    benchmark = run(root, rows=rows, views=("text", "subtitles", "video"))
    found = by_name(benchmark)
    assert (found["subtitles"]["num_skipped"], found["subtitles"]["skipped"]) == (6, {"subtitles": 6})
    assert (found["video-16"]["num_skipped"], found["video-16"]["num_scored"]) == (1, 9)
    assert found["video-16"]["num_paired"] == 9
    assert [row["id"] for row in benchmark.predictions["subtitles"]] == ["q0", "q1", "q2", "q3"]
    assert "subtitles: of 10 questions, left out are 6 skipped" in benchmark.table["notes"]


def test_rows_that_cannot_be_scored_are_not_asked(root: str) -> None:
    rows = make_rows()
    rows[9]["answer"] = "Z"
    model = SeeingModel()
    row = by_name(run(root, model, rows))["video-32"]
    assert (row["num_unscored"], row["num_scored"], row["num_unanswered"]) == (1, 9, 0)
    assert len(model.asked) == 27


def test_failed_answers_raise_and_what_was_answered_is_kept(root: str) -> None:
    model = SeeingModel(fails=lambda prompt: prompt.view == "video" and prompt.question == "What is in place 4")
    message = "2 answers are missing, the first one (video-16, question q4) because: out of memory. What was answered"
    with pytest.raises(AnswerError, match=re.escape(message)):
        run(root, model)
    again = SeeingModel()
    assert by_name(run(root, again))["video-32"]["accuracy"]["value"] == pytest.approx(0.7)
    assert [(prompt.example_id, prompt.frames.budget.num_frames) for prompt in again.asked if prompt.frames] == [
        ("q4", 16), ("q4", 32),
    ]  # fmt: skip
    assert len(again.asked) == 2


def test_failed_answers_may_be_left_out(root: str) -> None:
    model = SeeingModel(fails=lambda prompt: prompt.question == "What is in place 4" and prompt.view == "video")
    benchmark = run(root, model, on_error="undecided")
    row = by_name(benchmark)["video-32"]
    assert (row["num_unanswered"], row["num_scored"], row["num_paired"]) == (1, 9, 9)
    assert row["accuracy"]["value"] == pytest.approx(6 / 9)
    assert benchmark.table["num_errors"] == 2
    assert benchmark.table["errors"][0] == {"name": "video-16", "id": "q4", "error": "out of memory"}
    failed = [row for row in benchmark.predictions["video-32"] if row["error"]]
    assert [(row["id"], row["prediction"], row["score"]) for row in failed] == [("q4", None, None)]


def test_missing_clips_are_named_before_anything_is_asked(root: str) -> None:
    Path(root, "clip_4.mp4").unlink()
    model = SeeingModel()
    message = f"2 of 10 questions have no clip: no file {root}/clip_4.mp4; name the folder with --media-root"
    with pytest.raises(AnswerError, match=re.escape(message)):
        run(root, model)
    assert model.asked == []
    with pytest.raises(AnswerError, match=re.escape("download and unpack the folder videos, and name the folder")):
        run(root, model, name="mmvu", columns={"question": "question"})
    benchmark = run(root, model, on_error="undecided")
    row = by_name(benchmark)["video-16"]
    assert (row["num_unanswered"], row["num_scored"]) == (2, 8)
    assert benchmark.table["errors"][0]["error"].startswith(f"no file {root}/clip_4.mp4; name the folder")
    assert by_name(run(root, model, views=("text",)))["text"]["num_scored"] == 10


def test_an_answer_that_saw_nothing_is_none(root: str) -> None:
    class Sightless(SeeingModel):
        def look(self, prompt: Prompt) -> Answer:
            return replace(super().look(prompt), num_frames=0)

    with pytest.raises(AnswerError, match=re.escape("no frame reached the model for view 'video'")):
        run(root, Sightless(), views=("video",))


def test_a_text_only_model_is_refused_before_anything_is_read(root: str) -> None:
    message = "view = 'video' shows frames, and constant:A reads text only; pass a vision-language model"
    with pytest.raises(ValueError, match=re.escape(message)):
        run(root, ConstantAnswerer("A"))
    assert by_name(run(None, ConstantAnswerer("A"), views=("text",)))["text"]["accuracy"]["value"] == 0.3


def test_clips_are_shown_one_after_the_other_under_all_budgets(root: str) -> None:
    model = SeeingModel()
    rows = make_rows()
    run(root, model, [rows[k] for k in (8, 0, 4, 9, 1, 5, 2, 3, 6, 7)])
    looked = [prompt.frames for prompt in model.asked if prompt.frames is not None]
    assert [Path(frames.source).name for frames in looked] == sorted(Path(frames.source).name for frames in looked)
    assert {prompt.order for prompt in model.asked} == {(0, 1, 2, 3)}


def test_a_wrong_video_shows_another_clip(root: str) -> None:
    model = SeeingModel()
    rows = by_name(run(root, model, views=("text", "wrong_video"), budgets=BUDGETS[1:]))
    assert rows["wrong_video-32"]["accuracy"]["value"] == 0.0
    own = {row["id"]: row["video"] for row in make_rows()}
    shown = {prompt.example_id: prompt.frames.source for prompt in model.asked if prompt.frames}
    assert all(Path(source).name != own[name] for name, source in shown.items())
    assert len(shown) == 10


def test_subtitles_go_beside_the_frames(root: str) -> None:
    rows = [
        {**row, "subtitles": f"It is {k}."} if k else {**row, "subtitles": None} for k, row in enumerate(make_rows())
    ]
    model = SeeingModel()
    benchmark = run(root, model, rows, views=("text", "subtitles", "video"), with_subtitles=True, budgets=BUDGETS[:1])
    texts = {prompt.view: prompt.text for prompt in model.asked if prompt.example_id == "q3"}
    assert "It is 3." in texts["video"]
    assert "It is 3." not in texts["text"]
    assert len([prompt for prompt in model.asked if prompt.view == "video"]) == 10
    assert benchmark.table["num_with_subtitles"] == 9
    assert by_name(benchmark)["video-16"]["num_paired"] == 9  # compared with the subtitles alone


@pytest.mark.parametrize(
    ("views", "expected"),
    [
        (("options_only", "text"), 1),
        (("video", "subtitles"), 1),
        (("video",), None),
    ],
)
def test_which_blind_answers_are_compared_with(views: Any, expected: int | None) -> None:
    assert find_blind([Showing(view) for view in views]) == expected


def test_showings_are_named_by_view_and_frames() -> None:
    budgets = [*BUDGETS, FrameBudget(fps=0.5, max_frames=64)]
    names = [showing.name for showing in list_showings(["video", "text", "single_frame", "video"], budgets)]
    assert names == ["video-16", "video-32", "video-0.5fps", "text", "single_frame"]


@pytest.mark.parametrize(
    ("views", "budgets", "message"),
    [
        ((), BUDGETS, "got the views none; allowed are options_only, text"),
        (("movie",), BUDGETS, "got the views movie; allowed are options_only, text"),
        (("video",), [], "a view with pixels needs a frame budget"),
        (("video",), [BUDGETS[0]] * 2, "video-16 is asked for twice; give every frame budget another number"),
    ],
)
def test_bad_views_are_refused(views: Any, budgets: Any, message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        run(views=views, budgets=budgets)


def test_settings_are_found_by_name_and_wordings_can_be_given(root: str) -> None:
    with pytest.raises(ValueError, match=re.escape("no ready settings for 'nope'; there are videomme, videommmu")):
        run(root, name="nope")
    model = SeeingModel()
    wording = Wording(head="Look.", question="{question}", option="({letter}) {option}")
    table = run(root, model, wording=wording, views=("text",)).table
    assert model.asked[0].text.startswith("Look.\nWhat is in place 0\n(A) red 0\n")
    assert [one["head"] for one in table["wordings"]] == ["Look."]
    assert table["benchmark"] is None
    found = run(root, source={"id": "lmms-lab/egoschema"}, columns={"question": "question"}, views=("text",)).table
    assert found["benchmark"]["name"] == "egoschema"
    assert found["wordings"][0]["instructions"]["multiple_choice"] == (
        "Answer with the option's letter from the given choices directly."
    )


def test_the_same_answers_give_the_same_bytes(root: str, tmp_path: Path) -> None:
    run(root).save(tmp_path / "one")
    model = SeeingModel()
    second = run(root, model)
    second.save(tmp_path / "two")
    assert model.asked == []
    files = [
        {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        for folder in (tmp_path / "one", tmp_path / "two")
    ]
    assert list(files[0]) == ["README.md", "accuracy.png", "predictions/text.jsonl", "predictions/video-16.jsonl",
                              "predictions/video-32.jsonl", "table.json"]  # fmt: skip
    assert files[0] == files[1]
    assert json.loads(files[0]["table.json"]) == second.table
    second.save(tmp_path / "two")  # an earlier run is replaced
    (tmp_path / "three").mkdir()
    (tmp_path / "three" / "mine.txt").touch()
    with pytest.raises(DataError, match="holds something else, no earlier result"):
        second.save(tmp_path / "three")


def test_predictions_are_read_by_the_gap_command(root: str, tmp_path: Path) -> None:
    folder = run(root).save(tmp_path / "out")
    pairs = read_pairs(folder / "predictions/text.jsonl", folder / "predictions/video-32.jsonl")
    result = measure_gap(**pairs.columns)
    assert (result["visual_accuracy"], result["blind_accuracy"]) == (0.7, 0.3)
    assert list(result["groups"]) == ["count", "order"]
    assert pairs.columns["clusters"][:3] == ["clip_0.mp4", "clip_0.mp4", "clip_1.mp4"]
    row = json.loads((folder / "predictions/video-32.jsonl").read_text().splitlines()[3])
    assert row == {
        "id": "q3", "view": "video", "num_frames_asked": 32, "num_frames": 32, "num_visual_tokens": 128,
        "num_prompt_tokens": 138, "num_answer_tokens": 1, "prediction": "D", "text": "D", "score": 1.0,
        "reference": "grey 3", "options": ["red 3", "blue 3", "green 3", "grey 3"], "problem_type": "multiple_choice",
        "category": "count", "source": None, "video": "clip_1.mp4", "finish_reason": None, "error": None,
        "seconds": 0.5, "decoder": "stand-in",
    }  # fmt: skip


def test_option_probabilities_decide_over_the_text() -> None:
    class Sure(ConstantAnswerer):
        def answer(self, prompts: Sequence[Prompt]) -> list[Answer]:
            return [Answer(text="?", option_logprobs=(-5.0, -0.1, -6.0, -7.0)) for _ in prompts]

    benchmark = run(None, Sure("?"), views=("text",))
    assert benchmark.predictions["text"][0]["prediction"] == "B"
    assert benchmark.predictions["text"][0]["text"] == "?"
    assert by_name(benchmark)["text"]["accuracy"]["value"] == 0.3  # B is right three times


def test_repeated_ids_get_a_number() -> None:
    rows = [Example(id=name, question="?", problem_type="free_form") for name in ("a", "", "a", "a")]
    assert name_rows(rows) == ["a", "row 1", "a (2)", "a (3)"]


def test_table_in_words_and_markdown(root: str) -> None:
    table = run(root).table
    text = format_benchmark(table)
    assert "10 questions of the questions, answered by seeing@1; means over questions, 95 % intervals by video" in text
    assert re.search(r"video-32 +10 +70\.0 % \(.* to .*\) +85\.7 % +33\.3 % +30\.0 % +\+40\.0 \(", text)
    assert re.search(r"order +4 +0\.0 % +0\.0 % +75\.0 %", text)
    page = render_readme(table, has_picture=True)
    assert re.search(r"\| video-16 \| 10 \| 50\.0 % \(.*\) \| 42\.9 % \(\d.*\) \| 66\.7 % \(", page)
    assert "![Accuracy by what was shown](accuracy.png)" in page
    blind = run(root, views=("text",)).table
    assert "accuracy.png" not in render_readme(blind, has_picture=False)
    assert draw_accuracy(blind) is None


def test_a_set_that_nothing_can_be_scored_of(root: str, tmp_path: Path) -> None:
    rows = [{**row, "answer": "Z"} for row in make_rows()]
    benchmark = run(root, rows=rows)
    row = by_name(benchmark)["video-16"]
    assert (row["num_unscored"], row["num_averaged"], row["num_paired"], row["chance"]) == (10, 0, 0, None)
    assert row["accuracy"] == {"value": None, "low": None, "high": None}
    assert (row["vg_accuracy"], row["gap"]) == (None, None)
    assert (benchmark.save(tmp_path / "out") / "table.json").exists()


def test_the_whole_run_is_described(root: str) -> None:
    table = run(root, seed=5, source={"id": "my/set", "revision": "abc"}).table
    assert table["source"] == {"id": "my/set", "revision": "abc"}
    assert (table["answerer"], table["answerer_settings"]) == (
        "seeing@1",
        {"processor": "stand-in", "max_pixels": 200704, "visual": {"frames_as": "images"}},
    )
    assert (table["seed"], table["views"], table["adapter"], table["decoders"]) == (
        5, ["text", "video"], "generic", ["stand-in"],
    )  # fmt: skip
    assert {"vidground-hf", "datasets", "torchcodec", "av"} <= set(table["versions"])
    assert re.fullmatch("[0-9a-f]{64}", table["rows_sha256"])
    other = run(root, rows=make_rows()[:9], views=("text",)).table
    assert other["rows_sha256"] != table["rows_sha256"]
    assert "visual" not in other["answerer_settings"]


def test_one_video_has_no_interval_and_a_table_needs_no_verdicts() -> None:
    rows = [Example(id=str(k), question="?", problem_type="multiple_choice", options=("a", "b"), answer_index=0,
                    answer="a", group="v") for k in range(3)]  # fmt: skip
    from vidground_hf.benchmark_asking import Outcome
    from vidground_hf.judging import make_trial

    outcomes = [[Outcome(None, Answer(text="A"), make_trial(row, Answer(text="A"))) for row in rows]]
    table = BenchmarkTable(
        rows, [Showing("text")], outcomes, settings=BENCHMARKS["mvbench"], verdicts=[True, False, None]
    )
    row = table.list_rows()[0]
    assert row["accuracy"] == {"value": 1.0, "low": None, "high": None}
    assert (row["num_vg"], row["num_ta"], row["num_without_verdict"]) == (1, 1, 1)


def test_chance_is_averaged_as_the_accuracy_beside_it_is() -> None:
    from vidground_hf.benchmark_asking import Outcome
    from vidground_hf.judging import make_trial

    rows = [
        Example(id=str(k), question="?", problem_type="multiple_choice", options=options, answer_index=0, answer="a",
                category=category)
        for k, (options, category) in enumerate([(("a", "b", "c", "d"), "long")] * 3 + [(("a", "b"), "short")])
    ]  # fmt: skip
    outcomes = [[Outcome(None, Answer(text="A"), make_trial(row, Answer(text="A"))) for row in rows]]
    for settings, chance in ((None, (3 * 0.25 + 0.5) / 4), (BENCHMARKS["mvbench"], (0.25 + 0.5) / 2)):
        row = BenchmarkTable(rows, [Showing("text")], outcomes, settings=settings).list_rows()[0]
        assert row["chance"] == pytest.approx(chance)
