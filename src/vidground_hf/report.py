"""The figures of a curation: one JSON-able dictionary.

Draws nothing and writes no files; `tables.py`, `figures.py` and `pages.py` show what is counted here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from datasets import DatasetDict
from numpy.typing import NDArray

from vidground_hf.answerers.probe import ProbeFit
from vidground_hf.environment import BASE_PACKAGES, read_version
from vidground_hf.filtering import Judgement
from vidground_hf.judging import make_trial
from vidground_hf.luck import count_luck
from vidground_hf.prompts import make_prompt
from vidground_hf.schema import Example, View, normalize_text
from vidground_hf.set_rules import FittedCalibrated
from vidground_hf.shortcut_kinds import SHORTCUT_KINDS
from vidground_hf.stats.gap import RIGHT_SCORE
from vidground_hf.stats.intervals import bootstrap_mean
from vidground_hf.tally import Tally
from vidground_hf.trials import VIEW_GAPS

SAMPLE_SIZE = 20
MIN_ROWS_TO_REFIT = 20  # what the probe takes at least
_NUM_BINS = 30


def build_report(
    judgement: Judgement,
    *,
    answerers: Sequence[Mapping[str, Any]],
    rule: str,
    view: View,
    seed: int,
    splits: Sequence[str] | None,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Counts everything that a reader needs before trusting a curation.

    Args:
        judgement (`Judgement`): the set, judged.
        answerers (`Sequence[Mapping]`): `id` of who answered, and whatever else is to be said of each.
        rule (`str`): as asked for.
        view (`str`): what was shown.
        seed (`int`): of intervals, controls and samples.
        splits (`Sequence[str]`, *optional*): the split of each row.
        source (`Mapping`): `id`, `revision` and `fingerprint` of the data.

    Returns:
        `dict`: the object that `report.json` holds; see `docs/report.md`.
    """
    examples = judgement.examples
    tally = Tally(judgement, seed)
    heldout, control = measure_heldout(judgement, tally, seed)
    return {
        **tally.count(np.ones(len(examples), dtype=bool)),
        **count_luck(judgement),
        "groups": {
            "problem_type": tally.count_groups([example.problem_type for example in examples]),
            "source": tally.count_groups([example.source for example in examples]),
            "category": tally.count_groups([example.category for example in examples]),
        },
        "reasons": count_reasons(judgement),
        "flags": count_flags(examples),
        "leaks": find_leaks(examples, splits),
        "label_invariance": judgement.probe.label_invariance if judgement.probe is not None else None,
        "heldout_blind_accuracy": heldout,
        "random_removal_control": control,
        "distribution": bin_confidence(judgement),
        "samples": draw_samples(judgement, view, seed),
        "calls": count_calls(judgement),
        "shortcut_kinds": count_kinds(judgement),
        "adapter": judgement.adapter.name,
        "answerer": ", ".join(one["id"] for one in answerers),
        "answerers": [
            {**one, "blind_accuracy": measure_answerer(judgement, number, seed)}
            for number, one in enumerate(answerers)
        ],
        "view": view,
        "rule": rule,
        "seed": seed,
        "source": dict(source),
        "license": None,
        "precision": None,
        "recall": None,
        "versions": {package: read_version(package) for package in BASE_PACKAGES},
    }


def count_reasons(judgement: Judgement) -> dict[str, dict[str, int]]:
    """How often each reason led to each verdict."""
    names = {True: "grounded", False: "text_answerable", None: "undecided"}
    counted: dict[str, Counter[str]] = {name: Counter() for name in names.values()}
    for verdict in judgement.verdicts:
        counted[names[verdict.is_visually_grounded]][verdict.reason] += 1
    return {name: dict(counter.most_common()) for name, counter in counted.items()}


def count_calls(judgement: Judgement) -> dict[str, int] | None:
    """Answers asked for, found and saved, beside the fewest that lead to the same verdicts; `None` without calls.

    The `minimum` is one answer for each row that was asked about, and for a dropped row all that it took to drop it.
    """
    if not judgement.calls:
        return None
    rows = zip(judgement.rows, judgement.verdicts, judgement.examples, strict=True)
    needed = [
        len(trials) if verdict.is_visually_grounded is False else 1
        for trials, verdict, example in rows
        if example.defect is None and trials[0].error not in VIEW_GAPS
    ]
    return {**judgement.calls, "minimum": sum(needed)}


def count_kinds(judgement: Judgement) -> dict[str, int] | None:
    """How often each shortcut kind was named for a dropped row, and `none`; `None` where nobody asked."""
    if judgement.kinds is None:
        return None
    dropped = [index for index, verdict in enumerate(judgement.verdicts) if verdict.is_visually_grounded is False]
    counted = Counter(judgement.kinds[index] for index in dropped)
    return {kind: counted[kind] for kind in SHORTCUT_KINDS} | {"none": counted[None]}


def measure_answerer(judgement: Judgement, number: int, seed: int) -> dict[str, float | None] | None:
    """Accuracy of the first answers of one of several answerers; `None` unless it was asked about every scored row."""
    firsts = [next((trial for trial in trials if trial.answerer == number), None) for trials in judgement.rows]
    is_scored = np.array([trials[0].score is not None for trials in judgement.rows])
    scores = np.array([None if first is None else first.score for first in firsts], dtype=np.float64)
    if np.isnan(scores[is_scored]).any():
        return None
    return bootstrap_mean(scores, clusters=judgement.clusters, seed=seed)._asdict()


