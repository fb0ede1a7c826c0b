"""`climb`: a dataset labelled by the least evidence that answers each question, with a report, and split by it.

How a row gets its label is `ladder.py`'s.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, Value

from vidground_hf.answerers.base import Answerer
from vidground_hf.benchmark_data import list_missing_files
from vidground_hf.curation import code_column, join_splits
from vidground_hf.facts import hash_questions
from vidground_hf.folders import write_report, write_shards, write_whole
from vidground_hf.judging import AnswerError
from vidground_hf.ladder import Labels, Ladder, label_rows
from vidground_hf.ladder_checks import measure_kept, measure_wrong_videos
from vidground_hf.ladder_needs import BLIND_NEEDS, NEED_COLUMNS, VISUAL_NEEDS, LadderRule
from vidground_hf.ladder_report import PLANTED, build_ladder_report, compare_needs
from vidground_hf.media import FrameBudget
from vidground_hf.origin import describe_source, read_card_metadata
from vidground_hf.reading import read_examples
from vidground_hf.report import find_leaks
from vidground_hf.rows import append_columns
from vidground_hf.schema import BLIND_VIEWS, LADDER_VIEWS, Example, View

NEED_FEATURES = Features({name: Value("string") for name in NEED_COLUMNS} | {"is_visually_grounded": Value("bool")})
OWN_NEEDS = "needs_original"
"""Where a column `needs` goes that the dataset came with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Climb:
    """A dataset, labelled.

    Attributes:
        rows (`Dataset`): every input row in its order, with its own columns and those of `NEED_FEATURES`. A column
            `needs` of its own is called `needs_original`.
        keep (`tuple[str, ...]`): the needs that are kept.
        report (`dict`): every figure, as `report.json` holds it.
        calls (`dict[str, int]`): answers `asked` for now, `cached`, `failed` and `saved`, of all views; not in the
            report, which is the same when the answers are.
    """

    rows: Dataset
    keep: tuple[str, ...]
    report: dict[str, Any]
    calls: dict[str, int]

    @property
    def splits(self) -> DatasetDict:
        """The rows by split, each in one; a split without rows is left out.

        `grounded` holds what is kept, `text_answerable` what a blind view answers, `not_kept` the other labelled
        rows, `undecided` those without a label.
        """
        names = [_name_split(need, self.keep) for need in self.rows["needs"]]
        chosen = {split: [k for k, name in enumerate(names) if name == split] for split in _SPLITS}
        return DatasetDict({split: self.rows.select(places) for split, places in chosen.items() if places})

    def save(self, output_dir: str | Path) -> Path:
        """Writes a folder that `load_dataset` opens: parquet shards by split, card, report and figure.

        It is made beside its place and moved there whole. A folder written by an earlier run is replaced. The report
        is given the number of rows of each split.

        Raises:
            `DataError`: when the folder holds something else.
        """
        output, splits = Path(output_dir), self.splits
        self.report.update({f"num_{name}": len(splits.get(name, ())) for name in _SPLITS})
        with write_whole(output) as partial:
            for name, rows in splits.items():
                write_shards(rows, partial / "data", name)
            write_report(self.report, partial)
        return output

    def save_labels(self, output_dir: str | Path) -> Path:
        """Writes the report, and the label of each row to `labels.jsonl`, in the order of the rows.

        Raises:
            `DataError`: when the folder holds something else.
        """
        output = Path(output_dir)
        columns = self.rows.select_columns(list(NEED_FEATURES))
        with write_whole(output) as partial:
            lines = (json.dumps({"row": place, **row}) for place, row in enumerate(columns))
            (partial / "labels.jsonl").write_text("".join(line + "\n" for line in lines), encoding="utf-8")
            write_report(self.report, partial)
        return output


_SPLITS = ("grounded", "text_answerable", "not_kept", "undecided")


