from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset, DatasetDict

from tests.shared_data import SHARED_DATA, needs_shared_data
from vidground_hf.adapters import find_adapter
from vidground_hf.loading import DataError, open_dataset

ROWS: list[dict[str, Any]] = [
    {"question": "which?", "options": ["x", "y"], "answer": "x"},
    {"question": "who?", "options": ["a"], "answer": None},
]


def write_lines(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def test_every_format_gives_the_same_rows(tmp_path: Path) -> None:
    files = [write_lines(tmp_path / "a.jsonl", ROWS), write_lines(tmp_path / "b.json", ROWS), tmp_path / "c.json"]
    files[2].write_text(json.dumps(ROWS, indent=1), encoding="utf-8")
    Dataset.from_list(ROWS).to_parquet(tmp_path / "d.parquet")
    for path in [*files, tmp_path / "d.parquet"]:
        assert open_dataset(path).to_list() == ROWS


def test_words_that_pandas_takes_for_missing_stay_words(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("question,a0,a1,answer\nwho?,None,NA,NA\nwhat?,null,,null\n", encoding="utf-8")
    rows = open_dataset(tmp_path / "a.csv").to_list()
    assert [list(row.values()) for row in rows] == [["who?", "None", "NA", "NA"], ["what?", "null", None, "null"]]


def test_several_files_are_put_together_and_name_their_split(tmp_path: Path) -> None:
    train, test = write_lines(tmp_path / "qa_train.jsonl", ROWS), write_lines(tmp_path / "qa_test.jsonl", ROWS[:1])
    assert open_dataset([train, test])["split"][:] == ["train", "train", "test"]
    assert open_dataset(tmp_path)["split"][:] == ["test", "train", "train"]
    assert open_dataset(tmp_path, split="test").to_list() == [{**ROWS[0], "split": "test"}]


def test_files_that_are_no_splits_add_no_column(tmp_path: Path) -> None:
    write_lines(tmp_path / "1_plot.jsonl", ROWS)
    write_lines(tmp_path / "2_count.jsonl", [{"question": "how?", "answer": "so"}])
    opened = open_dataset(tmp_path)
    assert opened.column_names == ["question", "options", "answer"]
    assert opened[2] == {"question": "how?", "options": None, "answer": "so"}


def test_a_saved_dataset_is_opened_whole(tmp_path: Path) -> None:
    Dataset.from_list(ROWS).save_to_disk(tmp_path / "one")
    DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:1])).save_to_disk(tmp_path / "two")
    assert open_dataset(tmp_path / "one").to_list() == ROWS
    assert open_dataset(tmp_path / "two")["split"][:] == ["train", "train", "test"]


def test_files_without_questions_are_left_out_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_lines(tmp_path / "questions.jsonl", ROWS)
    write_lines(tmp_path / "notes.jsonl", [{"note": "x"}])
    (tmp_path / "map.json").write_text('{"a":\n 1}', encoding="utf-8")
    assert open_dataset(tmp_path).num_rows == 2
    assert [record.getMessage() for record in caplog.records] == [
        "left out map.json: it is no table of rows",
        "left out notes.jsonl: no known layout has these columns: note",
    ]


