from __future__ import annotations

import pickle
import re
from copy import copy
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict, IterableDataset, Video
from datasets.fingerprint import Hasher
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits  # type: ignore[import-untyped]  # comes without types

from tests.questions import LetterAnswerer, make_dataset, make_rows
from vidground_hf.answerers import ConstantAnswerer
from vidground_hf.filtering import GroundFilter
from vidground_hf.judging import AnswerError
from vidground_hf.rows import ADDED_FEATURES
from vidground_hf.rules import bias_at_least, single_shot
from vidground_hf.schema import Verdict
from vidground_hf.set_rules import calibrated, drop_fraction
from vidground_hf.trials import Trial

ADDED = list(ADDED_FEATURES)


def list_added(rows: Dataset) -> list[dict[str, Any]]:
    return rows.select_columns(ADDED).to_list()


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return make_dataset()


@pytest.fixture
def fitted(rows: Dataset) -> GroundFilter:
    return GroundFilter(rule=calibrated(0.1)).fit(rows)


def test_the_shortcut_is_dropped_and_nothing_else(rows: Dataset, fitted: GroundFilter) -> None:
    added = rows.map(fitted, batched=True)
    dropped = [row["needs"] for row in added if row["is_visually_grounded"] is False]
    planted = rows["needs"][:].count("text")
    assert dropped.count("text") >= 0.9 * planted
    assert dropped.count("video") <= 0.15 * len(dropped)
    assert {row["drop_reason"] for row in added} == {None, "right_and_sure"}


@pytest.mark.parametrize(
    "how",
    [
        {"batched": True, "batch_size": 1},
        {"batched": True, "batch_size": 7},
        {"batched": True, "batch_size": 1000},
        {"batched": False},
        {"batched": True, "num_proc": 2},
        {"batched": False, "num_proc": 2},
    ],
    ids=str,
)
def test_map_gives_the_same_columns_however_it_is_called(
    rows: Dataset, fitted: GroundFilter, how: dict[str, Any]
) -> None:
    expected = rows.map(fitted, batched=True, batch_size=50)
    mapped = rows.map(fitted, **how)
    assert mapped.to_list() == expected.to_list()
    assert mapped.features == expected.features
    assert mapped.column_names == rows.column_names + ADDED


