"""Two runs over the same questions, joined by id, with what could not be joined.

Knows nothing of files; nothing is scored here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vidground_hf.schema import LETTERS, ProblemType
from vidground_hf.stats.checks import UNANSWERED

_NUM_LISTED = 8
_GOLD_FIELDS = ("id", "reference", "options", "num_options", "problem_type", "group", "video")

Answer = str | int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionRow:
    """One row of a prediction file, or of a file of references.

    Attributes:
        id (`str`): names the question; the same in every file.
        answer (`str` or `int`, *optional*): what was answered; a whole number is a position counted from 0, or one of
            the options where these are numbers.
        reference (`str` or `int`, *optional*): the gold answer, in the same way.
        options (`tuple[str, ...]`): option texts without letters; empty where the file has none.
        num_options (`int`, *optional*): their number, where only that is known.
        problem_type (`str`, *optional*): one of `schema.PROBLEM_TYPES`.
        group (`str`, *optional*): the category of the question.
        video (`str`, *optional*): the video it is about.
    """

    id: str
    answer: Answer = None
    reference: Answer = None
    options: tuple[str, ...] = ()
    num_options: int | None = None
    problem_type: ProblemType | None = None
    group: str | None = None
    video: str | None = None


class PairedPredictions(NamedTuple):
    """The questions that both runs answered.

    Attributes:
        columns (`dict[str, list]`): arguments of `gap.measure_gap`, one entry per question.
        unmatched (`dict[str, list[str]]`): ids that are not compared: `only_blind`, `only_visual`, and, with
            references, `without_reference` (answered by both) and `only_references` (answered by neither).
    """

    columns: dict[str, Any]
    unmatched: dict[str, list[str]]


def join_runs(
    blind: Mapping[str, PredictionRow],
    visual: Mapping[str, PredictionRow],
    references: Mapping[str, PredictionRow] | None = None,
    *,
    problem_type: ProblemType | None = None,
) -> PairedPredictions:
    """Joins rows by id.

    Args:
        blind (`Mapping[str, PredictionRow]`): answers without the video, by id.
        visual (`Mapping[str, PredictionRow]`): answers with it.
        references (`Mapping[str, PredictionRow]`, *optional*): gold answers; what they have goes before the runs' own.
        problem_type (`str`, *optional*): of rows that do not say.

    Returns:
        `PairedPredictions`: in the order of the visual run.

    Raises:
        `ValueError`: when no id is everywhere, or an id names different questions in the two runs.

    Example:
        >>> blind = {"q1": PredictionRow(id="q1", answer="A"), "q2": PredictionRow(id="q2", answer="B")}
        >>> visual = {"q2": PredictionRow(id="q2", answer="C", reference="C")}
        >>> pairs = join_runs(blind, visual)
        >>> pairs.columns["predictions"], pairs.columns["blind_predictions"], pairs.unmatched["only_blind"]
        (['C'], ['B'], ['q1'])
    """
    answered = [key for key in visual if key in blind]
    ids = [key for key in answered if references is None or key in references]
    unmatched = {
        "only_blind": [key for key in blind if key not in visual],
        "only_visual": [key for key in visual if key not in blind],
    }
    if references is not None:
        unmatched["without_reference"] = [key for key in answered if key not in references]
        unmatched["only_references"] = [key for key in references if key not in blind and key not in visual]
    if not ids:
        files = {"blind": blind, "visual": visual} | ({"references": references} if references is not None else {})
        listed = "; ".join(f"{name} has {cut_list(list(rows), 3)}" for name, rows in files.items())
        raise ValueError(f"no id is in every file: {listed}. Say which column holds the id with --map id=COLUMN")
    _check_questions(ids, blind, visual)
    golds = [_merge([run[key] for run in ((references,) if references else ()) + (visual, blind)]) for key in ids]
    knows_options = any(gold.options or gold.num_options for gold in golds)
    kinds = [gold.problem_type or problem_type or _guess_type(gold, knows_options) for gold in golds]
    columns: dict[str, Any] = {
        "predictions": _write_column([visual[key].answer for key in ids], golds, kinds),
        "blind_predictions": _write_column([blind[key].answer for key in ids], golds, kinds),
        "references": _write_column([gold.reference for gold in golds], golds, kinds),
        "problem_types": kinds,
        "ids": ids,
    }
    if any(gold.options for gold in golds):
        columns["options"] = [gold.options for gold in golds]
    elif knows_options:
        columns["num_options"] = [gold.num_options or 0 for gold in golds]
    if any(gold.group for gold in golds):
        columns["groups"] = [gold.group or "not given" for gold in golds]
    if any(gold.video for gold in golds):
        # A question without a video is a cluster of its own.
        columns["clusters"] = [gold.video or f"question {gold.id}" for gold in golds]
    return PairedPredictions(columns, unmatched)


def cut_list(names: Sequence[str], num_listed: int = _NUM_LISTED) -> str:
    """Lists names for a message, the first ones only.

    Example:
        >>> cut_list(["a", "b", "c"], num_listed=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - num_listed} more" if len(names) > num_listed else ""
    return ", ".join(names[:num_listed]) + more


def _check_questions(
    ids: Sequence[str], blind: Mapping[str, PredictionRow], visual: Mapping[str, PredictionRow]
) -> None:
    """Refuses runs in which one id has different options or gold answers: they are not about the same questions."""
    for name in ("options", "reference"):
        pairs = {key: (getattr(blind[key], name), getattr(visual[key], name)) for key in ids}
        differing = [key for key, pair in pairs.items() if not {None, ()} & set(pair) and pair[0] != pair[1]]
        if differing:
            one, other = pairs[differing[0]]
            raise ValueError(
                f"the two runs differ in the {name} of {len(differing)} of {len(ids)} ids: {cut_list(differing)}; "
                f"{differing[0]} has {one!r} in the blind and {other!r} in the visual run. Compare runs over the same "
                "questions with the same order of options"
            )


def _merge(rows: Sequence[PredictionRow]) -> PredictionRow:
    """What is known of a question; earlier rows go before later ones."""

    def first(name: str) -> Any:
        return next((value for row in rows if (value := getattr(row, name)) not in (None, ())), getattr(rows[0], name))

    return PredictionRow(**{name: first(name) for name in _GOLD_FIELDS})


def _guess_type(gold: PredictionRow, knows_options: bool) -> ProblemType:
    """Without options anywhere, answers are taken for letters; a row without them among others is open-ended."""
    return "multiple_choice" if gold.options or gold.num_options or not knows_options else "free_form"


def _write_column(values: Sequence[Answer], golds: Sequence[PredictionRow], kinds: Sequence[ProblemType]) -> list[str]:
    """Writes answers as text: positions as letters.

    A whole number is a position, unless every question with one has numbers for options: then it is one of these.
    """
    rows = list(zip(values, golds, kinds, strict=True))
    options = [gold.options for value, gold, kind in rows if isinstance(value, int) and kind == "multiple_choice"]
    are_numbers = all(texts and all(text.isdecimal() for text in texts) for texts in options)
    letters: dict[Answer, str] = {} if are_numbers else dict(enumerate(LETTERS))
    return [
        UNANSWERED if value is None else str(letters.get(value, value) if kind == "multiple_choice" else value)
        for value, _, kind in rows
    ]
