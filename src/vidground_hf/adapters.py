"""How a dataset's layout is recognised, by its columns or by name.

What a row of each means is in `layouts.py`; files are opened in `loading.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from functools import partial

from vidground_hf.layouts import ADAPTERS, Row, convert_generic
from vidground_hf.schema import Example

# Names that people give to the same column, likeliest first.
GENERIC_COLUMNS: dict[str, tuple[str, ...]] = {
    "question": ("question", "problem", "query", "q", "prompt"),
    "options": ("options", "choices", "candidates"),
    "answer": ("answer", "solution", "answer_idx", "answer_index", "label", "correct_answer", "gold"),
    "video": ("video", "video_path", "video_id", "video_name", "vid", "videoID", "path", "videos", "image"),
    "group": ("group",),
    "type": ("problem_type",),
    "id": ("id", "question_id", "qid", "problem_id", "uid"),
    "category": ("category", "question_type", "task_type", "question_category", "type"),
    "source": ("data_source", "source"),
    "subtitles": ("subtitles", "subtitle", "transcript"),
    "evidence_spans": ("evidence_spans",),
}
_OPTION_COLUMNS = (
    tuple(f"a{k}" for k in range(10)),
    tuple(f"option{k}" for k in range(26)),
    tuple(f"option_{k}" for k in range(26)),
    tuple(f"option_{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"),
    tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"),
)


@dataclass(frozen=True, slots=True)
class Adapter:
    """How to read the rows of one layout.

    Attributes:
        name (`str`): the layout, or `"generic"`.
        columns (`tuple[str, ...]`): the columns it reads; no other column of a dataset is ever touched.
        convert (`Callable`): takes a row (a mapping that holds `columns`) to an `Example`;
            never raises for a dirty row.
        roles (`Mapping[str, tuple[str, ...]]`): of the generic layout, which columns hold what.
    """

    name: str
    columns: tuple[str, ...]
    convert: Callable[[Row], Example]
    roles: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


def find_adapter(
    columns: Collection[str], *, name: str | None = None, mapping: Mapping[str, str] | None = None
) -> Adapter:
    """Finds how to read a dataset: by the name of a layout, by a column mapping, or by its columns.

    Args:
        columns (`Collection[str]`): the dataset's column names.
        name (`str`, *optional*): a key of `ADAPTERS`, or `"generic"`.
        mapping (`Mapping[str, str]`, *optional*): which column holds what, with the keys of `GENERIC_COLUMNS`;
            `options` may name several columns separated by commas. What it leaves out is looked for under the
            usual names.

    Returns:
        `Adapter`: with only the columns that the dataset has.

    Raises:
        `ValueError`: for an unknown layout, key or column, or when no layout fits; says which columns there are
            and what to pass.

    Example:
        >>> find_adapter(["question", "choices", "answer"]).name
        'generic'
        >>> find_adapter(["frage", "choices", "answer"], mapping={"question": "frage"}).columns
        ('frage', 'choices', 'answer')
    """
    if name is not None and name != "generic":
        if name not in ADAPTERS:
            raise ValueError(f"unknown adapter {name!r}; allowed are {', '.join([*ADAPTERS, 'generic'])}")
        if mapping:
            raise ValueError(f"a column mapping goes with the generic adapter, got adapter {name!r}; leave one out")
        missing = [column for column in ADAPTERS[name][1] if column not in columns]
        if missing:
            raise ValueError(
                f"adapter {name!r} needs the columns {', '.join(missing)}; found {_list_columns(columns)}. "
                "Pass another adapter, or map columns: question=COLUMN, options=COLUMN, answer=COLUMN"
            )
        return _bind_known(name, columns)
    if name is None and not mapping:
        known = [key for key, (_, required, _) in ADAPTERS.items() if all(column in columns for column in required)]
        if known:
            return _bind_known(known[0], columns)
    return _bind_generic(columns, mapping or {})


def _bind_known(name: str, columns: Collection[str]) -> Adapter:
    convert, required, optional = ADAPTERS[name]
    return Adapter(name, required + tuple(column for column in optional if column in columns), convert)


def _bind_generic(columns: Collection[str], mapping: Mapping[str, str]) -> Adapter:
    unknown = [key for key in mapping if key not in GENERIC_COLUMNS]
    if unknown:
        raise ValueError(f"unknown mapping key {unknown[0]!r}; allowed are {', '.join(GENERIC_COLUMNS)}")
    named = {key: tuple(part.strip() for part in value.split(",")) for key, value in mapping.items()}
    absent = [column for parts in named.values() for column in parts if column not in columns]
    if absent:
        raise ValueError(f"no column {absent[0]!r}; found {_list_columns(columns)}")
    for key, usual in GENERIC_COLUMNS.items():
        taken = {column for parts in named.values() for column in parts}
        found = next((column for column in usual if column in columns and column not in taken), None)
        if key not in named and found is not None:
            named[key] = (found,)
    if "options" not in named:
        families = [tuple(column for column in family if column in columns) for family in _OPTION_COLUMNS]
        named["options"] = next((family for family in families if len(family) > 1), ())
    if "question" not in named or not (named["options"] or "answer" in named):
        raise ValueError(
            f"no known layout has these columns: {_list_columns(columns)}. Say which column is which with "
            "--map question=COLUMN --map options=COLUMN[,COLUMN...] --map answer=COLUMN (in Python: "
            "columns={'question': 'COLUMN', ...}), or name a layout: " + ", ".join(ADAPTERS)
        )
    read = tuple(dict.fromkeys(column for parts in named.values() for column in parts))
    return Adapter("generic", read, partial(convert_generic, named=named), named)


def _list_columns(columns: Collection[str]) -> str:
    names = list(columns)
    shown = ", ".join(names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown or "none"
