"""`.eval_results/*.yaml`: accuracies of a model with the video and, marked as blind, without it.

Measures nothing: `gap.py` does. The card is `model_cards.py`'s.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResultEntry, eval_result_entries_to_yaml

from vidground_hf.hub import Push, push_folder

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
BLIND = "blind"  # what the notes of a result say that was measured without the video

GapReports = Mapping[str, Mapping[str, Any]]


def write_eval_results(
    gap_reports: GapReports,
    folder: str | Path,
    *,
    task_ids: Mapping[str, str] | None = None,
    date: str | None = None,
    source_url: str | None = None,
) -> list[Path]:
    """Writes `.eval_results/*.yaml`, which the Hub shows on a model's page and in the benchmark's leaderboard.

    Each benchmark gets its accuracy with the video and, with the note `blind`, the one without it; what could not be
    measured is left out. Values are fractions in [0, 1].

    Args:
        gap_reports (`Mapping[str, Mapping]`): by the benchmark's dataset id on the Hub, what the metric
            `blind_visual_gap` or `vidground gap --json` gives.
        folder (`str` or `Path`): the model's folder.
        task_ids (`Mapping[str, str]`, *optional*): the task of a benchmark, by its id; `"default"` where left out.
        date (`str`, *optional*): when it was measured, as `2026-01-31`.
        source_url (`str`, *optional*): where the evaluation can be seen.

    Returns:
        `list[Path]`: one file a benchmark.

    Raises:
        `ValueError`: for a benchmark that is named by anything but `user/name`, or a dictionary of something else.

    Example:
        >>> from vidground_hf.gap import measure_gap
        >>> result = measure_gap(["A", "B"], ["A", "C"], ["A", "B"], num_options=4)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     print(write_eval_results({"user/bench": result}, folder)[0].read_text())
        - dataset:
            id: user/bench
            task_id: default
          value: 1.0
        - dataset:
            id: user/bench
            task_id: default
          value: 0.5
          notes: blind
        <BLANKLINE>
    """
    target = Path(folder) / ".eval_results"
    target.mkdir(parents=True, exist_ok=True)
    written = []
    for benchmark, report in gap_reports.items():
        check_report(benchmark, report)
        if not _HUB_ID.fullmatch(benchmark):
            raise ValueError(f"results are stored by dataset on the Hub, got {benchmark!r}; name it user/name")
        task = (task_ids or {}).get(benchmark, "default")
        measured = ((report["visual_accuracy"], None), (report["blind_accuracy"], BLIND))
        entries = [
            EvalResultEntry(benchmark, task, value, date=date, source_url=source_url, notes=notes)
            for value, notes in measured
            if value is not None
        ]
        path = target / f"{benchmark.replace('/', '--')}.yaml"
        path.write_text(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False), encoding="utf-8")
        written.append(path)
    return written


def push_eval_results(
    repo_id: str,
    gap_reports: GapReports,
    *,
    task_ids: Mapping[str, str] | None = None,
    date: str | None = None,
    source_url: str | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> Push:
    """Pushes what `write_eval_results` writes to a model's repository, or proposes it to its owner.

    Args:
        repo_id (`str`): the model, `user/name`.
        gap_reports, task_ids, date, source_url: as in `write_eval_results`.
        create_pr (`bool`, *optional*, defaults to `False`): open a pull request, as on somebody else's model.
        token (`str`, *optional*): left out, `HF_TOKEN` or the Hub's own store.

    Returns:
        `Push`: what was done.

    Raises:
        `ValueError`: as `write_eval_results` does.
        `HubError`: when the Hub refuses, and offline.
    """
    with tempfile.TemporaryDirectory(prefix="vidground-push-") as folder:
        write_eval_results(gap_reports, folder, task_ids=task_ids, date=date, source_url=source_url)
        message = "Add evaluation results with and without the video"
        return push_folder(Path(folder), repo_id, "model", message=message, create_pr=create_pr, token=token)


def check_report(benchmark: str, report: Mapping[str, Any]) -> None:
    """Raises `ValueError` unless a dictionary is what the metric `blind_visual_gap` gives."""
    missing = [key for key in ("visual_accuracy", "blind_accuracy", "gap", "num_examples") if key not in report]
    if missing:
        raise ValueError(
            f"the report of {benchmark!r} has no {', '.join(missing)}; pass what measure_gap, the metric "
            "blind_visual_gap or `vidground gap --json` gives"
        )
