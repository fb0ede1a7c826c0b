"""The least evidence that answers a question: labels, rules, splits, the report, and the command."""

from __future__ import annotations

import json
import math
import re
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, load_dataset

from tests.models import SimulatedModel, draw
from vidground_hf.answerers import TextBiasProbe
from vidground_hf.answerers.base import Answer, ConstantAnswerer
from vidground_hf.benchmark_data import list_missing_files
from vidground_hf.benchmark_verdicts import read_verdicts
from vidground_hf.cli import main
from vidground_hf.folders import read_report, read_splits
from vidground_hf.judging import AnswerError
from vidground_hf.ladder import Ladder, RightInEveryOrder, label_rows
from vidground_hf.ladder_checks import measure_kept, measure_wrong_videos
from vidground_hf.ladder_curation import climb
from vidground_hf.ladder_pages import format_ladder, render_ladder_html
from vidground_hf.ladder_report import compare_needs
from vidground_hf.loading import DataError
from vidground_hf.media import FrameBudget
from vidground_hf.prompts import Prompt
from vidground_hf.publishing import write_dataset
from vidground_hf.schema import LADDER_VIEWS, LETTERS, Example
from vidground_hf.toy import make_toy_set


@pytest.fixture(autouse=True)
def _clips_that_are_only_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """No clip here is a file, and answers about what cannot be read are not kept."""
    monkeypatch.setattr(
        "vidground_hf.cache.identify_frames",
        lambda request, _: {"content": request.source, "shown": request.arrange(32)},
    )


NEEDED = ("options", "text", "subtitles", "one_frame", "unordered_frames", "video", "unanswered")


@dataclass
class SeeingModel(SimulatedModel):
    """Answers a question from the view on that it needs, and guesses afresh below it.

    Attributes:
        needs (`Mapping[str, str]`): by row id.
        gold (`Mapping[str, str]`): the answer to each row, in the words of the option.
        takes_frames (`bool`): whether it may be shown pixels.
        states_probabilities (`bool`): whether it says how sure it is: 0.97 where it knows, 0.4 where it guesses.
    """

    needs: Mapping[str, str] = field(default_factory=dict)
    gold: Mapping[str, str] = field(default_factory=dict)
    takes_frames: bool = True
    states_probabilities: bool = False

    @property
    def visual_sampling(self) -> dict[str, Any]:
        return {"frames_as": "images"}

    def _answer(self, prompt: Prompt) -> Answer:
        need = self.needs[prompt.example_id]
        level = 1 if prompt.view == "wrong_video" else LADDER_VIEWS.index(prompt.view)
        knows = level >= NEEDED.index(need)
        guess = int(draw(self.name, prompt.view, prompt.text, prompt.trial_index) * len(prompt.options))
        choice = prompt.options.index(self.gold[prompt.example_id]) if knows else guess
        num_frames = None if prompt.frames is None else 1 if prompt.view == "single_frame" else 4
        logprobs = None
        if self.states_probabilities:
            own = 0.97 if knows else 0.4
            rest = (1 - own) / (len(prompt.options) - 1)
            logprobs = tuple(math.log(own if k == choice else rest) for k in range(len(prompt.options)))
        return Answer(text=LETTERS[choice], option_logprobs=logprobs, num_frames=num_frames)


