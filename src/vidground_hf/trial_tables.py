"""Trials as an Arrow table, one row of it for each row of a set, and back.

What a trial means is `trials.py`'s; where tables are kept is `shards.py`'s.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pyarrow as pa

from vidground_hf.trials import Trial

_TYPES = {
    "score": pa.float64(),
    "confidence": pa.float64(),
    "bias_score": pa.float64(),
    "num_options": pa.int32(),
    "num_gold": pa.int32(),
    "error": pa.string(),
    "text": pa.string(),
    "choice": pa.int32(),
    "option_logprobs": pa.list_(pa.float64()),
    "answerer": pa.int32(),
}
_FIELDS = [pa.field(field.name, _TYPES[field.name]) for field in fields(Trial)]
TRIAL_SCHEMA = pa.schema([("trials", pa.list_(pa.struct(_FIELDS))), ("states_confidence", pa.bool_())])
"""`trials` in the order they were asked, the first with the confidence and the bias score of its row;
`states_confidence` says whether that confidence is the answerer's own."""


def pack_trials(rows: Sequence[Sequence[Trial]], states_confidence: Sequence[bool]) -> pa.Table:
    """Packs the trials of N rows.

    Example:
        >>> table = pack_trials([[Trial(score=1.0, text="blue")]], [False])
        >>> unpack_trials(table)[0][0].text
        'blue'
    """
    trials = [trial for row in rows for trial in row]
    columns = [pa.array([_get(trial, field.name) for trial in trials], field.type) for field in _FIELDS]
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int32)
    lists = pa.ListArray.from_arrays(starts, pa.StructArray.from_arrays(columns, fields=_FIELDS))
    return pa.table([lists, pa.array(states_confidence, pa.bool_())], schema=TRIAL_SCHEMA)


def _get(trial: Trial, name: str) -> object:
    value = getattr(trial, name)
    # A server may send text that is no valid Unicode; it is kept as it came, but for what no file can hold.
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) and not value.isascii() else value


def has_errors(table: pa.Table) -> bool:
    """Whether a trial has an error."""
    errors = table["trials"].combine_chunks().flatten().field(_FIELDS.index(pa.field("error", _TYPES["error"])))
    return bool(errors.null_count < len(errors))


def unpack_trials(table: pa.Table) -> list[list[Trial]]:
    """The inverse of `pack_trials`."""
    lists = table["trials"].combine_chunks()
    values = lists.flatten()
    columns = [values.field(k).to_pylist() for k in range(len(_FIELDS))]
    logprobs = [field.name for field in _FIELDS].index("option_logprobs")
    columns[logprobs] = [None if value is None else tuple(value) for value in columns[logprobs]]
    names = [field.name for field in _FIELDS]
    trials = [Trial(**dict(zip(names, row, strict=True))) for row in zip(*columns, strict=True)]
    ends = np.cumsum(lists.value_lengths().to_numpy(zero_copy_only=False)).tolist()
    return [trials[start:end] for start, end in zip([0, *ends], ends, strict=False)]
