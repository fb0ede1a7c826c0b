"""`curate`: a dataset into grounded, text-answerable and undecided splits, with a report, as one folder.

The folder opens with `load_dataset(folder)`. Nothing is uploaded here.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset, DatasetDict, Value, concatenate_datasets

from vidground_hf.answerers.base import Answerer, ModelAnswerer
from vidground_hf.answerers.probe import TextBiasProbe
from vidground_hf.deciding import RowRule, name_rule
from vidground_hf.filtering import GroundFilter
from vidground_hf.folders import write_report, write_shards, write_whole
from vidground_hf.report import build_report
from vidground_hf.schema import View


@dataclass(frozen=True, slots=True)
class Curation:
    """A curated dataset.

    Attributes:
        splits (`DatasetDict`): those of `grounded`, `text_answerable` and `undecided` that have rows; together they
            hold every input row once, with its own columns and the added ones.
        report (`dict`): every figure, as `report.json` holds it.
    """

    splits: DatasetDict
    report: dict[str, Any]

    def save(self, output_dir: str | Path) -> Path:
        """Writes the folder: parquet shards, card, report and figures.

        It is made beside its place and moved there whole, so an interrupted run leaves nothing that looks finished.
        A folder written by an earlier run is replaced.

        Args:
            output_dir (`str` or `Path`): where to; must not exist, be empty, or hold an earlier curation.

        Returns:
            `Path`: the folder.

        Raises:
            `DataError`: when the folder holds something else.
        """
        output = Path(output_dir)
        with write_whole(output) as partial:
            for name, rows in self.splits.items():
                write_shards(rows, partial / "data", name)
            write_report(self.report, partial)
        return output


def join_splits(dataset: Dataset | DatasetDict) -> Dataset:
    """Puts the splits of a `DatasetDict` one after the other, with a column `split` if there is none yet.

    Raises:
        `TypeError`: for a dataset that is streamed.
    """
    if isinstance(dataset, Dataset):
        return dataset
    if not isinstance(dataset, DatasetDict):
        raise TypeError(
            f"curate needs a Dataset or a DatasetDict, got {type(dataset).__name__}; load it without streaming=True, "
            "or add the columns with GroundFilter().fit(dataset).apply(dataset)"
        )
    parts = [
        part if "split" in part.column_names else part.add_column("split", [name] * len(part), feature=Value("string"))
        for name, part in dataset.items()
    ]
    return concatenate_datasets(parts)


def curate(
    dataset: Dataset | DatasetDict,
    *,
    answerer: Answerer | TextBiasProbe | Sequence[Answerer | TextBiasProbe] | None = None,
    rule: RowRule | None = None,
    samples: int | None = None,
    shortcut_kinds: bool = False,
    view: View = "text",
    adapter: str | None = None,
    columns: Mapping[str, str] | None = None,
    media_root: str | None = None,
    on_error: Literal["raise", "undecided"] = "raise",
    seed: int = 0,
    source: Mapping[str, str | None] | None = None,
    progress: bool = False,
) -> Curation:
    """Splits a dataset into the questions that need the video and those that text alone answers.

    Args:
        dataset (`Dataset` or `DatasetDict`): all splits are judged together, so that a video seen in two of them
            stays in one fold.
        answerer, rule, samples, shortcut_kinds, view, adapter, columns, media_root, on_error: as in `GroundFilter`.
        seed (`int`, *optional*, defaults to 0): of option orders, intervals, controls and the sample shown.
        source (`Mapping[str, str]`, *optional*): `id` and `revision` of the data, for the report.
        progress (`bool`, *optional*, defaults to `False`): show bars on stderr.

    Returns:
        `Curation`: the splits and the report; `save` writes both.

    Raises:
        `TypeError`: for a dataset that is streamed.
        `ValueError`: for an unknown layout or an empty dataset.
        `AnswerError`: when questions got no answer and `on_error` is `"raise"`.

    Example:
        >>> from datasets import Dataset
        >>> rows = [{"question": f"Which is it, {k}?", "options": ["this", "that"], "answer": "A"} for k in range(40)]
        >>> curate(Dataset.from_list(rows)).report["num_text_answerable"]
        40
    """
    started = time.perf_counter()
    rows = join_splits(dataset)
    ground_filter = GroundFilter(
        answerer, rule, samples=samples, seed=seed, shortcut_kinds=shortcut_kinds, view=view, adapter=adapter,
        columns=columns, media_root=media_root, on_error=on_error,
    )  # fmt: skip
    judgement = ground_filter.judge(rows, progress=progress)
    marked = ground_filter.freeze(judgement).apply(rows)
    grounded = np.array([verdict.is_visually_grounded for verdict in judgement.verdicts], dtype=object)
    wanted = {"grounded": True, "text_answerable": False, "undecided": None}
    chosen = {name: np.flatnonzero(grounded == value) for name, value in wanted.items()}
    splits = DatasetDict({name: marked.select(index) for name, index in chosen.items() if len(index)})
    report = build_report(
        judgement,
        answerers=[_describe(one) for one in ground_filter.answerers],
        rule=name_rule(ground_filter.rule),
        view=view,
        seed=seed,
        splits=rows["split"] if "split" in rows.column_names else None,
        source={"id": None, "revision": None, **(source or {}), "fingerprint": rows._fingerprint},
    )
    report["seconds"] = round(time.perf_counter() - started, 2)
    return Curation(splits, report)


def _describe(answerer: Answerer | TextBiasProbe) -> dict[str, Any]:
    return {"id": answerer.id, **(answerer.describe() if isinstance(answerer, ModelAnswerer) else {})}
