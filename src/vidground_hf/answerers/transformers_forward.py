"""One forward pass over a batch of prompts: the logits of the next token, shared beginnings computed once.

What goes into a batch is planned in `transformers_batches.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer

from vidground_hf.answerers.transformers_batches import Batch, Cluster, make_batch
from vidground_hf.answerers.transformers_loading import LoadedModel
from vidground_hf.answerers.transformers_tokens import Ids

# Our guess: rounding in 16 bits moves logits by about 1 % of their spread, a wrong mask or position by far more.
MAX_RELATIVE_ERROR = 0.05


def pad_left(rows: Sequence[Ids]) -> tuple[torch.Tensor, torch.Tensor]:
    """Puts rows of ids under one another, their ends aligned.

    Returns:
        `tuple[int64[R, T], int64[R, T]]`: ids, and 1 where an id is a row's own.
    """
    lengths = np.array([len(row) for row in rows])
    is_own = np.arange(lengths.max()) >= lengths.max() - lengths[:, None]
    ids = np.zeros(is_own.shape, np.int64)
    ids[is_own] = np.concatenate(rows)
    return torch.from_numpy(ids), torch.from_numpy(is_own.astype(np.int64))


def _count_positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp_(min=0)


@torch.inference_mode()
def read_logits(loaded: LoadedModel, ids: Sequence[Ids], batch: Batch) -> torch.Tensor:
    """Runs the model over a batch.

    Args:
        loaded (`LoadedModel`): the model.
        ids (`Sequence[int64[T]]`): the tokens of all prompts.
        batch (`Batch`): the rows to run.

    Returns:
        `Tensor[R, V]`: the logits of what follows each of the batch's rows.
    """
    device = loaded.model.device
    num_shared = [cluster.num_shared for cluster in batch.clusters for _ in cluster.rows]
    own_ids, mask = pad_left([ids[row][start:] for row, start in zip(batch.rows, num_shared, strict=True)])
    positions = _count_positions(mask)
    inputs: dict[str, Any] = {"use_cache": False}
    if num_shared[0]:
        cache, shared_mask = _run_shared(loaded, ids, batch.clusters)
        inputs = {"use_cache": True, "past_key_values": cache}
        positions += torch.tensor(num_shared)[:, None]
        mask = torch.cat([shared_mask, mask], dim=1)
    if not mask.all():
        inputs["attention_mask"] = mask.to(device)
    if "position_ids" in loaded.arguments:
        inputs["position_ids"] = positions.to(device)
    if "logits_to_keep" in loaded.arguments:
        inputs["logits_to_keep"] = 1
    logits: torch.Tensor = loaded.model(input_ids=own_ids.to(device), **inputs).logits
    return logits[:, -1]


def _run_shared(loaded: LoadedModel, ids: Sequence[Ids], clusters: list[Cluster]) -> tuple[DynamicCache, torch.Tensor]:
    """Computes the clusters' shared tokens, and copies what was computed to each of their rows."""
    device = loaded.model.device
    shared_ids, mask = pad_left([ids[cluster.rows[0]][: cluster.num_shared] for cluster in clusters])
    cache = DynamicCache(config=loaded.model.config)
    loaded.model.base_model(  # without the head: these logits are not needed
        input_ids=shared_ids.to(device),
        attention_mask=None if mask.all() else mask.to(device),
        position_ids=_count_positions(mask).to(device),
        past_key_values=cache,
        use_cache=True,
    )
    owners = torch.repeat_interleave(torch.tensor([len(cluster.rows) for cluster in clusters]))
    cache.batch_select_indices(owners.to(device))
    return cache, mask[owners]


def can_share(loaded: LoadedModel, sample: Ids) -> bool:
    """Whether a model gives the same logits when shared tokens are computed once; tried, not looked up.

    Windows, recurrent states and attention in both directions are kept in other ways than plain keys and values.

    Args:
        loaded (`LoadedModel`): the model.
        sample (`int64[T]`): at least four tokens that it may read.
    """
    if not {"past_key_values", "position_ids"} <= loaded.arguments:
        return False
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=loaded.model.config).layers):
        return False
    ids = [sample, sample[[*range(len(sample) - 1), 0]], sample[1:], sample[[*range(1, len(sample) - 1), 0]]]
    sharing = [Cluster((0, 1), len(sample) - 2, 2), Cluster((2, 3), len(sample) - 3, 2)]
    alone = [Cluster((row,), 0, len(ids[row])) for row in range(len(ids))]
    shared, whole = (read_logits(loaded, ids, make_batch(clusters)).float() for clusters in (sharing, alone))
    return bool((shared - whole).square().mean().sqrt() <= MAX_RELATIVE_ERROR * whole.std())


def run_in_halves(batches: Sequence[Batch], run: Callable[[Batch], None], give_up: Callable[[Batch], None]) -> None:
    """Runs batches; one that does not fit in memory is halved, and a lone prompt that does not fit is given up."""
    left = list(reversed(batches))
    most: float = float("inf")
    while left:
        batch = left.pop()
        halves = batch.halve() if batch.num_tokens > most else []
        if not halves:
            if _fits(batch, run):
                continue
            torch.cuda.empty_cache()
            halves = batch.halve()
            if not halves:
                give_up(batch)
                continue
            most = min(most, batch.num_tokens // 2)
        left.extend(reversed(halves))


def _fits(batch: Batch, run: Callable[[Batch], None]) -> bool:
    # The error holds on to the tensors of the pass that failed, so it has to be gone before the next one.
    try:
        run(batch)
    except torch.OutOfMemoryError:
        return False
    return True


def gather_letters(logits: torch.Tensor, columns: torch.Tensor) -> NDArray[np.float32]:
    """Picks the logits of some tokens (`float32[R, C]`)."""
    found: NDArray[np.float32] = logits[:, columns].float().cpu().numpy()
    return found
