"""Answerers: the built-in probe, a constant, and (with extras) language models."""

from __future__ import annotations

from vidground_hf.answerers.base import Answer, Answerer, ConstantAnswerer
from vidground_hf.answerers.probe import ProbeFit, TextBiasProbe

__all__ = ["Answer", "Answerer", "ConstantAnswerer", "ProbeFit", "TextBiasProbe", "load_answerer"]


def load_answerer(spec: str, *, seed: int = 0) -> Answerer | TextBiasProbe:
    """Makes an answerer from what the command line takes.

    Args:
        spec (`str`): `"probe"`, or `"constant:TEXT"`.
        seed (`int`, *optional*, defaults to 0): of the probe's folds.

    Raises:
        `ValueError`: for anything else.

    Example:
        >>> load_answerer("constant:A").id
        'constant:A'
    """
    kind, _, argument = spec.partition(":")
    if kind == "probe" and not argument:
        return TextBiasProbe(seed=seed)
    if kind == "constant" and argument:
        return ConstantAnswerer(argument)
    raise ValueError(f"unknown answerer {spec!r}; allowed are 'probe' and 'constant:TEXT', for example 'constant:A'")
