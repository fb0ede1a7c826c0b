"""`load_curated`: a curated dataset from the Hub, joined with its source where only ids were pushed.

Curates nothing and uploads nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset, DatasetDict, Value, load_dataset
from huggingface_hub import hf_hub_download

from vidground_hf.folders import read_report
from vidground_hf.hub_errors import ask_hub
from vidground_hf.id_rows import ANSWER_KEYS, ROW_KEY, SourceIndex, find_rows, index_source, join_rows
from vidground_hf.loading import DataError, explain_damage, open_dataset
from vidground_hf.rows import KIND_FEATURES

_log = logging.getLogger(__name__)
_NUM_SHOWN = 5


def load_curated(
    repo_id: str,
    *,
    split: str | None = None,
    revision: str | None = None,
    source: str | Path | Sequence[str | Path] | None = None,
    token: str | None = None,
) -> Dataset | DatasetDict:
    """Loads a curated dataset, whole.

    Where it was pushed with ids only, its rows are looked up in the source at the revision that was curated, in the
    order they were pushed, and every cell of theirs is checked by the row's key.

    Args:
        repo_id (`str`): `user/name` on the Hub, or a folder that `vidground push --dry-run` wrote.
        split (`str`, *optional*): `"grounded"`, `"text_answerable"` or `"undecided"`; all of them when left out.
        revision (`str`, *optional*): branch, tag or commit of the curated dataset.
        source (`str`, `Path` or a sequence of them, *optional*): your copy of the source, as `open_dataset` takes it;
            needed where it was not read from the Hub.
        token (`str`, *optional*): left out, `HF_TOKEN` or the Hub's own store.

    Returns:
        `Dataset` or `DatasetDict`: with all columns of the source and the added ones. Where only ids were pushed,
        blind answers in a model's own words are `None`, and a warning counts them.

    Raises:
        `DataError`: when the source is needed and not given, or rows of it are gone or have changed; says how many,
            and which first.
        `HubError`: when the Hub refuses.
    """

    def load() -> tuple[dict[str, Any], Any]:
        if Path(repo_id).is_dir():
            report = read_report(Path(repo_id))
            with explain_damage(repo_id):
                return report, load_dataset(repo_id, split=split)
        path = Path(hf_hub_download(repo_id, "report.json", repo_type="dataset", revision=revision, token=token))
        return read_report(path.parent), load_dataset(repo_id, split=split, revision=revision, token=token)

    report, pushed = ask_hub(load, repo_id, token)
    if report.get("ids_only") is None:
        return pushed
    rows = index_source(_open_source(report, source), report)
    if isinstance(pushed, Dataset):
        return _join(pushed, rows, report)
    return DatasetDict({name: _join(part, rows, report) for name, part in pushed.items()})


def _open_source(report: Mapping[str, Any], source: str | Path | Sequence[str | Path] | None) -> Dataset:
    """Opens what was curated, as it was opened then."""
    recorded = report["source"]
    asked = {"adapter": report["adapter"], "columns": report["columns"]}
    if source is not None:
        rows = open_dataset(source, **asked)
    elif recorded["revision"] is None:
        raise DataError(
            f"this dataset holds ids only, and was made from local files, {recorded['id'] or 'unnamed'}; say where "
            "your copy is with source=PATH"
        )
    else:
        hub = {"revision": recorded["revision"]} | {
            key: recorded.get(key) for key in ("split", "config", "data_files")
        }
        rows = open_dataset(recorded["id"], **asked, **hub)
    if "split" in report["ids_only"]["columns"] and "split" not in rows.column_names:
        # `curate` names the split of every DatasetDict, `open_dataset` only where there are several.
        rows = rows.add_column("split", [str(rows.split)] * len(rows), feature=Value("string"))
    missing = [name for name in report["ids_only"]["columns"] if name not in rows.column_names]
    if missing:
        raise DataError(
            f"the source has no column {', '.join(missing)}; found {', '.join(rows.column_names)}. Pass the files "
            "that were curated as source=PATH"
        )
    return rows


def _join(stripped: Dataset, source: SourceIndex, report: Mapping[str, Any]) -> Dataset:
    positions = find_rows(stripped, source)
    gone = [index for index, position in enumerate(positions) if position is None]
    if gone:
        name = report["source"]["id"] or "the source"
        raise DataError(
            f"{len(gone):,} of {len(stripped):,} rows of split {stripped.split} are not in {name}, or not as they "
            f"were curated ({len(source.rows):,} rows there): {_list_rows(stripped, gone)}. "
            + ("Nothing matches: is this the right source? " if len(gone) == len(stripped) else "")
            + "Pass the files that were curated as source=PATH; the verdicts alone open with datasets.load_dataset"
        )
    joined, num_lost = join_rows(stripped, source, [position for position in positions if position is not None])
    if num_lost:
        _log.warning(
            "%d blind answers of split %s are None: they are in a model's own words, which were not pushed",
            num_lost,
            stripped.split,
        )
    return joined


def _list_rows(stripped: Dataset, indices: Sequence[int]) -> str:
    ids = [name for name in stripped.column_names if name not in {ROW_KEY, ANSWER_KEYS, *KIND_FEATURES}] or [ROW_KEY]
    shown = stripped.select(indices[:_NUM_SHOWN]).select_columns(ids)
    listed = "; ".join(", ".join(f"{name} {value}" for name, value in row.items()) for row in shown)
    return listed + ("; ..." if len(indices) > _NUM_SHOWN else "")
