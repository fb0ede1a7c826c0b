"""The `vidground` command: reads arguments, calls the library, prints.

Progress and notes go to stderr, results to stdout. Exit status 0: done, 1: the work failed, 2: bad usage or input.
"""

from __future__ import annotations

import errno
import json
import logging
import sys
import tempfile
import time
from pathlib import Path

import click
import datasets

from vidground_hf.bench_command import bench
from vidground_hf.cache_command import cache
from vidground_hf.curate_command import audit, curate, print_report, show_progress
from vidground_hf.environment import describe_environment
from vidground_hf.gap_command import gap
from vidground_hf.push_command import push, push_metric

_TOO_LITTLE_MEMORY = "; there is too little memory: end other programs, or take fewer rows with --limit"
_ADVICE: dict[int | None, str] = {
    errno.ENOMEM: _TOO_LITTLE_MEMORY,
    errno.ENOSPC: "; free space on that disk and run the same command again",
    errno.EDQUOT: "; free space within your quota and run the same command again",
    errno.EROFS: "; name a folder that can be written to, or make this one writable",
    errno.EACCES: "; name a folder or file that you may use, or change who may",
}


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="vidground-hf", prog_name="vidground")
def cli() -> None:
    """Find the video questions that text alone answers, and keep the ones that need the video.

    With --debug anywhere in the command, an error shows its traceback.
    """


@cli.command()
@click.option("--output", type=click.Path(path_type=Path), help="Where to; a new temporary folder when left out.")
@click.option("--num-questions", type=click.IntRange(min=20), default=1000, show_default=True)
@click.option("--num-clips", type=click.IntRange(min=5), default=200, show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print report.json with precision and recall.")
def demo(output: Path | None, num_questions: int, num_clips: int, seed: int, as_json: bool) -> None:
    """Make a toy set of small videos, curate it, and compare with the planted truth."""
    from vidground_hf.answerers import TextBiasProbe
    from vidground_hf.curation import curate as curate_dataset
    from vidground_hf.folders import check_output_dir
    from vidground_hf.loading import open_dataset
    from vidground_hf.report import compare_with_truth
    from vidground_hf.toy import make_toy_set

    folder = Path(tempfile.mkdtemp(prefix="vidground-demo-")) if output is None else output
    curated = folder / "curated"
    check_output_dir(curated)
    toy = folder / "toy"
    started = time.perf_counter()
    with show_progress(f"making {num_questions} questions over {num_clips} clips"):
        make_toy_set(toy, num_questions=num_questions, num_clips=num_clips, seed=seed)
    making_seconds = time.perf_counter() - started
    curation = curate_dataset(
        open_dataset(toy), answerer=TextBiasProbe(seed=seed), seed=seed, source={"id": "toy set"}, progress=True
    )
    curation.report.update(compare_with_truth(curation.splits), making_seconds=round(making_seconds, 2))
    curation.save(curated)
    print_report(curation.report, as_json, curated)


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


cli.add_command(audit)
cli.add_command(curate)
cli.add_command(gap)
cli.add_command(bench)
cli.add_command(cache)
cli.add_command(push)
cli.add_command(push_metric)


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
        _fail((str(error) or type(error).__name__) + _advise(error), 1, debug)
    except Exception as error:  # noqa: BLE001 - whatever a library raises, a command ends in one line, not a traceback
        _fail(f"unexpected {type(error).__name__}: {error}. Run with --debug to see where", 1, debug)


def _advise(error: Exception) -> str:
    """What to do about errors whose texts are the system's."""
    if isinstance(error, MemoryError) or str(error) == "can't start new thread":
        return _TOO_LITTLE_MEMORY
    return _ADVICE.get(error.errno, "") if isinstance(error, OSError) else ""


def _fail(message: str, status: int, debug: bool) -> None:
    if debug:
        raise
    click.echo("error: " + " ".join(message.split()), err=True)
    sys.exit(status)


if __name__ == "__main__":
    main()
