"""From datasets of every kind to examples, with the bytes of media pointed at."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from datasets import Dataset, DatasetDict, Features, List, Value, Video, load_dataset

from vidground_hf.reading import _iterate_buffers, name_columns, read_examples, read_table

ROWS: list[dict[str, Any]] = [
    {"question": f"Sky {k}?", "options": ["red", "blue"], "answer": "B", "video": {"bytes": content, "path": path}}
    for k, (content, path) in enumerate(
        [(b"no video", None), (None, "a.mp4"), (b"one" * 1000, "b.mp4"), (None, None), (b"", "c.mp4")]
    )
]
FEATURES = Features(
    {"question": Value("string"), "options": List(Value("string")), "answer": Value("string"), "video": Video()}
)


def make_dataset() -> Dataset:
    table = pa.Table.from_pylist(ROWS, schema=FEATURES.arrow_schema)
    return Dataset(table)


def test_bytes_are_pointed_at_where_they_are_asked_for() -> None:
    data = make_dataset()
    _, keys, examples = read_examples(data, with_media=True)
    contents = [None if row.media_content is None else bytes(row.media_content) for row in examples]
    assert contents == [b"no video", None, b"one" * 1000, None, b""]
    assert [row.video for row in examples][1:] == ["a.mp4", "b.mp4", None, "c.mp4"]
    assert str(examples[0].video).startswith("sha256:")
    _, same_keys, without = read_examples(data)
    assert (same_keys, without) == (keys, examples)
    assert [row.media_content for row in without] == [None] * 5


def test_bytes_are_not_copied(tmp_path: Path) -> None:
    table = make_dataset().data.table
    with pa.OSFile(str(tmp_path / "rows.arrow"), "wb") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    opened = Dataset.from_file(str(tmp_path / "rows.arrow"))  # mapped into memory
    (chunk,) = opened.data.column("video").chunks
    buffer = chunk.field("bytes").buffers()[2]
    before = pa.total_allocated_bytes()
    _, _, examples = read_examples(opened, with_media=True)
    content = examples[2].media_content
    assert buffer.address <= content.address < buffer.address + buffer.size
    assert pa.total_allocated_bytes() - before < 3000


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_bytes_are_found_in_any_part_of_a_column(kind: pa.DataType) -> None:
    cells = [row["video"] for row in ROWS]
    cells[3] = None
    array = pa.array(cells, pa.struct({"bytes": kind, "path": pa.string()}))
    empty = pa.array([None, None], array.type)
    column = pa.chunked_array([array[1:4], empty, array[:0], array[2:]])
    found = [None if content is None else bytes(content) for content in _iterate_buffers(column)]
    assert found == [None, b"one" * 1000, None, None, None, b"one" * 1000, None, b""]


def test_a_list_of_words_that_names_files_holds_no_bytes() -> None:
    data = Dataset.from_list([{"question": "Sky?", "options": ["red", "blue"], "answer": "B", "video": "a.mp4"}])
    _, _, examples = read_examples(data, media_root="/clips", with_media=True)
    assert (examples[0].video, examples[0].media_root, examples[0].media_content) == ("a.mp4", "/clips", None)


def test_all_splits_are_read_and_streams_too(tmp_path: Path) -> None:
    rows = [{"question": f"Sky {k}?", "options": ["red", "blue"], "answer": "B"} for k in range(5)]
    parts = DatasetDict({"train": Dataset.from_list(rows[:3]), "test": Dataset.from_list(rows[3:])})
    _, keys, examples = read_examples(parts)
    assert [row.question for row in examples] == [row["question"] for row in rows]
    Dataset.from_list(rows).to_parquet(str(tmp_path / "rows.parquet"))
    streamed = load_dataset("parquet", data_files=str(tmp_path / "rows.parquet"), split="train", streaming=True)
    assert name_columns(streamed) == ["question", "options", "answer"]
    assert read_examples(streamed)[1:] == (keys, examples)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match=re.escape("the dataset has no rows; there is nothing to read")):
        read_examples(make_dataset().select([]))
    found = read_examples(make_dataset())[0]
    table = make_dataset().data.table.drop_columns(["answer"])
    message = "the rows lack the columns answer; found question, options, video"
    with pytest.raises(ValueError, match=re.escape(message)):
        read_table(table, found)
