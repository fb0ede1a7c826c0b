"""The options that say where `vidground audit` and `vidground curate` ask models, and the function they choose.

What an engine does is `curation.py`'s and `ray_engine.py`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import click

_OPTIONS = [
    click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True,
                 help="Where models are asked: in this process, or in workers of Ray."),
    click.option("--workers", type=click.IntRange(min=1), help="How many of Ray; one for each GPU, or for every two "
                 "CPUs for models on a server, when left out."),
    click.option("--ray-address", metavar="ADDRESS", help="Of a Ray cluster; what RAY_ADDRESS names, or this machine "
                 "alone, when left out."),
]  # fmt: skip


def add_engine_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def choose_curate(engine: str, workers: int | None, ray_address: str | None) -> Callable[..., Any]:
    """The function that curates, with what the options say.

    Raises:
        `click.UsageError`: for options of Ray without it.
        `ImportError`: when Ray is not installed.
    """
    if engine == "ray":
        from vidground_hf.ray_engine import curate_with_ray

        return partial(curate_with_ray, num_workers=workers, address=ray_address)
    if workers is not None or ray_address is not None:
        raise click.UsageError("--workers and --ray-address go with --engine ray")
    from vidground_hf.curation import curate

    return curate
