"""One trial: a run is disturbed, and the next one must end as if nothing had happened.

The kinds of disturbance are in `disturbances.py`, what is checked of a folder in `checks.py`.
"""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.chat_server import ChatServer
from tests.soak.checks import check_output, check_tidy, check_untouched, read_output
from tests.soak.disturbances import DISTURBANCES, NUM_WORKERS, Reference, Setting, unmount
from tests.soak.messy_set import write_messy_set
from tests.soak.runs import CONCURRENCY, Place, start_run

NUM_ROWS = 160
"""Of the set, where nothing else is asked for: every kind of row, four shards, and a run takes seconds."""


class Bench(NamedTuple):
    """What all trials share: a set, a server that answers at once and always the same, and undisturbed runs."""

    folder: Path
    num_rows: int
    server: ChatServer
    references: dict[str, Reference]

    @property
    def data(self) -> Path:
        return self.folder / "messy.jsonl"


@contextmanager
def open_bench(folder: Path, num_rows: int = NUM_ROWS) -> Iterator[Bench]:
    """Makes the set; references, with the probe and with a model behind a server, are made when they are needed."""
    write_messy_set(folder / "messy.jsonl", num_rows)
    with ChatServer(delay_seconds=0.01) as server:
        yield Bench(folder, num_rows, server, {})


def _find_reference(bench: Bench, name: str) -> Reference:
    served = ["--answerer", f"endpoint:model@{bench.server.url}", "--concurrency", str(CONCURRENCY)]
    options = {
        "probe": ["--answerer", "probe"],
        "server": served,
        "ray": [*served, "--engine", "ray", "--workers", str(NUM_WORKERS)],
    }
    if name not in bench.references:
        bench.references[name] = _make_reference(bench, name, options[name])
    return bench.references[name]


def _make_reference(bench: Bench, name: str, options: list[str]) -> Reference:
    place, num_before = Place(bench.folder / f"reference_{name}").make(), bench.server.num_requests
    started = time.monotonic()
    ended = start_run(place, bench.data, options).wait()
    seconds = time.monotonic() - started
    assert ended.status == 0, ended.said
    output = read_output(place.output)
    check_output(place.output, output, bench.num_rows)
    return Reference(
        options, place.output, output, seconds, place.count_files(), bench.server.num_requests - num_before
    )


def run_trial(bench: Bench, kind: str, seed: int) -> str:
    """Disturbs a run once or twice, then lets the next one end and checks all that must hold.

    Every second trial asks a server, those that disturb workers too; some start with an earlier output in place.

    Args:
        bench (`Bench`): what trials share.
        kind (`str`): a key of `DISTURBANCES`.
        seed (`int`): of every choice in it.

    Returns:
        `str`: what happened, on one line.
    """
    rng = random.Random(f"{kind} {seed}")
    reference = _find_reference(bench, "ray" if kind == "dead worker" else "server" if seed % 2 else "probe")
    place = Place(bench.folder / f"{kind.replace(' ', '_')}_{seed}").make()
    if rng.random() < 0.3:
        shutil.copytree(reference.folder, place.output)
    bench.server.answered.clear()
    setting = Setting(place, bench.data, reference, bench.server, rng)
    num_disturbed = rng.choice([1, 1, 2])
    try:
        told = []
        for _ in range(num_disturbed):
            told.append(DISTURBANCES[kind](setting))
            check_untouched(place, reference.output, bench.num_rows)
        ended = setting.start().wait()
        assert ended.status == 0, f"the next run failed: {ended.said}"
        check_output(place.output, reference.output, bench.num_rows)
        check_tidy(place)
        _check_payments(bench, kind, num_disturbed)
    except AssertionError as error:
        raise AssertionError(f"{kind} {seed}, {' then '.join(told)}: {error}") from error
    finally:
        unmount(place)
    shutil.rmtree(place.root)
    return " then ".join(told)


def _check_payments(bench: Bench, kind: str, num_disturbed: int) -> None:
    """Nothing is answered twice but what was on its way when a run ended.

    Two runs, or workers, at once do not know what the other has on its way.
    """
    answered = bench.server.answered
    if kind in ("two at once", "dead worker"):
        assert max(answered.values(), default=0) <= 1 + num_disturbed + (kind == "dead worker")
        return
    num_twice = answered.total() - len(answered)
    assert num_twice <= CONCURRENCY * num_disturbed, f"{num_twice} answers were paid for twice"


def list_trials(num_kills: int, first_seed: int = 0) -> list[tuple[str, int]]:
    """Kinds and seeds: so many kills, every third at a rename, and a tenth as many, but one, of the other kinds."""
    num_renames = num_kills // 3
    counts = {kind: max(1, num_kills // 10) for kind in DISTURBANCES}
    counts |= {"kill": num_kills - num_renames, "rename": num_renames}
    return [(kind, first_seed + number) for kind, count in counts.items() for number in range(count)]
