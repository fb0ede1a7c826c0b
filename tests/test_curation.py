from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import datasets
import pytest
from datasets import Dataset, DatasetDict, Video, load_dataset

from tests.models import SimulatedModel
from tests.questions import make_dataset, make_rows
from vidground_hf.answerers import ConstantAnswerer, TextBiasProbe
from vidground_hf.curation import Curation, curate
from vidground_hf.filtering import GroundFilter
from vidground_hf.folders import write_shards, write_whole
from vidground_hf.loading import DataError
from vidground_hf.rows import ADDED_FEATURES
from vidground_hf.rules import majority, single_shot
from vidground_hf.schema import Verdict
from vidground_hf.set_rules import calibrated
from vidground_hf.tables import format_table

# The keys that the design promises, and no fewer.
PROMISED = {
    "num_rows", "num_grounded", "num_text_answerable", "num_undecided", "num_unscored", "share_grounded",
    "blind_accuracy", "chance", "floors", "expected_lucky_drops", "expected_missed", "groups", "label_invariance",
    "heldout_blind_accuracy", "random_removal_control", "answerer", "view", "rule", "seed", "source", "versions",
    "seconds",
}  # fmt: skip


@pytest.fixture(scope="module")
def dirty() -> Dataset:
    rows = make_rows(160)
    rows[3]["answer"] = "E"
    rows[4]["answer"] = None
    rows[5]["options"] = ["same", "same"]
    rows[5]["answer"] = "A"
    return Dataset.from_list(rows)


@pytest.fixture(scope="module")
def curation(dirty: Dataset) -> Curation:
    return curate(dirty, rule=calibrated(0.1))


def test_every_row_is_in_exactly_one_split_with_its_own_columns(dirty: Dataset, curation: Curation) -> None:
    ids = [row["id"] for rows in curation.splits.values() for row in rows]
    assert sorted(ids) == sorted(dirty["id"])
    by_id = {row["id"]: row for row in dirty}
    for rows in curation.splits.values():
        assert rows.column_names == dirty.column_names + list(ADDED_FEATURES)
        for row in rows.select_columns(dirty.column_names):
            assert row == by_id[row["id"]]


def test_splits_follow_the_verdict_and_undecided_rows_say_why(curation: Curation) -> None:
    verdicts = {name: set(rows["is_visually_grounded"]) for name, rows in curation.splits.items()}
    assert verdicts == {"grounded": {True}, "text_answerable": {False}, "undecided": {None}}
    undecided = {row["id"]: row["drop_reason"] for row in curation.splits["undecided"]}
    assert undecided == {"q3": "gold_not_among_options", "q4": "no_gold", "q5": "no_decoys"}


def test_the_report_adds_up(curation: Curation) -> None:
    report = curation.report
    assert set(report) >= PROMISED
    assert {name: len(rows) for name, rows in curation.splits.items()} == {
        name: report[f"num_{name}"] for name in curation.splits
    }
    assert report["num_rows"] == 160
    assert report["num_unscored"] == 2
    assert report["share_grounded"] == report["num_grounded"] / 160
    assert report["single_shot"]["num_drops"] == sum(
        row["blind_scores"] == [1.0] and row["drop_reason"] != "no_decoys"
        for rows in curation.splits.values()
        for row in rows
    )
    assert sum(count for reasons in report["reasons"].values() for count in reasons.values()) == 160
    assert report["label_invariance"] == 1.0
    assert report["flags"]["gold_twice"] == 1
    assert report["source"]["fingerprint"]
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_what_is_kept_is_measured_again_and_beside_random_removal(curation: Curation) -> None:
    report = curation.report
    kept, random = report["heldout_blind_accuracy"], report["random_removal_control"]
    assert kept["high"] < random["low"]
    assert report["chance"] == pytest.approx((157 * 0.25 + 1) / 158)  # one row has two equal options
    assert kept["value"] < 0.45 < random["value"]


@pytest.mark.parametrize("shares", [(0, 1), (1, 2), (2, 3)])
def test_the_folder_opens_with_load_dataset_with_one_two_and_three_splits(
    tmp_path: Path, shares: tuple[int, int]
) -> None:
    verdicts = [Verdict(True, "kept"), Verdict(False, "dropped"), Verdict(None, "unknown")][: shares[1]]
    state = {"next": 0}

    def take_turns(trials: Any) -> Verdict:
        state["next"] += 1
        return verdicts[state["next"] % len(verdicts)]

    made = curate(make_dataset(30), answerer=ConstantAnswerer("A"), rule=take_turns)
    folder = made.save(tmp_path / "out")
    opened = load_dataset(str(folder))
    names = ["grounded", "text_answerable", "undecided"][: shares[1]]
    assert list(opened) == names
    for name in names:
        assert opened[name].to_list() == made.splits[name].to_list()
        assert opened[name].features == made.splits[name].features
    report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert report == made.report
    assert [report[f"num_{name}"] for name in ("grounded", "text_answerable", "undecided")] == [
        len(opened[name]) if name in opened else 0 for name in ("grounded", "text_answerable", "undecided")
    ]