@pytest.mark.parametrize(("parent", "expected"), [(None, 2), (object(), 1)], ids=["alone", "in a process of map"])
def test_processes_of_a_map_take_a_core_each(
    parent: object, expected: int, rows: Dataset, fitted: GroundFilter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vidground_hf.filtering.parent_process", lambda: parent)
    with threadpool_limits(2):
        copied = copy(fitted)
        copied._loaded = None
        copied(rows[:2])
        assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {expected}


def test_the_fingerprint_is_one_in_every_process_and_after_use(rows: Dataset, fitted: GroundFilter) -> None:
    before = Hasher.hash(fitted)
    first = rows.map(fitted, batched=True)
    assert Hasher.hash(fitted) == before
    assert rows.map(pickle.loads(pickle.dumps(fitted)), batched=True)._fingerprint == first._fingerprint  # noqa: S301
    assert GroundFilter(rule=calibrated(0.1)).fit(rows).fit_sha256 == fitted.fit_sha256


def test_filters_fitted_on_different_data_have_different_fingerprints(rows: Dataset, fitted: GroundFilter) -> None:
    other = GroundFilter(rule=calibrated(0.1)).fit(make_dataset(seed=1))
    assert Hasher.hash(other) != Hasher.hash(fitted)
    assert rows.map(other, batched=True)._fingerprint != rows.map(fitted, batched=True)._fingerprint


def test_only_configuration_and_the_place_of_the_fit_are_pickled(rows: Dataset, fitted: GroundFilter) -> None:
    rows.map(fitted, batched=True)
    assert len(pickle.dumps(fitted)) < 2000
    assert b"clip_1.mp4" not in pickle.dumps(fitted)


def test_fit_leaves_the_filter_it_was_called_on_as_it_is(rows: Dataset) -> None:
    plain = GroundFilter()
    plain.fit(rows)
    assert plain.fit_path is None
    assert repr(plain).endswith("view=text, not fitted)")


def test_seen_rows_get_the_out_of_fold_answer_and_unseen_ones_the_full_fit(
    rows: Dataset, fitted: GroundFilter
) -> None:
    seen = list_added(rows.map(fitted, batched=True))
    unseen = [{**row, "video": f"other_{row['video']}"} for row in rows]
    mixed = Dataset.from_list([row for pair in zip(rows, unseen, strict=True) for row in pair])
    added = list_added(mixed.map(fitted, batched=True, batch_size=13))
    assert added[::2] == seen
    assert added[1::2] != seen
    scores = [row["bias_score"] for row in added[1::2]]
    text = [score for score, needs in zip(scores, rows["needs"], strict=True) if needs == "text"]
    assert min(text) > 0.5


def test_types_hold_when_the_first_thousand_rows_are_none() -> None:
    blank = {"id": "", "video": None, "question": "who?", "options": ["x", "y"], "answer": None, "needs": "video"}
    data = Dataset.from_list([{**blank, "id": str(k)} for k in range(1001)] + make_rows(80))
    ground_filter = GroundFilter().fit(data)
    for how in ({"batched": True}, {"batched": False}):
        mapped = data.map(ground_filter, **how)
        assert {name: mapped.features[name] for name in ADDED} == dict(ADDED_FEATURES)
        assert mapped["is_visually_grounded"][:1001] == [None] * 1001
        assert set(mapped["drop_reason"][:1001]) == {"no_gold"}
        assert None not in mapped["is_visually_grounded"][1001:]


def test_every_row_may_be_none() -> None:
    data = make_dataset(40).remove_columns("answer").add_column("answer", [""] * 40)
    mapped = data.map(GroundFilter().fit(data), batched=True)
    assert set(mapped["is_visually_grounded"]) == {None}
    assert {name: mapped.features[name] for name in ADDED} == dict(ADDED_FEATURES)


@pytest.mark.parametrize("how", [{"batched": True}, {"batched": False}], ids=str)
def test_a_video_column_whose_files_do_not_exist_is_never_opened(how: dict[str, Any]) -> None:
    data = make_dataset(60).cast_column("video", Video())
    ground_filter = GroundFilter().fit(data)
    mapped = data.map(ground_filter, **how)
    assert isinstance(mapped.features["video"], Video)
    assert mapped.cast_column("video", Video(decode=False))[5]["video"]["path"] == "clip_1.mp4"
    plain = GroundFilter().fit(make_dataset(60))
    assert list_added(mapped) == list_added(make_dataset(60).map(plain, batched=True))


def test_a_streamed_set_gets_the_same_columns(rows: Dataset, fitted: GroundFilter) -> None:
    streamed = rows.to_iterable_dataset(num_shards=3)
    applied = fitted.apply(streamed)
    assert isinstance(applied, IterableDataset)
    assert applied.features == rows.map(fitted, batched=True).features
    expected = rows.map(fitted, batched=True).to_list()
    assert list(applied) == expected
    assert list(streamed.map(fitted, features=fitted.features(streamed))) == expected
    assert GroundFilter(rule=calibrated(0.1)).fit(streamed).fit_sha256 == fitted.fit_sha256


def test_a_stream_without_features_gets_them() -> None:
    streamed = IterableDataset.from_generator(lambda: iter(make_rows(40)))
    applied = GroundFilter().fit(streamed).apply(streamed)
    assert applied.features is not None
    assert [name for name in applied.features if name in ADDED] == ADDED
    assert len(list(applied)) == 40


def test_a_stream_of_videos_is_not_decoded() -> None:
    streamed = make_dataset(40).cast_column("video", Video()).to_iterable_dataset()
    applied = GroundFilter().fit(streamed).apply(streamed)
    assert applied.features == {**streamed.features, **ADDED_FEATURES}
    plain = make_dataset(40).map(GroundFilter().fit(make_dataset(40)), batched=True)
    assert list(applied.select_columns(ADDED)) == list_added(plain)
    paths = [row["video"]["path"] for row in applied.cast_column("video", Video(decode=False))]
    assert paths[:5] == ["clip_0.mp4"] * 4 + ["clip_1.mp4"]


def test_the_splits_of_a_dict_are_fitted_together(rows: Dataset, fitted: GroundFilter) -> None:
    splits = DatasetDict(train=rows.select(range(70)), test=rows.select(range(70, 120)))
    ground_filter = GroundFilter(rule=calibrated(0.1)).fit(splits)
    assert ground_filter.fit_sha256 == fitted.fit_sha256
    applied = ground_filter.apply(splits)
    assert [row for part in applied.values() for row in list_added(part)] == list_added(rows.map(fitted, batched=True))


def test_arrow_formatted_rows_are_taken_as_they_are(rows: Dataset, fitted: GroundFilter) -> None:
    mapped = rows.with_format("arrow").map(fitted, batched=True).with_format(None)
    assert mapped.to_list() == rows.map(fitted, batched=True).to_list()


@pytest.mark.parametrize(
    ("answerer", "rule"),
    [(None, None), (None, single_shot()), (ConstantAnswerer("A"), calibrated()), (None, drop_fraction(0.2))],
)
def test_an_unfitted_filter_names_fit(rows: Dataset, answerer: Any, rule: Any) -> None:
    with pytest.raises(RuntimeError, match=re.escape("call ground_filter = ground_filter.fit(dataset) and map that")):
        rows.map(GroundFilter(answerer, rule), batched=True)


def test_a_rule_that_looks_at_one_row_needs_no_fit(rows: Dataset) -> None:
    mapped = rows.map(GroundFilter(ConstantAnswerer("A"), single_shot()), batched=True, batch_size=11)
    assert mapped["is_visually_grounded"][:] == [answer != "A" for answer in rows["answer"]]
    assert mapped["bias_score"][:] == [None] * 120
    assert mapped.map(GroundFilter(ConstantAnswerer("A"), single_shot())).to_list() == mapped.to_list()


def keep_all(trials: Any) -> Verdict:
    return Verdict(True, "mine")


def test_a_plain_function_is_a_rule(rows: Dataset) -> None:
    ground_filter = GroundFilter(ConstantAnswerer("A"), keep_all)
    assert "keep_all" in repr(ground_filter)
    assert set(rows.map(ground_filter, batched=True)["is_visually_grounded"]) == {True}


def test_a_failed_answer_raises_or_is_undecided() -> None:
    data = Dataset.from_list(
        [{**row, "question": row["question"] + " fail" * (k == 3)} for k, row in enumerate(make_rows(8))]
    )
    message = "1 of 8 questions lack an answer, the first because: timed out. What was answered is kept: run again"
    with pytest.raises(AnswerError, match=re.escape(message)):
        GroundFilter(LetterAnswerer(), single_shot()).fit(data)
    with pytest.raises(AnswerError, match=re.escape(message)):
        data.map(GroundFilter(LetterAnswerer(), single_shot()), batched=True)
    lenient = GroundFilter(LetterAnswerer(), single_shot(), on_error="undecided")
    mapped = data.map(lenient, batched=True)
    assert mapped[3]["drop_reason"] == "no_answer"
    assert [row["is_visually_grounded"] is None for row in mapped] == [k == 3 for k in range(8)]
    assert mapped["blind_answers"][3] == [None]
    assert Hasher.hash(GroundFilter(LetterAnswerer(), single_shot(), on_error="undecided")) != Hasher.hash(lenient)


def test_drop_fraction_drops_what_it_was_asked_for(rows: Dataset) -> None:
    ground_filter = GroundFilter(rule=drop_fraction(0.25)).fit(rows)
    mapped = rows.map(ground_filter, batched=True)
    dropped = [row["needs"] for row in mapped if row["is_visually_grounded"] is False]
    assert len(dropped) == 30
    assert dropped.count("text") >= 29
    with pytest.raises(ValueError, match=re.escape("it goes with the probe alone")):
        GroundFilter(ConstantAnswerer("A"), drop_fraction(0.25)).fit(rows)


def test_bias_at_least_compares_the_stored_score(rows: Dataset) -> None:
    mapped = rows.map(GroundFilter(rule=bias_at_least(0.4)).fit(rows), batched=True)
    assert all(row["is_visually_grounded"] == (row["bias_score"] < 0.4) for row in mapped)


def test_columns_of_an_earlier_run_are_replaced(rows: Dataset, fitted: GroundFilter) -> None:
    once = rows.map(fitted, batched=True)
    assert once.map(fitted, batched=True).to_list() == once.to_list()


def test_a_row_whose_view_is_missing_is_undecided(rows: Dataset) -> None:
    subtitles = ["because they say so" if k % 2 else None for k in range(120)]
    data = rows.add_column("subtitles", subtitles)
    mapped = data.map(GroundFilter(ConstantAnswerer("A"), single_shot(), view="subtitles"), batched=True)
    assert set(mapped["drop_reason"][::2]) == {"no_subtitles"}
    assert None not in mapped["is_visually_grounded"][1::2]


def test_mistakes_are_named(rows: Dataset, fitted: GroundFilter) -> None:
    with pytest.raises(
        ValueError, match=re.escape("view = 'video' is not blind; allowed are options_only, text, subtitles")
    ):
        GroundFilter(view="video")
    with pytest.raises(
        ValueError, match=re.escape("on_error = 'ignore' is unknown; allowed are 'raise' and 'undecided'")
    ):
        GroundFilter(on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=re.escape("the rows lack the columns options; found id, video, question")):
        rows.remove_columns("options").map(fitted, batched=True)
    with pytest.raises(ValueError, match=re.escape("the dataset has no rows; there is nothing to read")):
        GroundFilter().fit(rows.select([]))
    with pytest.raises(ValueError, match=re.escape("no known layout has these columns: x")):
        GroundFilter().fit(Dataset.from_dict({"x": [1]}))


def test_a_fit_that_is_gone_is_named(rows: Dataset, fitted: GroundFilter) -> None:
    copy = pickle.loads(pickle.dumps(fitted))  # noqa: S301
    Path(str(copy.fit_path)).unlink()
    with pytest.raises(FileNotFoundError, match=re.escape("is gone; call .fit(dataset) again")):
        rows.map(copy, batched=True)


cell = st.one_of(st.none(), st.text(max_size=6), st.sampled_from(["A", "B", "x", "<answer>B</answer>"]))


@settings(
    max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
)
@given(
    dirty=st.lists(
        st.tuples(cell, st.one_of(st.none(), st.lists(st.one_of(st.none(), st.text(max_size=4)), max_size=14)), cell),
        min_size=1,
        max_size=12,
    )
)
def test_no_row_is_lost_whatever_it_holds(dirty: list[tuple[Any, Any, Any]]) -> None:
    clean = make_rows(40)
    extra = [
        {"id": f"d{k}", "video": None, "question": question, "options": options, "answer": answer, "needs": "video"}
        for k, (question, options, answer) in enumerate(dirty)
    ]
    data = Dataset.from_list(clean + extra)
    mapped = data.map(GroundFilter().fit(data), batched=True)
    assert mapped.select_columns(data.column_names).to_list() == data.to_list()
    for row in mapped:
        assert row["is_visually_grounded"] is True or row["drop_reason"]


def test_trials_are_what_rules_are_given() -> None:
    seen: list[Any] = []

    def remember(trials: Any) -> Verdict:
        seen.extend(trials)
        return Verdict(None, "seen")

    GroundFilter(ConstantAnswerer("B"), remember).fit(make_dataset(4))
    assert [type(trial) for trial in seen] == [Trial] * 4
    assert {trial.num_options for trial in seen} == {4}
