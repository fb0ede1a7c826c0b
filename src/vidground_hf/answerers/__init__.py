"""Answerers: the built-in probe, a constant, and (with extras) language models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vidground_hf.answerers.base import Answer, Answerer, ConstantAnswerer
from vidground_hf.answerers.probe import ProbeFit, TextBiasProbe

__all__ = ["Answer", "Answerer", "ConstantAnswerer", "ProbeFit", "TextBiasProbe", "load_answerer", "load_answerers"]

# Which settings go with which kind of answerer.
_SAMPLING = frozenset({"temperature", "reasoning_tokens"})
_SERVING = _SAMPLING | {"concurrency", "max_requests", "logprobs", "frames_as"}
_SETTINGS = {
    "probe": frozenset({"seed"}),
    "constant": frozenset[str](),
    "transformers": _SAMPLING | {"num_workers"},
    "vllm": _SAMPLING,
    "endpoint": _SERVING,
    "provider": _SERVING,
}
KINDS = tuple(_SETTINGS)
"""What a spec begins with."""


def load_answerer(spec: str, **settings: Any) -> Answerer | TextBiasProbe:
    """Makes an answerer from what the command line takes.

    Args:
        spec (`str`): `"probe"`, `"constant:TEXT"`, `"transformers:MODEL"` or `"vllm:MODEL"` (an id on the Hub, with
            `@REVISION` behind it if need be, or a folder), `"endpoint:MODEL@URL"`, or `"provider:MODEL"` (the Hub
            chooses the provider; `"provider:MODEL@NAME"` names it).
        settings: those of the answerer's class: `seed` for the probe, `temperature` and `reasoning_tokens` for
            models, `num_workers` (that decode videos) for `transformers`, and `logprobs`, `concurrency`,
            `max_requests` and `frames_as` for servers.

    Raises:
        `ValueError`: for anything else.

    Example:
        >>> load_answerer("constant:A").id
        'constant:A'
    """
    kind, _, argument = spec.partition(":")
    if kind not in _SETTINGS or (kind == "probe") == bool(argument):
        raise ValueError(
            f"unknown answerer {spec!r}; allowed are 'probe', 'constant:TEXT' (for example 'constant:A'), "
            "'transformers:MODEL', 'vllm:MODEL', 'endpoint:MODEL@URL' and 'provider:MODEL'"
        )
    refused = sorted(settings.keys() - _SETTINGS[kind])
    if refused:
        raise ValueError(f"{spec!r} takes no {', '.join(refused)}; allowed are {sorted(_SETTINGS[kind]) or 'none'}")
    if kind == "probe":
        return TextBiasProbe(**settings)
    if kind == "constant":
        return ConstantAnswerer(argument)
    if kind in ("transformers", "vllm"):
        return _load_local(kind, argument, settings)
    return _load_served(kind, argument, settings)


def load_answerers(specs: Sequence[str], **settings: Any) -> list[Answerer | TextBiasProbe]:
    """Makes several answerers, giving each the settings that go with its kind; `None` leaves a setting out.

    Raises:
        `ValueError`: for a setting that goes with none of them, and as `load_answerer` does.

    Example:
        >>> [answerer.id for answerer in load_answerers(["constant:A", "constant:B"], seed=0, temperature=None)]
        ['constant:A', 'constant:B']
    """
    allowed = {spec: _SETTINGS.get(spec.partition(":")[0], frozenset[str]()) for spec in specs}
    given = {name: value for name, value in settings.items() if value is not None}
    useless = sorted(name for name in given if name != "seed" and not any(name in names for names in allowed.values()))
    made = [
        load_answerer(spec, **{name: value for name, value in given.items() if name in allowed[spec]})
        for spec in specs
    ]
    if useless:
        kinds = sorted(kind for kind, names in _SETTINGS.items() if useless[0] in names)
        raise ValueError(
            f"{useless[0]} does nothing for {', '.join(specs)}; it goes with {', '.join(f'{kind}:' for kind in kinds)}"
        )
    return made


def _load_local(kind: str, argument: str, settings: dict[str, Any]) -> Answerer:
    model, _, revision = (argument, "", "") if Path(argument).exists() else argument.partition("@")
    if kind == "vllm":
        from vidground_hf.answerers.vllm_lm import VllmAnswerer

        return VllmAnswerer(model, revision=revision or None, **settings)
    from vidground_hf.answerers.transformers_lm import TransformersAnswerer

    return TransformersAnswerer(model, revision=revision or None, **settings)


def _load_served(kind: str, argument: str, settings: dict[str, Any]) -> Answerer:
    from vidground_hf.answerers.endpoint import EndpointAnswerer

    model, _, where = argument.partition("@")
    if kind == "endpoint" and not where:
        raise ValueError(f"'endpoint:{argument}' names no server; pass endpoint:MODEL@http://HOST:PORT/v1")
    return EndpointAnswerer(
        model,
        base_url=where if kind == "endpoint" else None,
        provider=(where or "auto") if kind == "provider" else None,
        **settings,
    )
