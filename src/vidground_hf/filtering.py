"""`GroundFilter`: fit on a set, then a frozen callable for `datasets.map` that adds verdict columns.

It adds columns and nothing else: it never drops, reorders or decodes. Splitting is `curation.py`'s.
"""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features, IterableDataset, Video
from datasets.formatting.formatting import LazyDict
from multiprocess import parent_process  # type: ignore[import-untyped]  # what `map` makes its processes with
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]  # comes without types

from vidground_hf.adapters import find_adapter
from vidground_hf.answerers.base import Answerer, ModelAnswerer
from vidground_hf.answerers.probe import ProbeFit, TextBiasProbe
from vidground_hf.asking import Asking, check_answerers
from vidground_hf.cache import AnswerCache
from vidground_hf.deciding import RowRule, name_rule, needs_fit, pack_rule, unpack_rule
from vidground_hf.facts import gather_facts
from vidground_hf.fits import SCHEMA_VERSION, Fit, load_fit, save_fit
from vidground_hf.judgement import Judgement, collect_firsts, decide, fit_columns, settle_confidence
from vidground_hf.judging import describe_errors, make_error
from vidground_hf.lookup import Lookup, explain_drops, list_columns
from vidground_hf.reading import ROWS_PER_BATCH, AnyDataset, RowSource, read_table
from vidground_hf.request_counts import count_requests
from vidground_hf.rows import ADDED_FEATURES, KIND_FEATURES, append_columns, read_media
from vidground_hf.schema import BLIND_VIEWS, Example, Verdict, View
from vidground_hf.set_rules import calibrated
from vidground_hf.shard_asking import ask_source, describe_asking, find_errors, keep_answers
from vidground_hf.shards import ShardFolder, WorkFolder
from vidground_hf.trials import Trial


