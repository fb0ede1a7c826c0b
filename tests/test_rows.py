from __future__ import annotations

import subprocess
import sys
from typing import Any

import pyarrow as pa
from datasets import Dataset, Features, Video
from hypothesis import given
from hypothesis import strategies as st

from vidground_hf.rows import ADDED_FEATURES, append_columns, build_columns, hash_rows, read_cells

ROW = {
    "blind_answers": ["x"],
    "blind_scores": [1.0],
    "bias_score": 0.75,
    "is_visually_grounded": False,
    "drop_reason": "text_answerable",
}
NOTHING = dict.fromkeys(ROW)


def test_types_hold_whatever_the_values_are() -> None:
    for rows in ([], [NOTHING], [NOTHING, ROW], [{**ROW, "blind_scores": [None], "blind_answers": [None]}]):
        assert build_columns(rows).schema == ADDED_FEATURES.arrow_schema
    assert Features.from_arrow_schema(build_columns([NOTHING]).schema) == ADDED_FEATURES


def test_columns_are_put_behind_and_replace_older_ones() -> None:
    table = pa.table({"bias_score": [9], "q": ["a"]})
    joined = append_columns(table, build_columns([ROW]))
    assert joined.column_names == ["q", *ROW]
    assert joined.to_pylist() == [{"q": "a", **ROW}]


def test_media_cells_are_read_as_path_or_digest_and_never_opened() -> None:
    cells = [{"path": "missing.mp4", "bytes": None}, {"path": None, "bytes": b"abc"}, None]
    rows = Dataset.from_dict({"video": ["missing.mp4", None, None]}).cast_column("video", Video())
    assert read_cells(rows.data.table, ["video"]) == [["missing.mp4", None, None]]
    table = pa.table({"video": pa.array(cells, pa.struct([("bytes", pa.binary()), ("path", pa.string())]))})
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # sha256 of "abc", FIPS 180-2
    assert read_cells(table, ["video"]) == [["missing.mp4", f"sha256:{digest}", None]]


def test_keys_are_the_same_in_another_process() -> None:
    cells: list[list[Any]] = [["why?", None], [["a", "b"], []], [3, 4.5]]
    code = f"from vidground_hf.rows import hash_rows; print([key.hex() for key in hash_rows({cells!r})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == repr([key.hex() for key in hash_rows(cells)])


@given(st.lists(st.tuples(st.text(max_size=5), st.lists(st.text(max_size=3), max_size=3)), min_size=2, max_size=6))
def test_different_rows_get_different_keys(rows: list[tuple[str, list[str]]]) -> None:
    keys = hash_rows([[question for question, _ in rows], [options for _, options in rows]])
    assert len(set(keys)) == len({repr(row) for row in rows})


def test_lone_surrogates_have_a_key() -> None:
    assert len(hash_rows([["\ud800"]])[0]) == 16
