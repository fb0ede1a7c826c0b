"""The figures of a curation: one JSON-able dictionary, and its short table for the terminal.

Draws nothing and writes no files; `figures.py` and `pages.py` show what is counted here.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
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
from vidground_hf.rules import Rule
from vidground_hf.schema import Example, View, normalize_text
from vidground_hf.stats.floors import summarize_floors
from vidground_hf.stats.intervals import Interval, bootstrap_mean

SAMPLE_SIZE = 20
_NUM_BINS = 30


def build_report(
    judgement: Judgement,
    *,
    answerer: str,
    rule: Rule,
    view: View,
    seed: int,
    splits: Sequence[str] | None,
    source: Mapping[str, str | None],
) -> dict[str, Any]:
    """Counts everything that a reader needs before trusting a curation.

    Args:
        judgement (`Judgement`): the set, judged.
        answerer (`str`): id of who answered.
        rule (`Rule`): as asked for.
        view (`str`): what was shown.
        seed (`int`): of intervals, controls and samples.
        splits (`Sequence[str]`, *optional*): the split of each row.
        source (`Mapping`): `id`, `revision` and `fingerprint` of the data.

    Returns:
        `dict`: the object that `report.json` holds; see `docs/report.md`.
    """
    examples, verdicts = judgement.examples, judgement.verdicts
    scores = list_scores(judgement)
    clusters = list_clusters(examples)
    grounded = np.array([verdict.is_visually_grounded for verdict in verdicts], dtype=object)
    everything = np.ones(len(examples), dtype=bool)
    heldout, control = measure_heldout(judgement, clusters, grounded, seed)
    groupings: dict[str, Callable[[Example], str | None]] = {
        "problem_type": lambda example: example.problem_type,
        "source": lambda example: example.source,
        "category": lambda example: example.category,
    }
    names = {key: [pick(example) for example in examples] for key, pick in groupings.items()}
    return {
        **count_part(judgement, scores, clusters, grounded, everything, seed),
        **count_luck(judgement),
        "groups": {
            key: {
                name: count_part(judgement, scores, clusters, grounded, _equals(values, name), seed)
                for name in sorted({value for value in values if value is not None})
            }
            for key, values in names.items()
        },
        "reasons": count_reasons(judgement),
        "flags": count_flags(examples),
        "leaks": find_leaks(examples, splits),
        "label_invariance": judgement.probe.label_invariance if judgement.probe is not None else None,
        "heldout_blind_accuracy": _name_interval(heldout),
        "random_removal_control": _name_interval(control),
        "distribution": bin_confidence(judgement),
        "samples": draw_samples(judgement, view, seed),
        "adapter": judgement.adapter.name,
        "answerer": answerer,
        "view": view,
        "rule": str(rule),
        "seed": seed,
        "source": dict(source),
        "license": None,
        "versions": {package: read_version(package) for package in BASE_PACKAGES},
    }


def list_scores(judgement: Judgement) -> NDArray[np.float64]:
    """Each row's score (`float64[N]`, nan where unscored)."""
    return np.array([np.nan if trial.score is None else trial.score for trial in judgement.trials], dtype=np.float64)


def list_clusters(examples: Sequence[Example]) -> NDArray[np.int64]:
    """Each row's group as a number (`int64[N]`); a row without a group is its own."""
    codes: dict[object, int] = {}
    return np.array([codes.setdefault(e.group or index, len(codes)) for index, e in enumerate(examples)], np.int64)


def _equals(values: Sequence[str | None], wanted: str) -> NDArray[np.bool_]:
    return np.array([value == wanted for value in values], dtype=bool)


def _name_interval(interval: Interval | None) -> dict[str, float | None] | None:
    return None if interval is None else dict(interval._asdict())


def count_part(
    judgement: Judgement,
    scores: NDArray[np.float64],
    clusters: NDArray[np.int64],
    grounded: NDArray[np.object_],
    part: NDArray[np.bool_],
    seed: int,
) -> dict[str, Any]:
    """Counts and floors of some of the rows; chance and floors are over the scored ones, as the accuracy is."""
    scored = part & ~np.isnan(scores)
    chosen = [judgement.examples[index] for index in np.flatnonzero(scored)]
    floors = summarize_floors([e.options for e in chosen], [e.answer_index for e in chosen])
    num_kept = int((grounded[part] == True).sum())  # noqa: E712
    return {
        "num_rows": int(part.sum()),
        "num_grounded": num_kept,
        "num_text_answerable": int((grounded[part] == False).sum()),  # noqa: E712
        "num_undecided": int(sum(value is None for value in grounded[part])),
        "num_unscored": int((part & np.isnan(scores)).sum()),
        "share_grounded": num_kept / int(part.sum()) if part.any() else None,
        "blind_accuracy": _name_interval(bootstrap_mean(scores[part], clusters=clusters[part], seed=seed)),
        **floors,
    }


