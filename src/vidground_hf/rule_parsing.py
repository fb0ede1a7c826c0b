"""Rules as the command line writes them."""

from __future__ import annotations

import re
from collections.abc import Callable

from vidground_hf.rules import AtMost, BiasAtLeast, Circular, Majority, SingleShot
from vidground_hf.set_rules import Calibrated, DropFraction

Rule = SingleShot | Majority | AtMost | Circular | BiasAtLeast | Calibrated | DropFraction

_RULE_TEXT = re.compile(r"(\w+)(?:\((?:(?:(\w+)=)?([-+]?\d*\.?\d+(?:[eE][-+]?\d+)?))?\))?")
_WITHOUT_NUMBER: dict[str, Callable[[], Rule]] = {
    "single_shot": SingleShot,
    "calibrated": Calibrated,
    "majority": Majority,
    "at_most": AtMost,
    "circular": Circular,
}
_WITH_NUMBER: dict[str, tuple[str, Callable[[float], Rule]]] = {
    "calibrated": ("alpha", Calibrated),
    "majority": ("share", Majority),
    "at_most": ("limit", AtMost),
    "bias_at_least": ("threshold", BiasAtLeast),
    "drop_fraction": ("fraction", DropFraction),
}


def parse_rule(text: str) -> Rule:
    """Reads a rule as the command line writes it; the inverse of `str(rule)`.

    Args:
        text (`str`): a name, with its number in parentheses, named or not.

    Returns:
        `Rule`: the rule, unfitted.

    Raises:
        `ValueError`: for text that is no rule, or a number out of range.

    Example:
        >>> parse_rule("calibrated(0.1)")
        Calibrated(alpha=0.1)
    """
    match = _RULE_TEXT.fullmatch(text.replace(" ", ""))
    name, argument, number = match.groups() if match else ("", None, None)
    if number is None and name in _WITHOUT_NUMBER:
        return _WITHOUT_NUMBER[name]()
    if number is not None and name in _WITH_NUMBER:
        expected_argument, make_rule = _WITH_NUMBER[name]
        if argument in (None, expected_argument):
            return make_rule(float(number))
    raise ValueError(
        f"got rule {text!r}; allowed are 'calibrated', 'calibrated(alpha=0.1)', 'single_shot', "
        "'majority(share=0.75)', 'at_most(limit=2)', 'circular', 'bias_at_least(threshold=0.4)' and "
        "'drop_fraction(fraction=0.3)'"
    )
