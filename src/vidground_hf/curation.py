"""`curate`: a dataset into grounded, text-answerable and undecided splits, with a report, as one folder.

The folder opens with `load_dataset(folder)`. How it gets to the Hub is in `publishing.py` and `hub.py`.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from datasets import Dataset, DatasetDict, Value, concatenate_datasets

from vidground_hf.answerers.base import Answerer, ModelAnswerer
from vidground_hf.answerers.probe import TextBiasProbe
from vidground_hf.deciding import RowRule, name_rule
from vidground_hf.facts import NameCoder, Names
from vidground_hf.filtering import GroundFilter
from vidground_hf.fits import find_cache_dir, keep_file
from vidground_hf.folders import write_report, write_shards, write_whole
from vidground_hf.hub import Push, push_folder
from vidground_hf.judgement import Judgement
from vidground_hf.origin import describe_source, read_card_metadata
from vidground_hf.publishing import REPLACED, write_dataset
from vidground_hf.report import build_report
from vidground_hf.schema import View
from vidground_hf.shard_asking import ask_source
from vidground_hf.shards import ROWS_PER_SHARD, WorkFolder
from vidground_hf.sharing import choose_ids_only, find_terms
from vidground_hf.wording import describe_split


@dataclass(frozen=True, slots=True)
class Curation:
    """A curated dataset.

    Attributes:
        splits (`DatasetDict`): those of `grounded`, `text_answerable` and `undecided` that have rows; together they
            hold every input row once, with its own columns and the added ones.
        report (`dict`): every figure, as `report.json` holds it.
        work (`WorkFolder`, *optional*): what lies on the disk meanwhile.
    """

    splits: DatasetDict
    report: dict[str, Any]
    work: WorkFolder | None = None

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

    def push_to_hub(
        self,
        repo_id: str,
        *,
        private: bool | None = None,
        create_pr: bool = False,
        revision: str | None = None,
        token: str | None = None,
        ids_only: bool | None = None,
        commit_message: str | None = None,
    ) -> Push:
        """Pushes the splits, the card, the report and the figures to the Hub in one commit.

        Files that Video, Image and Audio cells name are put into the shards. Where the repository holds the same files
        already, there is no commit; where a push was cut off, what was uploaded is not sent again.

        Args:
            repo_id (`str`): `user/name`; made when it is not there.
            private (`bool`, *optional*): of a repository that is made.
            create_pr (`bool`, *optional*, defaults to `False`): open a pull request instead.
            revision (`str`, *optional*): a branch; `main` when left out.
            token (`str`, *optional*): left out, `HF_TOKEN` or the Hub's own store.
            ids_only (`bool`, *optional*): push ids, verdicts and scores without the source's texts, for `load_curated`
                to join; left out, for sources known to forbid copies (`sharing.py`).
            commit_message (`str`, *optional*): of the commit; left out, the split in one sentence.

        Returns:
            `Push`: what was done.

        Raises:
            `ValueError`: when whole rows are asked for of a source that forbids copies.
            `DataError`: when a media file is not there.
            `HubError`: when the Hub refuses, and offline.
        """
        reason = choose_ids_only(self.report, ids_only)
        with tempfile.TemporaryDirectory(prefix="vidground-push-") as scratch:
            write_dataset(self.splits, self.report, Path(scratch), repo_id, ids_only=reason)
            return push_folder(
                Path(scratch), repo_id, "dataset", message=commit_message or describe_split(self.report),
                private=private, create_pr=create_pr, revision=revision, token=token, replaced=REPLACED,
            )  # fmt: skip


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
    source: Mapping[str, Any] | None = None,
    progress: bool = False,
    work_dir: str | Path | None = None,
    ask: Callable[..., dict[str, int]] = ask_source,
) -> Curation:
    """Splits a dataset into the questions that need the video and those that text alone answers.

    Args:
        dataset (`Dataset` or `DatasetDict`): all splits are judged together, so that a video seen in two of them
            stays in one fold.
        answerer, rule, samples, shortcut_kinds, view, adapter, columns, media_root, on_error: as in `GroundFilter`.
        seed (`int`, *optional*, defaults to 0): of option orders, intervals, controls and the sample shown.
        source (`Mapping`, *optional*): `id` and `revision` of the data, and `config`, `split` and `data_files` where
            `load_curated` needs them to read it again; id and revision of a Hub dataset are found without.
        progress (`bool`, *optional*, defaults to `False`): show bars on stderr.
        work_dir (`str` or `Path`, *optional*): where trials and verdicts are kept, until you delete it or call
            `work.remove()` of what is returned; a run that was interrupted goes on at the first shard that this folder
            lacks. One curation at a time may have it. Left out, only answers of models outlast the run, in
            `AnswerCache`.
        ask (`Callable`, *optional*, defaults to `shard_asking.ask_source`): who asks models about the shards;
            `ray_engine.curate_with_ray` passes another.

    Returns:
        `Curation`: the splits and the report; `save` writes both.

    Raises:
        `TypeError`: for a dataset that is streamed.
        `ValueError`: for an unknown layout or an empty dataset.
        `AnswerError`: when questions got no answer and `on_error` is `"raise"`.
        `RuntimeError`: when another run is using `work_dir`.

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
    judgement = ground_filter.judge(
        rows, progress=progress, work_dir=None if work_dir is None else Path(work_dir), ask=ask
    )
    marked = append_verdicts(rows, judgement)
    wanted = {"grounded": 1, "text_answerable": 0, "undecided": -1}
    chosen = {name: np.flatnonzero(judgement.grounded == value) for name, value in wanted.items()}
    splits = DatasetDict({name: marked.select(index) for name, index in chosen.items() if len(index)})
    report = build_report(
        judgement,
        answerers=[
            _describe(one) | (judgement.probe.describe() if judgement.probe else {}) for one in ground_filter.answerers
        ],
        rule=name_rule(ground_filter.rule),
        view=view,
        seed=seed,
        splits=code_column(rows, "split") if "split" in rows.column_names else None,
        source=describe_source(rows, source),
    )
    report |= {"columns": dict(columns) if columns else None, "command": None, **read_card_metadata(report["source"])}
    terms = find_terms(report)
    report["license"] = report["license"] or (terms.license if terms else None)
    report["seconds"] = round(time.perf_counter() - started, 2)
    return Curation(splits, report, judgement.work)


def append_verdicts(rows: Dataset, judgement: Judgement) -> Dataset:
    """Puts the added columns behind those of a set; columns of an earlier run are replaced.

    No row is copied, but for a set that was shuffled or picked from another: `datasets` writes its rows anew, in their
    order.
    """
    path = judgement.work.path / "columns.arrow"
    if not judgement.work.is_kept:
        path = keep_file(path, find_cache_dir() / "columns")
    added = Dataset.from_file(str(path))
    own = rows.remove_columns([name for name in added.column_names if name in rows.column_names])
    joined = concatenate_datasets([own.with_format(None), added], axis=1)
    # Where files lack some columns, `concatenate_datasets` puts these last.
    return joined.select_columns([*own.column_names, *added.column_names])


def code_column(rows: Dataset, name: str) -> Names:
    """One column of strings as numbers."""
    coder = NameCoder()
    for batch in rows.select_columns([name]).with_format("arrow").iter(batch_size=ROWS_PER_SHARD):
        coder.add(batch[name].to_pylist())
    return coder.finish()


def _describe(answerer: Answerer | TextBiasProbe) -> dict[str, Any]:
    return {"id": answerer.id, **(answerer.describe() if isinstance(answerer, ModelAnswerer) else {})}
