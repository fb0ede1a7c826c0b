"""`vidground audit` and `vidground curate`: their options, and what they print.

Errors become lines and exit statuses in `cli.py`.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import click

from vidground_hf.answerer_options import add_answerer_options, make_answerers
from vidground_hf.command_line import describe_command
from vidground_hf.engine_options import add_engine_options, choose_curate
from vidground_hf.gap_command import parse_mapping
from vidground_hf.ladder_command import KEEP_OPTION, add_ladder_options, climb_rows, print_ladder, take_ladder_options
from vidground_hf.schema import BLIND_VIEWS

_SOURCE_OPTIONS: list[Callable[[Any], Any]] = [
    click.argument("data", nargs=-1, required=True),
    click.option("--answerer", "answerers", multiple=True, default=["probe"], show_default=True, metavar="SPEC",
                 help="Who answers blind: probe, constant:TEXT, transformers:MODEL, vllm:MODEL, endpoint:MODEL@URL or "
                 "provider:MODEL; more than once for several models."),
    click.option("--samples", type=click.IntRange(min=1), help="Answers a question and model at most, each under "
                 "another order of the options; as many as the rule takes when left out."),
    add_answerer_options,
    add_engine_options,
    click.option("--shortcut-kinds", is_flag=True, help="Ask the first model why it could answer what is dropped."),
    click.option("--on-error", type=click.Choice(["raise", "undecided"]), default="raise", show_default=True,
                 help="What becomes of a question that gets no answer."),
    click.option("--dry-run", is_flag=True, help="Print what models would be asked, and ask nothing."),
    click.option("--rule", default="calibrated", show_default=True, help="calibrated, calibrated(0.1), single_shot, "
                 "majority, at_most(2), circular, bias_at_least(0.5) or drop_fraction(0.3)."),
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


@click.command()
@_add_source_options
@add_ladder_options
@click.option("--output", type=click.Path(path_type=Path), help="Write the report to this folder.")
def audit(output: Path | None, as_json: bool, **options: Any) -> None:
    """Say how much of DATA is answerable without the video.

    DATA is one or more csv, json, jsonl or parquet files, a folder, or the id of a dataset on the Hub. With --ladder,
    say what else the other questions need, and write the label of each to OUTPUT/labels.jsonl.
    """
    from vidground_hf.folders import check_output_dir, write_report, write_whole

    if output is not None:
        check_output_dir(output)
    taken = take_ladder_options(options)
    if taken is not None:
        climbed = _climb(taken, **options)
        if output is not None:
            climbed.save_labels(output)
        print_ladder(climbed, as_json, output)
        return
    with tempfile.TemporaryDirectory(prefix="vidground-") as folder:  # only the report is wanted
        curation = _curate(as_json=as_json, work_dir=Path(folder) / "work", **options)
    if output is not None:
        with write_whole(output) as partial:
            write_report(curation.report, partial)
    print_report(curation.report, as_json, output)


@click.command()
@_add_source_options
@add_ladder_options
@KEEP_OPTION
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The folder to write.")
def curate(output: Path, as_json: bool, **options: Any) -> None:
    """Split DATA into grounded, text_answerable and undecided rows, with a report.

    DATA is one or more csv, json, jsonl or parquet files, a folder, or the id of a dataset on the Hub. OUTPUT opens
    with datasets.load_dataset(OUTPUT). Every input row is in exactly one split. With --ladder, grounded holds the rows
    that need what --keep names, and a fourth split, not_kept, what else text does not answer.
    """
    from vidground_hf.folders import check_output_dir

    check_output_dir(output)
    taken = take_ladder_options(options)
    if taken is not None:
        climbed = _climb(taken, **options)
        climbed.save(output)
        print_ladder(climbed, as_json, output)
        return
    # What is found out on the way lies beside the output until it is written, for a run that is interrupted.
    curation = _curate(as_json=as_json, work_dir=output.resolve().parent / f".{output.resolve().name}.work", **options)
    curation.save(output)
    curation.work.remove()
    print_report(curation.report, as_json, output)


class Opened(NamedTuple):
    """What both ways of asking start from: rows, who is asked, which column holds what, where the rows are from."""

    rows: Any
    answerers: Any
    columns: dict[str, str]
    source: dict[str, Any]


def _open(  # one parameter an option of the command
    data: Sequence[str],
    answerers: Sequence[str],
    adapter: str | None,
    mapping: Sequence[str],
    split: str | None,
    config: str | None,
    revision: str | None,
    data_files: Sequence[str],
    limit: int | None,
    seed: int,
    **asking: Any,
) -> Opened:
    from vidground_hf.loading import open_dataset

    columns = parse_mapping(mapping)
    made = make_answerers(answerers, seed=seed, **asking)
    with show_progress("reading " + ", ".join(data)):
        rows = open_dataset(
            data, split=split, config=config, revision=revision, data_files=data_files, adapter=adapter,
            columns=columns,
        )  # fmt: skip
    if limit is not None:
        rows = rows.select(range(min(limit, len(rows))))
    source = {"id": _name_source(data), "revision": revision, "config": config, "split": split} | {
        "data_files": list(data_files) or None
    }
    return Opened(rows, made, columns, source)


def _curate(
    samples: int | None,
    shortcut_kinds: bool,
    on_error: Any,
    dry_run: bool,
    rule: str,
    alpha: float | None,
    view: Any,
    media_root: str | None,
    as_json: bool,
    engine: str,
    workers: int | None,
    ray_address: str | None,
    work_dir: Path | None = None,
    **options: Any,
) -> Any:
    from vidground_hf.filtering import GroundFilter
    from vidground_hf.rule_parsing import parse_rule

    if alpha is not None and rule != "calibrated":
        raise click.UsageError(f"--alpha goes with --rule calibrated, got --rule {rule}")
    chosen = parse_rule(rule if alpha is None else f"calibrated({alpha})")
    run = choose_curate(engine, workers, ray_address)
    rows, made, columns, source = _open(**options)
    asked = {
        "samples": samples, "shortcut_kinds": shortcut_kinds, "view": view, "adapter": options["adapter"],
        "columns": columns, "seed": options["seed"],
    }  # fmt: skip
    if dry_run:
        _print_plan(GroundFilter(made, chosen, **asked).plan(rows), as_json)
        raise click.exceptions.Exit(0)
    with show_progress(f"{len(rows):,} questions, asking {', '.join(one.id for one in made)}"):
        curation = run(
            rows, answerer=made, rule=chosen, on_error=on_error, media_root=media_root, source=source, progress=True,
            work_dir=work_dir, **asked,
        )  # fmt: skip
    pinned = {"revision": curation.report["source"]["revision"]}
    curation.report["command"] = describe_command(click.get_current_context(), pinned)
    return curation


def _climb(
    taken: dict[str, Any], on_error: Any, rule: str, alpha: float | None, media_root: str | None, **options: Any
) -> Any:
    if (options["engine"], options["workers"], options["ray_address"]) != ("local", None, None):
        raise click.UsageError("--ladder asks in one process; leave --engine, --workers and --ray-address out")
    blind_only = ("samples", "shortcut_kinds", "dry_run", "view", "engine", "workers", "ray_address")
    rows, made, columns, source = _open(**{name: options[name] for name in options if name not in blind_only})
    with show_progress(f"{len(rows):,} questions, asking {', '.join(one.id for one in made)}"):
        return climb_rows(
            rows, made, taken, data=options["data"], rule=rule, alpha=alpha, media_root=media_root, on_error=on_error,
            adapter=options["adapter"], columns=columns, seed=options["seed"], source=source,
        )  # fmt: skip


def _name_source(data: Sequence[str]) -> str:
    """Two parts of a path tell sets apart without telling whose disk they were on."""
    if len(data) == 1:
        return "/".join(Path(data[0]).parts[-2:])
    parents = dict.fromkeys("/".join(Path(name).parent.parts[-2:]) for name in data)
    return f"{', '.join(parents)} ({len(data)} files)"


@contextmanager
def show_progress(doing: str) -> Iterator[None]:
    started = time.perf_counter()
    click.echo(f"{doing} ...", err=True)
    yield
    click.echo(f"done in {time.perf_counter() - started:.1f} s", err=True)


def print_report(report: dict[str, Any], as_json: bool, output: Path | None) -> None:
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
