"""The `vidground` command: reads arguments, calls the library, prints.

Progress and notes go to stderr, results to stdout. Exit status 0: done, 1: the work failed, 2: bad usage or input.
"""

from __future__ import annotations

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import datasets

from vidground_hf.cache_command import cache
from vidground_hf.environment import describe_environment
from vidground_hf.gap_command import gap, parse_mapping
from vidground_hf.schema import BLIND_VIEWS

_SOURCE_OPTIONS = [
    click.argument("data", nargs=-1, required=True),
    click.option("--answerer", default="probe", show_default=True, help="Who answers blind: probe, constant:TEXT, "
                 "endpoint:MODEL@URL or provider:MODEL."),
    click.option("--concurrency", type=click.IntRange(min=1), help="Requests in flight at most; 64 when left out."),
    click.option("--max-requests", type=click.IntRange(min=1), help="Stop after this many requests; what was "
                 "answered is kept for the next run."),
    click.option("--dry-run", is_flag=True, help="Print what a model would be asked, and ask nothing."),
    click.option("--rule", default="calibrated", show_default=True, help="calibrated, calibrated(0.1), single_shot, "
                 "bias_at_least(0.5) or drop_fraction(0.3)."),
    click.option("--alpha", type=float, help="The error that calibrated allows, in (0, 1); 0.05 when left out."),
    click.option("--view", type=click.Choice(BLIND_VIEWS), default="text", show_default=True, help="What is shown."),
    click.option("--adapter", help="The layout of the data; found by its columns when left out."),
    click.option("--map", "mapping", multiple=True, metavar="KEY=COLUMN", help="Which column holds what, for example "
                 "--map question=q --map options=a0,a1,a2."),
    click.option("--media-root", type=click.Path(exists=True, file_okay=False), help="Where relative media paths "
                 "start; the report then counts the files that are missing."),
    click.option("--split", help="Only this split."),
    click.option("--config", help="The configuration of a Hub dataset."),
    click.option("--revision", help="Branch, tag or commit of a Hub dataset."),
    click.option("--data-files", multiple=True, help="Which files of a Hub dataset to read."),
    click.option("--limit", type=click.IntRange(min=1), help="Only the first N rows."),
    click.option("--seed", type=int, default=0, show_default=True, help="Of folds, intervals and samples."),
    click.option("--json", "as_json", is_flag=True, help="Print report.json instead of the table."),
]  # fmt: skip


def _add_source_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_SOURCE_OPTIONS):
        command = option(command)
    return command


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vidground-hf", prog_name="vidground")
def cli() -> None:
    """Find the video questions that text alone answers, and keep the ones that need the video.

    With --debug anywhere in the command, an error shows its traceback.
    """


@cli.command()
@_add_source_options
@click.option("--output", type=click.Path(path_type=Path), help="Write the report to this folder.")
def audit(output: Path | None, as_json: bool, **options: Any) -> None:
    """Say how much of DATA is answerable without the video.

    DATA is one or more csv, json, jsonl or parquet files, a folder, or the id of a dataset on the Hub.
    """
    from vidground_hf.folders import check_output_dir, write_report, write_whole

    if output is not None:
        check_output_dir(output)
    curation = _curate(as_json=as_json, **options)
    if output is not None:
        with write_whole(output) as partial:
            write_report(curation.report, partial)
    _print_report(curation.report, as_json, output)


@cli.command()
@_add_source_options
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
def curate(output: Path, as_json: bool, **options: Any) -> None:
    """Split DATA into grounded, text_answerable and undecided rows, with a report.

    DATA is one or more csv, json, jsonl or parquet files, a folder, or the id of a dataset on the Hub. OUTPUT opens
    with datasets.load_dataset(OUTPUT). Every input row is in exactly one split.
    """
    from vidground_hf.folders import check_output_dir

    check_output_dir(output)
    curation = _curate(as_json=as_json, **options)
    curation.save(output)
    _print_report(curation.report, as_json, output)


