"""`vidground push` and `vidground push-metric`: their options, and what they print.

Errors become lines and exit statuses in `cli.py`. No token is an option: it would show in the list of processes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_TARGET_OPTIONS = [
    click.option("--private", is_flag=True, default=None, help="Of a repository that is made."),
    click.option("--create-pr", is_flag=True, help="Open a pull request instead of committing."),
    click.option("--dry-run", type=click.Path(file_okay=False, path_type=Path), metavar="DIR", help="Write the exact "
                 "files to DIR and send nothing; needs no network."),
    click.option("--json", "as_json", is_flag=True, help="Print what was done as JSON."),
]  # fmt: skip


def _add_target_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_TARGET_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path), metavar="DIR")
@click.argument("repo_id", metavar="USER/NAME")
@_add_target_options
@click.option("--revision", help="A branch; main when left out.")
@click.option("--ids-only/--full", default=None, help="Push ids, verdicts and scores only, or whole rows. Left out, "
              "ids only for sources known to forbid copies.")  # fmt: skip
def push(
    folder: Path,
    repo_id: str,
    private: bool | None,
    create_pr: bool,
    revision: str | None,
    ids_only: bool | None,
    dry_run: Path | None,
    as_json: bool,
) -> None:
    """Push the curated dataset in DIR to the Hub as USER/NAME, in one commit.

    DIR is what `vidground curate --output DIR` wrote. The token is that of `hf auth login`, or HF_TOKEN.
    """
    from vidground_hf.curation import Curation
    from vidground_hf.folders import read_report, read_splits, write_whole
    from vidground_hf.publishing import write_dataset
    from vidground_hf.sharing import choose_ids_only

    if dry_run is not None and (folder.resolve() in (dry_run.resolve(), *dry_run.resolve().parents)):
        raise click.UsageError(f"--dry-run {str(dry_run)!r} would write into the dataset itself; name another folder")
    curation = Curation(read_splits(folder), read_report(folder))
    reason = choose_ids_only(curation.report, ids_only)
    if reason is not None:
        click.echo(f"note: only ids, verdicts and scores, no texts: {reason}", err=True)
    if dry_run is not None:
        with write_whole(dry_run) as partial:
            write_dataset(curation.splits, curation.report, partial, repo_id, ids_only=reason)
        _print_dry_run(repo_id, dry_run, as_json)
        return
    done = curation.push_to_hub(
        repo_id, private=private, create_pr=create_pr, revision=revision, ids_only=reason is not None
    )
    _print_push(done, as_json)


@click.command("push-metric")
@click.argument("name")
@click.argument("repo_id", metavar="USER/SPACE")
@_add_target_options
def push_metric(
    name: str, repo_id: str, private: bool | None, create_pr: bool, dry_run: Path | None, as_json: bool
) -> None:
    """Push the metric NAME to the Hub as a Gradio Space, which `evaluate.load("USER/SPACE")` opens."""
    from vidground_hf.folders import write_whole
    from vidground_hf.hub import push_folder
    from vidground_hf.metric_loading import list_metrics

    metrics = list_metrics()
    if name not in metrics:
        raise ValueError(f"no metric {name!r}; allowed are {', '.join(metrics)}")
    folder = metrics[name].parent
    if dry_run is not None:
        with write_whole(dry_run) as partial:
            shutil.copytree(folder, partial, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        _print_dry_run(repo_id, dry_run, as_json)
        return
    message = f"Upload the metric {name}"
    _print_push(push_folder(folder, repo_id, "space", message=message, private=private, create_pr=create_pr), as_json)


def _print_push(done: Any, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(done._asdict(), indent=2))
    elif done.is_changed:
        click.echo(f"pushed {len(done.files)} files, {sum(done.files.values()) / 1e6:,.1f} MB: {done.url}")
    else:
        click.echo(f"nothing has changed, no commit was made: {done.url}")


def _print_dry_run(repo_id: str, folder: Path, as_json: bool) -> None:
    from vidground_hf.hub import describe_plan, list_files

    files = list_files(folder)
    if as_json:
        click.echo(json.dumps({"repo_id": repo_id, "url": None, "is_changed": None, "files": files}, indent=2))
        return
    for path, size in files.items():
        click.echo(f"{size:>14,}  {path}")
    click.echo(f"nothing was sent; a push would send {describe_plan(repo_id, files)}")