def count_reasons(judgement: Judgement) -> dict[str, dict[str, int]]:
    """How often each reason led to each verdict."""
    names = {True: "grounded", False: "text_answerable", None: "undecided"}
    counted: dict[str, Counter[str]] = {name: Counter() for name in names.values()}
    for verdict in judgement.verdicts:
        counted[names[verdict.is_visually_grounded]][verdict.reason] += 1
    return {name: dict(counter.most_common()) for name, counter in counted.items()}


def count_flags(examples: Sequence[Example]) -> dict[str, int]:
    """How many rows are odd in which way; `repeated_question` counts rows whose question and video came before."""
    counted = Counter(flag for example in examples for flag in example.flags)
    asked = Counter((normalize_text(example.question), example.video or example.id) for example in examples)
    repeated = sum(count - 1 for count in asked.values())
    return dict(counted.most_common()) | ({"repeated_question": repeated} if repeated else {})


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
    judgement: Judgement, clusters: NDArray[np.int64], grounded: NDArray[np.object_], seed: int
) -> tuple[Interval | None, Interval | None]:
    """Blind accuracy of what is kept, by a probe refitted on it with new folds, and the same after random removal.

    Neither reads the trials that decided. Both are `None` without a probe, or when too few rows are kept to refit.
    """
    probe = judgement.probe
    kept = np.array([value is True for value in grounded], dtype=bool)
    if probe is None or kept.sum() < 20:
        return None, None
    judged = np.flatnonzero([value is not None for value in grounded])
    chosen = np.random.default_rng(seed).choice(judged, size=int(kept.sum()), replace=False)
    control = np.zeros_like(kept)
    control[chosen] = True
    return (
        _measure_refit(judgement, probe, kept, clusters, seed),
        _measure_refit(judgement, probe, control, clusters, seed),
    )


def _measure_refit(
    judgement: Judgement, probe: ProbeFit, keep: NDArray[np.bool_], clusters: NDArray[np.int64], seed: int
) -> Interval:
    answers = probe.refit(keep, seed=seed + 1)
    trials = [
        make_trial(example, answer)
        for example, answer in zip(judgement.examples, answers, strict=True)
        if answer is not None
    ]
    scores = [np.nan if trial.score is None else trial.score for trial in trials]
    rows = [index for index, answer in enumerate(answers) if answer is not None]
    return bootstrap_mean(scores, clusters=clusters[rows], seed=seed)


def bin_confidence(judgement: Judgement) -> dict[str, Any] | None:
    """Histogram of confidence: right answers beside wrong ones, weighted by the lucky right ones they stand for."""
    rows = [
        (trial.confidence, trial.score, 1 / (trial.num_options - 1))
        for trial, verdict in zip(judgement.trials, judgement.verdicts, strict=True)
        if trial.confidence is not None
        and trial.score is not None
        and trial.num_options > 1
        and verdict.is_visually_grounded is not None
    ]
    if not rows:
        return None
    confidence, score, weight = np.array(rows, dtype=np.float64).T
    edges = np.histogram_bin_edges(confidence, bins=_NUM_BINS)
    is_right = score >= 0.5
    targets, _ = np.histogram(confidence[is_right], bins=edges)
    decoys, _ = np.histogram(confidence[~is_right], bins=edges, weights=weight[~is_right])
    return {"edges": edges.tolist(), "targets": targets.tolist(), "decoys": decoys.tolist(), "threshold": None}


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
    example, answer = judgement.examples[index], judgement.answers[index]
    clues: list[tuple[str, float]] = []
    if judgement.probe is not None and answer.option_logprobs is not None:
        clues = judgement.probe.explain([make_prompt(example, view)], [answer])[0]
    return {
        "id": example.id,
        "question": example.question,
        "options": list(example.options),
        "answer": example.answer,
        "blind_answer": answer.text,
        "bias_score": judgement.trials[index].bias_score,
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
