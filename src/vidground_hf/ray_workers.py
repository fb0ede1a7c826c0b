"""What runs in processes of Ray: workers that ask about pieces of a set.

Who starts them, and what becomes of their answers, is `ray_engine.py`'s.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from vidground_hf.answerers.base import describe_answerer
from vidground_hf.asking import CALLS, Asking, ask_trials
from vidground_hf.progress import AskingBar
from vidground_hf.ray_keeper import RemoteCache, ray
from vidground_hf.schema import Example
from vidground_hf.shard_asking import draw_followed
from vidground_hf.trial_tables import pack_trials
from vidground_hf.trials import KILLED_WORKER, Trial

_DEATHS_TO_ALONE = 2  # of workers with a piece, until its rows are asked about one by one
_DEATHS_TO_QUARANTINE = 2  # of workers with that row alone
Piece = tuple[int, int]
"""The first row of a piece and the one behind its last."""


class Worker:
    """Asks about pieces, with models that are loaded once.

    Args:
        asking (`Asking`): who, what and for which rule.
        keeper (`Keeper`): a handle.
        followed_share (`float`): see `shard_asking.ask_shard`.
        ids (`Sequence[str]`): of the answerers, as the process that starts workers finds them.
    """

    def __init__(self, asking: Asking, keeper: Any, followed_share: float, ids: Sequence[str]) -> None:
        self._asking, self._keeper, self._followed_share, self._ids = asking, keeper, followed_share, list(ids)
        self._cache = RemoteCache(keeper)

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Asks about one piece (`start`, `stop`).

        Returns:
            `dict[str, list]`: one of `start`, `stop`, `error` (`str`, *optional*), `trials` (an Arrow stream),
            `described` (what reports say of each answerer, as JSON) and each of `asking.CALLS`.
        """
        piece = int(batch["start"][0]), int(batch["stop"][0])
        trials, described, counts, error = b"", "[]", Counter[str](), None
        try:
            self._check_ids()
            trials, counts = self._ask_piece(piece)
            described = json.dumps([describe_answerer(one, looks=False) for one in self._asking.answerers])
        except Exception as raised:  # noqa: BLE001  Ray would tell of it in a traceback and lose what it was
            cause = raised.cause if isinstance(raised, ray.exceptions.RayTaskError) else raised
            error = f"{type(cause).__name__}: {cause}"
        found = {"start": piece[0], "stop": piece[1], "error": error, "trials": trials, "described": described}
        return {name: [value] for name, value in found.items()} | {name: [counts[name]] for name in CALLS}

    def _check_ids(self) -> None:
        own = [answerer.id for answerer in self._asking.answerers]
        if own != self._ids:
            raise ValueError(
                f"a worker has {', '.join(own)}, the process that started it {', '.join(self._ids)}; name a revision, "
                "or give all machines the same folder"
            )

    def _ask_piece(self, piece: Piece) -> tuple[bytes, Counter[str]]:
        examples, num_before = ray.get(self._keeper.read.remote(*piece))
        is_drawn = draw_followed(self._asking, examples, num_before, self._followed_share)
        with AskingBar(total=0, show=False) as bar:
            # What was answered before a death is in the cache; one alone may have been the machine's fault.
            if ray.get(self._keeper.begin.remote(piece)) < _DEATHS_TO_ALONE:
                rows = self._ask(examples, is_drawn, bar)
            else:
                rows = self._ask_one_by_one(piece[0], examples, is_drawn, bar)
        ray.get(self._keeper.end.remote(piece))
        sink = pa.BufferOutputStream()
        table = pack_trials(rows, [False] * len(rows))
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        return sink.getvalue().to_pybytes(), bar.counts

    def _ask(self, examples: Sequence[Example], is_drawn: Sequence[bool], bar: AskingBar) -> list[list[Trial]]:
        return ask_trials(self._asking, examples, is_drawn=is_drawn, cache=self._cache, bar=bar)

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