def test_errors_say_what_to_pass(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_text("x", encoding="utf-8")
    (tmp_path / "broken.json").write_text("[{", encoding="utf-8")
    (tmp_path / "nothing.jsonl").write_text("", encoding="utf-8")
    (tmp_path / "header.csv").write_text("question,answer\n", encoding="utf-8")
    (tmp_path / "latin.csv").write_bytes("question,answer\ncafé?,x\n".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    write_lines(tmp_path / "a.jsonl", ROWS)
    expected = {
        ("nothing/at/all.csv",): "no file or folder 'nothing/at/all.csv'; pass a csv, tsv, json, jsonl, parquet file",
        (str(tmp_path / "a.xlsx"),): "a.xlsx': .xlsx extension; allowed are csv, tsv, json, jsonl, parquet",
        (str(tmp_path / "broken.json"),): "broken.json' as json: ",
        (str(tmp_path / "nothing.jsonl"),): "nothing.jsonl' is empty",
        (str(tmp_path / "header.csv"),): "header.csv' has no rows",
        (str(tmp_path / "latin.csv"),): "latin.csv' as csv: 'utf-8' codec can't decode byte 0xe9",
        (str(tmp_path / "empty"),): "it has no csv, tsv, json, jsonl, parquet file. Name a file instead",
    }
    for sources, message in expected.items():
        with pytest.raises(DataError, match=re.escape(message)):
            open_dataset(list(sources))
    with pytest.raises(DataError, match=re.escape("no split 'val': the data is one split; leave the split out")):
        open_dataset(tmp_path / "a.jsonl", split="val")


def test_an_unknown_split_lists_those_there_are(tmp_path: Path) -> None:
    train, test = write_lines(tmp_path / "train.jsonl", ROWS), write_lines(tmp_path / "test.jsonl", ROWS)
    with pytest.raises(DataError, match=re.escape("no split 'val'; found train, test")):
        open_dataset([train, test], split="val")


def test_a_hub_id_that_cannot_be_reached_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    with pytest.raises(
        DataError, match=re.escape("'nobody/nothing' is neither a file or folder here nor a reachable Hub")
    ):
        open_dataset("nobody/nothing")


@needs_shared_data
@pytest.mark.parametrize(
    ("name", "adapter", "num_rows", "defects"),
    [
        ("nextqa/dataset/nextqa", "nextqa", 13_560, {}),
        ("nextqa-oe/dataset/nextqa", "nextqa_oe", 52_044, {}),
        ("nextgqa/datasets/nextgqa", "nextqa", 8_911, {}),
        ("mlvu/data", "mlvu", 2_593, {"gold_not_among_options": 2}),
        ("social-iq-2/siq2/qa", "social_iq", 8_817, {"no_gold": 1_715}),
    ],
)
def test_real_sets_are_read_whole(name: str, adapter: str, num_rows: int, defects: dict[str, int]) -> None:
    rows = open_dataset(SHARED_DATA / name)
    found = find_adapter(rows.column_names)
    examples = [found.convert(row) for row in rows]
    counted: dict[str, int] = {}
    for example in examples:
        if example.defect is not None:
            counted[example.defect] = counted.get(example.defect, 0) + 1
    assert (found.name, len(examples), counted) == (adapter, num_rows, defects)


@needs_shared_data
def test_nextgqa_spans_are_joined() -> None:
    rows = open_dataset(SHARED_DATA / "nextgqa/datasets/nextgqa/val.csv")
    found = find_adapter(rows.column_names)
    spans = [found.convert(row).evidence_spans for row in rows]
    assert len(spans) == 3_358
    assert all(spans)
    assert sum(len(one) > 1 for one in spans) == 339


def test_a_hub_id_is_opened_with_what_was_named(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[Any, Any]] = []

    def remember(*arguments: Any, **keywords: Any) -> DatasetDict:
        calls.append((arguments, keywords))
        return DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS[:1]))

    monkeypatch.setattr("vidground_hf.loading.load_dataset", remember)
    opened = open_dataset("user/name", config="small", revision="abc", data_files=["rows.json"])
    expected = {"name": "small", "split": None, "revision": "abc", "data_files": ["rows.json"]}
    assert calls == [(("user/name",), expected)]
    assert opened["split"][:] == ["train", "train", "test"]


def test_a_hub_id_that_does_not_open_asks_for_its_files(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("two kinds of files")

    monkeypatch.setattr("vidground_hf.loading.load_dataset", refuse)
    message = (
        "cannot open 'user/name' from the Hub as it is: ValueError: two kinds of files. Name the annotation files"
    )
    with pytest.raises(DataError, match=re.escape(message)):
        open_dataset("user/name")
