"""Plans forward passes: which prompts share their beginning, and which go together in a batch.

Numbers of tokens only; nothing is run here.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import numpy as np

from vidground_hf.answerers.transformers_tokens import Ids

# Of a cluster's tokens; less is not worth a forward pass of its own. Our guess: on one CPU core, with 30 M parameters,
# the second pass took about 3 % of a batch beyond what its tokens take.
_MIN_SAVED_SHARE = 0.1


class Cluster(NamedTuple):
    """Prompts that are computed together behind one shared beginning.

    Attributes:
        rows (`tuple[int, ...]`): the prompts.
        num_shared (`int`): how many first tokens they share; 0 means that each is computed whole.
        num_own (`int`): the most tokens that one of them has behind.
    """

    rows: tuple[int, ...]
    num_shared: int
    num_own: int


class Batch(NamedTuple):
    """Clusters that go through the model together.

    Attributes:
        clusters (`list[Cluster]`): either all share a beginning or none.
        num_tokens (`int`): what the model computes at once, padding included.
    """

    clusters: list[Cluster]
    num_tokens: int

    @property
    def rows(self) -> list[int]:
        """The prompts, cluster by cluster."""
        return [row for cluster in self.clusters for row in cluster.rows]

    def halve(self) -> list[Batch]:
        """Two smaller batches, or none where there is one prompt; a lone cluster gives up its sharing."""
        clusters = self.clusters
        if len(clusters) == 1:
            _, num_shared, num_own = clusters[0]
            clusters = [Cluster((row,), 0, num_shared + num_own) for row in clusters[0].rows]
        if len(clusters) == 1:
            return []
        middle = len(clusters) // 2
        return [make_batch(clusters[:middle]), make_batch(clusters[middle:])]


def make_batch(clusters: list[Cluster]) -> Batch:
    """Counts the tokens of a batch."""
    num_shared, num_own = (max(sizes) for sizes in zip(*(cluster[1:] for cluster in clusters), strict=True))
    num_rows = sum(len(cluster.rows) for cluster in clusters)
    return Batch(clusters, len(clusters) * num_shared + num_rows * num_own)


def find_clusters(ids: Sequence[Ids], keys: Sequence[Hashable]) -> list[Cluster]:
    """Finds what prompts share, among those that may.

    Args:
        ids (`Sequence[int64[T]]`): the tokens of N different prompts.
        keys (`Sequence[Hashable]`): prompts of one key are compared, for example those of one question.

    Returns:
        `list[Cluster]`: every prompt is in one of them.

    Example:
        >>> ids = [np.array([*range(9), last]) for last in (20, 30)]
        >>> find_clusters(ids, ["a question", "a question"])
        [Cluster(rows=(0, 1), num_shared=9, num_own=1)]
    """
    together: dict[Hashable, list[int]] = {}
    for row, key in enumerate(keys):
        together.setdefault(key, []).append(row)
    clusters = []
    for rows in together.values():
        num_shared = _count_shared([ids[row] for row in rows]) if len(rows) > 1 else 0
        num_saved = num_shared * (len(rows) - 1)
        if num_saved > 0 and num_saved >= _MIN_SAVED_SHARE * sum(len(ids[row]) for row in rows):
            clusters.append(Cluster(tuple(rows), num_shared, max(len(ids[row]) for row in rows) - num_shared))
        else:
            clusters += [Cluster((row,), 0, len(ids[row])) for row in rows]
    return clusters


def _count_shared(ids: list[Ids]) -> int:
    """Length of the common beginning, at least one token short of every prompt."""
    length = min(map(len, ids)) - 1
    first = ids[0][:length]
    same = np.logical_and.reduce([row[:length] == first for row in ids[1:]])
    return length if same.all() else int(same.argmin())


def pack(clusters: list[Cluster], max_tokens: int) -> list[Batch]:
    """Packs clusters of like lengths into batches, the longest first.

    Args:
        clusters (`list[Cluster]`): of any lengths and sizes; large ones are cut.
        max_tokens (`int`): of a batch; only a lone prompt may have more.
    """
    clusters = [piece for cluster in clusters for piece in _cut(cluster, max_tokens)]
    batches: list[Batch] = []
    for is_sharing in (True, False):
        chosen = [cluster for cluster in clusters if (cluster.num_shared > 0) == is_sharing]
        num_shared = sum(cluster.num_shared for cluster in chosen)
        num_own = sum(cluster.num_own * len(cluster.rows) for cluster in chosen)
        # Two lengths cannot both be sorted: the one that more tokens are of comes first.
        if num_shared > num_own:
            chosen.sort(key=lambda cluster: (-cluster.num_shared, -cluster.num_own))
        else:
            # To and fro, so that the other length does not jump where the first changes.
            chosen.sort(key=lambda c: (-c.num_own, c.num_shared if c.num_own % 2 else -c.num_shared))
        batches += _fill(chosen, max_tokens)
    return batches


def _cut(cluster: Cluster, max_tokens: int) -> list[Cluster]:
    rows, num_shared, num_own = cluster
    most = max(1, (max_tokens - num_shared) // num_own)
    return [Cluster(rows[start : start + most], num_shared, num_own) for start in range(0, len(rows), most)]


def _fill(clusters: list[Cluster], max_tokens: int) -> list[Batch]:
    batches: list[Batch] = []
    filling: list[Cluster] = []
    num_rows = num_shared = num_own = 0
    for cluster in clusters:
        size = (num_rows + len(cluster.rows), max(num_shared, cluster.num_shared), max(num_own, cluster.num_own))
        if filling and (len(filling) + 1) * size[1] + size[0] * size[2] > max_tokens:
            batches.append(make_batch(filling))
            filling = []
            size = (len(cluster.rows), cluster.num_shared, cluster.num_own)
        filling.append(cluster)
        num_rows, num_shared, num_own = size
    return [*batches, make_batch(filling)] if filling else batches