@cli.command()
@click.option("--output", type=click.Path(path_type=Path), help="Where to; a new temporary folder when left out.")
@click.option("--num-questions", type=click.IntRange(min=20), default=1000, show_default=True)
@click.option("--num-clips", type=click.IntRange(min=5), default=200, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print report.json with precision and recall.")
def demo(output: Path | None, num_questions: int, num_clips: int, seed: int, as_json: bool) -> None:
    """Make a toy set of small videos, curate it, and compare with the planted truth."""
    from vidground_hf.answerers import TextBiasProbe
    from vidground_hf.curation import curate
    from vidground_hf.folders import check_output_dir
    from vidground_hf.loading import open_dataset
    from vidground_hf.report import compare_with_truth
    from vidground_hf.toy import make_toy_set

    folder = Path(tempfile.mkdtemp(prefix="vidground-demo-")) if output is None else output
    curated = folder / "curated"
    check_output_dir(curated)
    toy = folder / "toy"
    started = time.perf_counter()
    with _progress(f"making {num_questions} questions over {num_clips} clips"):
        make_toy_set(toy, num_questions=num_questions, num_clips=num_clips, seed=seed)
    making_seconds = time.perf_counter() - started
    curation = curate(
        open_dataset(toy), answerer=TextBiasProbe(seed=seed), seed=seed, source={"id": "toy set"}, progress=True
    )
    curation.report.update(compare_with_truth(curation.splits), making_seconds=round(making_seconds, 2))
    curation.save(curated)
    _print_report(curation.report, as_json, curated)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def env(as_json: bool) -> None:
    """Print the versions that a bug report needs."""
    described = describe_environment()
    if as_json:
        click.echo(json.dumps(described, indent=2))
    else:
        for name, value in described.items():
            click.echo(f"{name:16} {value or 'not installed'}")


cli.add_command(gap)
cli.add_command(cache)


def _curate(
    data: Sequence[str],
    answerer: str,
    concurrency: int | None,
    max_requests: int | None,
    dry_run: bool,
    rule: str,
    alpha: float | None,
    view: Any,
    adapter: str | None,
    mapping: Sequence[str],
    media_root: str | None,
    split: str | None,
    config: str | None,
    revision: str | None,
    data_files: Sequence[str],
    limit: int | None,
    seed: int,
    as_json: bool,
) -> Any:
    from vidground_hf.answerers import load_answerer
    from vidground_hf.curation import curate
    from vidground_hf.filtering import GroundFilter
    from vidground_hf.loading import open_dataset
    from vidground_hf.rule_parsing import parse_rule

    columns = parse_mapping(mapping)
    made = load_answerer(answerer, seed=seed, concurrency=concurrency, max_requests=max_requests)
    if alpha is not None and rule != "calibrated":
        raise click.UsageError(f"--alpha goes with --rule calibrated, got --rule {rule}")
    chosen = parse_rule(rule if alpha is None else f"calibrated({alpha})")
    with _progress("reading " + ", ".join(data)):
        rows = open_dataset(
            data,
            split=split,
            config=config,
            revision=revision,
            data_files=data_files,
            adapter=adapter,
            columns=columns,
        )
    if limit is not None:
        rows = rows.select(range(min(limit, len(rows))))
    if dry_run:
        ground_filter = GroundFilter(made, chosen, view=view, adapter=adapter, columns=columns)
        _print_plan(ground_filter.plan(rows), as_json)
        raise click.exceptions.Exit(0)
    source = {"id": _name_source(data), "revision": revision}
    with _progress(f"{len(rows):,} questions, asking {made.id}"):
        return curate(
            rows, answerer=made, rule=chosen, view=view, adapter=adapter, columns=columns, media_root=media_root,
            seed=seed, source=source, progress=True,
        )  # fmt: skip


def _name_source(data: Sequence[str]) -> str:
    """Two parts of a path tell sets apart without telling whose disk they were on."""
    if len(data) == 1:
        return "/".join(Path(data[0]).parts[-2:])
    parents = dict.fromkeys("/".join(Path(name).parent.parts[-2:]) for name in data)
    return f"{', '.join(parents)} ({len(data)} files)"


@contextmanager
def _progress(doing: str) -> Iterator[None]:
    started = time.perf_counter()
    click.echo(f"{doing} ...", err=True)
    yield
    click.echo(f"done in {time.perf_counter() - started:.1f} s", err=True)


def _print_report(report: dict[str, Any], as_json: bool, output: Path | None) -> None:
    from vidground_hf.tables import format_table

    click.echo(json.dumps(report, indent=2, allow_nan=False) if as_json else format_table(report))
    if output is not None:
        click.echo(f"report: {output / 'report.html'}", err=as_json)


def _print_plan(plan: dict[str, int | None], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(plan, indent=2))
        return
    for name, value in plan.items():
        unit = " (about)" if name == "num_prompt_tokens" else ""
        shown = "unknown" if value is None else f"{value:,}"
        click.echo(f"{name.removeprefix('num_').replace('_', ' '):18} {shown:>12}{unit}")


def main() -> None:
    """Runs the command and turns what can go wrong into one line and an exit status."""
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    debug = len(arguments) < len(sys.argv) - 1
    logging.basicConfig(format="note: %(message)s", level=logging.WARNING)
    logging.captureWarnings(True)
    logging.getLogger("datasets").setLevel(logging.CRITICAL)  # it logs what it raises, and then once more
    datasets.disable_progress_bars()
    try:
        sys.exit(cli(args=arguments, standalone_mode=False))
    except click.exceptions.Abort:
        _fail("interrupted; nothing half-written is left, run the same command again", 1, debug)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (ValueError, TypeError) as error:
        _fail(str(error), 2, debug)
    except (RuntimeError, OSError, MemoryError) as error:
        _fail(str(error) or type(error).__name__, 1, debug)
    except Exception as error:  # noqa: BLE001 - whatever a library raises, a command ends in one line, not a traceback
        _fail(f"unexpected {type(error).__name__}: {error}. Run with --debug to see where", 1, debug)


def _fail(message: str, status: int, debug: bool) -> None:
    if debug:
        raise
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
