"""Values of rows as numbers: hashes to compare them by, and codes in the order in which they first come.

What is hashed is chosen elsewhere; keys of whole rows are `rows.py`'s.
"""

from __future__ import annotations

import marshal
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray


def hash_values(values: tuple[Any, ...]) -> int:
    """Hashes text, numbers and `None` into 64 bits, the same in every process."""
    return xxhash.xxh3_64_intdigest(marshal.dumps(values, 2))


def number_values(hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Numbers values in the order in which they first come.

    Example:
        >>> number_values(np.array([7, 3, 7], np.uint64)).tolist()
        [0, 1, 0]
    """
    _, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[inverse])
