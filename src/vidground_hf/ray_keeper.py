"""The keeper: what workers of Ray need of the machine that started them, and the answer cache as they see it.

Workers are in `ray_workers.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vidground_hf.answerers.base import Answer
from vidground_hf.cache import AnswerCache
from vidground_hf.reading import RowSource
from vidground_hf.schema import Example

try:
    import ray
except ImportError as error:
    raise ImportError("workers need Ray: pip install 'vidground-hf[ray]'") from error

_MAX_DEATHS_IN_A_ROW = 12  # our guess: five rows next to one another that each kill their workers are still found


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
        self._num_deaths = 0  # since something was last asked about to its end

    def read(self, start: int, stop: int) -> tuple[list[Example], list[int]]:
        """Rows, and for each what `ask_shard` calls `num_before`."""
        return self._source.read(start, stop), self._num_before[start:stop].tolist()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        return self._cache.get_many(keys)

    def put(self, key: bytes, answer: Answer, answerer_id: str) -> None:
        self._cache.put(key, answer, answerer_id)

    def begin(self, what: Any) -> int:
        """Notes that something is being asked about; how often it was begun before and never ended (`int`).

        Raises:
            `RuntimeError`: when workers do nothing but die.
        """
        self._num_open[what] += 1
        self._num_deaths += isinstance(what, tuple) and self._num_open[what] > 1
        if self._num_deaths >= _MAX_DEATHS_IN_A_ROW:
            raise RuntimeError(
                f"{self._num_deaths} workers died one after the other and none came to an answer; see whether the "
                "model loads and fits into memory there, with engine='local' or fewer workers"
            )
        return self._num_open[what] - 1

    def end(self, what: Any) -> None:
        """Notes that it was answered; its worker lives."""
        self._num_deaths = 0
        del self._num_open[what]


class RemoteCache:
    """The keeper's cache, as an `AnswerStore`.

    Args:
        keeper (`Keeper`): a handle.
    """

    def __init__(self, keeper: Any) -> None:
        self._keeper = keeper

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Answer]:
        found: dict[bytes, Answer] = ray.get(self._keeper.get_many.remote(list(keys)))
        return found

    def put(self, key: bytes, answer: Answer, answerer_id: str) -> None:
        """Keeps an answer; it is kept when this returns, so that no death of a worker costs it."""
        ray.get(self._keeper.put.remote(key, answer, answerer_id))

    def remember(self, name: str, find: Callable[[], str]) -> str:
        """Finds it out: a worker is not shown clips."""
        return find()