class GroundFilter:
    """Finds the questions of a dataset that text alone answers.

    `fit` does what needs the whole set and returns a frozen filter; `ds.map(ground_filter)` and
    `ds.map(ground_filter, batched=True)` then only read: a row of the fitted set gets its out-of-fold answer, any
    other row the answer of the full fit. The columns added are `blind_answers` (list of str), `blind_scores` (list
    of float), `bias_score` (float), `is_visually_grounded` (bool) and `drop_reason` (str); any of them may be None.

    Args:
        answerer (`TextBiasProbe`, `Answerer` or several `Answerer`s, *optional*): who answers without the video;
            defaults to the probe.
        rule (`Callable`, *optional*): from a row's trials to a verdict; defaults to `calibrated(alpha=0.05)`.
        samples (`int`, *optional*): trials a row and answerer at most, each under another order of the options; left
            out, as many as the rule takes. The probe answers once.
        seed (`int`, *optional*, defaults to 0): of the orders in which options are shown.
        shortcut_kinds (`bool`, *optional*, defaults to `False`): ask the first answerer about every dropped row why it
            could answer, and add a column `shortcut_kind` (str or None).
        view (`str`, *optional*, defaults to `"text"`): what the answerer is shown, one of `schema.BLIND_VIEWS`.
        adapter (`str`, *optional*): the dataset's layout, a key of `ADAPTERS`; found by the columns when left out.
        columns (`Mapping[str, str]`, *optional*): which column holds what, as in `adapters.find_adapter`.
        media_root (`str`, *optional*): the folder that relative media paths start from.
        on_error (`str`, *optional*, defaults to `"raise"`): `"undecided"` keeps a row whose question got no answer.

    Raises:
        `ValueError`: for a view that needs pixels, an unknown `on_error`, `samples` below 1, or a probe among several.

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
        answerer: Answerer | TextBiasProbe | Sequence[Answerer | TextBiasProbe] | None = None,
        rule: RowRule | None = None,
        *,
        samples: int | None = None,
        seed: int = 0,
        shortcut_kinds: bool = False,
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
        if isinstance(answerer, str) or isinstance(rule, str):
            raise TypeError(
                f"got {answerer = } and {rule = }; pass load_answerer('constant:A') and single_shot(), or their like"
            )
        answerers = tuple(answerer) if isinstance(answerer, Sequence) else (answerer or TextBiasProbe(),)
        check_answerers(answerers, rule, samples)
        self.answerers: tuple[Answerer | TextBiasProbe, ...] = answerers
        self.samples = samples
        self.seed = seed
        if shortcut_kinds and isinstance(answerers[0], TextBiasProbe):
            raise ValueError("the probe cannot say why it could answer; shortcut_kinds goes with a model")
        self.shortcut_kinds = shortcut_kinds
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
        self._loaded: Lookup | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_loaded": None, "schema_version": SCHEMA_VERSION}

    def __repr__(self) -> str:
        state = f"fit={self.fit_sha256[:12]}" if self.fit_sha256 else "not fitted"
        return f"GroundFilter({self.answerer_id}, {name_rule(self.rule)}, view={self.view}, {state})"

    @property
    def answerer_id(self) -> str:
        """Who answers; the ids of several with commas between them."""
        return ", ".join(answerer.id for answerer in self.answerers)

    def judge(
        self,
        dataset: AnyDataset,
        *,
        progress: bool = False,
        work_dir: Path | None = None,
        ask: Callable[..., dict[str, int]] = ask_source,
    ) -> Judgement:
        """Answers, scores and decides every row of a set.

        Args:
            dataset (`Dataset`, `DatasetDict` or their iterable kinds): all splits of a set are judged together.
            progress (`bool`, *optional*, defaults to `False`): show a bar on stderr.
            work_dir (`Path`, *optional*): where trials are kept meanwhile; a run that was interrupted goes on where
                it was when it gets the same folder. Left out, a temporary one.
            ask (`Callable`, *optional*, defaults to `shard_asking.ask_source`): who asks about the shards.

        Returns:
            `Judgement`: one value a row.

        Raises:
            `ValueError`: when the layout is unknown or the set is empty.
            `AnswerError`: when questions got no answer and `on_error` is `"raise"`.
            `RuntimeError`: when another run is using `work_dir`.
        """
        work = WorkFolder(work_dir)
        try:
            return self._judge(dataset, work, progress, ask)
        except BaseException:
            work.release()
            raise

    def _judge(
        self, dataset: AnyDataset, work: WorkFolder, progress: bool, ask: Callable[..., dict[str, int]]
    ) -> Judgement:
        source = self._read(dataset, work)
        facts = gather_facts(source)
        asking = self._make_asking(self.rule)
        settings = describe_asking(asking, source, facts, name_rule(self.rule))
        folder = ShardFolder(work.path / "trials", settings)
        probe, calls, followed_share = None, dict[str, int](), 1.0
        if isinstance(self.answerers[0], TextBiasProbe):
            probe = self.answerers[0].fit(source, view=self.view)
            keep_answers(probe.iterate_answers(), len(source), folder)
        else:
            calls = ask(asking, source, facts, folder, progress=progress)
            self._check(folder, len(source))
            followed_share = asking.find_followed_share(len(source))
        firsts = collect_firsts(folder, len(source), len(self.answerers))
        firsts, followed_share = settle_confidence(firsts, followed_share)
        rule = fit_columns(self.rule, firsts, facts, probe=probe, followed_share=followed_share)

        def explain(bounds: tuple[int, int], rows: Sequence[Sequence[Trial]], verdicts: Sequence[Verdict]) -> Any:
            return explain_drops(
                self._make_asking(rule), source.read(*bounds), rows, verdicts, raises=self.on_error == "raise",
                progress=progress,
            )  # fmt: skip

        columns, grounded, reasons = decide(
            folder, facts, rule, followed_share=followed_share, kinds=explain if self.shortcut_kinds else None,
            path=work.path / "columns.arrow",
        )  # fmt: skip
        return Judgement(
            source=source, facts=facts, folder=folder, work=work, firsts=firsts, followed_share=followed_share,
            calls=calls, rule=rule, probe=probe, columns=columns, grounded=grounded, reasons=reasons,
        )  # fmt: skip

    def _check(self, folder: ShardFolder, num_rows: int) -> None:
        errors = find_errors(folder, num_rows)
        if not errors:
            return
        if self.on_error == "raise":
            raise make_error(errors, num_rows)
        warnings.warn(f"{describe_errors(errors, num_rows)}; they are undecided", stacklevel=5)

    def plan(self, dataset: AnyDataset) -> dict[str, int | None]:
        """Says how many questions a model would be asked, and asks none; see `request_counts.count_requests`.

        Raises:
            `ValueError`: when the answerer is no model, the layout is unknown or the set is empty.
        """
        if not any(isinstance(answerer, ModelAnswerer) for answerer in self.answerers):
            raise ValueError(f"{self.answerer_id} sends no requests; there is nothing to plan")
        work = WorkFolder(None)
        with AnswerCache() as cache:
            plan = count_requests(self._make_asking(self.rule), self._read(dataset, work), cache)
        work.release()
        if self.shortcut_kinds and plan["max_requests"] is not None and plan["num_questions"] is not None:
            plan["max_requests"] += plan["num_questions"]
        return plan

    def _read(self, dataset: AnyDataset, work: WorkFolder) -> RowSource:
        return RowSource(
            dataset, work.path / "rows", adapter=self.adapter, columns=self.columns, media_root=self.media_root
        )

    def _make_asking(self, rule: RowRule) -> Asking:
        return Asking(
            answerers=cast(tuple[Answerer, ...], self.answerers),
            rule=rule,
            view=self.view,
            samples=self.samples,
            seed=self.seed,
        )

    def fit(self, dataset: AnyDataset, *, progress: bool = False) -> GroundFilter:
        """Judges a set and returns a frozen filter that knows the result; this one stays as it is.

        The result is one file in the cache folder, named by its sha256. See `judge` for arguments and errors.
        """
        return self.freeze(self.judge(dataset, progress=progress))

    def freeze(self, judgement: Judgement) -> GroundFilter:
        """Stores a judgement and returns the filter that reads it."""
        settings = {
            "schema_version": SCHEMA_VERSION,
            "answerer": self.answerer_id,
            "view": self.view,
            "columns": judgement.source.adapter.columns,
            "fitted_rule": pack_rule(judgement.rule),
        }
        keys = pa.FixedSizeBinaryArray.from_buffers(
            pa.binary(16), len(judgement.source), [None, pa.py_buffer(judgement.facts.keys)]
        )
        rows = judgement.columns.combine_chunks().add_column(0, "key", keys)
        state = judgement.probe.to_bytes() if judgement.probe is not None else None
        fitted = copy(self)
        fitted._loaded, fitted.adapter = None, judgement.source.adapter.name
        fitted.fit_path, fitted.fit_sha256 = save_fit(Fit(settings, rows, state))
        return fitted

    def features(self, dataset: Dataset | IterableDataset) -> Features:
        """The dataset's features with those of the added columns; for `IterableDataset.map(..., features=...)`."""
        own = dataset.features
        if own is None:
            own = Dataset.from_list(list(dataset.take(ROWS_PER_BATCH))).features
        added = KIND_FEATURES if self.shortcut_kinds else ADDED_FEATURES
        return Features({name: own[name] for name in own if name not in added} | added)

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
            return append_columns(table, loaded.find_columns(read_table(table, loaded.adapter)))
        missing = [name for name in loaded.adapter.columns if name not in rows]
        if missing:
            raise ValueError(f"the rows lack the columns {', '.join(missing)}; found {', '.join(rows)}")
        cells = [rows[name] for name in loaded.adapter.columns]
        if all(isinstance(cell, (list, np.ndarray)) for cell in cells):
            batch = [[read_media(value) for value in cell] for cell in cells]
            return {**rows, **loaded.find_columns(batch).to_pydict()}
        added = loaded.find_columns([[read_media(cell)] for cell in cells]).to_pydict()
        return {**rows, **{name: values[0] for name, values in added.items()}}

    def _load(self, rows: Any) -> Lookup:
        if self._loaded is None:
            if parent_process() is not None:  # of `map(..., num_proc=N)`, where each process has a core
                threadpool_limits(1)
            fit = None if self.fit_path is None else load_fit(self.fit_path, self.fit_sha256 or "")
            if fit is None and (needs_fit(self.rule) or isinstance(self.answerers[0], TextBiasProbe)):
                raise RuntimeError(
                    f"{self!r} looks at the whole set before it can judge a row; call "
                    "ground_filter = ground_filter.fit(dataset) and map that"
                )
            known = list_columns([], [], [] if self.shortcut_kinds else None)
            names = list(rows.pa_table.column_names if isinstance(rows, LazyDict) else rows)
            asking = self._make_asking(self.rule)
            if fit is not None:
                names = fit.settings["columns"]
                asking = replace(asking, rule=unpack_rule(fit.settings["fitted_rule"], self.rule))
                if fit.answerer is not None:
                    asking = replace(asking, answerers=(ProbeFit.from_bytes(fit.answerer),))
            self._loaded = Lookup(
                adapter=find_adapter(
                    fit.settings["columns"] if fit else names, name=self.adapter, mapping=self.columns
                ),
                asking=asking,
                has_kinds=self.shortcut_kinds,
                raises=self.on_error == "raise",
                rows=fit.rows.drop_columns(["key"]) if fit else known,
                positions={key: index for index, key in enumerate(fit.rows["key"].to_pylist())} if fit else {},
            )
        return self._loaded


def list_clusters(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Each row's group as a number; a row without a group is its own."""
    codes: dict[object, int] = {}
    return np.array([codes.setdefault(e.group or index, len(codes)) for index, e in enumerate(examples)], np.int64)