def count_flags(examples: Sequence[Example]) -> dict[str, int]:
    """How many rows are odd in which way.

    `repeated_question` counts rows whose question and video came before, `missing_media` rows whose file is not under
    the media root.
    """
    counted = Counter(flag for example in examples for flag in example.flags)
    num_missing = sum(
        not Path(example.media_root, example.video).exists()
        for example in examples
        if example.media_root is not None and example.video is not None
    )
    asked = Counter((normalize_text(example.question), example.video or example.id) for example in examples)
    repeated = sum(count - 1 for count in asked.values())
    counted.update({"repeated_question": repeated, "missing_media": num_missing})
    return {name: count for name, count in counted.most_common() if count}


def find_leaks(examples: Sequence[Example], splits: Sequence[str] | None) -> dict[str, Any]:
    """Questions that are asked about the same video in more than one split."""
    seen: dict[tuple[str, str], list[int]] = defaultdict(list)
    if splits is not None:
        for index, example in enumerate(examples):
            if example.video is not None:
                seen[normalize_text(example.question), example.video].append(index)
    leaks = [rows for rows in seen.values() if splits is not None and len({splits[index] for index in rows}) > 1]
    return {
        "num_questions": len(leaks),
        "splits": sorted({splits[index] for rows in leaks for index in rows}) if splits is not None else [],
        "examples": [examples[rows[0]].id for rows in leaks[:10]],
    }


def measure_heldout(
    judgement: Judgement, tally: Tally, seed: int
) -> tuple[dict[str, float | None] | None, dict[str, float | None] | None]:
    """Blind accuracy of what is kept, by a probe refitted on it with new folds, and the same after random removal.

    Neither reads the trials that decided. Both are `None` without a probe, or when too few rows are kept to refit it.
    """
    probe, kept = judgement.probe, tally.is_kept
    if probe is None or kept.sum() < MIN_ROWS_TO_REFIT:
        return None, None
    judged = np.flatnonzero(kept | tally.is_dropped)
    control = np.zeros_like(kept)
    control[np.random.default_rng(seed).choice(judged, size=int(kept.sum()), replace=False)] = True
    return _measure_refit(judgement, probe, kept, seed), _measure_refit(judgement, probe, control, seed)


def _measure_refit(
    judgement: Judgement, probe: ProbeFit, keep: NDArray[np.bool_], seed: int
) -> dict[str, float | None]:
    answers = probe.refit(keep, seed=seed + 1)
    rows = zip(judgement.examples, answers, strict=True)
    trials = [make_trial(example, answer) for example, answer in rows if answer is not None]
    scores = np.array([trial.score for trial in trials], dtype=np.float64)
    return bootstrap_mean(scores, clusters=judgement.clusters[keep], seed=seed)._asdict()


def bin_confidence(judgement: Judgement) -> dict[str, Any] | None:
    """Histogram of confidence: right answers beside wrong ones, weighted by the lucky right ones they stand for."""
    share = judgement.rule.followed_share if isinstance(judgement.rule, FittedCalibrated) else 1.0
    rows = [
        (trial.confidence, trial.score, trial.num_gold / (trial.num_options - trial.num_gold) / share)
        for trial in judgement.trials
        if trial.confidence is not None and trial.score is not None and trial.has_decoys
    ]
    if not rows:
        return None
    confidence, score, weight = np.array(rows, dtype=np.float64).T
    edges = np.histogram_bin_edges(confidence, bins=_NUM_BINS)
    is_right = score >= RIGHT_SCORE
    targets, _ = np.histogram(confidence[is_right], bins=edges)
    decoys, _ = np.histogram(confidence[~is_right], bins=edges, weights=weight[~is_right])
    threshold = judgement.rule.calibration.threshold if isinstance(judgement.rule, FittedCalibrated) else None
    return {"edges": edges.tolist(), "targets": targets.tolist(), "decoys": decoys.tolist(), "threshold": threshold}


def draw_samples(judgement: Judgement, view: View, seed: int) -> dict[str, list[dict[str, Any]]]:
    """A seeded sample of each verdict, with the words that gave the answer away where a probe can say."""
    rng = np.random.default_rng(seed)
    names = {"text_answerable": False, "grounded": True, "undecided": None}
    samples = {}
    for name, wanted in names.items():
        rows = [i for i, verdict in enumerate(judgement.verdicts) if verdict.is_visually_grounded is wanted]
        chosen = sorted(rng.choice(rows, size=min(SAMPLE_SIZE, len(rows)), replace=False).tolist()) if rows else []
        samples[name] = [_describe(judgement, index, view) for index in chosen]
    return samples


def _describe(judgement: Judgement, index: int, view: View) -> dict[str, Any]:
    example, trial = judgement.examples[index], judgement.rows[index][0]
    clues: list[tuple[str, float]] = []
    if judgement.probe is not None and trial.option_logprobs is not None:
        clues = judgement.probe.explain([make_prompt(example, view)], [judgement.probe.answers[index]])[0]
    return {
        "id": example.id,
        "question": example.question,
        "options": list(example.options),
        "answer": example.answer,
        "blind_answer": trial.text,
        "bias_score": trial.bias_score,
        "reason": judgement.verdicts[index].reason,
        "category": example.category,
        "clues": [[text, round(weight, 3)] for text, weight in clues],
    }


def compare_with_truth(splits: DatasetDict) -> dict[str, float | None]:
    """Precision and recall of the drop against a column `needs` that says which questions need only `text`.

    Undecided rows count as kept.
    """
    needs = {name: list(rows["needs"]) for name, rows in splits.items()}
    dropped = needs.get("text_answerable", [])
    num_planted = sum(values.count("text") for values in needs.values())
    return {
        "precision": dropped.count("text") / len(dropped) if dropped else None,
        "recall": dropped.count("text") / num_planted if num_planted else None,
    }