def climb(
    dataset: Dataset | DatasetDict,
    answerer: Answerer,
    *,
    rule: LadderRule = "calibrated",
    alpha: float = 0.05,
    views: Sequence[View] = LADDER_VIEWS,
    keep: Sequence[str] = VISUAL_NEEDS,
    budget: FrameBudget | None = None,
    num_tries: int = 1,
    num_control_rows: int = 100,
    adapter: str | None = None,
    columns: Mapping[str, str] | None = None,
    media_root: str | None = None,
    on_error: Literal["raise", "undecided"] = "raise",
    seed: int = 0,
    source: Mapping[str, Any] | None = None,
    progress: bool = False,
) -> Climb:
    """Finds the least evidence that answers each question.

    A row is asked through the views from the cheapest on, until one answers it under a rule that bounds luck.

    Args:
        dataset (`Dataset` or `DatasetDict`): N rows in all.
        answerer (`Answerer`): who is asked; one that takes frames, unless all `views` are blind.
        rule, alpha, views, num_tries: as in [`~vidground_hf.ladder.Ladder`].
        keep (`Sequence[str]`, *optional*): the needs whose rows are kept, some of `ladder.VISUAL_NEEDS`; left out, all
            that text does not answer.
        budget (`FrameBudget`, *optional*): what the views with pixels show of a clip; 32 frames when left out.
        num_control_rows (`int`, *optional*, defaults to 100): how many rows are asked with another row's clip, too.
        adapter, columns, media_root, on_error: as in `GroundFilter`.
        seed (`int`, *optional*, defaults to 0): of option orders, shuffled frames, intervals and the control.
        source (`Mapping`, *optional*): `id` and `revision` of the data, as in `curate`.
        progress (`bool`, *optional*, defaults to `False`): show bars on stderr.

    Returns:
        `Climb`: the labelled rows and the report.

    Raises:
        `ValueError`: for settings that `Ladder` refuses, an unknown need, an unknown layout or an empty dataset.
        `AnswerError`: with `on_error="raise"`, before anything is asked when clips are not on the disk, and in the end
            when questions got no answer.

    Example:
        >>> from vidground_hf.answerers import ConstantAnswerer
        >>> rows = [{"question": f"Which is it, {k}?", "options": ["this", "that"], "answer": "A"} for k in range(40)]
        >>> climb(Dataset.from_list(rows), ConstantAnswerer("A"), views=["text"]).report["needs"]["text"]
        40
    """
    _check_settings(keep, on_error)
    ladder = Ladder(
        answerer=answerer, rule=rule, alpha=alpha, views=views, budget=budget or FrameBudget(), num_tries=num_tries,
        seed=seed,
    )  # fmt: skip
    rows = join_splits(dataset)
    found, keys, examples = read_examples(
        rows, adapter=adapter, columns=columns, media_root=media_root,
        with_media=any(view not in BLIND_VIEWS for view in ladder.views),
    )  # fmt: skip
    if on_error == "raise" and any(view not in BLIND_VIEWS for view in ladder.views):
        _check_clips(examples)
    labels = label_rows(ladder, examples, keys, on_error=on_error, progress=progress)
    marked = add_needs(rows, labels)
    named = describe_source(rows, source)
    report = build_ladder_report(ladder, labels, examples, found, keep=tuple(keep), source=named)
    report |= {
        "wrong_video": measure_wrong_videos(ladder, examples, num_control_rows),
        "kept_blind": measure_kept(ladder, examples, [k for k, need in enumerate(labels.needs) if need in keep]),
        "planted": _compare(labels, marked),
        "leaks": find_leaks(
            examples, *hash_questions(examples), code_column(rows, "split") if "split" in rows.column_names else None
        ),
        "samples": {},  # a page of a ladder shows no rows
        "columns": dict(columns) if columns else None,
        "command": None,
        **read_card_metadata(named),
    }
    calls = sum((Counter(rung.calls) for rung in labels.rungs), Counter[str]())
    return Climb(rows=marked, keep=tuple(keep), report=report, calls=calls)


def _check_settings(keep: Sequence[str], on_error: str) -> None:
    unknown = [need for need in keep if need not in VISUAL_NEEDS]
    if unknown or not keep:
        raise ValueError(f"got keep {list(keep)}; allowed are one or more of {', '.join(VISUAL_NEEDS)}")
    if on_error not in ("raise", "undecided"):
        raise ValueError(f"{on_error = } is unknown; allowed are 'raise' and 'undecided'")


def _check_clips(examples: Sequence[Example]) -> None:
    missing = list(list_missing_files(examples).values())
    if missing:
        raise AnswerError(
            f"{len(missing):,} of {len(examples):,} questions have no clip: no file {missing[0]}; name the "
            "folder with --media-root (media_root='...'). Or pass --on-error undecided (in Python "
            "on_error='undecided') to keep such rows as undecided"
        )


def add_needs(rows: Dataset, labels: Labels) -> Dataset:
    """Adds the columns of `NEED_FEATURES`; no media cell is opened.

    Columns of an earlier ladder are replaced. A column `needs` without its `needs_reason` is the dataset's own, and
    keeps its values as `needs_original`.
    """
    if "needs" in rows.column_names and "needs_reason" not in rows.column_names:
        rows = rows.rename_column("needs", OWN_NEEDS)
    values = {"needs": labels.needs, "needs_reason": labels.reasons, "is_visually_grounded": labels.grounded}
    added = pa.Table.from_pydict(values, schema=NEED_FEATURES.arrow_schema)
    features = Features({name: kind for name, kind in rows.features.items() if name not in added.column_names})

    def append(batch: pa.Table, places: list[int]) -> pa.Table:
        return append_columns(batch, added.take(places))

    marked = rows.with_format("arrow").map(
        append, batched=True, with_indices=True, features=Features(features | NEED_FEATURES), desc="Adding needs"
    )
    return marked.with_format(None)


def _name_split(need: str | None, keep: Sequence[str]) -> str:
    if need is None:
        return "undecided"
    return "grounded" if need in keep else "text_answerable" if need in BLIND_NEEDS else "not_kept"


def _compare(labels: Labels, marked: Dataset) -> dict[str, Any] | None:
    """The labels beside planted ones, where the dataset came with such."""
    planted = marked[OWN_NEEDS] if OWN_NEEDS in marked.column_names else []
    known = list(planted)
    return compare_needs(labels.needs, known) if known and set(known) <= set(PLANTED) else None
