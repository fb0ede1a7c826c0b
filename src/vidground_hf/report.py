"""The figures of a curation: one JSON-able dictionary.

Draws nothing and writes no files; `tables.py`, `figures.py` and `pages.py` show what is counted here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import DatasetDict
from numpy.typing import NDArray

from vidground_hf.answerers.base import Answer
from vidground_hf.answerers.probe import ProbeFit
from vidground_hf.environment import BASE_PACKAGES, read_version
from vidground_hf.facts import Names
from vidground_hf.judgement import Judgement
from vidground_hf.judging import make_trial
from vidground_hf.luck import count_luck
from vidground_hf.prompts import make_prompt
from vidground_hf.schema import Example, View
from vidground_hf.set_rules import FittedCalibrated
from vidground_hf.shortcut_kinds import SHORTCUT_KINDS
from vidground_hf.stats.intervals import bootstrap_mean
from vidground_hf.tally import Tally
from vidground_hf.trials import VIEW_GAPS, Trial

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
    splits: Names | None,
    source: Mapping[str, Any],
) -> dict[str, Any]:
    """Counts everything that a reader needs before trusting a curation.

    Args:
        judgement (`Judgement`): the set, judged.
        answerers (`Sequence[Mapping]`): `id` of who answered, and whatever else is to be said of each.
        rule (`str`): as asked for.
        view (`str`): what was shown.
        seed (`int`): of intervals, controls and samples.
        splits (`Names`, *optional*): the split of each row.
        source (`Mapping`): `id`, `revision` and `fingerprint` of the data.

    Returns:
        `dict`: the object that `report.json` holds; see `docs/report.md`.
    """
    facts = judgement.facts
    tally = Tally(judgement, seed)
    heldout, control = measure_heldout(judgement, tally, seed)
    return {
        **tally.count(np.arange(len(judgement.source))),
        **count_luck(judgement),
        "groups": {
            "problem_type": tally.count_groups(facts.problem_types),
            "source": tally.count_groups(facts.sources),
            "category": tally.count_groups(facts.categories),
        },
        "reasons": count_reasons(judgement),
        "flags": facts.flags,
        "leaks": find_leaks(judgement.source, facts.asked, facts.has_video, splits),
        "label_invariance": judgement.probe.label_invariance if judgement.probe is not None else None,
        "heldout_blind_accuracy": heldout,
        "random_removal_control": control,
        "distribution": bin_confidence(judgement),
        "samples": draw_samples(judgement, view, seed),
        "calls": count_calls(judgement),
        "shortcut_kinds": count_kinds(judgement),
        "adapter": judgement.source.adapter.name,
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
    reasons = judgement.reasons
    counted = {}
    for name, value in {"grounded": 1, "text_answerable": 0, "undecided": -1}.items():
        codes = reasons.codes[judgement.grounded == value]
        # In the order of the rows: of equal counts the reason that comes first is named first.
        counter = Counter({reasons.names[code]: 0 for code in dict.fromkeys(codes.tolist())})
        for code, count in enumerate(np.bincount(codes, minlength=len(reasons.names)).tolist()):
            if count:
                counter[reasons.names[code]] = count
        counted[name] = dict(counter.most_common())
    return counted


def count_calls(judgement: Judgement) -> dict[str, int] | None:
    """Answers asked for, found and saved, beside the fewest that lead to the same verdicts; `None` without calls.

    The `minimum` is one answer for each row that was asked about, and for a dropped row all that it took to drop it.
    """
    if not judgement.calls:
        return None
    firsts = judgement.firsts
    gaps = [code for code, error in enumerate(firsts.errors.names) if error in VIEW_GAPS]
    is_asked = (judgement.facts.defects.codes < 0) & ~np.isin(firsts.errors.codes, gaps)
    needed = np.where(judgement.grounded == 0, firsts.num_trials, 1)[is_asked]
    return {**judgement.calls, "minimum": int(needed.sum())}


def count_kinds(judgement: Judgement) -> dict[str, int] | None:
    """How often each shortcut kind was named for a dropped row, and `none`; `None` where nobody asked."""
    if "shortcut_kind" not in judgement.columns.column_names:
        return None
    named = judgement.columns["shortcut_kind"].filter(pa.array(judgement.grounded == 0))
    counted = {one["values"]: one["counts"] for one in named.value_counts().to_pylist()}
    return {kind: counted.get(kind, 0) for kind in SHORTCUT_KINDS} | {"none": counted.get(None, 0)}


def measure_answerer(judgement: Judgement, number: int, seed: int) -> dict[str, float | None] | None:
    """Accuracy of the first answers of one of several answerers; `None` unless it was asked about every scored row."""
    scores = judgement.firsts.by_answerer[number]
    if np.isnan(scores[~np.isnan(judgement.firsts.score)]).any():
        return None
    return bootstrap_mean(scores, clusters=judgement.facts.clusters, seed=seed)._asdict()


def find_leaks(
    examples: Sequence[Example], asked: NDArray[np.uint64], has_video: NDArray[np.bool_], splits: Names | None
) -> dict[str, Any]:
    """Questions that are asked about the same video in more than one split.

    Args:
        examples (`Sequence[Example]`): N rows, of which a few are read.
        asked (`uint64[N]`), has_video (`bool[N]`): see `facts.hash_questions`.
        splits (`Names`, *optional*): of each row.
    """
    if splits is None or not has_video.any():
        return {"num_questions": 0, "splits": [], "examples": []}
    rows = np.flatnonzero(has_video)
    _, first, question = np.unique(asked[rows], return_index=True, return_inverse=True)
    codes = splits.codes[rows]
    leaked = np.unique(question[codes != codes[first[question]]])
    named = np.unique(codes[np.isin(question, leaked)])
    return {
        "num_questions": len(leaked),
        "splits": sorted(splits.names[code] for code in named if code >= 0),
        "examples": [examples[index].id for index in np.sort(rows[first[leaked]])[:10].tolist()],
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
    answered = probe.iterate_refit(keep, seed=seed + 1)
    scores = [make_trial(example, answer).score for example, answer in answered if answer is not None]
    values = np.array(scores, dtype=np.float64)
    return bootstrap_mean(values, clusters=judgement.facts.clusters[keep], seed=seed)._asdict()


def bin_confidence(judgement: Judgement) -> dict[str, Any] | None:
    """Histogram of confidence: right answers beside wrong ones, weighted by the lucky right ones they stand for."""
    share = judgement.rule.followed_share if isinstance(judgement.rule, FittedCalibrated) else 1.0
    firsts = judgement.firsts
    is_shown = firsts.has_decoys & ~np.isnan(firsts.confidence) & ~np.isnan(firsts.score)
    if not is_shown.any():
        return None
    confidence, is_right = firsts.confidence[is_shown], firsts.is_right[is_shown]
    weight = firsts.decoy_weight[is_shown] / share
    edges = np.histogram_bin_edges(confidence, bins=_NUM_BINS)
    targets, _ = np.histogram(confidence[is_right], bins=edges)
    decoys, _ = np.histogram(confidence[~is_right], bins=edges, weights=weight[~is_right])
    threshold = judgement.rule.calibration.threshold if isinstance(judgement.rule, FittedCalibrated) else None
    return {"edges": edges.tolist(), "targets": targets.tolist(), "decoys": decoys.tolist(), "threshold": threshold}


def draw_samples(judgement: Judgement, view: View, seed: int) -> dict[str, list[dict[str, Any]]]:
    """A seeded sample of each verdict, with the words that gave the answer away where a probe can say."""
    rng = np.random.default_rng(seed)
    chosen: dict[str, list[int]] = {}
    for name, wanted in {"text_answerable": 0, "grounded": 1, "undecided": -1}.items():
        rows = np.flatnonzero(judgement.grounded == wanted)
        size = min(SAMPLE_SIZE, len(rows))
        chosen[name] = sorted(rng.choice(rows, size=size, replace=False).tolist()) if size else []
    trials = judgement.read_firsts([index for indices in chosen.values() for index in indices])
    return {
        name: [_describe(judgement, index, trials[index], view) for index in indices]
        for name, indices in chosen.items()
    }


def _describe(judgement: Judgement, index: int, trial: Trial, view: View) -> dict[str, Any]:
    example = judgement.source[index]
    clues: list[tuple[str, float]] = []
    if judgement.probe is not None and trial.option_logprobs is not None:
        answer = Answer(text=trial.text, option_logprobs=trial.option_logprobs)
        clues = judgement.probe.explain([make_prompt(example, view)], [answer])[0]
    return {
        "id": example.id,
        "question": example.question,
        "options": list(example.options),
        "answer": example.answer,
        "blind_answer": trial.text,
        "bias_score": trial.bias_score,
        "reason": judgement.reasons.get(index),
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
