"""What `--ladder` adds to `vidground audit` and `vidground curate`: its options, and what is printed.

Data is opened by `curate_command.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from vidground_hf.command_line import describe_command
from vidground_hf.ladder_needs import VISUAL_NEEDS
from vidground_hf.media import DEFAULT_MAX_PIXELS, FrameBudget
from vidground_hf.schema import BLIND_VIEWS, LADDER_VIEWS

_OPTIONS = [
    click.option("--ladder", is_flag=True, help="Ask through one view after the other, and say what each question "
                 "needs. The options that follow go with it."),
    click.option("--views", default=",".join(LADDER_VIEWS), show_default=True, help="What is climbed."),
    click.option("--frames", type=click.IntRange(min=1), help="Frames of a clip; 32 when left out."),
    click.option("--fps", type=float, help="Frames a second instead."),
    click.option("--max-frames", type=click.IntRange(min=1), help="Of a clip, with --fps."),
    click.option("--max-pixels", type=click.IntRange(min=1), default=DEFAULT_MAX_PIXELS, show_default=True,
                 help="Of a frame."),
    click.option("--backend", help="Who decodes: torchcodec, decord or pyav; pyav when left out."),
    click.option("--single-frames", type=click.IntRange(min=1), default=1, show_default=True,
                 help="How many single frames are tried; the surest answer counts."),
    click.option("--control", type=click.IntRange(min=0), default=100, show_default=True,
                 help="How many questions are asked with another row's clip, too."),
]  # fmt: skip
KEEP_OPTION = click.option(
    "--keep", default=",".join(VISUAL_NEEDS), show_default=True, help="The needs that are kept."
)
_NAMES = ("views", "frames", "fps", "max_frames", "max_pixels", "backend", "single_frames", "control", "keep")
_BLIND_ONLY = ("samples", "shortcut_kinds", "view", "dry_run")
_VISUAL_ONLY = ("frames_as",)


def add_ladder_options(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the options to a command."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def take_ladder_options(options: dict[str, Any]) -> dict[str, Any] | None:
    """Takes the ladder's options out of a command's; `None` where it is not asked for.

    Raises:
        `click.UsageError`: for options that do not go together.
    """
    ladder = options.pop("ladder")
    taken = {name: options.pop(name) for name in _NAMES if name in options}
    context = click.get_current_context()
    useless = (*taken, *_VISUAL_ONLY) if not ladder else _BLIND_ONLY
    for name in useless:
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE:
            goes = "does not go" if ladder else "goes"
            raise click.UsageError(f"--{name.replace('_', '-')} {goes} with --ladder")
    return taken if ladder else None


def climb_rows(
    rows: Any,
    answerers: Sequence[Any],
    taken: Mapping[str, Any],
    *,
    data: Sequence[str],
    rule: str,
    alpha: float | None,
    media_root: str | None,
    **settings: Any,
) -> Any:
    """Climbs with what the command line says.

    Args:
        rows (`Dataset`): as opened.
        answerers (`Sequence[Answerer]`): one model.
        taken (`Mapping`): the ladder's options.
        data (`Sequence[str]`): where the rows were read; of a single file or folder, clips are looked for there.
        rule (`str`), alpha (`float`, *optional*), media_root (`str`, *optional*): as given.
        settings: further arguments of `climb`.

    Raises:
        `click.UsageError`: for several models.
        `ValueError`: as `climb` does.
    """
    from vidground_hf.answerers import TextBiasProbe
    from vidground_hf.ladder_curation import climb

    if len(answerers) > 1:
        raise click.UsageError(f"--ladder asks one model, got {len(answerers)}")
    if isinstance(answerers[0], TextBiasProbe):
        raise click.UsageError("--ladder asks a model through several views; name it, --answerer transformers:MODEL")
    views = [view.strip() for view in taken["views"].split(",")]
    looks = any(view not in BLIND_VIEWS for view in views)
    if looks:
        check_backend(taken["backend"])
    climbed = climb(
        rows,
        answerers[0],
        rule=rule,  # type: ignore[arg-type]  # checked there
        alpha=0.05 if alpha is None else alpha,
        views=views,
        keep=[need.strip() for need in taken.get("keep", ",".join(VISUAL_NEEDS)).split(",")],
        budget=FrameBudget(
            num_frames=taken["frames"],
            fps=taken["fps"],
            max_frames=taken["max_frames"],
            size=taken["max_pixels"],
            backend=taken["backend"],
        ),
        num_tries=taken["single_frames"],
        num_control_rows=taken["control"],
        media_root=media_root or (find_media_root(data) if looks else None),
        progress=True,
        **settings,
    )
    pinned = {"revision": climbed.report["source"]["revision"]}
    climbed.report["command"] = describe_command(click.get_current_context(), pinned)
    return climbed


def check_backend(backend: str | None) -> None:
    """Refuses a decoder that does not load before anything is asked: an answer that is kept would not tell.

    Raises:
        `ValueError`: for an unknown one.
        `click.ClickException`: for one that does not load.
    """
    from vidground_hf.video_backends import find_backend

    try:
        find_backend(backend)
    except ImportError as error:
        raise click.ClickException(str(error)) from error


def find_media_root(data: Sequence[str]) -> str | None:
    """The folder that relative media paths start from: that of the data, where it is one file or folder here."""
    path = Path(data[0]).expanduser()
    if len(data) > 1 or not path.exists():
        return None
    return str(path if path.is_dir() else path.parent)


def print_ladder(climbed: Any, as_json: bool, output: Path | None) -> None:
    """Prints the table or the report, and on stderr what was asked now."""
    from vidground_hf.ladder_pages import format_ladder

    calls = climbed.calls
    counts = ", ".join(f"{calls[name]:,} {name}" for name in ("asked", "cached", "failed", "saved"))
    click.echo(f"answers: {counts}", err=True)
    report = climbed.report
    click.echo(json.dumps(report, indent=2, allow_nan=False) if as_json else format_ladder(report))
    if output is not None:
        click.echo(f"report: {output / 'report.html'}", err=as_json)
