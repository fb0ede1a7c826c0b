"""Targets that take whole files: datasets, and the predictions of other harnesses.

The first byte chooses the kind of file, the rest is in it.
"""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path

import datasets
import pyarrow as pa
import pyarrow.parquet as pq

from tests.fuzz.outcomes import own_errors
from tests.questions import make_rows
from vidground_hf.loading import open_dataset
from vidground_hf.prediction_files import read_rows
from vidground_hf.predictions import read_pairs, read_table
from vidground_hf.reading import read_examples

_SET_KINDS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_PREDICTION_KINDS = (".csv", ".tsv", ".json", ".jsonl")


def _number(kind: str, kinds: tuple[str, ...], content: str | bytes) -> bytes:
    return bytes([kinds.index(kind)]) + (content.encode() if isinstance(content, str) else content)


def make_set_seeds() -> list[bytes]:
    """A small set in every format."""
    rows = make_rows(4)
    packed = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), packed)
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    table = 'id,question,a0,a1,answer\n1,Sky?,red,blue,1\n2,"Why, then?",no,,0\n'
    return [
        _number(".csv", _SET_KINDS, table),
        _number(".tsv", _SET_KINDS, table.replace(",", "\t")),
        _number(".json", _SET_KINDS, json.dumps(rows)),
        _number(".json", _SET_KINDS, lines),
        _number(".jsonl", _SET_KINDS, lines),
        _number(".parquet", _SET_KINDS, packed.getvalue()),
    ]  # fmt: skip


def check_loading(data: bytes, folder: Path) -> None:
    """A file is opened and read, alone and as a folder's only file, or `DataError` says why not."""
    path = folder / f"rows{_SET_KINDS[data[0] % len(_SET_KINDS)] if data else '.csv'}"
    path.write_bytes(data[1:])
    try:
        for source in (path, folder):
            with own_errors(ValueError):
                read_examples(open_dataset(source))
    finally:
        path.unlink()
        shutil.rmtree(datasets.config.HF_DATASETS_CACHE, ignore_errors=True)


def make_prediction_seeds() -> list[bytes]:
    """Files as the harnesses write them."""
    row = {"id": "q1", "prediction": "B", "reference": "A", "options": ["x", "y"], "num_options": 2, "video": ["v"]}
    sample = {"doc_id": 0, "doc": {"q": 1}, "target": "B", "resps": [[["-1.5", "False"]], [["-0.5", "True"]]]}
    sample |= {"arguments": {"gen_args_0": {"arg_0": "Q", "arg_1": " x"}, "gen_args_1": {"arg_0": "Q", "arg_1": " y"}}}
    spoken = {"doc_id": 0, "target": "B", "filtered_resps": ["B"], "filter": "none", "arguments": [["Q", {}]]}
    log = {"eval": {"task": "t"}, "samples": [], "status": "success", "version": 2}
    lines = [json.dumps(row) + "\n", json.dumps(sample) + "\n", json.dumps(spoken) + "\n"]
    objects = [[row], {"results": [row]}, {"q1": "B", "q2": None}, {"q1": row}, log]
    table = "index,question,A,B,prediction,answer\n1,Sky?,red,blue,B,A\n2,,x,,,\n"
    return [
        *(_number(".jsonl", _PREDICTION_KINDS, line) for line in lines),
        *(_number(".json", _PREDICTION_KINDS, json.dumps(content)) for content in objects),
        _number(".csv", _PREDICTION_KINDS, table),
        _number(".tsv", _PREDICTION_KINDS, table.replace(",", "\t")),
    ]  # fmt: skip


def check_predictions(data: bytes, folder: Path) -> None:
    """A file of predictions is read and joined with itself, or an error of ours says why not."""
    path = folder / f"run{_PREDICTION_KINDS[data[0] % len(_PREDICTION_KINDS)] if data else '.csv'}"
    path.write_bytes(data[1:])
    try:
        with own_errors(ValueError, ImportError):
            rows = read_rows(path)
            for row in read_table(path.name, rows, {}, "").values():
                assert row.id
                assert isinstance(row.answer, (str, int, type(None)))
        with own_errors(ValueError, ImportError):
            columns = read_pairs(path, path).columns
            assert all(isinstance(text, str) for text in columns["predictions"] + columns["references"])
    finally:
        path.unlink()