def test_the_folder_holds_card_page_and_figures(tmp_path: Path, curation: Curation) -> None:
    folder = curation.save(tmp_path / "out")
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert card.startswith("---\n")
    for figure in (folder / "figures").iterdir():
        assert f"figures/{figure.name}" in card
        assert figure.read_bytes().startswith(b"\x89PNG")
    assert "<script" not in (folder / "report.html").read_text(encoding="utf-8")


def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, dirty: Dataset, curation: Curation) -> None:
    again = curate(dirty, rule=calibrated(0.1))
    first, second = curation.save(tmp_path / "one"), again.save(tmp_path / "two")
    for path in sorted((first / "data").iterdir()) + sorted((first / "figures").iterdir()):
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes()
    assert {**again.report, "seconds": 0} == {**curation.report, "seconds": 0}


def test_splits_of_the_input_are_judged_together_and_leaks_reported() -> None:
    rows = make_rows(80)
    twice = {**rows[0], "id": "again"}
    data = DatasetDict(train=Dataset.from_list(rows), test=Dataset.from_list([*make_rows(8, seed=5), twice]))
    report = curate(data).report
    assert report["num_rows"] == 89
    assert report["leaks"] == {"num_questions": 1, "splits": ["test", "train"], "examples": ["q0"]}
    assert report["flags"]["repeated_question"] == 1


def test_a_video_column_survives_with_its_type(tmp_path: Path) -> None:
    data = make_dataset(40).cast_column("video", Video())
    folder = curate(data).save(tmp_path / "out")
    for rows in load_dataset(str(folder)).values():
        assert isinstance(rows.features["video"], Video)
        assert rows.cast_column("video", Video(decode=False))[0]["video"]["path"].startswith("clip_")


def test_shards_are_numbered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vidground_hf.folders._BYTES_PER_SHARD", 4000)
    write_shards(make_dataset(60), tmp_path, "grounded")
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) > 1
    assert names[0] == f"grounded-00000-of-{len(names):05d}.parquet"
    opened = load_dataset("parquet", data_files=[str(tmp_path / name) for name in names], split="train")
    assert opened.to_list() == make_dataset(60).to_list()


def test_an_earlier_result_is_replaced_and_anything_else_is_not(tmp_path: Path, curation: Curation) -> None:
    out = tmp_path / "out"
    curation.save(out)
    (out / "stale.txt").write_text("x", encoding="utf-8")
    curation.save(out)
    assert not (out / "stale.txt").exists()
    other = tmp_path / "photos"
    other.mkdir()
    (other / "cat.jpg").write_text("x", encoding="utf-8")
    with pytest.raises(
        DataError, match=re.escape("photos' holds something else, no earlier result; name another folder")
    ):
        curation.save(other)
    assert [path.name for path in other.iterdir()] == ["cat.jpg"]
    with pytest.raises(DataError, match=re.escape("cat.jpg' is a file; name a folder")):
        curation.save(other / "cat.jpg")


def test_an_interrupted_write_leaves_nothing_that_looks_whole(tmp_path: Path) -> None:
    out = tmp_path / "out"

    def write_half() -> None:
        with write_whole(out) as partial:
            (partial / "report.json").write_text("{}", encoding="utf-8")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_half()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".out.partial").mkdir()  # what a killed run leaves
    (tmp_path / ".out.partial" / "old.txt").write_text("x", encoding="utf-8")
    with write_whole(out) as partial:
        (partial / "report.json").write_text("{}", encoding="utf-8")
    assert [path.name for path in out.iterdir()] == ["report.json"]


def test_a_streamed_set_is_refused_with_the_way_to_do_it() -> None:
    with pytest.raises(
        TypeError, match=re.escape("got IterableDataset; load it without streaming=True, or add the columns")
    ):
        curate(make_dataset(20).to_iterable_dataset())


def test_without_a_probe_what_cannot_be_known_is_none() -> None:
    report = curate(make_dataset(40), answerer=ConstantAnswerer("A"), rule=single_shot()).report
    for key in ("label_invariance", "heldout_blind_accuracy", "random_removal_control", "calibration", "precision"):
        assert report[key] is None, key
    right = [row["answer"] for row in make_rows(40)].count("A")
    assert report["num_text_answerable"] == right
    assert report["expected_lucky_drops"] == pytest.approx((40 - right) / 3)
    assert report["blind_accuracy"]["value"] == right / 40


