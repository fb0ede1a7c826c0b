"""Lets TRL's vLLM generation send videos, in the process that trains (`vllm_mode="colocate"`).

It was written from vLLM's and TRL's sources and has never been run; TRL's server mode takes images only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any


def send_media(generate: Callable[..., Any]) -> Callable[..., Any]:
    """Wraps `vllm.LLM.generate` so that what TRL calls the image of a prompt goes out as what it is.

    Args:
        generate (`Callable`): takes a list of prompts first.

    Returns:
        `Callable`: takes prompts whose image is the `vllm_media` of a `grpo_prompts.ShownPrompt`.

    Example:
        >>> echo = send_media(lambda prompts: prompts)
        >>> (sent,) = echo([{"prompt_token_ids": [1], "multi_modal_data": {"image": {"video": ["frames"]}}}])
        >>> sent["multi_modal_data"]
        {'video': ['frames']}
    """

    def send(prompts: Sequence[Mapping[str, Any]], *arguments: Any, **settings: Any) -> Any:
        return generate([_name_media(prompt) for prompt in prompts], *arguments, **settings)

    return send


def _name_media(prompt: Mapping[str, Any]) -> dict[str, Any]:
    media = prompt.get("multi_modal_data", {}).get("image")
    if not media:
        return {key: value for key, value in prompt.items() if key != "multi_modal_data"}
    named = {**prompt, "multi_modal_data": media}
    # Frames were chosen before.
    return {**named, "mm_processor_kwargs": {"do_sample_frames": False}} if "video" in media else named
