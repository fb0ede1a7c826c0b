"""`vidground gap`: two prediction files in, the blind-visual gap out.

Reading, scoring and drawing are done elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from vidground_hf.schema import PROBLEM_TYPES

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command()
@click.option("--blind", type=_FILE, required=True, help="Answers without the video.")
@click.option("--visual", type=_FILE, required=True, help="Answers of the same model with it; may be the same file.")
@click.option("--references", type=_FILE, help="Gold answers and options, where the answers come without them.")
@click.option("--blind-column", metavar="COLUMN", help="The column of answers in the blind file.")
@click.option("--visual-column", metavar="COLUMN", help="The column of answers in the visual file.")
@click.option("--map", "mapping", multiple=True, metavar="KEY=COLUMN", help="Which column holds what, for example "
              "--map id=video,qid --map reference=gold --map group=category.")  # fmt: skip
@click.option("--problem-type", type=click.Choice(PROBLEM_TYPES), help="Of every question whose file does not say.")
@click.option("--num-resamples", type=click.IntRange(min=1), default=10_000, show_default=True)
@click.option("--confidence", type=click.FloatRange(0, 1, min_open=True, max_open=True), default=0.95,
              show_default=True, help="Of the intervals.")  # fmt: skip
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the metric's dictionary, with ids.")
@click.option("--output", type=click.Path(file_okay=False, path_type=Path), help="Write gap.json and gap.png here.")
@click.option("--html", "with_html", is_flag=True, help="Write gap.html to the output folder, too.")
def gap(
    blind: Path,
    visual: Path,
    references: Path | None,
    blind_column: str | None,
    visual_column: str | None,
    mapping: Sequence[str],
    problem_type: Any,
    num_resamples: int,
    confidence: float,
    seed: int,
    as_json: bool,
    output: Path | None,
    with_html: bool,
) -> None:
    """Say how much better a model answers with the video than without.

    The files may be csv or tsv, jsonl or json, or inspect_ai logs, also as lmms-eval, VLMEvalKit, Video-R1,
    EasyVideoR1 and lm-evaluation-harness write them. Rows are joined by id; ids that are in one file only are listed
    and left out.
    """
    from vidground_hf.gap import measure_gap
    from vidground_hf.gap_report import format_gap_table
    from vidground_hf.predictions import read_pairs

    if with_html and output is None:
        raise click.UsageError("--html writes gap.html to a folder; say which with --output DIR")
    try:
        pairs = read_pairs(
            blind,
            visual,
            references,
            blind_column=blind_column,
            visual_column=visual_column,
            columns=parse_mapping(mapping),
            problem_type=problem_type,
        )
    except ImportError as error:
        raise click.ClickException(str(error)) from error
    _report_unmatched(pairs.unmatched)
    result = measure_gap(**pairs.columns, num_resamples=num_resamples, confidence=confidence, seed=seed)
    printed = {**result, "ids": pairs.columns["ids"], "unmatched": pairs.unmatched}
    if output is not None:
        named = {"Without the video": blind, "With the video": visual, "References": references}
        sources = {name: path.name for name, path in named.items() if path is not None} | {
            "Intervals": f"{confidence:.4g} confidence, {num_resamples:,} resamples "
            f"{'by video' if 'clusters' in pairs.columns else 'by question'}, seed {seed}"
        }
        _write_report(output, printed, sources if with_html else None)
    click.echo(json.dumps(printed, indent=2, allow_nan=False) if as_json else format_gap_table(result))
    if output is not None:
        click.echo(f"report: {output / ('gap.html' if with_html else 'gap.json')}", err=as_json)


def parse_mapping(pairs: Sequence[str]) -> dict[str, str]:
    """Reads what `--map` was given; refuses what is not KEY=COLUMN."""
    for pair in pairs:
        if "=" not in pair:
            raise click.UsageError(f"--map takes KEY=COLUMN, got {pair!r}; for example --map question=q")
    return dict(pair.split("=", 1) for pair in pairs)


def _report_unmatched(unmatched: Mapping[str, Sequence[str]]) -> None:
    from vidground_hf.pairing import cut_list
    from vidground_hf.rendering import clean_text

    for name, ids in unmatched.items():
        if ids:
            listed = clean_text(cut_list(ids))
            click.echo(f"note: {len(ids):,} ids not compared, {name.replace('_', ' ')}: {listed}", err=True)


def _write_report(folder: Path, printed: Mapping[str, Any], sources: Mapping[str, str] | None) -> None:
    """Writes the files; `sources` asks for the page."""
    from vidground_hf.gap_report import draw_gap, render_gap_page

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "gap.json").write_text(json.dumps(printed, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    (folder / "gap.png").write_bytes(draw_gap(printed))
    if sources is not None:
        page = render_gap_page(printed, printed["unmatched"], sources)
        (folder / "gap.html").write_text(page, encoding="utf-8")
