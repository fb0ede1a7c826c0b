"""Arrays of the probe that grow with the set: written once, read in slices, on the disk when they are large.

What they hold is `probe_choices.py`'s.
"""

from __future__ import annotations

import tempfile
import weakref
from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

Item = TypeVar("Item")
_BYTES_IN_MEMORY = 1 << 19  # of each array; there are some thirty of them


class ScratchArray:
    """Rows of numbers, appended and then read in slices; they are in the temporary folder from some megabytes on.

    Args:
        dtype: of the numbers.
        width (`int`): numbers a row.

    Example:
        >>> array = ScratchArray(np.float32, 2)
        >>> array.append(np.arange(6).reshape(3, 2))
        >>> array.shape, array[1:].tolist()
        ((3, 2), [[2.0, 3.0], [4.0, 5.0]])
    """

    def __init__(self, dtype: Any, width: int) -> None:
        self.dtype = np.dtype(dtype)
        self.shape = (0, width)
        self._file = tempfile.SpooledTemporaryFile(max_size=_BYTES_IN_MEMORY)  # noqa: SIM115 - lives as long as self
        weakref.finalize(self, self._file.close)

    def __len__(self) -> int:
        return self.shape[0]

    def append(self, rows: NDArray[Any]) -> None:
        """Puts rows (`[R, width]`) behind the others."""
        self._file.seek(0, 2)
        self._file.write(np.ascontiguousarray(rows, self.dtype).tobytes())
        self.shape = (self.shape[0] + len(rows), self.shape[1])

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        bytes_per_row = self.dtype.itemsize * self.shape[1]
        self._file.seek(start * bytes_per_row)
        content = self._file.read(max(stop - start, 0) * bytes_per_row)
        return np.frombuffer(content, self.dtype).reshape(-1, self.shape[1])

    def map(self) -> NDArray[Any]:
        """All rows, on the disk: pages are read as they are looked at."""
        if not len(self):
            return np.empty(self.shape, self.dtype)
        self._file.rollover()
        self._file.flush()
        return np.asarray(np.memmap(self._file, self.dtype, "r", shape=self.shape))


def take(rows: Sequence[Item], places: Sequence[int] | NDArray[np.int64]) -> list[Item]:
    """Some rows of a list, or of a sequence that reads them from the disk and has a `take` of its own for it."""
    indices = np.asarray(places, np.int64).tolist()
    own = getattr(rows, "take", None)
    return [rows[index] for index in indices] if own is None else list(own(indices))
