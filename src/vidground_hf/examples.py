"""From raw cells to one `Example`: options cleaned, the gold found, what is wrong with the row named.

Knows no dataset layout; the layouts are in `layouts.py`.
"""

from __future__ import annotations

import re
from contextlib import suppress
from typing import Any

from vidground_hf.options import TAGGED, clean_cell, find_gold, parse_options, strip_prefixes
from vidground_hf.schema import LETTERS, PROBLEM_TYPES, Example, ProblemType, classify_options

_TYPE_NAMES: dict[str, ProblemType] = {name.replace("_", ""): name for name in PROBLEM_TYPES} | {
    "mc": "multiple_choice",
    "mcq": "multiple_choice",
    "multichoice": "multiple_choice",
    "number": "numerical",
    "openended": "free_form",
    "oe": "free_form",
}


def name_problem_type(value: Any, has_options: bool) -> ProblemType | None:
    """Maps a type cell to one of the five problem types; without one, options decide.

    Example:
        >>> name_problem_type("multiple choice", True), name_problem_type("bbox", False)
        ('multiple_choice', None)
    """
    text = clean_cell(value)
    if not text:
        return "multiple_choice" if has_options else "free_form"
    return _TYPE_NAMES.get(re.sub(r"[\s_-]", "", text.casefold()))


def build_example(
    *,
    row_id: Any,
    question: Any,
    options: Any = None,
    answer: Any = None,
    problem_type: Any = None,
    video: Any = None,
    group: Any = None,
    category: Any = None,
    source: Any = None,
    subtitles: Any = None,
    evidence_spans: Any = None,
) -> Example:
    """Builds an `Example` from raw cells and states what is wrong with them; never raises for a dirty row.

    A row that cannot be scored gets a `defect`: `no_gold`, `gold_not_among_options`, `unreadable_options`,
    `no_options`, `too_many_options` (more than 26) or `unknown_problem_type`. What is odd but can be judged is a flag:
    `empty_question`, `duplicate_options`, `gold_twice`, `empty_option`.

    Example:
        >>> build_example(row_id=1, question="Sky?", options=["A. red", "B. blue"], answer="B").answer
        'blue'
        >>> build_example(row_id=2, question="Sky?", options=["red", "blue"], answer="green").defect
        'gold_not_among_options'
    """
    raw_options = parse_options(options)
    cleaned = tuple(strip_prefixes([clean_cell(option) or "" for option in raw_options or []]))
    kind = name_problem_type(problem_type, bool(cleaned) or raw_options is None)
    gold_text = clean_cell(answer)
    index: int | None = None
    defect = None
    if kind == "multiple_choice":
        index = find_gold(answer, raw_options or [], cleaned)
        defect = _find_choice_defect(raw_options, cleaned, gold_text, index)
        gold_text = cleaned[index] if index is not None else None
    else:
        tagged = TAGGED.search(gold_text or "")
        gold_text = tagged[1].strip() if tagged else gold_text
        defect = "unknown_problem_type" if kind is None else None if gold_text else "no_gold"
    text = clean_cell(question) or ""
    return Example(
        id=clean_cell(row_id) or "",
        question=text,
        problem_type=kind or "free_form",
        options=cleaned if kind == "multiple_choice" else (),
        answer=gold_text or (gold_text if index is not None else None),
        answer_index=index,
        video=clean_cell(video),
        group=clean_cell(group) or clean_cell(video),
        category=clean_cell(category) or None,
        source=clean_cell(source) or None,
        subtitles=clean_cell(subtitles) or None,
        evidence_spans=_read_spans(evidence_spans),
        defect=defect,
        flags=_find_flags(text, cleaned, index),
    )


def _read_spans(cell: Any) -> tuple[tuple[float, float], ...]:
    """Pairs of seconds; what is no such pair is left out, since no answer is judged by it."""
    spans = []
    for pair in cell if isinstance(cell, (list, tuple)) else ():
        if isinstance(pair, (list, tuple)) and len(pair) == 2:
            with suppress(TypeError, ValueError, OverflowError):
                spans.append((float(pair[0]), float(pair[1])))
    return tuple(spans)


def _find_choice_defect(
    raw_options: list[Any] | None, options: tuple[str, ...], gold_text: str | None, index: int | None
) -> str | None:
    if raw_options is None:
        return "unreadable_options"
    if not options:
        return "no_options"
    if len(options) > len(LETTERS):
        return "too_many_options"
    if index is None:
        return "gold_not_among_options" if gold_text else "no_gold"
    return None


def _find_flags(question: str, options: tuple[str, ...], index: int | None) -> tuple[str, ...]:
    classes = classify_options(options)
    found = {
        "empty_question": not question,
        "duplicate_options": len(set(classes)) < len(options),
        "gold_twice": index is not None and classes.count(classes[index]) > 1,
        "empty_option": any(not option for option in options),
    }
    return tuple(name for name, is_true in found.items() if is_true)
