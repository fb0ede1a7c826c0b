"""From raw cells to one `Example`: options cleaned, the gold found, what is wrong with the row named.

Knows no dataset layout; the layouts are in `adapters.py`.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from vidground_hf.schema import LETTERS, PROBLEM_TYPES, Example, ProblemType, classify_options, normalize_text

_PREFIX = re.compile(r"^\s*\(?([A-Za-z])\s*[.):]\s*(.*)$", re.DOTALL)
_LONE_LETTER = re.compile(r"^\(?([A-Za-z])\)?[.):]?$")
_TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)

_TYPE_NAMES: dict[str, ProblemType] = {name.replace("_", ""): name for name in PROBLEM_TYPES} | {
    "mc": "multiple_choice",
    "mcq": "multiple_choice",
    "multichoice": "multiple_choice",
    "number": "numerical",
    "openended": "free_form",
    "oe": "free_form",
}


def clean_cell(value: Any) -> str | None:
    """Turns a cell into text; a missing one (`None`, NaN) into `None`.

    Example:
        >>> clean_cell(3.0), clean_cell(float("nan")), clean_cell(" a ")
        ('3', None, 'a')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value).strip()


def parse_options(value: Any) -> list[Any] | None:
    """Reads an options cell: a list, a mapping of letters to texts, or a JSON or Python list written as text.

    Returns:
        `list`, *optional*: the raw options; `None` when the cell is no list of options.
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return []
    if isinstance(value, str):
        for parse in (json.loads, ast.literal_eval):
            try:
                parsed = parse(value)
            except (ValueError, SyntaxError, RecursionError, MemoryError):
                continue
            if isinstance(parsed, (list, tuple, dict)):
                value = parsed
                break
        else:
            return [] if not value.strip() else None
    if isinstance(value, dict):
        value = [value[key] for key in sorted(value) if value[key] is not None]
    return list(value) if isinstance(value, (list, tuple)) else None


def strip_prefixes(options: Sequence[str]) -> list[str]:
    """Removes "A.", "(B)", "C:" from options, if every option that has text carries the letter of its position.

    Example:
        >>> strip_prefixes(["A. red", "B. blue"]), strip_prefixes(["A. Lincoln", "G. Washington"])
        (['red', 'blue'], ['A. Lincoln', 'G. Washington'])
    """
    stripped = []
    for position, option in enumerate(options):
        match = _PREFIX.match(option)
        if option and (match is None or position >= len(LETTERS) or match[1].upper() != LETTERS[position]):
            return list(options)
        stripped.append(match[2].strip() if match else option)
    return stripped


def find_gold(answer: Any, raw_options: Sequence[Any], options: Sequence[str]) -> int | None:
    """Finds the option that the answer cell means: its text, its letter, or its position counted from 0.

    A whole number is a position unless the options are numbers themselves. Text wins over letters, and letters over
    positions, so an option that reads "B" is found by its text.

    Args:
        answer (`Any`): the cell; `<answer>` tags are removed.
        raw_options (`Sequence`): the options as the row gives them.
        options (`Sequence[str]`): the same, cleaned.

    Returns:
        `int`, *optional*: position of the first option that is the gold, or `None`.

    Example:
        >>> find_gold("(B)", ["red", "blue"], ["red", "blue"]), find_gold(0, ["red", "blue"], ["red", "blue"])
        (1, 0)
    """
    text = clean_cell(answer)
    if text is None:
        return None
    is_number = isinstance(answer, (int, float)) and not isinstance(answer, bool)
    if is_number and not all(isinstance(option, (int, float)) for option in raw_options):
        position = int(text) if text.lstrip("-").isdigit() else -1
        return position if 0 <= position < len(options) else None
    tagged = _TAGGED.search(text)
    text = tagged[1].strip() if tagged else text
    for candidates in (raw_options, options):
        wanted = [normalize_text(clean_cell(option) or "") for option in candidates]
        if normalize_text(text) in wanted:
            return wanted.index(normalize_text(text))
    match = _LONE_LETTER.match(text) or _PREFIX.match(text)
    if match and match[1].upper() in LETTERS[: len(options)]:
        position = LETTERS.index(match[1].upper())
        named = match.lastindex == 2 and normalize_text(match[2])
        return position if not named or normalize_text(options[position]) == named else None
    return int(text) if text.isdecimal() and int(text) < len(options) else None


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
        tagged = _TAGGED.search(gold_text or "")
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
        evidence_spans=tuple((float(start), float(end)) for start, end in evidence_spans or ()),
        defect=defect,
        flags=_find_flags(text, cleaned, index),
    )


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
