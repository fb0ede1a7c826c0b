"""Prediction files of each harness, three rows each, and joining them by id."""

from __future__ import annotations

import csv
import importlib.util
import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.gap import measure_gap
from vidground_hf.pairing import PredictionRow, join_runs
from vidground_hf.prediction_files import read_rows
from vidground_hf.predictions import read_pairs, read_table
from vidground_hf.stats.checks import UNANSWERED


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_csv(path: Path, rows: list[dict[str, Any]], delimiter: str = ",") -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=delimiter)
        writer.writeheader()
        writer.writerows(rows)
    return path


def read(path: Path) -> dict[str, PredictionRow]:
    return read_table(path.name, read_rows(path), {}, "")


def test_lmms_eval_samples(tmp_path: Path) -> None:
    # Equal answers are logged once, as `filtered_resps`; the documents are not logged.
    path = write_jsonl(tmp_path / "20260806_samples_videomme.jsonl", [
        {"doc_id": 0, "input": "Which one?\nA. cup\nB. jug", "target": "B", "filtered_resps": ["B"], "doc_hash": "x"},
        {"doc_id": 1, "input": "Who?\nA. he\nB. she", "target": "A", "filtered_resps": ["B"], "resps": [["B. she"]]},
        {"doc_id": 2, "input": "Where?\nA. in\nB. out", "target": "A", "filtered_resps": [""], "doc_hash": "z"},
    ])  # fmt: skip
    assert read(path) == {
        "0": PredictionRow(id="0", answer="B", reference="B"),
        "1": PredictionRow(id="1", answer="B. she", reference="A"),
        "2": PredictionRow(id="2", answer=None, reference="A"),
    }


def test_lm_eval_generated_samples_with_two_filters(tmp_path: Path) -> None:
    rows = [
        {
            "doc_id": key, "doc": {"question": "How many?", "options": ["1", "2"], "category": "count", "answer": 1},
            "target": "B", "arguments": {"gen_args_0": {"arg_0": "How many?"}}, "resps": [["so the answer is (B)"]],
            "filtered_resps": [kept], "filter": name,
        }
        for key in (7, 8, 9) for name, kept in (("strict", "[invalid]"), ("flexible", "B"))
    ]  # fmt: skip
    found = read(write_jsonl(tmp_path / "samples_set.jsonl", rows))
    assert list(found) == ["7", "8", "9"]
    assert found["7"] == PredictionRow(
        id="7", answer="so the answer is (B)", reference="B", options=("1", "2"), group="count"
    )


@pytest.mark.parametrize("arguments_are_logged", [True, False])
def test_lm_eval_ranked_samples(tmp_path: Path, arguments_are_logged: bool) -> None:
    row = {
        "doc_id": 0, "doc": {}, "target": "2", "filter": "none",
        "resps": [[["-3.5", "False"]], [["-1.25", "True"]], [["-9.0", "False"]]],
        "filtered_resps": [["-3.5", "False"], ["-1.25", "True"], ["-9.0", "False"]],
    }  # fmt: skip
    if arguments_are_logged:
        row["arguments"] = {f"gen_args_{k}": {"arg_0": "Who?", "arg_1": f" {name}"} for k, name in enumerate("xyz")}
    found = read(write_jsonl(tmp_path / "samples.jsonl", [row]))["0"]
    assert (found.answer, found.reference, found.num_options) == ("B", "2", 3)
    assert found.options == (("x", "y", "z") if arguments_are_logged else ())


def test_vlmevalkit_tsv(tmp_path: Path) -> None:
    path = write_csv(tmp_path / "Model_Set.tsv", [
        {"index": 3, "question": "Which\tone?", "A": "cup", "B": "jug", "C": "", "answer": "B", "category": "things",
         "video": "v1", "prediction": "B. jug"},
        {"index": 5, "question": "Who?", "A": "he", "B": "she", "C": "they", "answer": "A", "category": "people",
         "video": "v1", "prediction": "Failed to obtain answer via API."},
        {"index": 9, "question": "Where?", "A": "in", "B": "out", "C": "", "answer": "A", "category": "",
         "video": "", "prediction": ""},
    ], delimiter="\t")  # fmt: skip
    assert read(path) == {
        "3": PredictionRow(id="3", answer="B. jug", reference="B", options=("cup", "jug"), group="things", video="v1"),
        "5": PredictionRow(id="5", reference="A", options=("he", "she", "they"), group="people", video="v1"),
        "9": PredictionRow(id="9", reference="A", options=("in", "out")),
    }