def test_calibrated_says_when_it_cannot_meet_its_error() -> None:
    report = curate(make_dataset(60, shortcut_share=0.0)).report
    assert report["num_text_answerable"] == 0
    assert report["calibration"]["threshold"] is None
    assert report["calibration"]["note"].startswith("An error of 0.05 cannot be met (the smallest error any threshold")


def test_groups_are_counted_by_type_source_and_category() -> None:
    rows = [
        {**row, "category": "even" if k % 2 == 0 else "odd", "source": "ours"} for k, row in enumerate(make_rows(60))
    ]
    groups = curate(Dataset.from_list(rows)).report["groups"]
    assert {key: {name: part["num_rows"] for name, part in parts.items()} for key, parts in groups.items()} == {
        "problem_type": {"multiple_choice": 60},
        "source": {"ours": 60},
        "category": {"even": 30, "odd": 30},
    }


def test_nothing_of_the_input_is_changed(dirty: Dataset) -> None:
    before = dirty.to_list()
    curate(dirty)
    assert dirty.to_list() == before
    assert datasets.Dataset is type(dirty)


def test_missing_media_are_counted_under_a_media_root(tmp_path: Path) -> None:
    (tmp_path / "clip_0.mp4").write_bytes(b"x")
    assert curate(make_dataset(40), media_root=str(tmp_path)).report["flags"] == {"missing_media": 36}
    assert curate(make_dataset(40)).report["flags"] == {}


def know(rows: Dataset, number: int) -> dict[str, str]:
    return {row["question"]: row["options"]["ABCD".index(row["answer"])] for row in rows.select(range(number))}


def test_a_model_that_knows_half_of_a_set_is_found_out() -> None:
    rows = make_dataset(400)
    curation = curate(rows, answerer=SimulatedModel(know(rows, 200)))
    report = curation.report
    dropped = [int(name.removeprefix("q")) for name in curation.splits["text_answerable"]["id"]]
    assert sum(index < 200 for index in dropped) / len(dropped) >= 0.95
    assert len(dropped) >= 190
    assert report["answerers"] == [
        {"id": "simulated", "device": "none", "blind_accuracy": report["blind_accuracy"]},
    ]
    calls = report["calls"]
    assert sum(calls[name] for name in ("asked", "cached", "failed", "saved")) == 4 * 400
    assert calls["asked"] < 0.9 * 4 * 400
    assert calls["minimum"] == 400 + 3 * len(dropped)
    assert f"answers asked for            {calls['asked']:,} (0 more were known, 0 failed" in format_table(report)
    assert all(len(texts) == 4 for texts in curation.splits["text_answerable"]["blind_answers"])


def test_several_models_are_counted_apart() -> None:
    rows = make_dataset(60)
    models = [SimulatedModel(know(rows, 60), "one"), SimulatedModel(know(rows, 30), "two")]
    report = curate(rows, answerer=models, rule=majority(1.0), samples=3).report
    assert report["answerer"] == "one, two"
    assert report["answerers"][0]["blind_accuracy"]["value"] == 1.0
    assert report["answerers"][1]["id"] == "two"
    assert report["num_text_answerable"] >= 30
    assert "one                          100.0 %" in format_table(report)
    with pytest.raises(ValueError, match=re.escape("got 2 answerers; pass one or more models, or the probe alone")):
        curate(rows, answerer=[models[0], TextBiasProbe()])
    with pytest.raises(ValueError, match=re.escape("samples = 0 is out of range; it is at least 1, or None")):
        curate(rows, answerer=models, samples=0)


def test_a_fitted_filter_asks_about_new_rows_as_far_as_its_rule_needs() -> None:
    rows = make_dataset(400)
    model = SimulatedModel(know(rows, 400))
    fitted = GroundFilter(model).fit(rows.select(range(300)))
    model.asked.clear()
    mapped = rows.map(fitted, batched=True)
    assert set(mapped["is_visually_grounded"][300:]) == {False}
    assert {prompt.example_id for prompt in model.asked} == {f"q{index}" for index in range(300, 400)}
    assert len(model.asked) == 400


def test_a_source_may_be_named_as_its_owner_likes() -> None:
    report = curate(make_dataset(40), source={"id": "my set!/of/rows", "revision": "1a"}).report
    assert (report["source"]["id"], report["license"]) == ("my set!/of/rows", None)


def test_the_folder_one_is_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report.json").write_text("{}", encoding="utf-8")
    (tmp_path / "precious.txt").write_text("x", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match="output is the folder you are in"), write_whole(Path(".")):
        raise AssertionError("nothing may be written")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious.txt", "report.json"]
