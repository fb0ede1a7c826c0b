"""The card of a post-trained model: how much it looks, beside how much it knows blind.

Measures nothing: `gap.py` does. Trains nothing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import EvalResult, ModelCardData

from vidground_hf.eval_results import BLIND, GapReports, check_report
from vidground_hf.gap_report import format_gap
from vidground_hf.hub import Push, push_folder
from vidground_hf.rendering import clean_text, format_interval, render_markdown
from vidground_hf.wording import describe_split, list_facts, list_provenance


class Row(NamedTuple):
    """One benchmark in the card: the metric's dictionary as texts."""

    benchmark: str
    num_questions: int
    visual: str
    blind: str
    gap: str
    chance: float | None
    vg: str


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
        base_model (`str`): what it was trained from, an id on the Hub; of a folder only its name is told.
        training_report (`dict`, *optional*): the `report.json` of the curated training data.
        recipe (`Mapping[str, Any]`, *optional*): names and values of how it was trained.

    Returns:
        `str`: the card, with `model-index`.

    Raises:
        `ValueError`: for a dictionary that is no gap report.
    """
    for benchmark, report in gap_reports.items():
        check_report(benchmark, report)
    source = training_report["source"] if training_report else None
    metadata = ModelCardData(
        base_model=None if _is_folder(base_model) else clean_text(base_model),
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
        "base_model": Path(base_model).name if _is_folder(base_model) else base_model,
        "rows": [_make_row(benchmark, report) for benchmark, report in gap_reports.items()],
        "training": training,
        "recipe": {name: str(value) for name, value in (recipe or {}).items()},
    }
    return f"---\n{metadata.to_yaml()}\n---\n\n{render_markdown('model_card.md.j2', values)}"


def _is_folder(model: str) -> bool:
    return Path(model).is_absolute() or Path(model).is_dir()


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
