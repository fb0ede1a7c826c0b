"""From answers to the blind-visual gap: checks that rows belong together, scores them, and hands over the scores.

Prediction files are read in `predictions.py`; the statistics are in `stats/gap.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from numbers import Number
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vidground_hf.examples import build_example
from vidground_hf.gap_checks import Column, check_columns
from vidground_hf.schema import LETTERS, Example, ProblemType
from vidground_hf.scoring import score_answer
from vidground_hf.stats.checks import UNANSWERED
from vidground_hf.stats.gap import Floats, GapSettings, summarize_gap

# Where only the number of options is known, answers are letters; no answer holds these words.
_PLACEHOLDERS = tuple(f"<option {letter}>" for letter in LETTERS)

_VIEW = "view "


def measure_gap(
    predictions: Sequence[str],
    blind_predictions: Sequence[str],
    references: Sequence[str],
    *,
    options: Sequence[Sequence[str]] | None = None,
    num_options: int | Sequence[int] | None = None,
    problem_types: ProblemType | Sequence[ProblemType] | None = None,
    groups: Sequence[str] | None = None,
    clusters: Sequence[str | int] | None = None,
    ids: Sequence[str] | None = None,
    blind_ids: Sequence[str] | None = None,
    views: Mapping[str, Sequence[str]] | None = None,
    base_predictions: Sequence[str] | None = None,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, Any]:
    """Measures how much better a model answers with the video than without.

    Args:
        predictions (`Sequence[str]`): answers with the video: a letter, an option's text, or a completion; where the
            options are not given, also a position counted from 0.
        blind_predictions (`Sequence[str]`): the same model's answers to the same questions without it.
        references (`Sequence[str]`): the gold answers: a letter, an option's text, or a position counted from 0.
            `UNANSWERED` stands for a missing answer (it counts as wrong) or a missing reference (not scored).
        options (`Sequence[Sequence[str]]`, *optional*): the options of each row; empty for open-ended questions.
        num_options (`int` or `Sequence[int]`, *optional*): how many there are, where answers are letters; 0 for
            open-ended questions. Without either, rows are multiple choice with unknown chance.
        problem_types (`str` or `Sequence[str]`, *optional*): one of `schema.PROBLEM_TYPES`; by default
            `multiple_choice` with options and `free_form` without.
        groups (`Sequence[str]`, *optional*): a category for each row; the result is repeated for each.
        clusters (`Sequence[str | int]`, *optional*): the video of each row. Intervals and `p_value` then allow for
            questions about one video going together.
        ids (`Sequence[str]`, *optional*): names the rows of `predictions` and `references`; each once.
        blind_ids (`Sequence[str]`, *optional*): names the rows of `blind_predictions`; must equal `ids`.
        views (`Mapping[str, Sequence[str]]`, *optional*): answers under further views, by name.
        base_predictions (`Sequence[str]`, *optional*): blind answers of the text-only model this one was built on.
        num_resamples (`int`, *optional*, defaults to 10000): of the bootstrap, and flips of the sign-flip test.
        confidence (`float`, *optional*, defaults to 0.95): of every interval.
        seed (`int`, *optional*, defaults to 0).

    Returns:
        `dict`: the keys are described in `metrics/blind_visual_gap/README.md`.

    Raises:
        `ValueError`: for unequal lengths, repeated or misaligned ids, missing cells and unknown problem types, with
            the rows.

    Example:
        >>> result = measure_gap(["A", "B", "C"], ["A", "C", "A"], ["A", "B", "B"], num_options=4)
        >>> result["visual_accuracy"], result["blind_accuracy"], result["visual_only"]
        (0.6666666666666666, 0.3333333333333333, 1)
    """
    num_rows = len(predictions)
    others: dict[str, Column | None] = {
        "options": options,
        "num_options": [num_options] * num_rows if isinstance(num_options, Number) else num_options,
        "problem_types": [problem_types] * num_rows if isinstance(problem_types, str) else problem_types,
    } | {"groups": groups, "clusters": clusters, "ids": ids, "blind_ids": blind_ids}
    given = {name: column for name, column in others.items() if column is not None}
    answers = {"predictions": predictions, "blind_predictions": blind_predictions}
    answers |= {_VIEW + name: column for name, column in (views or {}).items()}
    answers |= {"base_predictions": base_predictions} if base_predictions is not None else {}
    check_columns({**answers, "references": references}, given)

    rows = _score_rows(answers, references, _list_options(given, num_rows), given.get("problem_types"))
    settings = GapSettings(num_resamples, confidence, seed)
    names, group_of_row = _number(groups if groups is not None else [])
    cluster_of_row = _number(clusters)[1] if clusters is not None else None
    gains = rows.scores["predictions"] - rows.scores["blind_predictions"]
    return {
        **_measure_part(rows, np.arange(num_rows), cluster_of_row, settings),
        "groups": {
            str(names[group]): _measure_part(rows, np.flatnonzero(group_of_row == group), cluster_of_row, settings)
            for group in sorted(range(len(names)), key=lambda group: str(names[group]))
        },
        "visual_gains": [None if gain != gain else gain for gain in gains.tolist()],
    }


class _Rows(NamedTuple):
    """Scored rows, as columns: scores and missing answers by answer column, chance, and why a row is not scored."""

    scores: dict[str, Floats]
    is_unanswered: dict[str, NDArray[np.bool_]]
    chance: Floats
    is_unscored: NDArray[np.bool_]
    reasons: NDArray[np.object_]


def _list_options(given: Mapping[str, Column], num_rows: int) -> list[tuple[str, ...] | None]:
    """The options of each row; placeholders where only their number is known, `None` where not even that."""
    if "options" in given:
        return [tuple(row) for row in given["options"]]
    if "num_options" in given:
        return [_PLACEHOLDERS[:count] for count in given["num_options"]]
    return [None] * num_rows


def _score_rows(
    answers: Mapping[str, Sequence[str]],
    references: Sequence[str],
    options: list[tuple[str, ...] | None],
    problem_types: Sequence[ProblemType] | None,
) -> _Rows:
    """Scores every pair of answer and reference once; a million letters are a handful of pairs."""
    kinds: Sequence[ProblemType | None] = problem_types or [None] * len(references)
    cases, case_of_row = _number(zip(references, options, kinds, strict=True))
    golds = [_read_gold(*case) for case in cases]
    scores, is_unanswered = {}, {}
    for name, column in answers.items():
        pairs, pair_of_row = _number(zip(column, case_of_row.tolist(), strict=True))
        graded = [_grade(text, golds[case]) for text, case in pairs]
        scores[name] = np.array(graded, dtype=np.float64)[pair_of_row]
        is_unanswered[name] = np.array([text == UNANSWERED for text, _ in pairs], dtype=bool)[pair_of_row]
    return _Rows(
        scores=scores,
        is_unanswered=is_unanswered,
        chance=np.array([gold.chance for gold in golds], dtype=np.float64)[case_of_row],
        is_unscored=np.array([gold.reason is not None for gold in golds], dtype=bool)[case_of_row],
        reasons=np.array([gold.reason for gold in golds], dtype=object)[case_of_row],
    )


class _Gold(NamedTuple):
    """A reference: the example to score against, the score a uniform guess expects, why it cannot be scored."""

    example: Example
    chance: float
    reason: str | None


def _read_gold(reference: str, options: tuple[str, ...] | None, problem_type: ProblemType | None) -> _Gold:
    example = build_example(
        row_id=None,
        question=None,
        options=list(_PLACEHOLDERS if options is None else options),
        answer=None if reference == UNANSWERED else reference,
        problem_type=problem_type,
    )
    reason = example.defect or ("unreadable_reference" if score_answer("", example) is None else None)
    if example.problem_type != "multiple_choice":
        return _Gold(example, 0.0, reason)
    if example.answer_index is None or options is None:
        return _Gold(example, np.nan, reason)
    return _Gold(example, 1 / example.num_distinct_options, reason)


def _grade(text: str, gold: _Gold) -> float | None:
    if gold.reason is not None:
        return None
    if text == UNANSWERED:
        return 0.0
    if text.isdecimal() and int(text) < len(LETTERS) and gold.example.options[:1] == _PLACEHOLDERS[:1]:
        text = LETTERS[int(text)]
    return score_answer(text, gold.example)


def _number(names: Iterable[Hashable]) -> tuple[list[Any], NDArray[np.int64]]:
    """Numbers names in the order they appear: the distinct names, and the number of each row (`int64[N]`)."""
    numbers: dict[Hashable, int] = {}
    rows = np.fromiter((numbers.setdefault(name, len(numbers)) for name in names), dtype=np.int64)
    return list(numbers), rows


def _measure_part(
    rows: _Rows, part: NDArray[np.int64], cluster_of_row: NDArray[np.int64] | None, settings: GapSettings
) -> dict[str, Any]:
    """Measures the rows at the positions `part` (`int64[M]`)."""
    scored = part[~rows.is_unscored[part]]
    scores = {name: column[scored] for name, column in rows.scores.items()}
    clusters = None
    if cluster_of_row is not None:
        _, clusters = np.unique(cluster_of_row[scored], return_inverse=True)
    result = summarize_gap(
        scores["predictions"],
        scores["blind_predictions"],
        rows.chance[scored],
        clusters=clusters,
        base=scores.get("base_predictions"),
        views={name.removeprefix(_VIEW): column for name, column in scores.items() if name.startswith(_VIEW)},
        settings=settings,
    )
    no_visual, no_blind = (rows.is_unanswered[name][part] for name in ("predictions", "blind_predictions"))
    return {
        **result,
        "num_examples": len(part),
        "num_unscored": len(part) - len(scored),
        "unscored_reasons": dict(Counter(rows.reasons[part[rows.is_unscored[part]]].tolist())),
        "num_unanswered": int((no_visual | no_blind).sum()),
        "num_visual_unanswered": int(no_visual.sum()),
        "num_blind_unanswered": int(no_blind.sum()),
    }
