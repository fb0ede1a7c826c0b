"""The card and the evaluation results of a post-trained model: how much it looks, beside how much it knows blind.

Measures nothing: `gap.py` does. Trains nothing.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml  # type: ignore[import-untyped]
from huggingface_hub import EvalResult, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from vidground_hf.gap_report import format_gap
from vidground_hf.hub import Push, push_folder
from vidground_hf.rendering import clean_text, format_interval, render_markdown
from vidground_hf.wording import describe_split, list_facts, list_provenance

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
BLIND = "blind"  # what the notes of a result say that was measured without the video

GapReports = Mapping[str, Mapping[str, Any]]


class Row(NamedTuple):
    """One benchmark in the card: the metric's dictionary as texts."""

    benchmark: str
    num_questions: int
    visual: str
    blind: str
    gap: str
    chance: float | None
    vg: str


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
        _check_report(benchmark, report)
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


def render_model_card(
    repo_id: str,
    gap_reports: GapReports,
    *,
    base_model: str,
    training_report: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
) -> str:
    """Writes the `README.md` of a post-trained model. Texts are shown as they are, made inert.

    Args:
        repo_id (`str`): the model, `user/name`.
        gap_reports (`Mapping[str, Mapping]`): by benchmark, what the metric `blind_visual_gap` or
            `vidground gap --json` gives.
        base_model (`str`): what it was trained from, an id on the Hub.
        training_report (`dict`, *optional*): the `report.json` of the curated training data.
        recipe (`Mapping[str, Any]`, *optional*): names and values of how it was trained.

    Returns:
        `str`: the card, with `model-index`.

    Raises:
        `ValueError`: for a dictionary that is no gap report.
    """
    for benchmark, report in gap_reports.items():
        _check_report(benchmark, report)
    source = training_report["source"] if training_report else None
    metadata = ModelCardData(
        base_model=clean_text(base_model),
        datasets=[clean_text(source["id"])] if source and source["id"] and source["revision"] else None,
        model_name=clean_text(repo_id.rpartition("/")[2]),
        pipeline_tag="video-text-to-text",
        tags=["video", "video-question-answering", "vidground-hf"],
        eval_results=list(_list_results(gap_reports)) or None,
    )
    training = None
    if training_report is not None:
        training = {
            "headline": describe_split(training_report),
            "facts": list_facts(training_report),
            "provenance": list_provenance(training_report),
        }
    values = {
        "name": repo_id,
        "base_model": base_model,
        "rows": [_make_row(benchmark, report) for benchmark, report in gap_reports.items()],
        "training": training,
        "recipe": {name: str(value) for name, value in (recipe or {}).items()},
    }
    return f"---\n{metadata.to_yaml()}\n---\n\n{render_markdown('model_card.md.j2', values)}"


def push_model_card(
    repo_id: str,
    gap_reports: GapReports,
    *,
    base_model: str,
    training_report: Mapping[str, Any] | None = None,
    recipe: Mapping[str, Any] | None = None,
    create_pr: bool = False,
    token: str | None = None,
) -> Push:
    """Pushes the card of a post-trained model; a card that is there is replaced.

    Args:
        repo_id, gap_reports, base_model, training_report, recipe: as in `render_model_card`.
        create_pr (`bool`, *optional*, defaults to `False`): open a pull request, as on somebody else's model.
        token (`str`, *optional*): left out, `HF_TOKEN` or the Hub's own store.

    Returns:
        `Push`: what was done.

    Raises:
        `ValueError`: for a dictionary that is no gap report.
        `HubError`: when the Hub refuses, and offline.
    """
    card = render_model_card(
        repo_id, gap_reports, base_model=base_model, training_report=training_report, recipe=recipe
    )
    with tempfile.TemporaryDirectory(prefix="vidground-push-") as folder:
        (Path(folder) / "README.md").write_text(card, encoding="utf-8")
        message = "Write the model card"
        return push_folder(Path(folder), repo_id, "model", message=message, create_pr=create_pr, token=token)


def _check_report(benchmark: str, report: Mapping[str, Any]) -> None:
    missing = [key for key in ("visual_accuracy", "blind_accuracy", "gap", "num_examples") if key not in report]
    if missing:
        raise ValueError(
            f"the report of {benchmark!r} has no {', '.join(missing)}; pass what measure_gap, the metric "
            "blind_visual_gap or `vidground gap --json` gives"
        )


def _list_results(gap_reports: GapReports) -> Iterator[EvalResult]:
    for benchmark, report in gap_reports.items():
        named = (
            ("visual_accuracy", "accuracy", "accuracy with the video"),
            ("blind_accuracy", "accuracy", f"accuracy without the video ({BLIND})"),
            ("gap", "blind_visual_gap", "blind-visual gap"),
        )
        for key, metric_type, name in named:
            if report[key] is not None:
                yield EvalResult(
                    task_type="video-text-to-text",
                    dataset_type=clean_text(benchmark),
                    dataset_name=clean_text(benchmark),
                    metric_type=metric_type,
                    metric_name=name,
                    metric_value=report[key],
                )


def _make_row(benchmark: str, report: Mapping[str, Any]) -> Row:
    def share(key: str) -> str:
        return format_interval({"value": report[key], "low": report[f"{key}_low"], "high": report[f"{key}_high"]})

    return Row(
        benchmark=benchmark,
        num_questions=report["num_examples"],
        visual=share("visual_accuracy"),
        blind=share("blind_accuracy"),
        gap=format_gap(report),
        chance=report["chance"],
        vg=share("vg_accuracy"),
    )
