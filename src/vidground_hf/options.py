"""Raw option and answer cells: read into texts, letters removed, the gold option found.

Nothing here raises for a dirty cell; what cannot be read is `None`.
"""

from __future__ import annotations

import ast
import json
import math
import re
from collections.abc import Sequence
from typing import Any

from vidground_hf.schema import LETTERS, normalize_text

_PREFIX = re.compile(r"^\s*\(?([A-Za-z])\s*[.):]\s*(.*)$", re.DOTALL)
_LONE_LETTER = re.compile(r"^\(?([A-Za-z])\)?[.):]?$")
_MAX_DIGITS = 10  # of a position: far more than there are options, and few enough for `int`
TAGGED = re.compile(r"<answer>(.*?)</answer>", re.DOTALL)


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
    try:
        return str(value).strip()
    except ValueError:  # Python writes no whole number of more than 4300 digits
        return None


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
            except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError):
                continue
            if isinstance(parsed, (list, tuple, dict)):
                value = parsed
                break
        else:
            return [] if not value.strip() else None
    if isinstance(value, dict):
        try:
            value = [value[key] for key in sorted(value) if value[key] is not None]
        except TypeError:  # letters beside numbers are in no order
            return None
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
    tagged = TAGGED.search(text)
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
    is_position = text.isdecimal() and len(text) < _MAX_DIGITS and int(text) < len(options)
    return int(text) if is_position else None