def test_vlmevalkit_tsv_with_a_candidates_column(tmp_path: Path) -> None:
    row = {"index": 1, "question": "Who?", "candidates": "['A. he', 'B. she']", "answer": "B", "prediction": "B"}
    found = read(write_csv(tmp_path / "Model_VideoSet.tsv", [row], delimiter="\t"))["1"]
    assert found.options == ("he", "she")


def test_video_r1_results(tmp_path: Path) -> None:
    shared = {"problem": "Which one?", "data_type": "video", "problem_type": "multiple choice", "data_source": "set",
              "options": ["A. cup", "B. jug"], "solution": "<answer>B</answer>", "path": "./v1.mp4"}  # fmt: skip
    rows = [
        {**shared, "problem_id": 1, "output": "<think>x</think><answer>B</answer>", "prediction": "B", "reward": 1.0},
        {**shared, "problem_id": 2, "output": "<answer>error</answer>", "prediction": "error", "reward": 0.0},
        {**shared, "problem_id": 3, "problem_type": "numerical", "options": [], "solution": "<answer>4</answer>",
         "output": "<answer>5</answer>", "prediction": "5"},
    ]  # fmt: skip
    found = read(write_json(tmp_path / "eval.json", {"results": rows, "final_acc": [{"mean_acc": 0.3}]}))
    known = {"group": "multiple choice", "video": "./v1.mp4", "options": ("cup", "jug"), "reference": "jug"}
    assert found["1"] == PredictionRow(id="1", answer="B", problem_type="multiple_choice", **known)  # type: ignore[arg-type]
    assert found["2"].answer is None
    assert (found["3"].answer, found["3"].reference, found["3"].problem_type) == ("5", "4", "numerical")


def test_easy_video_r1_results_come_in_the_order_they_finished(tmp_path: Path) -> None:
    rows = [{"problem": f"Question {k}?", "answer": "ABA"[k], "videos": ["v1.mp4"], "problem_type": "multiple choice",
             "options": ["A. cup", "B. jug"], "output": "...", "prediction": "A"} for k in range(3)]  # fmt: skip
    blind = write_json(tmp_path / "blind.json", {"results": rows})
    visual = write_json(tmp_path / "visual.json", {"results": rows[::-1], "eval_time_seconds": 2.5})
    columns = read_pairs(blind, visual).columns
    assert columns["ids"] == [f"v1.mp4_Question {k}?" for k in (2, 1, 0)]
    assert columns["references"] == ["cup", "jug", "cup"]


def test_mapping_of_ids_to_positions(tmp_path: Path) -> None:
    visual = write_json(
        tmp_path / "visual.json", {"v_1": {"prediction": 1, "answer": 1}, "v_2": {"prediction": 4, "answer": 0}}
    )
    blind = write_json(tmp_path / "blind.json", {"v_2": "A", "v_1": "C"})
    columns = read_pairs(blind, visual).columns
    assert columns == {
        "ids": ["v_1", "v_2"], "predictions": ["B", "E"], "blind_predictions": ["C", "A"], "references": ["B", "A"],
        "problem_types": ["multiple_choice"] * 2,
    }  # fmt: skip


def write_inspect_log(path: Path, answers: dict[tuple[str, int], str | None]) -> Path:
    """Writes a log with inspect_ai's own writer; `None` is a sample that failed."""
    from inspect_ai.log import EvalConfig, EvalDataset, EvalError, EvalLog, EvalSample, EvalSpec, write_eval_log
    from inspect_ai.model import ModelOutput

    samples = [
        EvalSample(
            id=key,
            epoch=epoch,
            input="Which one?",
            choices=["cup", "jug"],
            target=["A", "B"] if key == "both" else "B",
            metadata={"category": "things"},
            output=ModelOutput.from_content("model", answer or ""),
            error=EvalError(message="timeout", traceback="", traceback_ansi="") if answer is None else None,
        )
        for (key, epoch), answer in answers.items()
    ]
    spec = EvalSpec(
        created="2026-01-01T00:00:00+00:00", task="t", dataset=EvalDataset(), model="model", config=EvalConfig()
    )
    write_eval_log(EvalLog(eval=spec, samples=samples), str(path))
    return path


