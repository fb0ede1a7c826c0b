"""The figures of a ladder: how many questions need what, by category, and what finding out took.

One JSON-able dictionary, the same for every run that gets the same answers. Draws nothing and writes no files.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vidground_hf.adapters import Adapter
from vidground_hf.answerers.base import ModelAnswerer, describe_answerer
from vidground_hf.deciding import name_rule
from vidground_hf.environment import BASE_PACKAGES, OPTIONAL_PACKAGES, read_version
from vidground_hf.ladder import Labels, Ladder, Rung
from vidground_hf.ladder_needs import NEEDS, UNANSWERED
from vidground_hf.schema import BLIND_VIEWS, Example
from vidground_hf.set_rules import FittedCalibrated
from vidground_hf.video_backends import DEFAULT_BACKEND

ALL_NEEDS = (*NEEDS.values(), UNANSWERED)
# What the toy set plants, and which labels are right for it. "options" is right for "text" too: its cue may be there.
PLANTED: dict[str, tuple[str, ...]] = {
    "text": ("options", "text"),
    "single_frame": ("one_frame",),
    "video": ("unordered_frames",),
    "order": ("video",),
}


def build_ladder_report(
    ladder: Ladder,
    labels: Labels,
    examples: Sequence[Example],
    adapter: Adapter,
    *,
    keep: Sequence[str],
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Counts what a reader needs.

    Args:
        ladder (`Ladder`): who was asked, and how.
        labels (`Labels`): of N rows.
        examples (`Sequence[Example]`): N rows.
        adapter (`Adapter`): how they were read.
        keep (`Sequence[str]`): the needs that are kept.
        source (`Mapping`): `id`, `revision` and `fingerprint` of the data.

    Returns:
        `dict`: the object that `report.json` holds, without the checks; see `docs/design/ladder.md`.
    """
    answerer = ladder.answerer
    looks = any(view not in BLIND_VIEWS for view in ladder.views)
    described = describe_answerer(answerer, looks=looks)
    sampling = dict(answerer.sampling) if isinstance(answerer, ModelAnswerer) else {}
    return {
        "kind": "ladder",
        **count_needs(labels.needs, [True] * len(examples)),
        "reasons": dict(Counter(reason for reason in labels.reasons if reason is not None).most_common()),
        "groups": {
            "category": _count_groups(labels.needs, [example.category for example in examples]),
            "problem_type": _count_groups(labels.needs, [example.problem_type for example in examples]),
            "source": _count_groups(labels.needs, [example.source for example in examples]),
        },
        "rungs": [_describe_rung(rung) for rung in labels.rungs],
        "keep": list(keep),
        "answerer": answerer.id,
        "answerers": [{"id": answerer.id, **described}],
        "sampling": sampling,
        "rule": ladder.rule,
        "alpha": ladder.alpha,
        "views": list(ladder.views),
        "budget": asdict(ladder.budget),
        "decoder": (ladder.budget.backend or DEFAULT_BACKEND) if looks else None,
        "num_tries": ladder.num_tries,
        "seed": ladder.seed,
        "adapter": adapter.name,
        "source": dict(source),
        "versions": {package: read_version(package) for package in BASE_PACKAGES + OPTIONAL_PACKAGES},
    }


def count_needs(needs: Sequence[str | None], part: Sequence[bool]) -> dict[str, Any]:
    """Counts the labels of some of N rows; `None` is in no label and counted as undecided.

    Example:
        >>> count_needs(["text", None, "video"], [True, True, False])["num_undecided"]
        1
    """
    chosen = [need for need, is_in in zip(needs, part, strict=True) if is_in]
    return {
        "num_rows": len(chosen),
        "needs": {need: chosen.count(need) for need in ALL_NEEDS},
        "num_undecided": chosen.count(None),
    }


def _count_groups(needs: Sequence[str | None], names: Sequence[str | None]) -> dict[str, dict[str, Any]]:
    found = sorted({name for name in names if name})
    return {name: count_needs(needs, [other == name for other in names]) for name in found}


def _describe_rung(rung: Rung) -> dict[str, Any]:
    """What was asked is counted whether it was in the store or not, so that a second run says the same."""
    firsts = [trials[0].score for trials in rung.trials]
    scored = [score for score in firsts if score is not None]
    calibration = rung.rule.calibration if isinstance(rung.rule, FittedCalibrated) else None
    return {
        "view": rung.view,
        "num_rows": len(rung.rows),
        "num_answered": rung.num_answered,
        "num_undecided": rung.num_undecided,
        "num_skipped": rung.num_skipped,
        "first_accuracy": sum(scored) / len(scored) if scored else None,
        "num_unscored": len(firsts) - len(scored),
        "num_answers": rung.calls["asked"] + rung.calls["cached"],
        "num_failed": rung.calls["failed"],
        "num_saved": rung.calls["saved"],
        "rule": name_rule(rung.rule),
        "expected_lucky": None if calibration is None else calibration.expected_lucky_drops,
        "expected_missed": None if calibration is None else calibration.expected_missed,
        "threshold": None if calibration is None else calibration.threshold,
        "smallest_error": None if calibration is None else calibration.smallest_error,
    }


def compare_needs(needs: Sequence[str | None], planted: Sequence[str]) -> dict[str, Any]:
    """Compares labels with what was planted in a toy set.

    Args:
        needs (`Sequence[str | None]`): N labels.
        planted (`Sequence[str]`): N of `toy_questions.NEEDS`.

    Returns:
        `dict`: `confusion`, how many rows of each planted need got which label (`undecided` for none); `num_answered`,
        rows that some view answered; `recovered`, the share of them with the right label; `too_little`, the share
        whose label is below what they need: luck.

    Example:
        >>> compare_needs(["text", "one_frame", "text", None], ["text", "single_frame", "video", "order"])["recovered"]
        0.6666666666666666
    """
    found = Counter(zip(planted, (need or "undecided" for need in needs), strict=True))
    answered = [
        (need, PLANTED[truth])
        for need, truth in zip(needs, planted, strict=True)
        if need is not None and need != UNANSWERED
    ]
    num_right = sum(need in allowed for need, allowed in answered)
    num_low = sum(ALL_NEEDS.index(need) < min(map(ALL_NEEDS.index, allowed)) for need, allowed in answered)
    return {
        "confusion": {
            truth: {need: found[truth, need] for need in (*ALL_NEEDS, "undecided")}
            for truth in PLANTED
            if truth in planted
        },
        "num_answered": len(answered),
        "recovered": num_right / len(answered) if answered else None,
        "too_little": num_low / len(answered) if answered else None,
    }
