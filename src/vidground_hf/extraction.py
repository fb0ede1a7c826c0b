"""Finds what was answered in the text of an answer: the answer itself, a choice, a number.

Nothing here knows the gold answer.
"""

from __future__ import annotations

import re

from vidground_hf.schema import LETTERS, normalize_text

_TAGGED = re.compile(r"<answer>(.*?)(?:</answer>|$)", re.DOTALL | re.IGNORECASE)
_BOXED = re.compile(r"\\boxed\{([^{}]*)\}")
_LETTER_ALONE = re.compile(r"^[\s\"'*(\[]*([A-Za-z])[\s\"'*)\].:,]*$")
_LETTER_FIRST = re.compile(r"^[\s\"'*(\[]*([A-Z])[*)\]]*\s*(?:[.:)\]]|-\s)")
_LETTER_NAMED = re.compile(
    r"\b(?i:answer|option|choice|correct one)\b(?:\s+(?:is|would be|should be))?\s*:?\s*(?i:option\s+)?"
    # "The answer is A" names a letter, "The answer is A man" does not.
    r"[\"'*(\[]*([B-HJ-Z]\b|[AI]\b(?![' ]+[a-z]))"
)
_LETTER_LAST = re.compile(r"\b(?:is|be|choose|chose|pick|select|it's|say)\s*:?\s*[\"'*(\[]*([A-Z])[\"'*)\]]*[.!]?\s*$")
_NUMBER = re.compile(r"[-+]?(?:\d[\d,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?")


def extract_answer(text: str) -> str:
    """Takes the answer out of a completion: the last `<answer>` (closed or cut off), else `\\boxed{}`, else all of it.

    Example:
        >>> extract_answer("<think>A or B?</think><answer> B </answer>")
        'B'
    """
    tagged = _TAGGED.findall(text) or _BOXED.findall(text)
    return (tagged[-1] if tagged else text).strip()


def extract_choice(text: str, options: tuple[str, ...]) -> int | None:
    """Finds which option an answer means.

    In this order: where options are letters themselves, a letter alone, by its place; the option's own words and
    nothing else; a letter alone (`B`, `(b)`, `B.`); a letter that leads (`B. the red one`); a letter that is named
    (`The answer is B`); a letter that ends the sentence; the only option whose words occur in the answer. An "A" that
    begins a sentence is an article, not an answer.

    Args:
        text (`str`): the answer; `<answer>` tags are looked into first.
        options (`tuple[str, ...]`): option texts without letters, in the order shown.

    Returns:
        `int`, *optional*: position of the option; `None` when the answer means none or several.

    Example:
        >>> options = ("a dog", "the red one")
        >>> [extract_choice(text, options) for text in ("(B)", "A man walks", "it was the red one, I think")]
        [1, None, 1]
    """
    answer = extract_answer(text)
    folded = normalize_text(answer)
    words = [normalize_text(option) for option in options]
    alone = _LETTER_ALONE.match(answer)
    if alone and alone[1].upper() in LETTERS[: len(options)] and any(len(word) == 1 for word in words):
        return LETTERS.index(alone[1].upper())  # a letter was asked for, and names an option by its place
    if folded and folded in words:
        return words.index(folded)
    for pattern in (_LETTER_ALONE, _LETTER_FIRST, _LETTER_NAMED, _LETTER_LAST):
        found = pattern.findall(answer)
        if found and found[-1].upper() in LETTERS[: len(options)]:
            return LETTERS.index(found[-1].upper())
    return _find_words(folded, words)


def _find_words(answer: str, options: list[str]) -> int | None:
    """The option whose words stand in the answer, unless options that are not part of it stand there too."""
    inside = [option for option in options if option and re.search(rf"(?<!\w){re.escape(option)}(?!\w)", answer)]
    longest = max(inside, key=len, default=None)
    if longest is None or any(option not in longest for option in inside):
        return None
    return options.index(longest)


def extract_number(text: str) -> float | None:
    """Reads the last number of an answer; thousands commas and a percent sign are allowed.

    Example:
        >>> extract_number("about 1,200.5 metres"), extract_number("many")
        (1200.5, None)
    """
    found = _NUMBER.findall(extract_answer(text))
    try:
        return float(found[-1].replace(",", "")) if found else None
    except ValueError:
        return None
