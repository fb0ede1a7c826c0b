"""Curation on many processes and machines: stage one, asking, goes through Ray Data.

Reading, reducing and writing stay with the driver, as `curation.py` does them, so the result is the same.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

import pyarrow as pa
from datasets import Dataset, DatasetDict
from tqdm.auto import tqdm

from vidground_hf.answerers.base import Answerer, ModelAnswerer
from vidground_hf.asking import CALLS, Asking
from vidground_hf.cache import AnswerCache
from vidground_hf.curation import Curation, curate
from vidground_hf.facts import Facts
from vidground_hf.ray_keeper import Keeper, ray
from vidground_hf.ray_workers import Piece, Worker
from vidground_hf.reading import RowSource
from vidground_hf.shard_asking import weigh_shard
from vidground_hf.shards import ShardFolder, count_shards, find_bounds, find_shard
from vidground_hf.trial_tables import unpack_trials
from vidground_hf.trials import KILLED_WORKER, Trial

_PIECES_PER_WORKER = 4  # our guess: so many let the slowest worker end not long after the others
_MIN_ROWS_PER_PIECE = 100


def curate_with_ray(
    dataset: Dataset | DatasetDict, *, num_workers: int | None = None, address: str | None = None, **settings: Any
) -> Curation:
    """Curates as `curate` does, with models in workers of Ray.

    A worker has the models of all answerers. Rows go to the workers and answers come back to this process, whose
    machine alone keeps the answer cache; workers need nothing but this package and, for servers, the same keys in
    their environment. A worker that dies is started again; a row that kills its worker twice is left undecided, with
    the reason `"killed_worker"`. The probe has no use for workers and is fitted here.

    Args:
        dataset (`Dataset` or `DatasetDict`): as for `curate`.
        num_workers (`int`, *optional*): left out, one for each GPU for models that run in the worker (one without
            any GPU), and one for every two CPUs for servers. The requests that servers get at a time are shared out
            among the workers.
        address (`str`, *optional*): of a Ray cluster; left out, what `RAY_ADDRESS` names, or this machine alone.
        settings: as for `curate`.

    Returns:
        `Curation`: what `curate` gives, where answers do not depend on the batch (servers, the cache, the probe).

    Raises:
        `ValueError`: for `num_workers` below 1 or more than there is room for, an answerer with `max_requests`, which
            no worker can count alone, and `shortcut_kinds`.
        `RuntimeError`: when a worker failed, or workers do nothing but die. As `curate` raises besides.

    Example:
        >>> from vidground_hf import load_answerer, single_shot
        >>> rows = [{"question": f"Which is it, {k}?", "options": ["this", "that"], "answer": "A"} for k in range(4)]
        >>> done = curate_with_ray(  # doctest: +SKIP
        ...     Dataset.from_list(rows), answerer=load_answerer("constant:A"), rule=single_shot(), num_workers=2
        ... )
    """
    if num_workers is not None and num_workers < 1:
        raise ValueError(f"{num_workers = } is out of range; it is at least 1, or None to choose by the cluster")
    if settings.get("shortcut_kinds"):
        raise ValueError(
            "shortcut_kinds asks in this process; leave it out, or curate again without Ray: what was answered is kept"
        )
    described: dict[str, None] = {}
    ask = partial(ask_with_ray, num_workers=num_workers, address=address, described=described)
    curation = curate(dataset, ask=ask, **settings)
    for one, said in zip(curation.report["answerers"], merge_descriptions(described), strict=False):
        one.update(said)
    return curation


def merge_descriptions(described: Iterable[str]) -> list[dict[str, Any]]:
    """What workers say of each answerer; where they differ, all that they say. Nothing where none was asked.

    Example:
        >>> merge_descriptions(['[{"device": "cuda"}]', '[{"device": "cpu"}]'])
        [{'device': 'cpu, cuda'}]
    """
    merged = []
    for own in zip(*map(json.loads, described), strict=True):
        first = dict(own[0])
        for name in first:
            if any(one[name] != first[name] for one in own):
                first[name] = ", ".join(sorted({str(one[name]) for one in own}))
        merged.append(first)
    return merged


@contextmanager
def connect(address: str | None) -> Iterator[None]:
    """Connects to a cluster, or starts Ray on this machine; one that the caller has connected to is used and left.

    Raises:
        `ValueError`: for an address where there is a connection already.
    """
    if ray.is_initialized():
        if address is not None:
            raise ValueError(f"this process is connected to Ray already, got {address = }; leave it out")
        yield
        return
    ray.init(address=address, include_dashboard=None if address else False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def ask_with_ray(
    asking: Asking,
    source: RowSource,
    facts: Facts,
    folder: ShardFolder,
    *,
    progress: bool,
    num_workers: int | None,
    address: str | None,
    described: dict[str, None],
) -> dict[str, int]:
    """`shard_asking.ask_source`, with pieces of shards asked about by workers. Takes and gives the same.

    What workers say of their answerers is put into `described`.
    """
    shards = range(count_shards(len(source)))
    found = {shard: calls for shard in shards if (calls := folder.find_calls(shard)) is not None}
    missing = [shard for shard in shards if shard not in found]
    if missing:
        with connect(address), start_keeper(source, facts) as keeper:
            asked = ask_missing(asking, source, missing, keeper, num_workers, described, progress=progress)
            for shard, rows, calls in asked:
                num_killed = sum(trials[0].error == KILLED_WORKER for trials in rows)
                if num_killed:
                    warnings.warn(f"{num_killed} rows killed their workers and are undecided", stacklevel=2)
                table = weigh_shard(asking, source.read(*find_bounds(shard, len(source))), rows)
                folder.write(shard, table, calls, is_finished=not (calls["failed"] or num_killed))
                found[shard] = calls
    return {name: sum(calls[name] for calls in found.values()) for name in CALLS}


@contextmanager
def start_keeper(source: RowSource, facts: Facts) -> Iterator[Any]:
    """Starts a keeper on this machine; it goes at the end."""
    with AnswerCache() as cache:
        path = cache.path
    node = ray.get_runtime_context().get_node_id()
    here = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(node, soft=False)
    keeper = Keeper.options(scheduling_strategy=here).remote(source, facts.num_before, path)  # type: ignore[attr-defined]
    try:
        yield keeper
    finally:
        ray.kill(keeper)


def ask_missing(
    asking: Asking,
    source: RowSource,
    missing: Sequence[int],
    keeper: Any,
    num_workers: int | None,
    described: dict[str, None],
    *,
    progress: bool,
) -> Iterator[tuple[int, list[list[Trial]], dict[str, int]]]:
    """Has the workers ask about shards; yields each as it is whole, with its trials and what they came to."""
    num_workers, num_gpus = find_resources(asking.answerers, num_workers)
    pieces = cut_pieces(missing, len(source), num_workers)
    num_workers = min(num_workers, len(pieces))
    asked = run_pieces(share_out(asking, num_workers), keeper, pieces, num_workers, num_gpus, len(source))
    with tqdm(total=sum(stop - start for start, stop in pieces), unit=" rows", disable=not progress) as bar:
        for shard, tables, calls in gather_shards(asked, pieces, bar, described):
            yield shard, [trials for table in tables for trials in unpack_trials(table)], calls


def find_resources(answerers: Sequence[Answerer], num_workers: int | None) -> tuple[int, int]:
    """How many workers there are, and how many GPUs each has.

    Raises:
        `ValueError`: for an answerer with `max_requests`, and more workers than there is room for.
    """
    limited = [answerer.id for answerer in answerers if getattr(answerer, "max_requests", None) is not None]
    if limited:
        raise ValueError(
            f"max_requests of {limited[0]} is counted by one process; leave it out, or take engine='local'"
        )
    there = ray.cluster_resources()
    wanted = max(getattr(answerer, "num_gpus", 0) for answerer in answerers)  # models in a process take turns
    num_gpus = wanted if there.get("GPU", 0) >= wanted else 0
    if num_workers is None:
        free = there["GPU"] // num_gpus if num_gpus else 1 if wanted else there.get("CPU", 1) // 2
        num_workers = max(1, int(free))
    name, needed = ("GPU", num_gpus) if num_gpus else ("CPU", 1)
    if num_workers * needed > there.get(name, 0):
        raise ValueError(
            f"{num_workers = } needs {num_workers * needed} {name}s, Ray has {there.get(name, 0):.0f}; take fewer"
        )
    return num_workers, num_gpus


def share_out(asking: Asking, num_workers: int) -> Asking:
    """What each worker gets: its share of the requests that a server is sent at a time."""
    answerers = []
    for answerer in asking.answerers:
        own = copy(answerer)
        if isinstance(own, ModelAnswerer) and hasattr(own, "concurrency"):
            own.concurrency = max(1, own.concurrency // num_workers)
        answerers.append(own)
    return replace(asking, answerers=tuple(answerers))


def cut_pieces(shards: Sequence[int], num_rows: int, num_workers: int) -> list[Piece]:
    """Cuts shards into pieces that keep all workers busy: their first rows and those behind their last.

    Example:
        >>> cut_pieces([0], 1000, num_workers=2)[:2]
        [(0, 125), (125, 250)]
    """
    bounds = [find_bounds(shard, num_rows) for shard in shards]
    wanted = sum(stop - start for start, stop in bounds) // (_PIECES_PER_WORKER * num_workers)
    size = max(wanted, _MIN_ROWS_PER_PIECE)
    return [(k, min(k + size, stop)) for start, stop in bounds for k in range(start, stop, size)]


def run_pieces(
    asking: Asking, keeper: Any, pieces: Sequence[Piece], num_workers: int, num_gpus: int, num_rows: int
) -> Iterator[Mapping[str, Any]]:
    """Has the workers ask about pieces, and yields what `Worker` says of each as it comes."""
    items = [{"start": start, "stop": stop} for start, stop in pieces]
    ids = [answerer.id for answerer in asking.answerers]
    rows = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        Worker, fn_constructor_args=(asking, keeper, asking.find_followed_share(num_rows), ids), batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=num_workers), num_cpus=0 if num_gpus else 1, num_gpus=num_gpus,
    )  # fmt: skip
    context, logger = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, logger.level
    context.enable_progress_bars = False
    logger.setLevel(logging.ERROR)
    try:
        yield from rows.iter_rows()
    finally:
        context.enable_progress_bars = before[0]
        logger.setLevel(before[1])


def gather_shards(
    asked: Iterable[Mapping[str, Any]], pieces: Sequence[Piece], bar: Any, described: dict[str, None]
) -> Iterator[tuple[int, list[pa.Table], dict[str, int]]]:
    """Yields each shard as soon as all of its pieces are there, with their tables in order.

    Raises:
        `RuntimeError`: when a worker failed.
    """
    wanted = Counter(find_shard(start) for start, _ in pieces)
    held: dict[int, dict[int, Mapping[str, Any]]] = defaultdict(dict)
    for piece in asked:
        if piece["error"] is not None:
            raise RuntimeError(f"a worker failed; {piece['error']}")
        bar.update(piece["stop"] - piece["start"])
        described[piece["described"]] = None
        shard = find_shard(piece["start"])
        held[shard][piece["start"]] = piece
        if len(held[shard]) == wanted[shard]:
            parts = [part for _, part in sorted(held.pop(shard).items())]
            tables = [pa.ipc.open_stream(part["trials"]).read_all() for part in parts]
            yield shard, tables, {name: sum(int(part[name]) for part in parts) for name in CALLS}