@pytest.mark.skipif(importlib.util.find_spec("inspect_ai") is None, reason="needs inspect_ai: pip install inspect_ai")
@pytest.mark.filterwarnings("default")
@pytest.mark.parametrize("name", ["log.eval", "log.json"])
def test_inspect_log(tmp_path: Path, name: str) -> None:
    found = read(write_inspect_log(tmp_path / name, {("q0", 1): "ANSWER: B", ("q1", 1): None, ("both", 1): "A"}))
    assert found["q0"] == PredictionRow(
        id="q0", answer="ANSWER: B", reference="B", options=("cup", "jug"), group="things"
    )
    assert (found["q1"].answer, found["both"].answer, found["both"].reference) == (None, "A", None)
    several = read(write_inspect_log(tmp_path / name, {("q0", 1): "A", ("q0", 2): "B"}))
    assert {key: row.answer for key, row in several.items()} == {"q0 epoch 1": "A", "q0 epoch 2": "B"}


def test_inspect_log_without_inspect_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "inspect_ai.log", None)
    path = tmp_path / "log.eval"
    path.touch()
    with pytest.raises(ImportError, match=re.escape("'log.eval' needs inspect_ai: pip install inspect_ai")):
        read_rows(path)
    with pytest.raises(ImportError, match=r"pip install inspect_ai"):
        read_rows(write_json(tmp_path / "log.json", {"version": 2, "eval": {}, "samples": []}))


def test_wide_csv_holds_both_runs_and_references_go_first(tmp_path: Path) -> None:
    wide = write_csv(tmp_path / "wide.csv", [
        {"sample_id": f"s{k}", "textonly": "ABC"[k], "128f": "AAB"[k], "answer": "A"} for k in range(3)
    ])  # fmt: skip
    gold = write_csv(tmp_path / "gold.csv", [
        {"sample_id": "s2", "gold_letter": "B", "n_options": 4, "question_type": "order", "video": "v.mp4"},
        {"sample_id": "s0", "gold_letter": "A", "n_options": 2, "question_type": "", "video": ""},
        {"sample_id": "s9", "gold_letter": "A", "n_options": 2, "question_type": "", "video": ""},
    ])  # fmt: skip
    columns, unmatched = read_pairs(wide, wide, gold, blind_column="textonly", visual_column="128f")
    assert columns == {
        "ids": ["s0", "s2"], "predictions": ["A", "B"], "blind_predictions": ["A", "C"], "references": ["A", "B"],
        "problem_types": ["multiple_choice"] * 2, "num_options": [2, 4], "groups": ["not given", "order"],
        "clusters": ["question s0", "v.mp4"],
    }  # fmt: skip
    assert unmatched == {
        "only_blind": [], "only_visual": [], "without_reference": ["s1"], "only_references": ["s9"],
    }  # fmt: skip


def test_columns_can_be_named(tmp_path: Path) -> None:
    rows = [{"clip": "v1", "n": k, "said": "red", "truth": "blue", "kind": "colour"} for k in (1, 2)]
    path = write_csv(tmp_path / "runs.csv", rows)
    columns = read_pairs(
        path, path, blind_column="said", visual_column="truth", problem_type="ocr",
        columns={"id": "clip,n", "reference": "truth", "group": "kind", "video": "clip"},
    ).columns  # fmt: skip
    assert (columns["ids"], columns["clusters"], columns["groups"]) == (["v1_1", "v1_2"], ["v1"] * 2, ["colour"] * 2)
    result = measure_gap(**columns, num_resamples=20)
    assert (result["gap"], result["chance"]) == (1.0, 0.0)


@needs_shared_data
def test_files_of_known_sets_serve_as_references() -> None:
    folder = SHARED_DATA / "nextqa"
    blind, visual = (folder / f"results/{name}-bert-ft-h256-val.json" for name in ("STVQA", "HGA"))
    columns, unmatched = read_pairs(blind, visual, folder / "dataset/nextqa/val.csv")
    assert {len(ids) for ids in unmatched.values()} == {0}
    result = measure_gap(**columns, num_resamples=20)
    assert round(100 * result["visual_accuracy"], 2) == 49.74
    assert sorted(result["groups"]) == ["CH", "CW", "DC", "DL", "DO", "TC", "TN", "TP"]
    without = measure_gap(**read_pairs(blind, visual).columns, num_resamples=20)
    assert (without["visual_accuracy"], without["chance"]) == (result["visual_accuracy"], None)


