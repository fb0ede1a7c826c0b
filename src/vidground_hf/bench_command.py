"""`vidground bench`: its options, and what it prints.

Asking, figures and files are `benchmark.py`'s; errors become lines and exit statuses in `cli.py`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from vidground_hf.answerer_options import add_answerer_options, make_answerers
from vidground_hf.curate_command import show_progress
from vidground_hf.gap_command import parse_mapping
from vidground_hf.ladder_command import check_backend, find_media_root
from vidground_hf.media import DEFAULT_MAX_PIXELS, FrameBudget
from vidground_hf.schema import VIEWS

# What may stand behind these options, one after the other.
_LISTED: dict[str, Callable[[str], bool]] = {
    "--frames": lambda word: all(part.isdecimal() for part in word.split(",")),
    "--views": lambda word: all(part in VIEWS for part in word.split(",")),
}


class ListingCommand(click.Command):
    """A command whose `--frames 16 32 64` is `--frames 16 --frames 32 --frames 64`."""

    def parse_args(self, context: click.Context, args: list[str]) -> list[str]:
        words: list[str] = []
        option = None
        for word in args:
            if option is not None and words[-1] != option and _LISTED[option](word):
                words += [option, word]
            else:
                option = word if word in _LISTED else option if words and words[-1] == option else None
                words.append(word)
        return super().parse_args(context, words)


def _read_frames(_: click.Context, __: click.Parameter, values: Sequence[str]) -> list[int]:
    words = [word for value in values for word in value.split(",")]
    for word in words:
        if not word.isdecimal() or int(word) < 1:
            raise click.BadParameter(f"got {word!r}; pass whole numbers of at least 1, for example --frames 16 32 64")
    return [int(word) for word in words]


def _read_views(_: click.Context, __: click.Parameter, values: Sequence[str]) -> list[str]:
    words = [word for value in values for word in value.split(",")]
    for word in words:
        if word not in VIEWS:
            raise click.BadParameter(f"got {word!r}; allowed are {', '.join(VIEWS)}")
    return words


@click.command(cls=ListingCommand)
@click.argument("data")
@click.option("--model", required=True, metavar="SPEC", help="Who answers: an id on the Hub, a folder, or as "
              "--answerer of vidground audit, for example endpoint:MODEL@URL.")  # fmt: skip
@add_answerer_options
@click.option("--frames", multiple=True, callback=_read_frames, metavar="N...", help="How many frames of a clip are "
              "shown; several run one after the other. 16 32 64 when left out.")  # fmt: skip
@click.option("--views", multiple=True, default=("text", "video"), show_default=True, callback=_read_views,
              metavar="VIEW...", help=f"What is shown: {', '.join(VIEWS)}.")  # fmt: skip
@click.option("--fps", type=click.FloatRange(min=0, min_open=True), help="Frames a second instead of --frames.")
@click.option("--max-frames", type=click.IntRange(min=1), help="With --fps: at most so many.")
@click.option("--max-pixels", type=click.IntRange(min=1), default=DEFAULT_MAX_PIXELS, show_default=True,
              help="Of a frame; larger ones are made smaller.")  # fmt: skip
@click.option("--backend", help="Who decodes: torchcodec, decord or pyav; pyav when left out.")
@click.option("--subtitles", is_flag=True, help="Show subtitles beside the frames, too.")
@click.option("--benchmark", "name", help="Ready settings by name, for example videomme; found by the Hub id of DATA.")
@click.option("--verdicts", type=click.Path(exists=True, file_okay=False, path_type=Path), help="A folder that "
              "vidground curate wrote, for VG and TA; the model's own blind answers when left out.")  # fmt: skip
@click.option("--adapter", help="The layout of the data; found by its columns when left out.")
@click.option("--map", "mapping", multiple=True, metavar="KEY=COLUMN", help="Which column holds what, for example "
              "--map question=q --map options=a0,a1,a2.")  # fmt: skip
@click.option("--media-root", type=click.Path(exists=True, file_okay=False), help="Where clips start from; the folder "
              "of local DATA when left out.")  # fmt: skip
@click.option("--split", help="Only this split.")
@click.option("--config", help="The configuration of a Hub dataset.")
@click.option("--revision", help="Branch, tag or commit of a Hub dataset.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first N questions.")
@click.option("--on-error", type=click.Choice(["raise", "undecided"]), default="raise", show_default=True,
              help="What becomes of a question that gets no answer.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True, help="Of intervals, shuffled frames and wrong videos.")
@click.option("--output", type=click.Path(path_type=Path), help="Write the table, a picture and all answers to this "
              "folder.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print table.json instead of the table.")
def bench(  # one parameter an option of the command
    data: str,
    model: str,
    frames: list[int],
    views: Any,
    fps: float | None,
    max_frames: int | None,
    max_pixels: int,
    backend: str | None,
    subtitles: bool,
    name: str | None,
    verdicts: Path | None,
    adapter: str | None,
    mapping: Sequence[str],
    media_root: str | None,
    split: str | None,
    config: str | None,
    revision: str | None,
    limit: int | None,
    on_error: Any,
    seed: int,
    output: Path | None,
    as_json: bool,
    **asking: Any,
) -> None:
    """Ask MODEL the questions of DATA with and without the video, and print one table.

    DATA is a csv, json, jsonl or parquet file, a folder, the id of a dataset on the Hub, or the name of a benchmark:
    videomme, videommmu, mmvu, mvbench, mlvu, mlvu_dev, nextqa, tempcompass, longvideobench or egoschema. Their clips
    are archives on the Hub: download and unpack them, and name the folder with --media-root.
    """
    from vidground_hf.benchmark import run_benchmark
    from vidground_hf.benchmark_data import open_benchmark
    from vidground_hf.benchmark_report import format_benchmark
    from vidground_hf.benchmark_settings import find_benchmark, get_benchmark
    from vidground_hf.folders import check_output_dir
    from vidground_hf.loading import open_dataset

    if output is not None:
        check_output_dir(output, "table.json")
    budgets = _list_budgets(frames, fps, max_frames, max_pixels, backend)
    settings = get_benchmark(name) if name is not None else find_benchmark(data)
    columns = parse_mapping(mapping)
    path = Path(data).expanduser()
    if settings is not None and data.casefold() == settings.name and not path.exists():
        data = settings.hub_id
    answerer = _load_model(model, asking)
    with show_progress(f"reading {data}"):
        if settings is not None and adapter is None and not columns:
            rows = open_benchmark(settings, data, split=split, config=config, revision=revision)
        else:
            rows = open_dataset(
                data, split=split, config=config, revision=revision, adapter=adapter, columns=columns or None
            )
    if limit is not None:
        rows = rows.select(range(min(limit, len(rows))))
    source = {"id": "/".join(Path(data).parts[-2:]), "revision": revision, "config": config, "split": split}
    with show_progress(f"{len(rows):,} questions, asking {answerer.id}"):
        benchmark = run_benchmark(
            rows, answerer, name=None if settings is None else settings.name, budgets=budgets, views=views,
            with_subtitles=subtitles, verdicts=verdicts, adapter=adapter, columns=columns or None,
            media_root=media_root or find_media_root([data]), on_error=on_error, seed=seed, source=source,
            progress=True,
        )  # fmt: skip
    if output is not None:
        benchmark.save(output)
    table = benchmark.table
    click.echo(json.dumps(table, indent=2, allow_nan=False) if as_json else format_benchmark(table))
    if output is not None:
        click.echo(f"report: {output / 'README.md'}", err=as_json)


def _list_budgets(
    frames: list[int], fps: float | None, max_frames: int | None, max_pixels: int, backend: str | None
) -> list[FrameBudget]:
    from vidground_hf.benchmark_settings import DEFAULT_NUM_FRAMES

    check_backend(backend)
    if fps is not None and frames:
        raise click.UsageError(f"--fps goes without --frames, got --fps {fps:g} and --frames {frames[0]}")
    if max_frames is not None and fps is None:
        raise click.UsageError("--max-frames goes with --fps; with --frames, the number says how many")
    if fps is not None:
        return [FrameBudget(fps=fps, max_frames=max_frames, size=max_pixels, backend=backend)]
    return [FrameBudget(num_frames=n, size=max_pixels, backend=backend) for n in frames or DEFAULT_NUM_FRAMES]


def _load_model(spec: str, asking: Mapping[str, Any]) -> Any:
    from vidground_hf.answerers import KINDS

    kind = spec.partition(":")[0]
    if kind == "probe":
        raise click.UsageError("--model probe learns from the answers of the set itself; run vidground audit for it")
    return make_answerers([spec if kind in KINDS and ":" in spec else f"transformers:{spec}"], **asking)[0]