@pytest.fixture(autouse=True)
def clips_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in reads no clip, and none is made."""
    monkeypatch.setattr("vidground_hf.ladder_curation.list_missing_files", lambda examples: {})


def make_rows(
    number: int = 70, *, num_options: int = 4, with_subtitles: bool = True, needs: tuple[str, ...] = NEEDED
) -> list[dict[str, Any]]:
    return [
        {
            "id": f"q{index}",
            "video": f"clip_{index // 2}.mp4",
            "question": f"question {index}",
            "options": [f"thing {index}-{k}" for k in range(num_options)],
            "answer": LETTERS[int(draw("gold", index) * num_options)],
            "subtitles": f"words {index}" if with_subtitles else None,
            "category": ("count", "order")[index % 2],
            "planted": needs[index % len(needs)],
        }
        for index in range(number)
    ]


def make_model(rows: list[dict[str, Any]], **settings: Any) -> SeeingModel:
    gold = {row["id"]: row["options"][LETTERS.index(row["answer"])] for row in rows}
    return SeeingModel({}, needs={row["id"]: row["planted"] for row in rows}, gold=gold, **settings)


def make_examples(rows: list[dict[str, Any]], **fields: Any) -> list[Example]:
    return [
        Example(
            id=row["id"],
            question=row["question"],
            problem_type="multiple_choice",
            options=tuple(row["options"]),
            answer_index=LETTERS.index(row["answer"]),
            video=row["video"],
            subtitles=row["subtitles"],
            **fields,
        )
        for row in rows
    ]


def make_keys(examples: list[Example]) -> list[bytes]:
    return [str(index).encode() for index in range(len(examples))]


def test_circular_gives_every_question_its_planted_label() -> None:
    rows = make_rows(70)
    done = climb(Dataset.from_list(rows), make_model(rows, name="luckless"), rule="circular")
    assert list(done.rows["needs"]) == [row["planted"] for row in rows]
    assert list(done.rows["needs_reason"]) == [None] * 70
    blind = {"options", "text", "subtitles"}
    assert list(done.rows["is_visually_grounded"]) == [row["planted"] not in blind for row in rows]
    assert done.report["needs"] == dict.fromkeys(NEEDED, 10)
    assert done.report["num_undecided"] == 0
    assert [rung["num_rows"] for rung in done.report["rungs"]] == [70, 60, 50, 40, 30, 20]
    assert [rung["num_answered"] for rung in done.report["rungs"]] == [10] * 6
    assert done.report["groups"]["category"]["count"]["needs"] == dict.fromkeys(NEEDED, 5)


def test_calibrated_gives_nearly_every_question_its_planted_label() -> None:
    rows = make_rows(700)
    done = climb(Dataset.from_list(rows), make_model(rows, states_probabilities=True), num_control_rows=0)
    right = sum(need == row["planted"] for need, row in zip(done.rows["needs"], rows, strict=True))
    too_low = sum(
        NEEDED.index(need) < NEEDED.index(row["planted"]) for need, row in zip(done.rows["needs"], rows, strict=True)
    )
    assert (right, too_low) == (690, 10)


def test_a_view_that_calibrated_cannot_cut_answers_nothing_and_says_why() -> None:
    rows = make_rows(40, needs=("unanswered",))
    done = climb(Dataset.from_list(rows), make_model(rows), views=["text"])
    (rung,) = done.report["rungs"]
    assert (rung["num_answered"], rung["threshold"]) == (0, None)
    share = f"{100 * min(rung['smallest_error'], 1.0):.1f} %"
    assert f"   luck is never under {share}\n" in format_ladder(done.report)


def test_what_is_right_under_every_order_but_unsure_gets_no_label_of_a_higher_view() -> None:
    rows = make_rows(100, needs=("text", *["video"] * 19))
    examples = make_examples(rows)
    model = make_model(rows, name="luckless")
    labels = label_rows(Ladder(answerer=model, views=["text", "video"]), examples, make_keys(examples))
    # Five rows are too few to be told from luck: a third of a lucky one is expected among them at least.
    assert [index for index, reason in enumerate(labels.reasons) if reason == "right_but_unsure"] == [
        0,
        20,
        40,
        60,
        80,
    ]
    assert labels.rungs[0].num_undecided == 5
    assert labels.needs.count("video") == len(labels.rungs[1].rows) == 95


def test_two_orders_are_too_few_to_be_torn() -> None:
    rows = make_rows(20, num_options=2, needs=("video",))
    examples = make_examples(rows)
    labels = label_rows(Ladder(answerer=make_model(rows), views=["text"]), examples, make_keys(examples))
    assert set(labels.needs) == {"unanswered"}


def test_a_row_is_asked_no_further_than_the_view_that_answers_it() -> None:
    rows = make_rows(70)
    model = make_model(rows, name="luckless")
    label_rows(Ladder(answerer=model, rule="circular"), make_examples(rows), make_keys(make_examples(rows)))
    for row in rows:
        views = [prompt.view for prompt in model.asked if prompt.example_id == row["id"]]
        highest = min(NEEDED.index(row["planted"]), 5)
        assert set(views) == set(LADDER_VIEWS[: highest + 1])
        assert views == sorted(views, key=LADDER_VIEWS.index)
        if row["planted"] != "unanswered":
            assert views.count(LADDER_VIEWS[highest]) == 4


def test_luck_stays_under_the_bound_where_a_single_try_would_mislabel_most() -> None:
    rows = make_rows(600, needs=("video",))
    examples = make_examples(rows)
    keys = make_keys(examples)
    labels = label_rows(Ladder(answerer=make_model(rows), rule="circular"), examples, keys)
    assert Counter(labels.needs)["video"] >= 570
    firsts: Counter[str] = Counter()
    for rung in labels.rungs[:-1]:
        for index, trials in zip(rung.rows, rung.trials, strict=True):
            firsts[examples[index].id] += bool(trials[0].is_right)
    assert sum(count > 0 for count in firsts.values()) > 400
    stated = make_model(rows, states_probabilities=True, name="stated")
    assert Counter(label_rows(Ladder(answerer=stated), examples, keys).needs)["video"] >= 570


@pytest.mark.parametrize(("num_options", "num_orders"), [(1, 1), (2, 7), (3, 5), (4, 4), (5, 5), (10, 10), (26, 26)])
def test_circular_asks_every_rotation_and_more_where_these_leave_too_much_to_luck(
    num_options: int, num_orders: int
) -> None:
    rule = RightInEveryOrder(0.05 / 6)
    assert rule.count_trials(num_options) == num_orders
    assert num_options == 1 or num_options**-num_orders <= 0.05 / 6


def test_two_options_have_too_few_orders_unless_the_model_samples() -> None:
    rows = make_rows(14, num_options=2)
    examples = make_examples(rows)
    cold = make_model(rows)
    labels = label_rows(Ladder(answerer=cold, rule="circular"), examples, make_keys(examples))
    assert labels.needs == [None] * 14
    assert set(labels.reasons) == {"too_few_orders"}
    assert labels.grounded == [None] * 14
    assert cold.asked == []
    warm = make_model(rows, temperature=1.0)
    labels = label_rows(Ladder(answerer=warm, rule="circular"), examples, make_keys(examples))
    assert labels.needs[0] == "options"
    assert sum(prompt.example_id == "q0" for prompt in warm.asked) == 7


def test_three_options_are_asked_in_orders_that_all_differ() -> None:
    rows = make_rows(7, num_options=3)
    examples = make_examples(rows)
    model = make_model(rows)
    label_rows(Ladder(answerer=model, rule="circular"), examples, make_keys(examples))
    asked = [prompt.order for prompt in model.asked if prompt.example_id == "q0"]
    assert len(asked) == len(set(asked)) == 5


def test_options_that_hold_the_gold_twice_leave_too_much_to_luck() -> None:
    row = {**make_rows(1)[0], "options": ["red", "red", "blue", "green"], "answer": "A"}
    examples = make_examples([row])
    labels = label_rows(Ladder(answerer=make_model([row]), rule="circular"), examples, make_keys(examples))
    assert labels.reasons == ["too_few_orders"]


def test_a_view_that_a_row_lacks_is_skipped_and_counted() -> None:
    rows = make_rows(70, with_subtitles=False)
    rows[3]["video"] = rows[6]["video"] = None
    examples = make_examples(rows)
    model = make_model(rows, name="luckless")
    labels = label_rows(Ladder(answerer=model, rule="circular"), examples, make_keys(examples))
    assert [rung.num_skipped for rung in labels.rungs] == [0, 0, 50, 2, 2, 2]
    assert [len(rung.rows) for rung in labels.rungs] == [70, 60, 0, 48, 29, 19]
    assert labels.needs[2] == "one_frame"  # it needs subtitles, which it has not got, and the next view tells as much
    assert labels.needs[3] == "unanswered"
    only = label_rows(Ladder(answerer=model, rule="circular", views=["video"]), examples, make_keys(examples))
    assert (only.needs[3], only.reasons[3], only.grounded[3]) == (None, "no_video", None)
    assert (only.needs[5], only.grounded[5]) == ("video", None)


def test_rows_that_cannot_be_judged_are_not_asked_about() -> None:
    rows = make_rows(7)
    examples = make_examples(rows[:6]) + make_examples(rows[6:], defect="no_gold")
    examples.append(Example(id="q0", question="how many?", problem_type="numerical", answer="3"))
    model = make_model(rows)
    labels = label_rows(Ladder(answerer=model, rule="circular"), examples, make_keys(examples))
    assert (labels.needs[6:], labels.reasons[6:]) == ([None, None], ["no_gold", "no_options"])
    assert "how many?" not in {prompt.question for prompt in model.asked}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"rule": "single_shot"},
            "got rule 'single_shot'; the ladder allows 'calibrated' and 'circular', which bound",
        ),
        ({"rule": "majority"}, "68 % are right by luck in one of four tries, one a view: 1 - (3/4)^4"),
        ({"rule": "at_most(2)"}, "got rule 'at_most(2)'"),
        ({"alpha": 0.0}, "alpha = 0.0 is out of range; the ladder allows (0, 1)"),
        ({"views": ["text", "wrong_video"]}, "got views ['text', 'wrong_video']; allowed are one or more of options_"),
        ({"views": []}, "got views []; allowed"),
        ({"num_tries": 0}, "num_tries = 0 is out of range; it is at least 1"),
        ({"answerer": TextBiasProbe()}, "the probe answers once, from text alone; the ladder asks a model"),
        ({"answerer": ConstantAnswerer("A")}, "view = 'single_frame' shows frames, and constant:A reads text only"),
    ],
)
def test_what_could_not_be_climbed_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Ladder(**{"answerer": SeeingModel({}), **settings})


def test_views_are_climbed_in_the_order_of_their_evidence() -> None:
    ladder = Ladder(answerer=SeeingModel({}), views=["video", "text"])
    assert ladder.views == ("text", "video")


def test_what_failed_is_told_when_all_others_are_labelled() -> None:
    rows = make_rows(70)
    model = make_model(
        rows, name="luckless", fails=lambda prompt: prompt.example_id == "q5" and prompt.view == "video"
    )
    with pytest.raises(AnswerError, match=re.escape("1 of 70 questions lack an answer, the first because: timed out")):
        climb(Dataset.from_list(rows), model, rule="circular", num_control_rows=0)
    num_asked = len(model.asked)
    with pytest.warns(UserWarning, match=re.escape("1 of 70 questions lack an answer")):
        done = climb(Dataset.from_list(rows), model, rule="circular", num_control_rows=0, on_error="undecided")
    assert sum(prompt.view == "video" for prompt in model.asked[num_asked:]) == 1
    assert (done.rows[5]["needs"], done.rows[5]["needs_reason"]) == (None, "no_answer")
    assert done.rows[5]["is_visually_grounded"] is None
    assert [row["needs"] for row in done.rows if row["id"] != "q5"] == [r["planted"] for r in rows if r["id"] != "q5"]
    assert done.report["reasons"] == {"no_answer": 1}


def test_every_row_is_in_one_split_of_a_folder_that_opens(tmp_path: Path) -> None:
    rows = make_rows(70)
    rows[9]["answer"] = "Z"
    data = Dataset.from_list(rows)
    model = make_model([row for row in rows if row["answer"] != "Z"], name="luckless")
    done = climb(data, model, rule="circular", keep=["video", "unordered_frames"])
    opened = load_dataset(str(done.save(tmp_path / "out")))
    assert {name: len(part) for name, part in opened.items()} == {
        "grounded": 20, "text_answerable": 29, "not_kept": 20, "undecided": 1,
    }  # fmt: skip
    assert sorted(row["id"] for part in opened.values() for row in part) == sorted(row["id"] for row in rows)
    assert set(opened["not_kept"]["needs"]) == {"one_frame", "unanswered"}
    assert set(opened["text_answerable"]["needs"]) == {"options", "text", "subtitles"}
    assert opened["undecided"][0]["needs_reason"] == "gold_not_among_options"
    assert opened["grounded"].column_names == [*data.column_names, "needs", "needs_reason", "is_visually_grounded"]
    report = json.loads((tmp_path / "out" / "report.json").read_text(encoding="utf-8"))
    assert [report[f"num_{name}"] for name in opened] == [20, 29, 20, 1]
    assert report["keep"] == ["video", "unordered_frames"]
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "| `not_kept` | 20 | judged, and not among what was to be kept |" in card
    assert "Kept are questions that need video, unordered frames." in card


def test_a_folder_split_by_need_can_be_pushed(tmp_path: Path) -> None:
    rows = make_rows(70)
    done = climb(Dataset.from_list(rows), make_model(rows, name="luckless"), rule="circular", keep=["video"])
    saved = done.save(tmp_path / "saved")
    write_dataset(read_splits(saved), read_report(saved), tmp_path / "pushed", "me/set", ids_only=None)
    assert {name: len(part) for name, part in load_dataset(str(tmp_path / "pushed")).items()} == {
        "grounded": 10, "text_answerable": 30, "not_kept": 30,
    }  # fmt: skip


def test_clips_that_are_not_there_are_told_before_anything_is_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidground_hf.ladder_curation.list_missing_files", list_missing_files)
    rows = make_rows(6)
    model = make_model(rows)
    data, root = Dataset.from_list(rows), str(tmp_path)
    with pytest.raises(
        AnswerError, match=re.escape(f"6 of 6 questions have no clip: no file {tmp_path}/clip_0.mp4; ")
    ):
        climb(data, model, media_root=root)
    assert model.asked == []
    assert climb(data, model, media_root=root, views=["text"]).report["num_rows"] == 6
    assert climb(data, model, media_root=root, on_error="undecided").report["num_rows"] == 6


def test_checks_say_how_many_answers_they_lack() -> None:
    rows = make_rows(20)
    report = climb(Dataset.from_list(rows), make_model(rows)).report
    report["wrong_video"]["wrong_video"] |= {"num_unscored": 3}
    printed, page = format_ladder(report), render_ladder_html(report, b"")
    assert re.search(r"another row's clip .*\]   3 left out\n", printed)
    assert printed.count("left out") == page.count("are left out.") == 1
    assert "3 without an answer are left out." in page


def test_ids_of_a_folder_split_by_need_are_refused(tmp_path: Path) -> None:
    rows = make_rows(70)
    done = climb(Dataset.from_list(rows), make_model(rows, name="luckless"), rule="circular", keep=["video"])
    saved = done.save(tmp_path / "saved")
    with pytest.raises(
        DataError, match=re.escape("as ids alone yet, and their texts are not to be pushed (asked for)")
    ):
        write_dataset(read_splits(saved), read_report(saved), tmp_path / "pushed", "me/set", ids_only="asked for")


def test_verdicts_are_read_from_a_folder_split_by_need(tmp_path: Path) -> None:
    rows = make_rows(70)
    data = Dataset.from_list([{**row, "needs": "of its own"} for row in rows])
    done = climb(data, make_model(rows, name="luckless"), rule="circular")
    stored = read_verdicts(done.save(tmp_path / "saved"), data)
    assert stored.num_unmatched == 0
    assert stored.is_visually_grounded == list(done.rows["is_visually_grounded"])


def test_a_column_of_the_same_name_is_kept_and_compared() -> None:
    planted = {"options": "text", "text": "text", "one_frame": "single_frame", "unordered_frames": "video",
               "video": "order"}  # fmt: skip
    rows = make_rows(50, needs=tuple(planted))
    data = Dataset.from_list([{**row, "needs": planted[row["planted"]]} for row in rows])
    first = climb(data, make_model(rows, name="luckless"), rule="circular")
    assert list(first.rows["needs_original"]) == list(data["needs"])
    assert first.report["planted"]["recovered"] == 0.98
    assert first.report["planted"]["too_little"] == 0.02
    assert first.report["planted"]["confusion"]["text"]["options"] == 10
    assert first.report["planted"]["num_answered"] == 50
    again = climb(first.rows, make_model(rows, name="luckless"), rule="circular")
    assert again.rows.column_names.count("needs_original") == 1
    assert list(again.rows["needs"]) == list(first.rows["needs"])


def test_labels_are_compared_with_what_was_planted() -> None:
    found = ["options", "text", "text", "unordered_frames", "unanswered", None]
    planted = ["text", "text", "single_frame", "single_frame", "order", "video"]
    compared = compare_needs(found, planted)
    assert (compared["num_answered"], compared["recovered"], compared["too_little"]) == (4, 0.5, 0.25)
    assert compared["confusion"]["video"]["undecided"] == 1
    assert compare_needs([None], ["text"])["recovered"] is None


def test_a_second_run_asks_nothing_and_writes_the_same_bytes(tmp_path: Path) -> None:
    rows = make_rows(70)
    data = Dataset.from_list(rows)
    first = climb(data, make_model(rows), rule="circular", keep=["video"])
    model = make_model(rows)
    second = climb(data, model, rule="circular", keep=["video"])
    assert model.asked == []
    assert second.calls["cached"] == first.calls["asked"] + first.calls["cached"] > 0
    folders = [done.save(tmp_path / name) for done, name in ((first, "a"), (second, "b"))]
    names = sorted(path.relative_to(folders[0]) for path in folders[0].rglob("*") if path.is_file())
    assert [str(name) for name in names] == [
        "README.md", "data/grounded-00000-of-00001.parquet", "data/not_kept-00000-of-00001.parquet",
        "data/text_answerable-00000-of-00001.parquet", "figures/needs.png", "report.html", "report.json",
    ]  # fmt: skip
    assert [(folders[0] / name).read_bytes() for name in names] == [(folders[1] / name).read_bytes() for name in names]
    labels = [done.save_labels(tmp_path / f"{name}l") for done, name in ((first, "a"), (second, "b"))]
    assert (labels[0] / "labels.jsonl").read_bytes() == (labels[1] / "labels.jsonl").read_bytes()
    line = json.loads((labels[0] / "labels.jsonl").read_text(encoding="utf-8").splitlines()[5])
    assert line == {"row": 5, "needs": "video", "needs_reason": None, "is_visually_grounded": True}


def test_a_wrong_clip_is_worth_no_more_than_text() -> None:
    rows = make_rows(140)
    examples = make_examples(rows)
    measured = measure_wrong_videos(Ladder(answerer=make_model(rows)), examples, 70)
    assert measured is not None
    assert measured["num_rows"] == 70
    assert measured["video"]["value"] > 0.85
    assert abs(measured["wrong_video"]["value"] - measured["text"]["value"]) < 0.1
    assert measured["chance"] == 0.25
    assert measure_wrong_videos(Ladder(answerer=make_model(rows)), examples, 0) is None
    assert measure_wrong_videos(Ladder(answerer=make_model(rows)), examples[:2], 9) is None  # they share a clip
    assert measure_wrong_videos(Ladder(answerer=make_model(rows), views=["text"]), examples, 9) is None


def test_what_is_kept_is_asked_blind_in_an_order_that_the_rule_did_not_read() -> None:
    rows = make_rows(280)
    examples = make_examples(rows)
    model = make_model(rows)
    kept = [index for index, row in enumerate(rows) if NEEDED.index(row["planted"]) > 2]
    measured = measure_kept(Ladder(answerer=model, rule="circular"), examples, kept)
    assert measured is not None
    assert (measured["num_rows"], measured["num_without_order"], measured["chance"]) == (160, 0, 0.25)
    assert measured["accuracy"]["low"] <= 0.25 <= measured["accuracy"]["high"]
    assert {prompt.view for prompt in model.asked} == {"subtitles"}
    rotations = {tuple((first + k) % 4 for k in range(4)) for first in range(4)}
    assert not rotations & {prompt.order for prompt in model.asked}
    few = make_rows(4, num_options=2)
    none = measure_kept(Ladder(answerer=make_model(few)), make_examples(few), [0, 1])
    assert none is not None
    assert (none["num_rows"], none["num_without_order"], none["accuracy"]["value"]) == (0, 2, None)
    assert measure_kept(Ladder(answerer=model), examples, []) is None


def test_the_surest_of_several_frames_counts(tmp_path: Path) -> None:
    make_toy_set(tmp_path, num_questions=2, num_clips=1)
    video = str(next((tmp_path / "videos").iterdir()))
    rows = [{**row, "video": video} for row in make_rows(7, needs=("one_frame",))]

    class Focused(SeeingModel):
        def _answer(self, prompt: Prompt) -> Answer:
            answer = super()._answer(prompt)
            if prompt.frames is None or prompt.frames.pick == (1, 3):
                return answer
            return Answer(text="A", option_logprobs=(math.log(0.4), *[math.log(0.2)] * 3), num_frames=1)

    seen = make_model(rows, states_probabilities=True)
    model = Focused({}, needs=seen.needs, gold=seen.gold, states_probabilities=True)
    examples = make_examples(rows)
    one = Ladder(answerer=model, rule="circular", views=["single_frame"], budget=FrameBudget(num_frames=6))
    assert label_rows(replace(one, num_tries=3), examples, make_keys(examples)).needs == ["one_frame"] * 7
    picks = Counter(prompt.frames.pick for prompt in model.asked if prompt.frames is not None)
    assert picks == {(0, 3): 28, (1, 3): 28, (2, 3): 28}
    assert label_rows(replace(one, num_tries=2), examples, make_keys(examples)).needs == ["unanswered"] * 7


def test_a_ladder_without_pixels_takes_any_model() -> None:
    rows = make_rows(21, needs=("options", "text", "subtitles"))
    model = make_model(rows, takes_frames=False, name="luckless")
    done = climb(Dataset.from_list(rows), model, rule="circular", views=["options_only", "text", "subtitles"])
    assert list(done.rows["needs"]) == [row["planted"] for row in rows]
    assert done.report["wrong_video"] is None
    assert done.report["kept_blind"] is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"keep": ["video", "text"]},
            "got keep ['video', 'text']; allowed are one or more of one_frame, unordered_fra",
        ),
        ({"keep": []}, "got keep []"),
        ({"on_error": "skip"}, "on_error = 'skip' is unknown; allowed are 'raise' and 'undecided'"),
    ],
)
def test_settings_of_a_climb_are_checked(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        climb(Dataset.from_list(make_rows(2)), SeeingModel({}), **settings)


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> SeeingModel:
    made = make_model(make_rows(70), name="luckless")
    monkeypatch.setattr("vidground_hf.answerers.load_answerers", lambda *_, **__: [made])
    return made


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "set" / "questions.jsonl"
    path.parent.mkdir()
    path.write_text("".join(json.dumps(row) + "\n" for row in make_rows(70)), encoding="utf-8")
    return path


def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: Any) -> tuple[int, str, str]:
    monkeypatch.setattr(sys, "argv", ["vidground", *map(str, arguments)])
    with pytest.raises(SystemExit) as stopped:
        main()
    captured = capsys.readouterr()
    return int(stopped.value.code or 0), captured.out, captured.err


TABLE = """\
70 questions, asked of luckless, rule circular, alpha 0.05

  needs                  rows    share
  options                  10   14.3 %
  text                     10   14.3 %
  subtitles                10   14.3 %
  one_frame                10   14.3 %
  unordered_frames         10   14.3 %
  video                    10   14.3 %
  unanswered               10   14.3 %
  undecided                 0    0.0 %

  category           rows   options      text subtitles one_frame unordered     video      none undecided
  count                35    14.3 %    14.3 %    14.3 %    14.3 %    14.3 %    14.3 %    14.3 %     0.0 %
  order                35    14.3 %    14.3 %    14.3 %    14.3 %    14.3 %    14.3 %    14.3 %     0.0 %
