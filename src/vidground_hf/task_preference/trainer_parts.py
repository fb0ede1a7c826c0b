"""The parts of a task preference model that are trained apart: which parameters each has, and which may move.

At which rate they move is the stage's (`trainer_stages.py`).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import nn

PARTS = ("language", "tokens", "vision", "connector", "moment_head", "box_head", "mask_head")
"""`language` is the LoRA of the language model, or all of it where it has none; `tokens` the rows of the task tokens,
where peft trains them apart (without it they are rows of the language model's embeddings)."""

HEADS = {"moment": "moment_head", "box": "box_head", "mask": "mask_head"}
"""The part that answers for each task."""

FROZEN = "frozen"
"""Of parameters that no stage trains: a SAM, and the language model below its LoRA."""

# Names that transformers gives these modules in Qwen2.5-VL, Qwen3-VL, SmolVLM, LLaVA-OneVision and InternVL.
_CONNECTOR = re.compile(r"\.(\w*merger\w*|connector|multi_modal_projector|image_newline)(\.|$)")
_VISION = re.compile(r"\.(visual|vision_tower|vision_model)\.")
_LANGUAGE = re.compile(r"\.(language_model|text_model|lm_head|embed_tokens)\.")


def name_part(parameter: str, *, has_lora: bool) -> str:
    """The part of a parameter.

    Args:
        parameter (`str`): its name in a `TaskPreferenceModel`.
        has_lora (`bool`): whether the language model has a LoRA.

    Returns:
        `str`: one of `PARTS`, or `"frozen"`.

    Raises:
        `ValueError`: for a name that says nothing.

    Example:
        >>> name_part("vlm.model.visual.merger.mlp.0.weight", has_lora=False)
        'connector'
        >>> name_part("heads.box.layers.0.bias", has_lora=False)
        'box_head'
    """
    if match := re.match(r"heads\.(moment|box|mask)\.(sam\.)?", parameter):
        return FROZEN if match[2] else HEADS[match[1]]
    if "trainable_tokens" in parameter:
        return FROZEN if "original" in parameter or "base_layer" in parameter else "tokens"
    if "lora_" in parameter:
        return "language"
    for pattern, part in ((_CONNECTOR, "connector"), (_VISION, "vision")):
        if pattern.search(parameter):
            return part
    if _LANGUAGE.search(parameter):
        return FROZEN if has_lora else "language"
    raise ValueError(
        f"the parameter {parameter!r} belongs to no known part ({', '.join(PARTS)}); wrap a model of one of the "
        "families that task_preference names, or freeze it and train the rest with your own optimizer"
    )


def find_parts(model: nn.Module) -> dict[str, list[tuple[str, nn.Parameter]]]:
    """The parameters of each part.

    Args:
        model (`TaskPreferenceModel`): with or without a LoRA.

    Returns:
        `dict[str, list[tuple[str, Parameter]]]`: names and parameters of each of `PARTS` that the model has, and of
        `"frozen"`; each parameter once.

    Raises:
        `ValueError`: for a parameter of no known part.
    """
    named = list(model.named_parameters())
    has_lora = any("lora_" in name for name, _ in named)
    parts: dict[str, list[tuple[str, nn.Parameter]]] = {}
    for name, parameter in named:
        parts.setdefault(name_part(name, has_lora=has_lora), []).append((name, parameter))
    return parts


def free_parts(model: nn.Module, trained: Collection[str]) -> None:
    """Lets the named parts move and holds all others.

    Args:
        model (`TaskPreferenceModel`): is changed.
        trained (`Collection[str]`): some of `PARTS`, of those that the model has.

    Raises:
        `ValueError`: for a part that the model lacks.

    Example:
        >>> free_parts(model, ["box_head"])  # doctest: +SKIP
    """
    parts = find_parts(model)
    if lacking := [part for part in trained if part not in parts or part == FROZEN]:
        raise ValueError(
            f"the model has no part {lacking[0]!r} to train; it has "
            f"{', '.join(part for part in PARTS if part in parts)} ('tokens' only with a LoRA: call add_lora first); "
            "leave the others out"
        )
    for part, named in parts.items():
        for _, parameter in named:
            parameter.requires_grad_(part in trained)


def clip_parts(parts: Mapping[str, list[tuple[str, nn.Parameter]]], max_norm: float) -> dict[str, torch.Tensor]:
    """Clips the gradients of each head, and of everything else together, to a norm of their own.

    One norm for all would let the largest of them, a fresh head's, shrink the steps of the others.

    Args:
        parts (`Mapping`): as `find_parts` gives them.
        max_norm (`float`): of each; infinity clips nothing.

    Returns:
        `dict[str, Tensor]`: the norms before, by head, and of the rest as `"model"`; those without gradients are left
        out.
    """
    heads = set(HEADS.values())
    groups: dict[str, list[nn.Parameter]] = {}
    for part, named in parts.items():
        group = groups.setdefault(part if part in heads else "model", [])
        group.extend(parameter for _, parameter in named if parameter.grad is not None)
    return {name: nn.utils.clip_grad_norm_(group, max_norm) for name, group in groups.items() if group}


def drop_gradients(parts: Mapping[str, list[tuple[str, nn.Parameter]]], names: Iterable[str]) -> None:
    """Takes the gradients of parts away, so that an optimizer passes them over instead of decaying them."""
    for name in names:
        for _, parameter in parts.get(name, ()):
            parameter.grad = None


def make_groups(
    parts: Mapping[str, list[tuple[str, nn.Parameter]]],
    rates: Mapping[str, float],
    decayed: Collection[str],
    weight_decay: float,
) -> list[dict[str, Any]]:
    """The parameter groups of an optimizer.

    Args:
        parts (`Mapping`): as `find_parts` gives them.
        rates (`Mapping[str, float]`): the learning rate of each part that is trained.
        decayed (`Collection[str]`): names of parameters that weights decay of.
        weight_decay (`float`): for these.

    Returns:
        `list[dict]`: with `params`, `lr`, `weight_decay`, and the `part` for logs; empty groups are left out.
    """
    groups: list[dict[str, Any]] = []
    for part, rate in rates.items():
        for is_decayed in (True, False):
            params = [
                parameter
                for name, parameter in parts.get(part, ())
                if parameter.requires_grad and (name in decayed) == is_decayed
            ]
            if params:
                decay = weight_decay if is_decayed else 0.0
                groups.append({"params": params, "lr": rate, "weight_decay": decay, "part": part})
    return groups
