"""Answerers: the built-in probe, a constant, and (with extras) language models."""

from __future__ import annotations

from vidground_hf.answerers.base import Answer, Answerer, ConstantAnswerer
from vidground_hf.answerers.probe import ProbeFit, TextBiasProbe

__all__ = ["Answer", "Answerer", "ConstantAnswerer", "ProbeFit", "TextBiasProbe", "load_answerer"]


def load_answerer(
    spec: str, *, seed: int = 0, concurrency: int | None = None, max_requests: int | None = None
) -> Answerer | TextBiasProbe:
    """Makes an answerer from what the command line takes.

    Args:
        spec (`str`): `"probe"`, `"constant:TEXT"`, `"endpoint:MODEL@URL"` or `"provider:MODEL"` (the Hub chooses the
            provider; `"provider:MODEL@NAME"` names it).
        seed (`int`, *optional*, defaults to 0): of the probe's folds.
        concurrency (`int`, *optional*): requests in flight at most, for a server.
        max_requests (`int`, *optional*): requests in all, for a server.

    Raises:
        `ValueError`: for anything else.

    Example:
        >>> load_answerer("constant:A").id
        'constant:A'
    """
    kind, _, argument = spec.partition(":")
    if kind in ("endpoint", "provider") and argument:
        return _load_endpoint(kind, argument, concurrency, max_requests)
    if concurrency is not None or max_requests is not None:
        raise ValueError(f"{spec!r} sends no requests; bounds on them go with 'endpoint:' and 'provider:'")
    if kind == "probe" and not argument:
        return TextBiasProbe(seed=seed)
    if kind == "constant" and argument:
        return ConstantAnswerer(argument)
    raise ValueError(
        f"unknown answerer {spec!r}; allowed are 'probe', 'constant:TEXT' (for example 'constant:A'), "
        "'endpoint:MODEL@URL' and 'provider:MODEL'"
    )


def _load_endpoint(kind: str, argument: str, concurrency: int | None, max_requests: int | None) -> Answerer:
    from vidground_hf.answerers.endpoint import DEFAULT_CONCURRENCY, EndpointAnswerer

    model, _, where = argument.partition("@")
    if kind == "endpoint" and not where:
        raise ValueError(f"'endpoint:{argument}' names no server; pass endpoint:MODEL@http://HOST:PORT/v1")
    return EndpointAnswerer(
        model,
        base_url=where if kind == "endpoint" else None,
        provider=(where or "auto") if kind == "provider" else None,
        concurrency=DEFAULT_CONCURRENCY if concurrency is None else concurrency,
        max_requests=max_requests,
    )
