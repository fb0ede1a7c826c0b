"""`vidground cache`: what kept answers and fits take up, and how to be rid of the old ones.

Asks no model and judges no question.
"""

from __future__ import annotations

import json

import click


@click.group()
def cache() -> None:
    """Look at, or shrink, the answers and fits that were kept."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Print where the answers are, how many, how large, and how often one was found; and how many fits there are."""
    from vidground_hf.cache import AnswerCache
    from vidground_hf.fits import list_files

    with AnswerCache() as answers:
        described = answers.describe()
    files = list_files()
    described |= {"num_files": len(files), "num_file_bytes": sum(path.stat().st_size for path in files)}
    if as_json:
        click.echo(json.dumps(described, indent=2))
        return
    rate = described["hit_rate"]
    click.echo(f"{'file':16} {described['path']}")
    click.echo(f"{'size':16} {described['num_bytes'] / 1e6:,.1f} MB")
    click.echo(f"{'answers':16} {described['num_answers']:,}")
    click.echo(f"{'found':16} {'never asked' if rate is None else f'{rate:.1%} of lookups'}")
    for answerer, count in described["answerers"].items():
        click.echo(f"  {count:>12,}  {answerer}")
    click.echo(f"{'fits, columns':16} {described['num_files']:,} files, {described['num_file_bytes'] / 1e6:,.1f} MB")


@cache.command()
@click.option("--older-than-days", type=click.FloatRange(min=0), required=True, help="0 deletes all of them.")
def prune(older_than_days: float) -> None:
    """Delete answers and fits by age.

    Answers are asked again when they are needed. A filter whose fit is gone is to be fitted again, and what curate
    returned in Python without a work folder cannot be opened anew.
    """
    from vidground_hf.cache import AnswerCache
    from vidground_hf.fits import list_files, prune_files

    with AnswerCache() as answers:
        count = answers.prune(older_than_days)
        click.echo(f"deleted {count:,} answers, kept {answers.describe()['num_answers']:,}")
    count = prune_files(older_than_days)
    click.echo(f"deleted {count:,} files of fits and columns, kept {len(list_files()):,}")
