"""What runs in processes of Ray: workers that ask about pieces of a set, and the keeper of rows and answers.

Who starts them, and what becomes of their answers, is `ray_engine.py`'s.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from vidground_hf.answerers.base import Answer, ModelAnswerer
from vidground_hf.asking import CALLS, Asking, ask_trials
from vidground_hf.cache import AnswerCache
from vidground_hf.progress import AskingBar
from vidground_hf.prompts import Prompt
from vidground_hf.reading import RowSource
from vidground_hf.schema import Example
from vidground_hf.shard_asking import draw_followed
from vidground_hf.trial_tables import pack_trials
from vidground_hf.trials import KILLED_WORKER, Trial

try:
    import ray
    from ray import cloudpickle
except ImportError as error:
    raise ImportError("workers need Ray: pip install 'vidground-hf[ray]'") from error

_DEATHS_TO_QUARANTINE = 2
Piece = tuple[int, int]
"""The first row of a piece and the one behind its last."""


@ray.remote(num_cpus=0, max_concurrency=1)
class Keeper:
    """What workers need of the driver's machine: rows, the answer cache, and who died over what.

    Args:
        source (`RowSource`): the rows of the set.
        num_before (`int64[N]`): see `shard_asking.ask_shard`.
        cache_path (`Path`): of the answer cache.
    """

    def __init__(self, source: RowSource, num_before: NDArray[np.int64], cache_path: Path) -> None:
        self._source, self._num_before = source, num_before
        self._cache = AnswerCache(cache_path)
        self._num_open: Counter[Any] = Counter()

    def read(self, start: int, stop: int) -> tuple[list[Example], list[int]]:
        """Rows, and for each what `ask_shard` calls `num_before`."""
        return self._source.read(start, stop), self._num_before[start:stop].tolist()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        return self._cache.get_many(keys)

    def put(self, key: bytes, answer: Answer, answerer_id: str) -> None:
        self._cache.put(key, answer, answerer_id)

    def begin(self, what: Any) -> int:
        """Notes that something is being asked about; how often it was begun before and never ended (`int`)."""
        self._num_open[what] += 1
        return self._num_open[what] - 1

    def end(self, what: Any) -> None:
        """Notes that it was answered; its worker lives."""
        del self._num_open[what]


class RemoteCache:
    """The keeper's cache, as `ask_trials` takes one.

    Args:
        keeper (`Keeper`): a handle.
    """

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def make_keys(self, answerer: ModelAnswerer, prompts: Sequence[Prompt]) -> list[bytes]:
        return AnswerCache.make_keys(self, answerer, prompts)  # type: ignore[arg-type]

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        found: dict[bytes, Answer] = ray.get(self._keeper.get_many.remote(list(keys)))
        return found

    def put(self, key: bytes, answer: Answer, answerer_id: str) -> None:
        """Keeps an answer; it is kept when this returns, so that no death of a worker costs it."""
        ray.get(self._keeper.put.remote(key, answer, answerer_id))


class Worker:
    """Asks about pieces, with models that are loaded once.

    Args:
        asking (`Asking`): who, what and for which rule.
        keeper (`Keeper`): a handle.
        followed_share (`float`): see `shard_asking.ask_shard`.
    """

    def __init__(self, asking: Asking, keeper: Any, followed_share: float) -> None:
        self._asking, self._keeper, self._followed_share = asking, keeper, followed_share
        self._cache = RemoteCache(keeper)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Asks about one piece (`start`, `stop`).

        Returns:
            `dict[str, list]`: one of `start`, `stop`, `error` (`bytes`, *optional*, a pickled exception), `trials`
            (an Arrow stream) and each of `asking.CALLS`.
        """
        piece = int(batch["start"][0]), int(batch["stop"][0])
        trials, counts, error = b"", Counter[str](), None
        try:
            trials, counts = self._ask_piece(piece)
        except Exception as raised:  # noqa: BLE001  Ray would tell of it in a traceback and lose what it was
            error = cloudpickle.dumps(raised)
        found = {"start": piece[0], "stop": piece[1], "error": error, "trials": trials}
        return {name: [value] for name, value in found.items()} | {name: [counts[name]] for name in CALLS}

    def _ask_piece(self, piece: Piece) -> tuple[bytes, Counter[str]]:
        examples, num_before = ray.get(self._keeper.read.remote(*piece))
        is_drawn = draw_followed(self._asking, examples, num_before, self._followed_share)
        with AskingBar(total=0, show=False) as bar:
            if ray.get(self._keeper.begin.remote(piece)):
                rows = self._ask_one_by_one(piece[0], examples, is_drawn, bar)
            else:
                rows = self._ask(examples, is_drawn, bar)
        ray.get(self._keeper.end.remote(piece))
        sink = pa.BufferOutputStream()
        table = pack_trials(rows, [False] * len(rows))
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes(), bar.counts

    def _ask(self, examples: Sequence[Example], is_drawn: Sequence[bool], bar: AskingBar) -> list[list[Trial]]:
        return ask_trials(self._asking, examples, is_drawn=is_drawn, cache=self._cache, bar=bar)  # type: ignore[arg-type]

    def _ask_one_by_one(
        self, first: int, examples: Sequence[Example], is_drawn: Sequence[bool], bar: AskingBar
    ) -> list[list[Trial]]:
        """Finds the row that killed a worker; what the others were answered is in the cache."""
        rows = []
        for place, (example, drawn) in enumerate(zip(examples, is_drawn, strict=True), first):
            if ray.get(self._keeper.begin.remote(place)) < _DEATHS_TO_QUARANTINE:
                rows += self._ask([example], [drawn], bar)
                ray.get(self._keeper.end.remote(place))
            else:
                rows.append([Trial(score=None, error=KILLED_WORKER, num_options=example.num_distinct_options)])
        return rows
