"""`vidground cache`: what the kept answers take up, and how to be rid of the old ones.

Asks no model and judges no question.
"""

from __future__ import annotations

import json

import click


@click.group()
def cache() -> None:
    """Look at, or shrink, the answers that were kept."""


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def info(as_json: bool) -> None:
    """Print where the answers are, how many, how large, and how often one was found."""
    from vidground_hf.cache import AnswerCache

    with AnswerCache() as answers:
        described = answers.describe()
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


@cache.command()
@click.option("--older-than-days", type=click.FloatRange(min=0), required=True, help="0 deletes all of them.")
def prune(older_than_days: float) -> None:
    """Delete answers by age; they are asked again when they are needed."""
    from vidground_hf.cache import AnswerCache

    with AnswerCache() as answers:
        count = answers.prune(older_than_days)
        click.echo(f"deleted {count:,} answers, kept {answers.describe()['num_answers']:,}")
