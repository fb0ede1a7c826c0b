"""What `VideoGRPOTrainer` cannot be used with: versions of TRL, and arguments that pixels could not go through.

Whether pixels arrive is checked in `grpo_sight.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from packaging.version import Version

TRL_RANGE = ("1.16", "1.17")
"""The first version of TRL that this was tested with, and the first that it was not."""


def check_trl(installed: str) -> None:
    """Refuses versions of TRL that were not tested: the trainer overrides methods that TRL does not promise.

    Args:
        installed (`str`): the version.

    Raises:
        `ImportError`: for one out of `TRL_RANGE`.

    Example:
        >>> check_trl("1.16.2")
    """
    first, end = TRL_RANGE
    if not Version(first) <= Version(installed) < Version(end):
        raise ImportError(
            f"trl {installed} is installed; VideoGRPOTrainer was tested with trl>={first},<{end}: "
            f"pip install 'trl>={first},<{end}'"
        )


def check_arguments(args: Any, kwargs: Mapping[str, Any]) -> None:
    """Refuses arguments of `trl.GRPOTrainer` that make prompts or completions where the trainer does not see them.

    Args:
        args (`trl.GRPOConfig`, *optional*): settings.
        kwargs (`Mapping`): the others.

    Raises:
        `ValueError`: for tools, environments, `rollout_func`, and vLLM's server mode.
    """
    for name in ("tools", "rollout_func", "environment_factory"):
        if kwargs.get(name):
            raise ValueError(f"{name} goes past what rows show, so VideoGRPOTrainer does not take it; leave it out")
    if args is not None and args.use_vllm and args.vllm_mode == "server":
        raise ValueError("vllm_mode = 'server' takes images only; pass vllm_mode='colocate', or use_vllm=False")