"""


def test_audit_prints_the_shares_of_each_category(
    questions: Path, model: SeeingModel, capsys: Any, monkeypatch: Any
) -> None:
    status, out, err = run(capsys, monkeypatch, "audit", questions, "--ladder", "--rule", "circular", "--frames", 8)
    assert status == 0
    assert out.startswith(TABLE)
    assert "  video                 20        10        0       " in out
    assert re.search(r"answers: [\d,]+ asked, \d+ cached, 0 failed, [\d,]+ saved", err)
    shown = [prompt.frames for prompt in model.asked if prompt.frames is not None]
    assert {frames.budget.num_frames for frames in shown} == {8}
    assert shown[0].source.startswith(str(questions.parent))


def test_audit_writes_a_label_for_each_row(
    questions: Path, model: SeeingModel, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    out = tmp_path / "out"
    arguments = ["audit", questions.parent, "--ladder", "--rule", "circular", "--output", out, "--json"]
    status, printed, _ = run(capsys, monkeypatch, *arguments)
    assert status == 0
    report = json.loads(printed)
    assert report == json.loads((out / "report.json").read_text(encoding="utf-8"))
    assert (report["decoder"], "transformers" in report["versions"]) == ("pyav", True)
    assert report["answerers"][0]["visual"] == {"frames_as": "images"}
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md", "figures", "labels.jsonl", "report.html", "report.json",
    ]  # fmt: skip
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "unordered frames" in page
    assert "data:image/png;base64," in page
    lines = (out / "labels.jsonl").read_text(encoding="utf-8").splitlines()
    assert [json.loads(line)["needs"] for line in lines] == [row["planted"] for row in make_rows(70)]


def test_curate_keeps_by_need(
    questions: Path, model: SeeingModel, tmp_path: Path, capsys: Any, monkeypatch: Any
) -> None:
    out = tmp_path / "out"
    arguments = ["curate", questions, "--ladder", "--rule", "circular", "--keep", "video,unordered_frames"]
    status, printed, _ = run(capsys, monkeypatch, *arguments, "--output", out, "--control", 0)
    assert status == 0
    assert printed.endswith(f"report: {out / 'report.html'}\n")
    assert set(load_dataset(str(out))["grounded"]["needs"]) == {"video", "unordered_frames"}
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["command"] == (
        "vidground curate set/questions.jsonl --rule circular --ladder --control 0 --keep video,unordered_frames "
        "--output OUT"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--frames", "8"], "--frames goes with --ladder"),
        (["--control", "8"], "--control goes with --ladder"),
        (["--frames-as", "video"], "--frames-as goes with --ladder"),
        (["--ladder", "--answerer", "constant:A", "--frames-as", "video"], "frames_as does nothing for constant:A"),
        (["--ladder", "--view", "subtitles"], "--view does not go with --ladder"),
        (["--ladder", "--samples", "2"], "--samples does not go with --ladder"),
        (["--ladder", "--dry-run"], "--dry-run does not go with --ladder"),
        (["--ladder"], "--ladder asks a model through several views; name it, --answerer transformers:MODEL"),
        (["--ladder", "--answerer", "constant:A"], "view = 'single_frame' shows frames, and constant:A reads text"),
        (["--ladder", "--answerer", "constant:A", "--answerer", "constant:B"], "--ladder asks one model, got 2"),
        (
            ["--ladder", "--answerer", "constant:A", "--rule", "single_shot"],
            "error: got rule 'single_shot'; the ladder",
        ),
        (["--ladder", "--answerer", "constant:A", "--views", "text,sound"], "got views ['text', 'sound']"),
        (["--ladder", "--answerer", "constant:A", "--backend", "vlc"], "backend = 'vlc' is not known; pass one of"),
        (["--ladder", "--answerer", "constant:A", "--frames", "8", "--fps", "1"], "are both given; pass one of them"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], message: str, questions: Path, capsys: Any, monkeypatch: Any
) -> None:
    status, out, err = run(capsys, monkeypatch, "audit", questions, *arguments)
    assert (status, out) == (2, "")
    assert message in err
