"""`GroundFilter`: fit on a set, then a frozen callable for `datasets.map` that adds verdict columns.

It adds columns and nothing else: it never drops, reorders or decodes. Splitting is `curation.py`'s.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import pyarrow as pa
from datasets import Dataset, DatasetDict, Features, IterableDataset, IterableDatasetDict, Video
from datasets.formatting.formatting import LazyDict
from multiprocess import parent_process  # type: ignore[import-untyped]  # what `Dataset.map` makes its processes with
from numpy.typing import NDArray

from vidground_hf.adapters import Adapter, find_adapter
from vidground_hf.answerers.base import Answer, Answerer, ModelAnswerer
from vidground_hf.answerers.probe import ProbeFit, TextBiasProbe
from vidground_hf.cache import AnswerCache
from vidground_hf.deciding import (
    RowRule,
    fit_rule,
    judge_fitted_rows,
    judge_rows,
    name_rule,
    needs_fit,
    pack_rule,
    unpack_rule,
)
from vidground_hf.fits import SCHEMA_VERSION, Fit, load_fit, save_fit
from vidground_hf.judging import answer_examples, check_answers, count_requests, list_row, make_trial
from vidground_hf.rows import (
    ADDED_FEATURES,
    append_columns,
    build_columns,
    hash_rows,
    iterate_rows,
    read_cells,
    read_media,
)
from vidground_hf.rules import Trial, calibrated
from vidground_hf.schema import BLIND_VIEWS, Example, Verdict, View

AnyDataset: TypeAlias = Dataset | DatasetDict | IterableDataset | IterableDatasetDict
_ROWS_PER_BATCH = 1000  # what `Dataset.map` itself takes at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """All that a fit found out, a value a row in the order of the dataset.

    Attributes:
        adapter (`Adapter`): how the rows were read.
        keys (`list[bytes]`): 16 bytes a row, made from the cells that were read.
        examples (`list[Example]`): the rows.
        clusters (`int64[N]`): the group of each row as a number; a row without a group is its own.
        answers (`list[Answer]`): out of fold where the answerer was trained on the set.
        trials (`list[Trial]`): the answers, scored.
        verdicts (`list[Verdict]`): by `rule`.
        rule (`Callable`): fitted.
        probe (`ProbeFit`, *optional*): the trained probe, where the answerer is one.
    """

    adapter: Adapter
    keys: list[bytes]
    examples: list[Example]
    clusters: NDArray[np.int64]
    answers: list[Answer]
    trials: list[Trial]
    verdicts: list[Verdict]
    rule: RowRule
    probe: ProbeFit | None


class GroundFilter:
    """Finds the questions of a dataset that text alone answers.

    `fit` does what needs the whole set and returns a frozen filter; `ds.map(ground_filter)` and
    `ds.map(ground_filter, batched=True)` then only read: a row of the fitted set gets its out-of-fold answer, any
    other row the answer of the full fit. The columns added are `blind_answers` (list of str), `blind_scores` (list
    of float), `bias_score` (float), `is_visually_grounded` (bool) and `drop_reason` (str); any of them may be None.

    Args:
        answerer (`TextBiasProbe` or `Answerer`, *optional*): who answers without the video; defaults to the probe.
        rule (`Callable`, *optional*): from a row's trials to a verdict; defaults to `calibrated(alpha=0.05)`.
        view (`str`, *optional*, defaults to `"text"`): what the answerer is shown, one of `schema.BLIND_VIEWS`.
        adapter (`str`, *optional*): the dataset's layout, a key of `ADAPTERS`; found by the columns when left out.
        columns (`Mapping[str, str]`, *optional*): which column holds what, as in `adapters.find_adapter`.
        media_root (`str`, *optional*): the folder that relative media paths start from.
        on_error (`str`, *optional*, defaults to `"raise"`): `"undecided"` keeps a row whose question got no answer.

    Raises:
        `ValueError`: for a view that needs pixels, or an unknown `on_error`.

    Example:
        >>> from datasets import Dataset
        >>> rows = [{"question": f"Which is it, {k}?", "options": ["this", "that"], "answer": "A"} for k in range(40)]
        >>> ds = Dataset.from_list(rows)
        >>> ground_filter = GroundFilter().fit(ds)
        >>> ds.map(ground_filter, batched=True)[0]["is_visually_grounded"]
        False
    """

    def __init__(
        self,
        answerer: Answerer | TextBiasProbe | None = None,
        rule: RowRule | None = None,
        *,
        view: View = "text",
        adapter: str | None = None,
        columns: Mapping[str, str] | None = None,
        media_root: str | None = None,
        on_error: Literal["raise", "undecided"] = "raise",
    ) -> None:
        if view not in BLIND_VIEWS:
            raise ValueError(f"{view = } is not blind; allowed are {', '.join(BLIND_VIEWS)}")
        if on_error not in ("raise", "undecided"):
            raise ValueError(f"{on_error = } is unknown; allowed are 'raise' and 'undecided'")
        self.answerer = TextBiasProbe() if answerer is None else answerer
        self.rule = calibrated() if rule is None else rule
        self.view = view
        self.adapter = adapter
        self.columns = dict(columns or {})
        self.media_root = media_root
        self.on_error = on_error
        self.fit_path: Path | None = None
        self.fit_sha256: str | None = None
        # A fingerprint that never repeats makes `map` ask again for what got no answer.
        self._nonce = uuid.uuid4().hex if on_error == "undecided" else None
        self._loaded: _Loaded | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None, "schema_version": SCHEMA_VERSION}

    def __repr__(self) -> str:
        state = f"fit={self.fit_sha256[:12]}" if self.fit_sha256 else "not fitted"
        return f"GroundFilter({self.answerer.id}, {name_rule(self.rule)}, view={self.view}, {state})"

    def judge(self, dataset: AnyDataset, *, progress: bool = False) -> Judgement:
        """Answers, scores and decides every row of a set.

        Args:
            dataset (`Dataset`, `DatasetDict` or their iterable kinds): all splits of a set are judged together.
            progress (`bool`, *optional*, defaults to `False`): show a bar on stderr.

        Returns:
            `Judgement`: one value a row.

        Raises:
            `ValueError`: when the layout is unknown or the set is empty.
            `AnswerError`: when questions got no answer and `on_error` is `"raise"`.
        """
        return self._decide(*self._read(dataset), progress)

    def plan(self, dataset: AnyDataset) -> dict[str, int | None]:
        """Says how many questions a model would be asked, and asks none; see `judging.count_requests`.

        Raises:
            `ValueError`: when the answerer is no model, the layout is unknown or the set is empty.
        """
        if not isinstance(self.answerer, ModelAnswerer):
            raise ValueError(f"{self.answerer.id} sends no requests; there is nothing to plan")
        _, _, examples = self._read(dataset)
        with AnswerCache() as cache:
            return count_requests(self.answerer, examples, self.view, cache)

    def _read(self, dataset: AnyDataset) -> tuple[Adapter, list[bytes], list[Example]]:
        parts = list(dataset.values()) if isinstance(dataset, dict) else [dataset]
        adapter = find_adapter(_list_columns(parts[0]), name=self.adapter, mapping=self.columns)
        keys: list[bytes] = []
        examples: list[Example] = []
        for part in parts:
            for table in _iterate_tables(part):
                cells = _read_table(table, adapter)
                keys += hash_rows(cells)
                examples += [adapter.convert(row) for row in iterate_rows(adapter.columns, cells)]
        if self.media_root is not None:
            examples = [replace(example, media_root=self.media_root) for example in examples]
        if not examples:
            raise ValueError("the dataset has no rows; there is nothing to fit")
        return adapter, keys, examples

    def _decide(self, adapter: Adapter, keys: list[bytes], examples: list[Example], progress: bool) -> Judgement:
        probe = None
        if isinstance(self.answerer, TextBiasProbe):
            probe = self.answerer.fit(examples, view=self.view)
            answers = probe.answers
        else:
            answers = self._answer(self.answerer, examples, progress)
            if self.on_error == "raise":
                check_answers(answers)
        trials = [make_trial(example, answer) for example, answer in zip(examples, answers, strict=True)]
        clusters = list_clusters(examples)
        rule = fit_rule(self.rule, trials, clusters.tolist(), keys, probe)
        verdicts = judge_fitted_rows(examples, trials, rule)
        return Judgement(
            adapter=adapter,
            keys=keys,
            examples=examples,
            clusters=clusters,
            answers=answers,
            trials=trials,
            verdicts=verdicts,
            rule=rule,
            probe=probe,
        )

    def _answer(self, answerer: Answerer, examples: Sequence[Example], progress: bool = False) -> list[Answer]:
        if not isinstance(answerer, ModelAnswerer):
            return answer_examples(answerer, examples, self.view, progress=progress)
        if parent_process() is not None:
            raise RuntimeError(
                f"{answerer.id} was asked from a process of map(..., num_proc=N); leave num_proc out: one process "
                "keeps the model busy. Or call ground_filter = ground_filter.fit(dataset) first, which asks; a map "
                "of the fitted rows only reads"
            )
        with AnswerCache() as cache:
            return answer_examples(answerer, examples, self.view, cache=cache, progress=progress)

    def fit(self, dataset: AnyDataset, *, progress: bool = False) -> GroundFilter:
        """Judges a set and returns a frozen filter that knows the result; this one stays as it is.

        The result is one file in the cache folder, named by its sha256. See `judge` for arguments and errors.
        """
        return self.freeze(self.judge(dataset, progress=progress))

    def freeze(self, judgement: Judgement) -> GroundFilter:
        """Stores a judgement and returns the filter that reads it."""
        added = build_columns(
            [list_row(*row) for row in zip(judgement.answers, judgement.trials, judgement.verdicts, strict=True)]
        )
        settings = {
            "schema_version": SCHEMA_VERSION,
            "answerer": self.answerer.id,
            "view": self.view,
            "columns": judgement.adapter.columns,
            "fitted_rule": pack_rule(judgement.rule),
        }
        rows = added.add_column(0, "key", pa.array(judgement.keys, pa.binary(16)))
        state = judgement.probe.to_bytes() if judgement.probe is not None else None
        fitted = GroundFilter(
            self.answerer,
            self.rule,
            view=self.view,
            adapter=judgement.adapter.name,
            columns=self.columns,
            media_root=self.media_root,
            on_error=self.on_error,
        )
        fitted.fit_path, fitted.fit_sha256 = save_fit(Fit(settings, rows, state))
        fitted._nonce = self._nonce
        return fitted

    def features(self, dataset: Dataset | IterableDataset) -> Features:
        """The dataset's features with those of the added columns; for `IterableDataset.map(..., features=...)`."""
        own = dataset.features
        if own is None:
            own = Dataset.from_list(list(dataset.take(_ROWS_PER_BATCH))).features
        return Features({name: own[name] for name in own if name not in ADDED_FEATURES} | ADDED_FEATURES)

    def apply(self, dataset: AnyDataset) -> AnyDataset:
        """Adds the columns to a dataset of any kind; the same as `map`, with the schema carried along.

        Video columns are neither decoded nor changed.
        """
        if isinstance(dataset, dict):
            return type(dataset)({name: self.apply(part) for name, part in dataset.items()})
        if isinstance(dataset, Dataset):
            return dataset.map(self, batched=True, desc="Adding verdicts")
        features = self.features(dataset)
        videos = {name: kind for name, kind in features.items() if isinstance(kind, Video)}
        for name in videos:
            dataset = dataset.cast_column(name, Video(decode=False))
        raw = Features(features | {name: Video(decode=False) for name in videos})
        mapped = dataset.map(self, batched=True, features=raw)
        for name, kind in videos.items():
            mapped = mapped.cast_column(name, kind)
        return mapped

    def __call__(self, rows: Any) -> Any:
        """Adds the columns to one row or a batch of rows, in the form `map` hands them over.

        Raises:
            `RuntimeError`: when the filter needs a fit and has none.
            `ValueError`: when columns are missing that the fit read.
        """
        loaded = self._load(rows)
        if isinstance(rows, (LazyDict, pa.Table)):
            table = rows.pa_table if isinstance(rows, LazyDict) else rows
            return append_columns(table, self._add(_read_table(table, loaded.adapter), loaded))
        missing = [name for name in loaded.adapter.columns if name not in rows]
        if missing:
            raise ValueError(f"the rows lack the columns {', '.join(missing)}; found {', '.join(rows)}")
        cells = [rows[name] for name in loaded.adapter.columns]
        if all(isinstance(cell, (list, np.ndarray)) for cell in cells):
            batch = [[read_media(value) for value in cell] for cell in cells]
            return {**rows, **self._add(batch, loaded).to_pydict()}
        added = self._add([[read_media(cell)] for cell in cells], loaded).to_pydict()
        return {**rows, **{name: values[0] for name, values in added.items()}}

    def _add(self, cells: Sequence[Sequence[Any]], loaded: _Loaded) -> pa.Table:
        positions = np.array([loaded.positions.get(key, -1) for key in hash_rows(cells)], dtype=np.int64)
        is_seen = positions >= 0
        known = loaded.rows.take(positions[is_seen])
        if is_seen.all():
            return known
        rows = iterate_rows(loaded.adapter.columns, cells)
        examples = [loaded.adapter.convert(row) for row, seen in zip(rows, is_seen, strict=True) if not seen]
        if len(positions) == 1 and isinstance(loaded.answerer, ModelAnswerer):
            warnings.warn(
                f"{loaded.answerer.id} is asked one question at a time; pass batched=True to map", stacklevel=2
            )
        answers = self._answer(loaded.answerer, examples)
        if self.on_error == "raise" and not isinstance(loaded.answerer, ProbeFit):
            check_answers(answers)
        trials = [make_trial(example, answer) for example, answer in zip(examples, answers, strict=True)]
        verdicts = judge_rows(examples, trials, loaded.rule)
        fresh = build_columns([list_row(*row) for row in zip(answers, trials, verdicts, strict=True)])
        # The new rows stand behind the known ones; one `take` puts all of them into the order of the batch.
        order = np.empty(len(positions), dtype=np.int64)
        order[is_seen] = np.arange(known.num_rows)
        order[~is_seen] = known.num_rows + np.arange(fresh.num_rows)
        return pa.concat_tables([known, fresh]).combine_chunks().take(order)

    def _load(self, rows: Any) -> _Loaded:
        if self._loaded is None:
            if self.fit_path is None:
                self._loaded = self._prepare_unfitted(rows)
            else:
                fit = load_fit(self.fit_path, self.fit_sha256 or "")
                self._loaded = _Loaded(
                    adapter=find_adapter(fit.settings["columns"], name=self.adapter, mapping=self.columns),
                    rule=unpack_rule(fit.settings["fitted_rule"], self.rule),
                    answerer=ProbeFit.from_bytes(fit.answerer) if fit.answerer else cast(Answerer, self.answerer),
                    rows=fit.rows.drop_columns(["key"]),
                    positions={key: index for index, key in enumerate(fit.rows["key"].to_pylist())},
                )
        return self._loaded

    def _prepare_unfitted(self, rows: Any) -> _Loaded:
        if needs_fit(self.rule) or isinstance(self.answerer, TextBiasProbe):
            raise RuntimeError(
                f"{self!r} looks at the whole set before it can judge a row; call "
                "ground_filter = ground_filter.fit(dataset) and map that"
            )
        names = list(rows.pa_table.column_names if isinstance(rows, LazyDict) else rows)
        adapter = find_adapter(names, name=self.adapter, mapping=self.columns)
        return _Loaded(adapter=adapter, rule=self.rule, answerer=self.answerer, rows=build_columns([]), positions={})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Loaded:
    """What a filter needs at hand to judge rows; never pickled."""

    adapter: Adapter
    rule: RowRule
    answerer: Answerer
    rows: pa.Table
    positions: dict[bytes, int]


def list_clusters(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Each row's group as a number; a row without a group is its own."""
    codes: dict[object, int] = {}
    return np.array([codes.setdefault(e.group or index, len(codes)) for index, e in enumerate(examples)], np.int64)


def _list_columns(dataset: Dataset | IterableDataset) -> list[str]:
    return list(dataset.column_names or next(iter(dataset)))


def _iterate_tables(dataset: Dataset | IterableDataset) -> Iterator[pa.Table]:
    # Arrow batches hold the cells as they are stored: no Video is opened, whatever the file behind it.
    yield from dataset.with_format("arrow").iter(batch_size=_ROWS_PER_BATCH)


def _read_table(table: pa.Table, adapter: Adapter) -> list[list[Any]]:
    missing = [name for name in adapter.columns if name not in table.column_names]
    if missing:
        raise ValueError(f"the rows lack the columns {', '.join(missing)}; found {', '.join(table.column_names)}")
    return read_cells(table, adapter.columns)