@given(order=st.permutations(range(5)), missing=st.sets(st.integers(0, 4), max_size=3))
def test_joining_goes_by_id(order: list[int], missing: set[int]) -> None:
    blind = {f"q{k}": PredictionRow(id=f"q{k}", answer=f"b{k}") for k in order}
    visual = {f"q{k}": PredictionRow(id=f"q{k}", answer=f"v{k}", reference="A") for k in range(5) if k not in missing}
    columns, unmatched = join_runs(blind, visual)
    kept = [k for k in range(5) if k not in missing]
    assert columns["predictions"] == [f"v{k}" for k in kept]
    assert columns["blind_predictions"] == [f"b{k}" for k in kept]
    assert unmatched == {"only_blind": [f"q{k}" for k in order if k in missing], "only_visual": []}


def test_missing_answers_and_references_are_marked() -> None:
    blind = {"q": PredictionRow(id="q", answer=None)}
    columns = join_runs(blind, {"q": PredictionRow(id="q", answer="x")}).columns
    assert (columns["blind_predictions"], columns["references"]) == ([UNANSWERED], [UNANSWERED])


def test_rows_without_options_among_others_are_open_ended() -> None:
    visual = {
        "a": PredictionRow(id="a", answer=0, reference=1, options=("x", "y")),
        "b": PredictionRow(id="b", answer=0, reference=1),
        "c": PredictionRow(id="c", answer="4", reference=4, problem_type="numerical"),
    }
    columns = join_runs(visual, visual).columns
    assert columns["problem_types"] == ["multiple_choice", "free_form", "numerical"]
    assert columns["predictions"] == ["A", "0", "4"]
    assert columns["options"] == [("x", "y"), (), ()]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.xlsx", "", "cannot read 'a.xlsx'; allowed are .csv, .tsv, .jsonl, .json, .eval files"),
        ("a.jsonl", "{", "cannot read 'a.jsonl' as jsonl: Expecting property name"),
        ("a.json", "[]", "'a.json' holds no rows; pass a file with one question a row"),
        ("a.json", '["A"]', "'a.json' holds no rows"),
        ("a.csv", "id,prediction\n", "'a.csv' holds no rows"),
        ("a.csv", "id,textonly\n1,A\n", "a.csv has no column of answers; found id, textonly. Name the one"),
        ("a.csv", "prediction\nA\n", "a.csv has no column of ids; found prediction. Say which with --map id=COLUMN"),
        ("a.csv", "qid,prediction\n0,A\n0,B\n1,A\n", "a.csv has repeated ids: 0. Keep one row per question"),
        ("a.csv", "id,prediction,n_options\n0,A,four\n", "n_options must be a number of options; got 'four'"),
    ],
)
def test_refuses_files_it_cannot_use(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_pairs(path, path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"blind_column": "text"}, "a.csv has no column text; found id, prediction, answer. Name the one that holds"),
        (
            {"columns": {"gold": "answer"}},
            "unknown mapping key 'gold'; allowed are id, prediction, reference, options",
        ),
        ({"columns": {"id": "id,clip"}}, "no file has the column 'clip' mapped to id; found answer, id, prediction"),
    ],
)
def test_refuses_columns_that_are_not_there(tmp_path: Path, arguments: dict[str, Any], message: str) -> None:
    path = write_csv(tmp_path / "a.csv", [{"id": 1, "prediction": "A", "answer": "A"}])
    with pytest.raises(ValueError, match=re.escape(message)):
        read_pairs(path, path, **arguments)


def test_refuses_runs_over_other_questions() -> None:
    blind = {f"q{k}": PredictionRow(id=f"q{k}", answer="A", reference="A", options=("x", "y")) for k in range(2)}
    visual = blind | {"q1": PredictionRow(id="q1", answer="A", reference="A", options=("y", "x"))}
    with pytest.raises(
        ValueError, match=re.escape("the two runs differ in the options of 1 of 2 ids: q1; q1 has ('x'")
    ):
        join_runs(blind, visual)
    visual = {"q0": PredictionRow(id="q0", answer="A", reference="B", options=("x", "y"))}
    with pytest.raises(
        ValueError, match=re.escape("differ in the reference of 1 of 1 ids: q0; q0 has 'A' in the blind")
    ):
        join_runs(blind, visual)
    with pytest.raises(
        ValueError, match=re.escape("no id is in every file: blind has q0, q1; visual has z. Say which")
    ):
        join_runs(blind, {"z": PredictionRow(id="z")})
