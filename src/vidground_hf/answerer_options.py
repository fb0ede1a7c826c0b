"""The options of every command that asks models, and the answerers they make.

What the settings mean, and which go with which kind of answerer, is said in `answerers/`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import click

_OPTIONS = [
    click.option("--temperature", type=click.FloatRange(min=0), help="Of a model that samples; 0 when left out."),
    click.option("--reasoning", type=click.IntRange(min=1), metavar="TOKENS", help="Let a model think first, for so "
                 "many tokens at most."),
    click.option("--logprobs", is_flag=True, help="Read option probabilities from a server that gives them."),
    click.option("--concurrency", type=click.IntRange(min=1), help="Requests in flight at most; 64 when left out."),
    click.option("--max-requests", type=click.IntRange(min=1), help="Stop after this many requests to a server; what "
                 "was answered is kept for the next run."),
    click.option("--frames-as", type=click.Choice(["images", "video"]), help="How a server is sent frames: each as an "
                 "image (when left out), or all as one mp4 video."),
]  # fmt: skip


def add_answerer_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def make_answerers(
    specs: Sequence[str],
    *,
    temperature: float | None,
    reasoning: int | None,
    logprobs: bool,
    concurrency: int | None,
    max_requests: int | None,
    frames_as: str | None,
    seed: int | None = None,
) -> list[Any]:
    """Makes answerers with what the options say.

    Args:
        specs (`Sequence[str]`): as `load_answerer` takes them.
        temperature, reasoning, logprobs, concurrency, max_requests, frames_as: the options, as given.
        seed (`int`, *optional*): of the probe.

    Returns:
        `list[Answerer]`: one for each.

    Raises:
        `ValueError`: as `load_answerers` does, also for an option that goes with none of them.
    """
    from vidground_hf.answerers import load_answerers

    return load_answerers(
        specs, seed=seed, temperature=temperature, reasoning_tokens=reasoning, logprobs=logprobs or None,
        concurrency=concurrency, max_requests=max_requests, frames_as=frames_as,
    )  # fmt: skip
